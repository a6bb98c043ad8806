//! The client's body, made what the service takes.

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::Version;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::IgnoredAny;

use super::respond::Failure;
use super::{Encode, Limits, form};
use crate::listener::Incoming;
use crate::trace::TraceBody;
use crate::upgrade;
use crate::upstream::{CallError, HttpError, RequestBody};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// What goes to the service, and what the trace shows of it.
pub(super) struct Prepared {
    pub body: RequestBody,
    /// What the body is now; `None`: as the client says.
    pub content_type: Option<&'static str>,
    pub shown: TraceBody,
}

/// Reads the body as far as the encoding asks for it. `most` is how many bytes it may have where the route says so.
///
/// # Errors
/// 400 malformed, 408 too slow, 413 too long, 415 of a type that cannot be read.
pub(super) async fn prepare(
    request: &Incoming,
    payload: Payload,
    encode: Encode,
    limits: &Limits,
    most: Option<usize>,
) -> Result<Prepared, Failure> {
    let has_body = has_body(request, &payload);
    if upgrade::is_ambiguous(request.head(), has_body) {
        let why = "a request for another protocol has no body, and this one announces one";
        return Err(Failure::Ambiguous(why.to_owned()));
    }
    if upgrade::is_asked(request.head()) {
        let body = RequestBody::Upgrade(upgrade::parts(payload));
        return Ok(Prepared { body, content_type: None, shown: TraceBody::None });
    }
    if encode == Encode::None {
        if let Some(limit) = most.filter(|most| announced(request).is_some_and(|length| length > *most as u64)) {
            return Err(Failure::BodyTooLong { limit });
        }
        let body = if has_body { stream(request, payload, limits.body_timeout, most) } else { RequestBody::Empty };
        return Ok(Prepared { body, content_type: None, shown: TraceBody::None });
    }
    let raw = if has_body {
        read(request, payload, most.unwrap_or(limits.body_bytes), limits.body_timeout).await?
    } else {
        Bytes::new()
    };
    if raw.is_empty() && !takes_body(request.method().as_str()) {
        return Ok(Prepared { body: RequestBody::Empty, content_type: None, shown: TraceBody::None });
    }
    let json = to_json(request, raw).await?;
    let (body, content_type) = match encode {
        Encode::Form => (form::json_to_urlencoded(&json)?, FORM),
        Encode::Json | Encode::None => (json.clone(), JSON),
    };
    Ok(Prepared { body: RequestBody::Whole(body), content_type: Some(content_type), shown: TraceBody::Json(json) })
}

/// All of the body, as it came.
///
/// # Errors
/// 408 too slow, 413 too long.
pub(super) async fn whole(
    request: &Incoming,
    payload: Payload,
    limits: &Limits,
    most: Option<usize>,
) -> Result<Bytes, Failure> {
    if !has_body(request, &payload) {
        return Ok(Bytes::new());
    }
    read(request, payload, most.unwrap_or(limits.body_bytes), limits.body_timeout).await
}

/// RFC 9112 section 6.3: a request has a body when it announces one. HTTP/2 needs no announcement (RFC 9113 section 8.1).
fn has_body(request: &Incoming, payload: &Payload) -> bool {
    if request.version() == Version::HTTP_2 {
        return !matches!(payload, Payload::None);
    }
    request.headers().contains_key(TRANSFER_ENCODING) || announced(request).is_some_and(|length| length > 0)
}

fn announced(request: &Incoming) -> Option<u64> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Methods whose requests go without a body when the client sends none; others get `{}`.
fn takes_body(method: &str) -> bool {
    !["GET", "HEAD", "DELETE", "OPTIONS", "TRACE"].contains(&method)
}

async fn read(request: &Incoming, mut payload: Payload, limit: usize, within: Duration) -> Result<Bytes, Failure> {
    if announced(request).is_some_and(|length| length > limit as u64) {
        return Err(Failure::BodyTooLong { limit });
    }
    let collect = async {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(part) = payload.next().await {
            let part = part.map_err(|error| broken(&error))?;
            if first.len() + all.len() + part.len() > limit {
                return Err(Failure::BodyTooLong { limit });
            }
            if first.is_empty() && all.is_empty() {
                first = part; // most bodies come in one part, which is not copied
                continue;
            }
            if all.is_empty() {
                all.reserve(announced(request).map_or(0, |length| limit.min(length as usize)));
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&part);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    };
    match tokio::time::timeout(within, collect).await {
        Ok(collected) => collected,
        Err(_) => Err(Failure::SlowBody(within)),
    }
}

fn broken(error: &PayloadError) -> Failure {
    Failure::BadRequest(format!("the body cannot be read: {error}"))
}

/// A body that is passed on turned out to be longer than its route takes.
#[derive(Debug, thiserror::Error)]
#[error("it has more than {limit} bytes")]
struct TooLong {
    limit: usize,
}

/// Says whose fault it is that a call failed: a body that was too long is told as such.
pub(super) fn blame(error: CallError) -> Failure {
    match &error {
        CallError::Body(HttpError::Body(cause)) => match cause.downcast_ref::<TooLong>() {
            Some(TooLong { limit }) => Failure::BodyTooLong { limit: *limit },
            None => Failure::Call(error),
        },
        _ => Failure::Call(error),
    }
}

fn stream(request: &Incoming, payload: Payload, stall: Duration, most: Option<usize>) -> RequestBody {
    let room = most.unwrap_or(usize::MAX);
    let parts = futures_util::stream::unfold(Some((payload, room)), move |state| async move {
        let (mut payload, room) = state?;
        match tokio::time::timeout(stall, payload.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(part))) => match (room.checked_sub(part.len()), most) {
                (None, Some(limit)) => Some((Err(TooLong { limit }.into()), None)),
                (left, _) => Some((Ok(part), Some((payload, left.unwrap_or(usize::MAX))))),
            },
            Ok(Some(Err(error))) => Some((Err(error.into()), None)),
            Err(late) => Some((Err(late.into()), None)),
        }
    });
    RequestBody::Stream { parts: Box::pin(parts), length: announced(request) }
}

async fn to_json(request: &Incoming, raw: Bytes) -> Result<Bytes, Failure> {
    if raw.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    let header = |name| request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    if let Some(coding) = header(CONTENT_ENCODING).filter(|coding| !coding.trim().eq_ignore_ascii_case("identity")) {
        return Err(Failure::MediaType(format!("content-encoding: {coding}")));
    }
    let content_type = header(CONTENT_TYPE).unwrap_or_default();
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        FORM => form::urlencoded_to_json(&raw),
        "multipart/form-data" => Box::pin(form::multipart_to_json(raw, &content_type)).await,
        "" | JSON | "text/json" => check_json(raw),
        json if json.ends_with("+json") => check_json(raw),
        _ => Err(Failure::MediaType(kind)),
    }
}

/// JSON passes untouched, so numbers keep their digits.
fn check_json(raw: Bytes) -> Result<Bytes, Failure> {
    if raw.iter().all(u8::is_ascii_whitespace) {
        return Ok(Bytes::from_static(b"{}"));
    }
    if let Err(error) = std::str::from_utf8(&raw) {
        let at = error.valid_up_to();
        return Err(Failure::BadRequest(format!("the body is no JSON: it is not UTF-8 at byte {at}")));
    }
    match serde_json::from_slice::<IgnoredAny>(&raw) {
        Ok(_) => Ok(raw),
        Err(error) => Err(Failure::BadRequest(format!("the body is no JSON: {error}"))),
    }
}

//! Zipkin's JSON, version 2 (<https://zipkin.io/zipkin-api/#/default/post_spans>).
//!
//! ```text
//! POST /api/v2/spans   [{span},…]   202 once stored · 400 none of it is a span · 403 · 413 · 415 · 503 with Retry-After
//! ```
//! Zipkin has no word for a part of a request that is refused: such spans go to the dead letters and the log. Failures are
//! told in plain text.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::attributes::Attributes;
use super::callers::Callers;
use super::span::{Kind, Process, Span};
use super::{Door, Fault, Kept, Refusal};
use crate::trace::event::now_ms;

const PATH: &str = "/api/v2/spans";
/// Memory for an element of the list, of which two bytes may be one.
const ELEMENT_BYTES: usize = size_of::<&RawValue>();

/// The routes.
pub(super) fn routes(config: &mut ServiceConfig) {
    config.route(PATH, web::post().to(take));
}

async fn take(request: HttpRequest, payload: Payload, door: Data<Door>) -> HttpResponse {
    match export(&request, payload, &door).await {
        Ok(kept) if kept.taken == 0 && kept.refused > 0 => refused(&Fault::new(StatusCode::BAD_REQUEST, kept.reason)),
        Ok(_) => HttpResponse::Accepted().finish(),
        Err(fault) => refused(&fault),
    }
}

fn refused(fault: &Fault) -> HttpResponse {
    let mut answer = HttpResponse::build(fault.status);
    if let Some(seconds) = fault.retry_after {
        answer.insert_header((RETRY_AFTER, seconds));
    }
    answer.content_type("text/plain; charset=utf-8").body(fault.message.clone() + "\n")
}

async fn export(request: &HttpRequest, payload: Payload, door: &Door) -> Result<Kept, Fault> {
    let kind = request.headers().get("content-type").map_or(&b"application/json"[..], |kind| kind.as_bytes());
    let is_json = kind.to_ascii_lowercase().starts_with(b"application/json");
    let wanted = is_json.then_some(()).ok_or_else(|| {
        Fault::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "of Zipkin's encodings only version 2 in `application/json` is read",
        )
    });
    let ((), mut body) = door.body_of(request, payload, wanted).await?;
    let elements = body.bytes.iter().filter(|byte| **byte == b',').count() + 1;
    body.held.add(elements.saturating_mul(ELEMENT_BYTES))?;
    let list: Vec<&RawValue> = serde_json::from_slice(&body.bytes)
        .map_err(|error| Fault::new(StatusCode::BAD_REQUEST, format!("cannot read the spans: {error}")))?;
    note(&list, &door.callers);
    let now_us = u64::try_from(now_ms()).unwrap_or(0) * 1000;
    let spans = list.into_iter().map(|json| {
        let span = match json.get().starts_with('{') {
            true => {
                crate::json::value::<Told>(json.get().as_bytes()).map_err(|error| format!("no Zipkin span: {error}"))
            }
            false => Err("no Zipkin span: not a JSON object".to_owned()), // serde would take a list for its fields
        };
        // nobody else hears of it
        let span = span.and_then(|told| span_of(told, now_us));
        span.map_err(|reason| Refusal { reason, json: Some(json.to_owned()) })
    });
    door.keep(spans).await
}

/// Tells of every span whose it is, so that those below it find their caller wherever they stand.
fn note(list: &[&RawValue], callers: &Callers) {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Ids<'a> {
        #[serde(borrow)]
        trace_id: Cow<'a, str>,
        #[serde(borrow)]
        id: Cow<'a, str>,
        kind: Option<Cow<'a, str>>,
        local_endpoint: Option<Endpoint>,
    }
    for json in list {
        let Ok(Ids { trace_id, id, kind: side, local_endpoint: Some(local) }) = serde_json::from_str(json.get()) else {
            continue;
        };
        if let (Some(trace_id), Some(id), Some(service)) = (number(&trace_id, 32), span_id(&id), local.service()) {
            callers.note((trace_id, id), service, kind(side.as_deref()).answers());
        }
    }
}

/// An id in hex, not zero.
fn number(text: &str, most_digits: usize) -> Option<u128> {
    let is_hex = (1..=most_digits).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten().filter(|id| *id != 0)
}

fn span_id(text: &str) -> Option<u64> {
    number(text, 16).and_then(|id| u64::try_from(id).ok())
}

fn kind(word: Option<&str>) -> Kind {
    match word.unwrap_or_default().to_ascii_uppercase().as_str() {
        "SERVER" => Kind::Server,
        "CLIENT" => Kind::Client,
        "PRODUCER" => Kind::Producer,
        "CONSUMER" => Kind::Consumer,
        _ => Kind::Internal,
    }
}

/// A span as it is sent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    trace_id: String,
    id: String,
    parent_id: Option<String>,
    name: Option<String>,
    kind: Option<String>,
    /// Microseconds of Unix time.
    timestamp: Option<u64>,
    /// Microseconds.
    duration: Option<u64>,
    local_endpoint: Option<Endpoint>,
    remote_endpoint: Option<Endpoint>,
    annotations: Option<Vec<Annotation>>,
    tags: Option<Map<String, Value>>,
    /// Whether it has the id of the client's span, which told itself.
    shared: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    service_name: Option<String>,
    ipv4: Option<String>,
    ipv6: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct Annotation {
    timestamp: u64,
    value: String,
}

impl Endpoint {
    fn service(&self) -> Option<&str> {
        self.service_name.as_deref().filter(|name| !name.is_empty())
    }

    fn ip(&self) -> Option<&str> {
        self.ipv4.as_deref().or(self.ipv6.as_deref()).filter(|ip| !ip.is_empty())
    }

    /// `ip:port`, or as much of it as is known.
    fn address(&self) -> String {
        match (self.ip(), self.port.filter(|port| *port > 0)) {
            (None, _) => String::new(),
            (Some(ip), None) => ip.to_owned(),
            (Some(ip), Some(port)) => match ip.parse::<IpAddr>() {
                Ok(ip) => std::net::SocketAddr::new(ip, port).to_string(),
                Err(_) => format!("{ip}:{port}"),
            },
        }
    }
}

fn span_of(told: Told, now_us: u64) -> Result<Span, String> {
    let name = told.name.unwrap_or_default();
    let (Some(trace_id), Some(own_id)) = (number(&told.trace_id, 32), span_id(&told.id)) else {
        let name: String = name.chars().take(100).collect();
        return Err(format!("span `{name}` has no valid traceId (up to 32 hex digits) or id (up to 16)"));
    };
    let kind = kind(told.kind.as_deref());
    let mut attributes = Attributes::default();
    for (key, value) in told.tags.unwrap_or_default() {
        attributes.insert(&key, value);
    }
    let (local, remote) = (told.local_endpoint.unwrap_or_default(), told.remote_endpoint.unwrap_or_default());
    if let Some(ip) = remote.ip().filter(|_| kind.answers() && attributes.text(&["client.address"]).is_none()) {
        attributes.insert("client.address", Value::from(ip));
    }
    if let Some(service) = remote.service().filter(|_| attributes.text(&["peer.service"]).is_none()) {
        attributes.insert("peer.service", Value::from(service));
    }
    // `error` fails a span whatever it holds; exporters of OpenTelemetry say it so too
    let failed = match (attributes.text(&["error"]), attributes.text(&["otel.status_code"]).as_deref()) {
        (Some(why), _) if why != "false" => Some(why.into_owned()),
        (None, Some("ERROR")) => Some(String::new()),
        (None, _) if attributes.some().is_some_and(|tags| tags.contains_key("error")) => Some(String::new()),
        _ => None,
    };
    let annotations = told.annotations.unwrap_or_default();
    let first = annotations.iter().map(|annotation| annotation.timestamp).min();
    let start_us = told.timestamp.or(first).filter(|time| *time > 0).unwrap_or(now_us);
    // a server half has the client half's id: that one called it
    let is_shared = kind == Kind::Server && told.shared == Some(true);
    Ok(Span {
        process: Arc::new(Process::new(local.service().unwrap_or_default(), local.address(), Attributes::default())),
        trace_id,
        span_id: own_id,
        parent_id: if is_shared { Some(own_id) } else { told.parent_id.as_deref().and_then(span_id) },
        kind,
        name,
        start_ns: start_us.saturating_mul(1000),
        duration_ns: told.duration.unwrap_or(0).saturating_mul(1000),
        scope: attributes.text(&["otel.scope.name", "otel.library.name"]).unwrap_or_default().into_owned(),
        attributes,
        failed,
        caller: None,
        member: None,
        moments: annotations
            .into_iter()
            .map(|annotation| json!({"name": annotation.value, "timeNs": annotation.timestamp.saturating_mul(1000)}))
            .collect(),
        links: Vec::new(),
    })
}

#[cfg(test)]
mod tests;

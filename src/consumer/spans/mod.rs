//! Spans of other programs over HTTP, beside ours in the store: OTLP and Zipkin.
//!
//! ```text
//! body (held, gunzipped) ─► spans one by one ─► events of about a MiB ─► pipeline ─► answer, once all are stored
//! ```
//! A request is answered with success only once each of its spans is on disk or was refused for what it is, and named.
//! While the store is away it gets a 503 with `Retry-After`: the sender brings it again, and ids made of the span's own
//! see to it that nothing doubles. What all requests together hold is bounded.

mod attributes;
mod callers;
mod otlp;
mod span;
mod zipkin;

use std::collections::HashSet;
use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::web::{Bytes, BytesMut, Data, Payload, ServiceConfig};
use flate2::read::MultiGzDecoder;
use futures_util::StreamExt;
use futures_util::future::join_all;
use prometheus::IntCounter;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::instruments::Instruments;
use super::intake::{self, AWAY_TIMEOUT, MAX_BODY_BYTES, STORE_TIMEOUT};
use super::pipeline::{Pipeline, Reply, Verdict, document, weight};
use super::{ConsumerError, OwnProcesses, Settings};
use crate::call_key::CallKeys;
use crate::causes::chain;
use crate::shutdown::Shutdown;
use crate::store::Document;
use crate::trace::dead_letter::DeadLetters;
use callers::Callers;
use span::Span;

/// Of events that are handed to the pipeline at once.
const PART_BYTES: usize = 1 << 20;
/// How long a body may take to come; a sender gives up after 10 s, and what has come of it takes room.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// When to come again, in seconds: soon where it was busy, less soon where the store is away.
const RETRY_BUSY: u32 = 1;
const RETRY_AWAY: u32 = 5;

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Otlp,
    Zipkin,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Otlp => "otlp",
            Self::Zipkin => "zipkin",
        }
    }
}

/// What the listeners of a consumer share.
pub(super) struct Shared {
    dead_letters: Arc<DeadLetters>,
    callers: Arc<Callers>,
    own: OwnProcesses,
}

impl Shared {
    pub fn new(dead_letters: Arc<DeadLetters>, own: OwnProcesses) -> Self {
        Self { dead_letters, callers: Arc::default(), own }
    }
}

/// What the handlers of a listener share.
#[derive(Clone)]
pub(super) struct Door {
    pipeline: Pipeline,
    call_keys: CallKeys,
    dead_letters: Arc<DeadLetters>,
    callers: Arc<Callers>,
    own: OwnProcesses,
    taken: IntCounter,
    refused: IntCounter,
    /// Left out, since they are this cluster's own.
    known: IntCounter,
    /// Bytes that all requests together may hold.
    room: Arc<Semaphore>,
    room_bytes: usize,
}

/// Serves a protocol on a listener that is already bound, until the end is asked for.
pub(super) fn serve(
    protocol: Protocol,
    listener: TcpListener,
    settings: &Settings,
    pipeline: &Pipeline,
    instruments: &Instruments,
    shared: &Shared,
    shutdown: &Shutdown,
) -> Result<(), ConsumerError> {
    let spans = |outcome| instruments.spans.with_label_values(&[protocol.name(), outcome]);
    let room_bytes = settings.parsed_bytes();
    let door = Door {
        pipeline: pipeline.clone(),
        call_keys: settings.call_keys.clone(),
        dead_letters: shared.dead_letters.clone(),
        callers: shared.callers.clone(),
        own: shared.own.clone(),
        taken: spans("taken"),
        refused: spans("refused"),
        known: spans("own"),
        room: Arc::new(Semaphore::new(room_bytes)),
        room_bytes,
    };
    let routes = if protocol == Protocol::Otlp { otlp::routes } else { zipkin::routes };
    intake::serve_routes(
        move |config: &mut ServiceConfig| {
            config.app_data(Data::new(door.clone()));
            routes(config);
        },
        listener,
        shutdown,
    )
}

/// Why a request was not taken.
#[derive(Debug)]
struct Fault {
    status: StatusCode,
    message: String,
    /// Seconds after which it may be sent again.
    retry_after: Option<u32>,
}

impl Fault {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None }
    }

    fn away(message: &str, retry_after: u32) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: message.to_owned(), retry_after: Some(retry_after) }
    }
}

/// A request's share of the room.
struct Held {
    room: Arc<Semaphore>,
    room_bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Takes more of it.
    fn add(&mut self, bytes: usize) -> Result<(), Fault> {
        let count = u32::try_from(bytes).ok().filter(|_| bytes <= self.room_bytes);
        let count = count.ok_or_else(|| {
            let message = "the spans would take more memory than `consumer.maxBytes`; send fewer at once";
            Fault::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        })?;
        let more = self.room.clone().try_acquire_many_owned(count);
        let more = more.map_err(|_| Fault::away("the trace consumer is busy; send again", RETRY_BUSY))?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// A whole body, gunzipped.
struct Body {
    bytes: Bytes,
    held: Held,
}

/// Why something is no span.
#[derive(Debug)]
struct Refusal {
    reason: String,
    /// It itself, where its sender hears nothing of it.
    json: Option<Box<RawValue>>,
}

impl Refusal {
    fn of(reason: String) -> Self {
        Self { reason, json: None }
    }
}

/// What became of a request's spans.
#[derive(Debug, Default)]
struct Kept {
    taken: usize,
    refused: usize,
    /// Why the first one was refused.
    reason: String,
}

impl Kept {
    fn refuse(&mut self, spans: usize, reason: &str) {
        if self.reason.is_empty() {
            reason.clone_into(&mut self.reason);
        }
        self.refused += spans;
    }
}

impl Door {
    /// The body of a request whose head is good, with what its head says (`wanted`). Of any other nothing is kept: it is
    /// read away, so that its sender hears why.
    async fn body_of<T>(
        &self,
        request: &HttpRequest,
        mut payload: Payload,
        wanted: Result<T, Fault>,
    ) -> Result<(T, Body), Fault> {
        let head = self.let_in(request).and(wanted).and_then(|wanted| Ok((wanted, is_gzip(request)?)));
        let mut held = Held { room: self.room.clone(), room_bytes: self.room_bytes, permit: None };
        let (mut body, mut bytes, mut fault) = (BytesMut::new(), 0, None);
        let deadline = Instant::now() + BODY_TIMEOUT;
        let late = |_| Fault::new(StatusCode::REQUEST_TIMEOUT, "the body does not come; send again");
        while let Some(chunk) = timeout_at(deadline, payload.next()).await.map_err(late)? {
            let chunk =
                chunk.map_err(|error| Fault::new(StatusCode::BAD_REQUEST, format!("cannot read the body: {error}")))?;
            bytes += chunk.len();
            if bytes > MAX_BODY_BYTES {
                fault = Some(too_large());
                break;
            }
            if head.is_ok() && fault.is_none() {
                fault = held.add(chunk.len()).err();
                body.extend_from_slice(&chunk);
            }
        }
        let (wanted, is_gzip) = head?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        let bytes = if is_gzip { gunzipped(&body, &mut held)? } else { body.freeze() };
        Ok((wanted, Body { bytes, held }))
    }

    fn let_in(&self, request: &HttpRequest) -> Result<(), Fault> {
        let message = "wrong or missing `Call-Service-Key`; send the `callServiceKey` of the trace consumer";
        let knows_key = intake::knows_key(&self.call_keys, request);
        knows_key.then_some(()).ok_or_else(|| Fault::new(StatusCode::FORBIDDEN, message))
    }

    /// Stores spans and tells what became of them, once all of it is known.
    async fn keep(&self, spans: impl Iterator<Item = Result<Span, Refusal>>) -> Result<Kept, Fault> {
        let wait = if self.pipeline.store_is_away() { AWAY_TIMEOUT } else { STORE_TIMEOUT };
        let deadline = Instant::now() + wait;
        let mut kept = Kept::default();
        let mut replies = Vec::new();
        let mut part = Vec::new();
        let mut letters = Vec::new();
        for span in spans {
            let events = span.and_then(|mut span| {
                let id = (span.trace_id, span.span_id);
                span.caller = span.parent_id.and_then(|parent| self.callers.of(id, parent));
                span.events().map_err(|error| Refusal::of(chain(&error)))
            });
            match events {
                Ok(events) => {
                    part.extend(events.into_iter().map(document));
                    kept.taken += 1;
                }
                Err(refusal) => {
                    kept.refuse(1, &refusal.reason);
                    letters.extend(refusal.json.map(|json| (json, refusal.reason)));
                }
            }
            if weight(&part) >= PART_BYTES {
                replies.push(self.hand_over(std::mem::take(&mut part), deadline).await?);
            }
        }
        replies.push(self.hand_over(part, deadline).await?);
        // where the wait is over the replies are dropped, and with them what waits in the pipeline
        let Ok(answers) = timeout_at(deadline, join_all(replies)).await else {
            return Err(Fault::away("the trace store is away; send again", RETRY_AWAY));
        };
        let mut spans = HashSet::new();
        for answer in answers {
            let verdicts = answer.map_err(|_| Fault::away("the trace consumer ends; send again", RETRY_BUSY))?;
            for verdict in verdicts {
                let Verdict::Refused(json, reason) = verdict else { continue };
                let is_first = spans.insert(whose(json.get()));
                kept.refuse(usize::from(is_first), &reason);
                kept.taken -= usize::from(is_first);
                letters.push((json, reason));
            }
        }
        // not before all is known: what is sent again would be kept again
        for (json, reason) in letters {
            self.dead_letters.keep(&json, &reason);
        }
        self.taken.inc_by(kept.taken as u64);
        self.refused.inc_by(kept.refused as u64);
        if kept.refused > 0 {
            log::warn!("refused spans of another program count={} first={}", kept.refused, kept.reason);
        }
        Ok(kept)
    }

    async fn hand_over(&self, documents: Vec<Document>, deadline: Instant) -> Result<Reply, Fault> {
        match timeout_at(deadline, self.pipeline.submit(documents)).await {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(Fault::away("the trace consumer ends; send again", RETRY_BUSY)),
            Err(_) if self.pipeline.store_is_away() => {
                Err(Fault::away("the trace store is away; send again", RETRY_AWAY))
            }
            Err(_) => Err(Fault::away("the trace consumer is busy; send again", RETRY_BUSY)),
        }
    }
}

/// The span that an event of [`Span::events`] tells of.
fn whose(json: &str) -> (String, String, bool) {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Ids {
        trace_id: String,
        span_id: String,
        event: String,
    }
    let ids: Ids = serde_json::from_str(json).unwrap_or_default();
    (ids.trace_id, ids.span_id, ids.event.starts_with("span."))
}

fn too_large() -> Fault {
    let message = format!("the body is over {MAX_BODY_BYTES} bytes; send less at once");
    Fault::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

fn is_gzip(request: &HttpRequest) -> Result<bool, Fault> {
    let encoding = request.headers().get("content-encoding").map_or(&b""[..], |value| value.as_bytes());
    match encoding.to_ascii_lowercase().as_slice() {
        b"" | b"identity" => Ok(false),
        b"gzip" | b"x-gzip" => Ok(true),
        _ => Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "of content encodings only `gzip` is read")),
    }
}

/// At most [`MAX_BODY_BYTES`]: a small body may hold a thousand times its size.
fn gunzipped(body: &[u8], held: &mut Held) -> Result<Bytes, Fault> {
    let mut bytes = Vec::new();
    let read = MultiGzDecoder::new(body).take(MAX_BODY_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Fault::new(StatusCode::BAD_REQUEST, format!("cannot gunzip the body: {error}")))?;
    if bytes.len() > MAX_BODY_BYTES {
        return Err(too_large());
    }
    held.add(bytes.len())?;
    Ok(bytes.into())
}

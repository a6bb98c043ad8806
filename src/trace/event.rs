//! An event in the originals' JSON, key order and values; new fields follow `trace`.
//!
//! ```text
//! {"requestId":…,"request":{"method","url","urlParam","clientIp","headers":{…},"body":{…}},"event":"request.start",
//!  "time":"2026-11-21 07:53:51","serviceName","serviceId","projectName":"goms","trace":null | {"timing":"17.9651ms"},
//!  "eventId","traceId","spanId","parentId","status","node","durationNs","timeMs"[,"action"],"caller"}
//! ```

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::batch::Pages;
use super::context::TraceContext;
use super::go_form::{push_digits, push_duration, push_local_time, push_string};
use super::head::{Head, Place};
pub use super::parse::{Fields, ParseError, Parsed, Received, parse};

/// Now, in milliseconds of Unix time.
#[must_use]
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Which of the four events of a request, or that of another program's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum EventKind {
    /// The gateway took the request.
    #[serde(rename = "request.start")]
    RequestStart,
    /// The gateway answered it.
    #[serde(rename = "request.end")]
    RequestEnd,
    /// A service took the call.
    #[serde(rename = "service.start")]
    ServiceStart,
    /// The service answered it.
    #[serde(rename = "service.end")]
    ServiceEnd,
    /// Another program did something that is no answer to a request, as a call or a query.
    #[serde(rename = "span.end")]
    SpanEnd,
}

/// The request as the events of one node show it; shared by its start and end event.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// Method, URL, client, and of the headers the first values only, without `Host`, already redacted.
    pub head: Head,
    /// The body as JSON text; empty for none (written as `{}`). Not to be changed once an event was recorded.
    pub body: Bytes,
    /// `user/login`, where the node knows the route; otherwise readers make it of the event's service and path.
    pub action: Option<Arc<str>>,
    /// The service that called; `None` for a client from outside.
    pub caller: Option<Box<str>>,
}

/// Which node an event comes from; made once a node.
#[derive(Debug)]
pub struct Origin {
    /// `gateway`, `user`, …
    pub service_name: String,
    /// The node's registry key.
    pub service_id: String,
    /// `goms`, or the namespace of the older system.
    pub project_name: String,
    /// `ip:rpc_ip:http`.
    pub node: String,
}

/// One event, as cheap to make as it can be; serialised off the request path.
#[derive(Clone, Debug)]
pub struct Event {
    /// Which.
    pub kind: EventKind,
    /// The request it belongs to.
    pub context: TraceContext,
    /// What was asked.
    pub request: Arc<RequestInfo>,
    /// Who tells it.
    pub origin: Arc<Origin>,
    /// When, in milliseconds of Unix time.
    pub time_ms: i64,
    /// End events only: how long it took.
    pub duration: Option<Duration>,
    /// End events only: the HTTP status that was answered.
    pub status: Option<u16>,
    /// Its identity in the store: delivered twice, it is stored once.
    pub id: Uuid,
}

impl EventKind {
    /// The word in the event's JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestStart => "request.start",
            Self::RequestEnd => "request.end",
            Self::ServiceStart => "service.start",
            Self::ServiceEnd => "service.end",
            Self::SpanEnd => "span.end",
        }
    }
}

/// About what an event without a body takes.
const USUAL_EVENT_BYTES: usize = 1024;

impl Event {
    /// The event as one JSON object without line breaks of its own: the originals' keys in their order and values in
    /// their form (headers sorted by name, `&` as `\u0026`, local time in whole seconds, Go durations), then the new
    /// fields. What does not apply is `null`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(USUAL_EVENT_BYTES + self.request.body.len());
        self.push_json(&mut out, None);
        out
    }

    /// Appends what [`Event::to_json`] gives. A batch tells its pages, where the request may stand already.
    pub(super) fn push_json(&self, out: &mut Vec<u8>, pages: Option<&Pages>) {
        out.extend_from_slice(b"{\"requestId\":\"");
        push_uuid(out, self.context.request_id);
        out.extend_from_slice(b"\",\"request\":");
        match pages {
            Some(pages) => self.request.push_once(out, pages),
            None => self.request.push_json(out),
        }
        out.extend_from_slice(b",\"event\":\"");
        out.extend_from_slice(self.kind.as_str().as_bytes());
        out.extend_from_slice(b"\",\"time\":\"");
        push_local_time(out, self.time_ms);
        out.push(b'"');
        with_fields(&self.origin, |fields| out.extend_from_slice(&fields.service));
        match self.duration {
            None => out.extend_from_slice(b",\"trace\":null"),
            Some(duration) => {
                out.extend_from_slice(b",\"trace\":{\"timing\":\"");
                push_duration(out, nanos(duration));
                out.extend_from_slice(b"\"}");
            }
        }
        self.push_new_fields(out);
        out.push(b'}');
    }

    fn push_new_fields(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"eventId\":\"");
        push_uuid(out, self.id);
        let context = &self.context;
        out.extend_from_slice(b"\",\"traceId\":\"");
        push_hex(out, (context.trace_id >> 64) as u64);
        push_hex(out, context.trace_id as u64);
        out.extend_from_slice(b"\",\"spanId\":\"");
        push_hex(out, context.span_id);
        out.extend_from_slice(b"\",\"parentId\":");
        match context.parent_id {
            Some(parent) => {
                out.push(b'"');
                push_hex(out, parent);
                out.push(b'"');
            }
            None => out.extend_from_slice(b"null"),
        }
        push_number_field(out, "status", self.status.map(u64::from));
        with_fields(&self.origin, |fields| out.extend_from_slice(&fields.node));
        push_number_field(out, "durationNs", self.duration.map(nanos));
        out.extend_from_slice(b",\"timeMs\":");
        if self.time_ms < 0 {
            out.push(b'-');
        }
        push_digits(out, self.time_ms.unsigned_abs());
        if let Some(action) = &self.request.action {
            push_text_field(out, "action", action);
        }
        match &self.request.caller {
            Some(caller) => push_text_field(out, "caller", caller),
            None => out.extend_from_slice(b",\"caller\":null"),
        }
    }
}

/// An origin's fields as they stand in each of its events.
struct OriginFields {
    of: Arc<Origin>,
    service: Vec<u8>,
    node: Vec<u8>,
}

impl OriginFields {
    fn new(origin: &Arc<Origin>) -> Self {
        let (mut service, mut node) = (Vec::new(), Vec::new());
        push_text_field(&mut service, "serviceName", &origin.service_name);
        push_text_field(&mut service, "serviceId", &origin.service_id);
        push_text_field(&mut service, "projectName", &origin.project_name);
        push_text_field(&mut node, "node", &origin.node);
        Self { of: origin.clone(), service, node }
    }
}

thread_local! {
    /// Those written last: most processes are one node, so they are written once.
    static LAST_ORIGIN: RefCell<Option<OriginFields>> = const { RefCell::new(None) };
}

fn with_fields(origin: &Arc<Origin>, write: impl FnOnce(&OriginFields)) {
    LAST_ORIGIN.with_borrow_mut(|last| match last {
        Some(fields) if Arc::ptr_eq(&fields.of, origin) => write(fields),
        _ => write(last.insert(OriginFields::new(origin))),
    });
}

impl RequestInfo {
    /// Copies what the request's first event wrote, where that is at hand.
    fn push_once(&self, out: &mut Vec<u8>, pages: &Pages) {
        if !pages.copy(self.head.written.place(), out) {
            let start = out.len();
            self.push_json(out);
            self.head.written.tell(Place { batch: pages.number(), bytes: start..out.len() });
        }
    }

    fn push_json(&self, out: &mut Vec<u8>) {
        let head = &self.head;
        out.extend_from_slice(b"{\"method\":");
        push_string(out, head.method());
        push_text_field(out, "url", head.url());
        push_text_field(out, "urlParam", head.url_param());
        push_text_field(out, "clientIp", head.client_ip());
        out.extend_from_slice(b",\"headers\":{");
        let mut headers: Vec<(&str, &str)> = head.headers().collect();
        headers.sort_unstable();
        for (index, (name, value)) in headers.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            push_string(out, name);
            out.push(b':');
            push_string(out, value);
        }
        out.extend_from_slice(b"},\"body\":");
        if self.body.is_empty() {
            out.extend_from_slice(b"{}");
        } else if let Ok(body) = serde_json::from_slice::<&RawValue>(&self.body) {
            out.extend_from_slice(body.get().as_bytes());
        } else {
            // never so from a recorder that was given JSON; but one bad body must not spoil a batch
            push_string(out, &String::from_utf8_lossy(&self.body));
        }
        out.push(b'}');
    }
}

fn push_text_field(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    push_string(out, value);
}

fn push_number_field(out: &mut Vec<u8>, key: &str, value: Option<u64>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    match value {
        Some(value) => push_digits(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

/// 16 hexadecimal digits, lower case, with zeros in front.
fn push_hex(out: &mut Vec<u8>, value: u64) {
    let digits = value
        .to_be_bytes()
        .map(|byte| [b"0123456789abcdef"[usize::from(byte >> 4)], b"0123456789abcdef"[usize::from(byte & 15)]]);
    out.extend_from_slice(digits.as_flattened());
}

fn push_uuid(out: &mut Vec<u8>, id: Uuid) {
    let mut buffer = Uuid::encode_buffer();
    out.extend_from_slice(id.hyphenated().encode_lower(&mut buffer).as_bytes());
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

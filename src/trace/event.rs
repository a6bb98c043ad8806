//! An event in the originals' JSON, key order and values; new fields follow `trace`.
//!
//! ```text
//! {"requestId":…,"request":{"method","url","urlParam","clientIp","headers":{…},"body":{…}},"event":"request.start",
//!  "time":"2026-11-21 07:53:51","serviceName","serviceId","projectName":"goms","trace":null | {"timing":"17.9651ms"},
//!  "eventId","traceId","spanId","parentId","status","node","durationNs","timeMs"}
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::context::TraceContext;

/// Which of the four events of a request.
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
}

/// The request as the events of one node show it; shared by its start and end event.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// `POST`.
    pub method: String,
    /// The path, without the query.
    pub url: String,
    /// The query with its `?`, or empty.
    pub url_param: String,
    /// Who called.
    pub client_ip: String,
    /// First values only, names in the form `X-Request-Id`, without `Host`, already redacted.
    pub headers: Vec<(String, String)>,
    /// The body as JSON text; empty for none (written as `{}`).
    pub body: Bytes,
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
    /// Which of the four.
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

//! A span of another program, whichever protocol brought it, and the events that it becomes.
//!
//! ```text
//! SERVER, CONSUMER             service.start and service.end: it answered, so graph and stats count it
//!                              (request.start and request.end where a gateway of goms tells it)
//! CLIENT, PRODUCER, INTERNAL   span.end: shown in its trace, not counted
//! ```
//! Both have, behind the fields of every event, `name` and `span`: what has no place in an event of ours. An event's id
//! is made of trace, span and kind of event, so that what is sent again is stored once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::attributes::{Attributes, HEADER};
use crate::trace::event::{ParseError, Parsed, parse};
use crate::trace::{Event, EventKind, Head, Origin, RequestInfo, TraceContext};

/// What a program is called that does not say its name, by OpenTelemetry's conventions.
const NAMELESS: &str = "unknown_service";

/// Which side of which conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

impl Kind {
    /// Whether it is a service's work for whoever called.
    pub fn answers(self) -> bool {
        matches!(self, Self::Server | Self::Consumer)
    }
}

/// Who tells spans; shared by all that a process tells at once.
#[derive(Debug)]
pub(super) struct Process {
    origin: Arc<Origin>,
    attributes: Attributes,
}

impl Process {
    /// A process by its name (empty: it said none), its node (empty: not known) and what else it says of itself.
    pub fn new(service: &str, node: String, attributes: Attributes) -> Self {
        let service = if service.is_empty() { NAMELESS } else { service };
        let namespace = attributes.text(&["service.namespace"]).unwrap_or_default().into_owned();
        let origin =
            Origin { service_name: service.to_owned(), service_id: node.clone(), project_name: namespace, node };
        Self { origin: Arc::new(origin), attributes }
    }

    pub fn service(&self) -> &str {
        &self.origin.service_name
    }
}

/// One operation.
#[derive(Debug)]
pub(super) struct Span {
    pub process: Arc<Process>,
    pub trace_id: u128,
    pub span_id: u64,
    pub parent_id: Option<u64>,
    pub kind: Kind,
    pub name: String,
    /// Nanoseconds of Unix time.
    pub start_ns: u64,
    pub duration_ns: u64,
    pub attributes: Attributes,
    /// The library that made it.
    pub scope: String,
    /// Whether it says that it failed, and how.
    pub failed: Option<String>,
    /// The service whose span its parent is, where that is known.
    pub caller: Option<String>,
    /// The last goms node before it, by its `tracestate`.
    pub member: Option<String>,
    /// What happened within it: `{name, timeNs, attributes}`.
    pub moments: Vec<Value>,
    /// Other spans that it has to do with: `{traceId, spanId, attributes}`.
    pub links: Vec<Value>,
}

/// What has no place in an event of ours.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rest<'a> {
    kind: Kind,
    start_ns: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    scope: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    events: &'a [Value],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    links: &'a [Value],
}

impl Span {
    /// Its one or two events, as the store takes them.
    ///
    /// # Errors
    /// None is known; what reading the JSON says that was just written.
    pub fn events(&self) -> Result<Vec<Parsed>, ParseError> {
        let kinds: &[EventKind] = match self.kind {
            Kind::Internal | Kind::Client | Kind::Producer => &[EventKind::SpanEnd],
            _ if self.text(&["goms.event"]).starts_with("request.") => {
                &[EventKind::RequestStart, EventKind::RequestEnd]
            }
            Kind::Server | Kind::Consumer => &[EventKind::ServiceStart, EventKind::ServiceEnd],
        };
        let request = Arc::new(self.request());
        let mut events = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let mut json = self.event(*kind, request.clone()).to_json();
            json.pop(); // its brace
            json.extend_from_slice(b",\"name\":");
            serde_json::to_writer(&mut json, &self.name).map_err(ParseError::Json)?;
            json.extend_from_slice(b",\"span\":");
            serde_json::to_writer(&mut json, &self.rest(is_end(*kind))).map_err(ParseError::Json)?;
            json.push(b'}');
            events.extend(parse(&json)?.events);
        }
        Ok(events)
    }

    fn event(&self, kind: EventKind, request: Arc<RequestInfo>) -> Event {
        let is_end = is_end(kind);
        let time_ns = if is_end { self.start_ns.saturating_add(self.duration_ns) } else { self.start_ns };
        Event {
            kind,
            context: TraceContext {
                request_id: self.request_id(),
                trace_id: self.trace_id,
                span_id: self.span_id,
                parent_id: self.parent_id,
                sampled: true,
            },
            request,
            origin: self.process.origin.clone(),
            time_ms: i64::try_from(time_ns / 1_000_000).unwrap_or(i64::MAX),
            duration: is_end.then(|| Duration::from_nanos(self.duration_ns)),
            status: if is_end { self.status() } else { None },
            id: self.event_id(kind),
        }
    }

    /// That of goms where it is one of goms's spans; otherwise the trace id, which goms's requests have as their request
    /// id too unless a client brought a `traceparent`.
    fn request_id(&self) -> Uuid {
        let own = self.attributes.text(&["goms.request_id"]).and_then(|id| Uuid::try_parse(&id).ok());
        own.unwrap_or(Uuid::from_u128(self.trace_id))
    }

    /// The first 128 bits of SHA-256 as a version 8 UUID (RFC 9562, section 5.8).
    fn event_id(&self, kind: EventKind) -> Uuid {
        let mut hash = Sha256::new();
        hash.update(self.trace_id.to_be_bytes());
        hash.update(self.span_id.to_be_bytes());
        hash.update(kind.as_str());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// What it answered over HTTP; without that, of a service's work whether it failed, of anything else only that it did.
    fn status(&self) -> Option<u16> {
        let told = self.attributes.status(&["http.response.status_code", "http.status_code"]);
        let made = match (&self.failed, self.kind.answers()) {
            (Some(_), _) => Some(500),
            (None, true) => Some(200),
            (None, false) => None,
        };
        told.or(made)
    }

    /// What was asked; of a span that answers nothing only the action, for its request is another's.
    fn request(&self) -> RequestInfo {
        let (url, url_param) = self.url();
        let action = Some(self.action(&url).into());
        let head = if self.kind.answers() { self.head(&url, &url_param) } else { Head::default() };
        RequestInfo { head, body: Bytes::new(), action, caller: self.caller().map(Into::into) }
    }

    fn text(&self, keys: &[&str]) -> String {
        self.attributes.text(keys).unwrap_or_default().into_owned()
    }

    /// The path and the query with its `?`.
    fn url(&self) -> (String, String) {
        let path = self.attributes.text(&["url.path", "http.path", "http.target", "url.full", "http.url"]);
        let Some(path) = path else { return Default::default() };
        let path = match path.split_once("://") {
            Some((_, rest)) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
            None => &path,
        };
        let path = path.split('#').next().unwrap_or_default();
        let (path, param) = path.split_at(path.find('?').unwrap_or(path.len()));
        let query = self.text(&["url.query"]);
        let param = match query.trim_start_matches('?') {
            "" => param.to_owned(),
            query => format!("?{query}"),
        };
        (path.to_owned(), param)
    }

    /// `user/login`: by its route where it names one, for a path may hold ids; without either, by its name.
    fn action(&self, url: &str) -> String {
        if let Some(own) = self.attributes.text(&["goms.action"]) {
            return own.into_owned();
        }
        let route = self.attributes.text(&["http.route"]);
        let what = match route.as_deref().unwrap_or(url) {
            _ if !self.kind.answers() => &self.name,
            "" => &self.name,
            path => path,
        };
        match what.trim_matches('/') {
            "" => self.process.service().to_owned(),
            what => format!("{}/{what}", self.process.service()),
        }
    }

    /// Who called what answers: as a node of goms told, as its parent does, as it names the other side itself, or as the
    /// `tracestate` has it, which is less sure: a program that is no node of goms passes on what it got.
    fn caller(&self) -> Option<String> {
        if !self.kind.answers() {
            return None;
        }
        let told = |keys: &[&str]| self.attributes.text(keys).map(|name| name.into_owned());
        told(&["goms.caller"])
            .or_else(|| self.caller.clone())
            .or_else(|| told(&["service.peer.name", "peer.service"]))
            .or_else(|| self.member.clone())
    }

    /// Those that it was told to keep.
    fn head(&self, url: &str, url_param: &str) -> Head {
        let method = self.text(&["http.request.method", "http.method"]);
        let client = self.text(&["client.address", "http.client_ip", "network.peer.address", "net.sock.peer.addr"]);
        let mut head = Head::new(&method, url, url_param, client, 0);
        for (name, value) in self.attributes.below(HEADER) {
            head.push_header(&name.replace('_', "-"), &value);
        }
        head
    }

    fn rest(&self, is_end: bool) -> Rest<'_> {
        Rest {
            kind: self.kind,
            start_ns: self.start_ns,
            scope: &self.scope,
            error: self.failed.as_deref().unwrap_or_default(),
            attributes: if is_end { self.attributes.some() } else { None },
            resource: if is_end { self.process.attributes.some() } else { None },
            events: if is_end { &self.moments } else { &[] },
            links: if is_end { &self.links } else { &[] },
        }
    }
}

fn is_end(kind: EventKind) -> bool {
    !matches!(kind, EventKind::RequestStart | EventKind::ServiceStart)
}

//! What a handler knows of its request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::calls::{CallError, CallStream, Calls};
use super::guard::Guard;
use super::publish::PublishError;
use super::server::trace_lines;
use super::subscribe::METHOD;
use crate::broker::Message;
use crate::trace::{TraceContext, header_form, tracestate};

/// One request as its handler sees it, without the call key. Cheap to clone; stays on its worker's thread.
#[derive(Clone, Debug)]
pub struct Context {
    asked: Asked,
    trace: TraceContext,
    caller: Rc<str>,
    calls: Option<Rc<Calls>>,
}

/// By which door the request came.
#[derive(Clone, Debug)]
enum Asked {
    Http(HttpRequest),
    Rpc(Rc<RpcHead>),
    Message(Rc<Message>),
}

/// The head of a call of RPC, without the call key.
#[derive(Debug)]
pub(super) struct RpcHead {
    pub path: String,
    pub metadata: http_v1::HeaderMap,
    /// When the caller waits no longer.
    pub deadline: Option<Instant>,
}

impl Context {
    pub(super) fn new(request: HttpRequest, trace: TraceContext, caller: Rc<str>, calls: Option<Rc<Calls>>) -> Self {
        Self { asked: Asked::Http(request), trace, caller, calls }
    }

    pub(super) fn of_rpc(head: Rc<RpcHead>, trace: TraceContext, caller: Rc<str>, calls: Option<Rc<Calls>>) -> Self {
        Self { asked: Asked::Rpc(head), trace, caller, calls }
    }

    pub(super) fn of_message(message: Rc<Message>, trace: TraceContext, calls: Option<Rc<Calls>>) -> Self {
        Self { asked: Asked::Message(message), trace, caller: Rc::from(""), calls }
    }

    /// The `X-Request-Id` that all nodes share for this request.
    #[must_use]
    pub fn request_id(&self) -> Uuid {
        self.trace.request_id
    }

    /// The request's place in its trace.
    #[must_use]
    pub fn trace(&self) -> &TraceContext {
        &self.trace
    }

    /// The IP of the client as the gateway saw it: the last entry of `X-Forwarded-For`, which is trusted only when a
    /// call key guards this node. Otherwise, or without that header, the IP of the connection.
    #[must_use]
    pub fn caller(&self) -> &str {
        &self.caller
    }

    /// `GET`, `POST`, …; `POST` by RPC, `MESSAGE` of a topic.
    #[must_use]
    pub fn method(&self) -> &str {
        match &self.asked {
            Asked::Http(request) => request.method().as_str(),
            Asked::Rpc(_) => "POST",
            Asked::Message(_) => METHOD,
        }
    }

    /// The path that was called, without the query; by RPC `/greeter.Say/Hello`, of a message its topic.
    #[must_use]
    pub fn path(&self) -> &str {
        match &self.asked {
            Asked::Http(request) => request.path(),
            Asked::Rpc(head) => &head.path,
            Asked::Message(message) => &message.topic,
        }
    }

    /// The query as it came, with its `?`; empty if there is none.
    #[must_use]
    pub fn url_param(&self) -> &str {
        let Asked::Http(request) = &self.asked else { return "" };
        let full = request.uri().path_and_query().map_or("", |both| both.as_str());
        full.find('?').map_or("", |at| &full[at..])
    }

    /// The first value of a query parameter, decoded.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<String> {
        let query = self.url_param();
        let query = query.strip_prefix('?').unwrap_or(query);
        url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// The first value of a header (by RPC: of the metadata), by its name in any case; `None` if it is missing or not text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        match &self.asked {
            Asked::Http(request) => request.headers().get(name)?.to_str().ok(),
            Asked::Rpc(head) => head.metadata.get(name)?.to_str().ok(),
            Asked::Message(message) => message.header(name),
        }
    }

    /// How long the caller still waits, where it said so (RPC's `grpc-timeout`). After that the handler is dropped.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        match &self.asked {
            Asked::Http(_) | Asked::Message(_) => None,
            Asked::Rpc(head) => head.deadline.map(|end| end.saturating_duration_since(Instant::now())),
        }
    }

    /// Every header with its first value, names in the form `X-Request-Id`, sorted. As in the originals `Host` and
    /// `Transfer-Encoding` are not among them.
    #[must_use]
    pub fn headers(&self) -> BTreeMap<String, String> {
        let shown = |name: &str, value: &[u8]| (header_form(name), String::from_utf8_lossy(value).into_owned());
        let mut all: BTreeMap<String, String> = match &self.asked {
            Asked::Http(request) => {
                let headers = request.headers();
                headers.keys().filter_map(|name| Some(shown(name.as_str(), headers.get(name)?.as_bytes()))).collect()
            }
            Asked::Rpc(head) => {
                let names = head.metadata.keys();
                names.filter_map(|name| Some(shown(name.as_str(), head.metadata.get(name)?.as_bytes()))).collect()
            }
            Asked::Message(message) => {
                message.headers.iter().map(|(name, value)| shown(name, value.as_bytes())).collect()
            }
        };
        all.remove("Host");
        all.remove("Transfer-Encoding");
        all
    }

    /// Calls an action of another service, given as `service/action`, with `POST` and a JSON body: through the same
    /// registry, balancer, call key, deadlines and retries as the gateway does, as a part of this request's trace.
    ///
    /// # Errors
    /// [`CallError`]; with `?` in a handler it becomes a [`ServiceError`](super::ServiceError) of a fitting status.
    pub async fn call<T: DeserializeOwned>(&self, action: &str, body: &impl Serialize) -> Result<T, CallError> {
        let calls = self.calls.as_ref().ok_or(CallError::NoRegistry)?;
        calls.call(&self.trace, &self.tracestate(), action, body).await
    }

    /// Calls a method of another service (`Say.Hello`, or in full `/greeter.Say/Hello`) by RPC with a message in JSON: through
    /// the same registry, balancer, call key, deadlines and retries as [`Context::call`], as a part of this request's
    /// trace, and with what is left of its deadline.
    ///
    /// # Errors
    /// [`CallError`]; with `?` in a handler it becomes a [`ServiceError`](super::ServiceError) of a fitting status.
    pub async fn rpc<T: DeserializeOwned>(
        &self,
        service: &str,
        method: &str,
        message: &impl Serialize,
    ) -> Result<T, CallError> {
        let calls = self.calls.as_ref().ok_or(CallError::NoRegistry)?;
        calls.rpc((&self.trace, &self.tracestate(), self.time_left()), service, method, message).await
    }

    /// Begins a call of a method with streams, whose messages come and go one by one ([`CallStream`]); what is left of this
    /// request's deadline bounds it. For a method with one message a side, send that one and [`CallStream::finish`].
    ///
    /// # Errors
    /// [`CallError`] where no node took the call.
    pub async fn rpc_stream(&self, service: &str, method: &str) -> Result<CallStream, CallError> {
        let calls = self.calls.as_ref().ok_or(CallError::NoRegistry)?;
        calls.rpc_stream((&self.trace, &self.tracestate(), self.time_left()), service, method).await
    }

    /// Publishes a message in JSON to everyone who subscribed to `topic`, as a part of this request's trace. Resolves
    /// once the broker keeps it; that it is handled is not waited for.
    ///
    /// # Errors
    /// [`PublishError`]; with `?` in a handler it becomes a [`ServiceError`](super::ServiceError) of a fitting status.
    pub async fn publish(&self, topic: &str, message: &impl Serialize) -> Result<(), PublishError> {
        self.publish_with(topic, &[], message).await
    }

    /// The same with headers besides.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish_with(
        &self,
        topic: &str,
        headers: &[(&str, &str)],
        message: &impl Serialize,
    ) -> Result<(), PublishError> {
        let calls = self.calls.as_ref().ok_or(PublishError::NoBroker)?;
        calls.publish((&self.trace, &self.tracestate()), topic, headers, message).await
    }

    /// The lines of `tracestate` as they came.
    fn tracestate(&self) -> Vec<&[u8]> {
        match &self.asked {
            Asked::Http(request) => trace_lines(request.headers()).collect(),
            Asked::Rpc(head) => head.metadata.get_all("tracestate").iter().map(|line| line.as_bytes()).collect(),
            Asked::Message(message) => message.header("tracestate").map(str::as_bytes).into_iter().collect(),
        }
    }
}

/// Who asks.
pub(super) struct Asker<'a> {
    /// The client's IP, as [`Context::caller`] tells.
    pub client: Rc<str>,
    /// The service that called, as `tracestate` tells. Behind a guard only gateways and services call, and the gateways
    /// of the originals do not say so.
    pub service: Option<&'a str>,
}

/// Who calls a guarded node without saying so.
const ORIGINAL_CALLER: &str = "gateway";

pub(super) fn asker_of<'a>(request: &'a HttpRequest, guard: &Guard) -> Asker<'a> {
    let service = tracestate::caller(trace_lines(request.headers()));
    let forwarded = request.headers().get_all("x-forwarded-for").last().map(|value| value.as_bytes());
    asker(service, forwarded, request.peer_addr(), guard)
}

/// The same of what is told of any request.
pub(super) fn asker<'a>(
    service: Option<&'a str>,
    forwarded_for: Option<&[u8]>,
    peer: Option<SocketAddr>,
    guard: &Guard,
) -> Asker<'a> {
    let forwarded = forwarded_for.filter(|_| guard.is_on());
    let client = client_of(forwarded, peer);
    Asker { client, service: service.or(guard.is_on().then_some(ORIGINAL_CALLER)) }
}

fn client_of(forwarded: Option<&[u8]>, peer: Option<SocketAddr>) -> Rc<str> {
    let forwarded = forwarded
        .and_then(|value| std::str::from_utf8(value).ok())
        .and_then(|list| list.rsplit(',').map(str::trim).find(|entry| !entry.is_empty()));
    match (forwarded, peer) {
        (Some(client), _) => Rc::from(client),
        (None, Some(peer)) => Rc::from(peer.ip().to_string()),
        (None, None) => Rc::from(""),
    }
}

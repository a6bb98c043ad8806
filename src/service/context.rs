//! What a handler knows of its request.

use std::collections::BTreeMap;
use std::rc::Rc;

use actix_web::HttpRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::calls::{CallError, Calls};
use super::guard::Guard;
use super::server::trace_lines;
use crate::trace::{TraceContext, header_form, tracestate};

/// One request as its handler sees it, without the call key. Cheap to clone; stays on its worker's thread.
#[derive(Clone, Debug)]
pub struct Context {
    request: HttpRequest,
    trace: TraceContext,
    caller: Rc<str>,
    calls: Option<Rc<Calls>>,
}

impl Context {
    pub(super) fn new(request: HttpRequest, trace: TraceContext, caller: Rc<str>, calls: Option<Rc<Calls>>) -> Self {
        Self { request, trace, caller, calls }
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

    /// `GET`, `POST`, …
    #[must_use]
    pub fn method(&self) -> &str {
        self.request.method().as_str()
    }

    /// The path that was called, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.request.path()
    }

    /// The query as it came, with its `?`; empty if there is none.
    #[must_use]
    pub fn url_param(&self) -> &str {
        let full = self.request.uri().path_and_query().map_or("", |both| both.as_str());
        full.find('?').map_or("", |at| &full[at..])
    }

    /// The first value of a query parameter, decoded.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<String> {
        let query = self.request.query_string();
        url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// The first value of a header, by its name in any case; `None` if it is missing or not text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name)?.to_str().ok()
    }

    /// Every header with its first value, names in the form `X-Request-Id`, sorted. As in the originals `Host` and
    /// `Transfer-Encoding` are not among them.
    #[must_use]
    pub fn headers(&self) -> BTreeMap<String, String> {
        let headers = self.request.headers();
        headers
            .keys()
            .map(|name| (header_form(name.as_str()), headers.get(name)))
            .filter(|(name, _)| name != "Host" && name != "Transfer-Encoding")
            .filter_map(|(name, value)| Some((name, String::from_utf8_lossy(value?.as_bytes()).into_owned())))
            .collect()
    }

    /// Calls an action of another service, given as `service/action`, with `POST` and a JSON body: through the same
    /// registry, balancer, call key, deadlines and retries as the gateway does, as a part of this request's trace.
    ///
    /// # Errors
    /// [`CallError`]; with `?` in a handler it becomes a [`ServiceError`](super::ServiceError) of a fitting status.
    pub async fn call<T: DeserializeOwned>(&self, action: &str, body: &impl Serialize) -> Result<T, CallError> {
        let calls = self.calls.as_ref().ok_or(CallError::NoRegistry)?;
        calls.call(&self.trace, trace_lines(self.request.headers()), action, body).await
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
    Asker { client: client_of(request, guard), service: service.or(guard.is_on().then_some(ORIGINAL_CALLER)) }
}

fn client_of(request: &HttpRequest, guard: &Guard) -> Rc<str> {
    let forwarded = guard
        .is_on()
        .then(|| request.headers().get_all("x-forwarded-for").last())
        .flatten()
        .and_then(|value| value.to_str().ok())
        .and_then(|list| list.rsplit(',').map(str::trim).find(|entry| !entry.is_empty()));
    match (forwarded, request.peer_addr()) {
        (Some(client), _) => Rc::from(client),
        (None, Some(peer)) => Rc::from(peer.ip().to_string()),
        (None, None) => Rc::from(""),
    }
}

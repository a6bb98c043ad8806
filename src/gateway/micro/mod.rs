//! `micro api`: a gateway whose paths name services and their methods, as Go Micro's does.
//!
//! `path` tells which, `request` makes the message of the client's request, [`message`] has the messages of handler `api`,
//! `error` the form of failures. Handlers `http`, `proxy` and `web` go the way of any other call.

mod error;
mod event;
pub mod message;
mod path;
mod payload;
mod request;

use actix_web::HttpResponse;
use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use bytes::Bytes;
use prost::Message;

use super::answer::{Answer, Body};
use super::client::Teller;
use super::journal::Journal;
use super::keeper::{Finish, Passage};
use super::live::Table;
use super::pipeline::Worker;
use super::respond::Failure;
use super::rule::{Call, Condition, Outcome, Rule};
use super::{AnswerForm, Encode, PathPattern, Terms, body, faults, rpc};
use crate::listener::Incoming;
use crate::rpc::Codec;
use crate::trace::{TraceBody, TraceContext};
use crate::upgrade;
use crate::upstream::{Policy, RpcRequest, Tries, headers};
use error::MicroError;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handler {
    /// The service's method gets it whole, as a `go.api.Request`.
    #[default]
    Api,
    /// The method gets its query and body as JSON.
    Rpc,
    /// The service gets it over HTTP.
    Http,
    /// The same.
    Proxy,
    /// The same, with WebSocket.
    Web,
    /// It is published, as an [`Event`](message::Event) in JSON.
    Event,
}

impl Handler {
    /// By its word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        HANDLERS.iter().find(|(known, _)| *known == word).map(|(_, handler)| *handler)
    }
}

/// The path whose body names what is called.
const NAMED: &str = "/rpc";

/// The words of [`Handler`].
pub const HANDLERS: [(&str, Handler); 6] = [
    ("api", Handler::Api),
    ("rpc", Handler::Rpc),
    ("http", Handler::Http),
    ("proxy", Handler::Proxy),
    ("web", Handler::Web),
    ("event", Handler::Event),
];

/// How a gateway is one of Go Micro's.
#[derive(Clone, Debug)]
pub struct Micro {
    /// What becomes of requests.
    pub handler: Handler,
    /// What stands before the names of services: `go.micro.api`.
    pub namespace: String,
    /// How a service is called by HTTP: untouched. Its policy is that of its upstream.
    pub(super) call: Call,
}

impl Micro {
    /// With the usual deadlines and retries.
    #[must_use]
    pub fn new(handler: Handler, namespace: &str) -> Self {
        let call = Call {
            services: Vec::new(), // the path names it
            origins: Vec::new(),
            rewrite: None,
            rpc: None,
            policy: Policy::default(),
            fallback: None,
            mirror: None,
            encode: Encode::None,
            answer: AnswerForm::Untouched,
        };
        Self { handler, namespace: namespace.to_owned(), call }
    }

    /// The route that takes what no other does, on these terms.
    pub(super) fn rule(&self, terms: &Terms) -> Option<Rule> {
        let path = PathPattern::parse("/*").ok()?; // it is one
        let when = Condition { host: None, path, methods: Vec::new(), headers: Vec::new(), query: Vec::new() };
        let then = Outcome::Micro(Box::new(self.clone()));
        Some(Rule { name: "micro".to_owned(), when, then, terms: terms.clone() })
    }

    fn full(&self, service: &str) -> String {
        match self.namespace.as_str() {
            "" => service.to_owned(),
            namespace => format!("{namespace}.{service}"),
        }
    }

    /// The service that a path means, and its method; `None`: it means none.
    pub(super) fn method(&self, path: &str) -> Option<(String, String)> {
        path::method(path).map(|(service, endpoint)| (self.full(&service), endpoint))
    }

    /// The service that a path means, whatever way it is called; `None`: it means none, or the body names it.
    pub(super) fn service(&self, path: &str) -> Option<String> {
        self.proxied(path).or_else(|| self.method(path).filter(|_| path != NAMED).map(|(service, _)| service))
    }

    /// The service that gets a request over HTTP; `None`: it is called by RPC.
    pub(super) fn proxied(&self, path: &str) -> Option<String> {
        match self.handler {
            Handler::Api | Handler::Rpc | Handler::Event => None,
            Handler::Http | Handler::Proxy | Handler::Web => Some(self.full(&path::service(path).unwrap_or_default())),
        }
    }
}

/// A request with what a call of it needs.
pub(super) struct Asked<'a> {
    pub worker: &'a Worker,
    pub table: &'a Table,
    pub request: &'a Incoming,
    /// In its one spelling.
    pub path: &'a str,
    pub passage: &'a Passage<'a>,
    pub context: &'a TraceContext,
    pub tries: Option<&'a Tries>,
}

/// What is called.
struct Target {
    service: String,
    endpoint: String,
    codec: Codec,
    message: Bytes,
}

impl Asked<'_> {
    /// Calls the method that the path means, and makes an answer of what comes. Handler `rpc` lets a client that asks for
    /// WebSocket send and get the messages of a stream.
    ///
    /// # Errors
    /// What is the same for every route: a body that is too long or too slow, a WebSocket that cannot be.
    pub async fn answer(
        self,
        micro: &Micro,
        payload: Payload,
        journal: &mut Journal,
        finish: &mut Finish<'_>,
    ) -> Result<Answer, Failure> {
        let (limits, most) = (&self.table.settings.limits, self.passage.body_bytes());
        if micro.handler == Handler::Rpc && upgrade::is_asked(self.request.head()) {
            let Some((service, endpoint)) = micro.method(self.path) else {
                return Ok(MicroError::unknown_service().answer());
            };
            let body = body::prepare(self.request, payload, Encode::None, limits, most).await?;
            journal.started(TraceBody::None);
            let Self { worker, table, request, passage, context, tries, .. } = self;
            let asked =
                rpc::json::Asked { worker, table, request, passage, context, teller: Teller::new(request), tries };
            let call = Call { policy: table.policy(&service).clone(), ..micro.call.clone() };
            return asked.answer(&service, &endpoint, &call, body).await;
        }
        let body = body::whole(self.request, payload, limits, most).await?;
        journal.started(shown(&body));
        if micro.handler == Handler::Event {
            return Ok(event::publish(&self, micro, &body).await.unwrap_or_else(MicroError::answer));
        }
        let (target, is_api) = match self.target(micro, &body) {
            Ok(target) => target,
            Err(error) => return Ok(error.answer()),
        };
        // a path's service has asked already
        let keeper = self.table.routes.rpc_keeper(&target.service).filter(|_| self.path == NAMED);
        let passage = match keeper {
            None => None,
            Some(keeper) => Some(faults::let_in(keeper, (self.request, None), finish, journal).await?),
        };
        let answered = async {
            let message = self.call(target, passage.as_ref().unwrap_or(self.passage)).await?;
            if is_api { of_response(&message) } else { Ok(of_message(message, self.request)) }
        };
        Ok(answered.await.unwrap_or_else(MicroError::answer))
    }

    /// What is called, and whether it answers with a `go.api.Response`.
    fn target(&self, micro: &Micro, body: &Bytes) -> Result<(Target, bool), MicroError> {
        let query = &*self.passage.query;
        if self.path == NAMED {
            let named = request::named(self.request.headers(), query, body)?;
            let request::Named { service, endpoint, message } = named;
            return Ok((Target { service, endpoint, codec: Codec::Json, message }, false));
        }
        let (service, endpoint) = micro.method(self.path).ok_or_else(MicroError::unknown_service)?;
        if micro.handler == Handler::Rpc {
            let (codec, message) = request::of_rpc(self.request.headers(), query, body)?;
            return Ok((Target { service, endpoint, codec, message }, false));
        }
        let (fields, teller) = (self.passage.headers(self.request.headers()), Teller::new(self.request));
        let message = request::of_http(self.request, &fields, query, body, teller.forwarded());
        Ok((Target { service, endpoint, codec: Codec::Proto, message }, true))
    }

    async fn call(&self, target: Target, passage: &Passage<'_>) -> Result<Bytes, MicroError> {
        let teller = Teller::new(self.request);
        let policy = self.table.policy(&target.service);
        let rpc = RpcRequest {
            method: &target.endpoint,
            codec: target.codec,
            metadata: passage.headers(self.request.headers()),
            context: self.context,
            call_key: self.table.settings.call_keys.first().map(String::as_str),
            forwarded: Some(teller.forwarded()),
            timeout: None,
            answer_bytes: self.table.settings.limits.body_bytes,
            tries: self.tries,
        };
        Ok(self.worker.upstream.rpc(&target.service, rpc, target.message, policy).await?.message)
    }
}

/// What its events show of a body.
fn shown(body: &Bytes) -> TraceBody {
    match body.len() {
        0 => TraceBody::None,
        _ if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() => TraceBody::Json(body.clone()),
        length => TraceBody::Opaque(length as u64),
    }
}

/// What handler `rpc` answers with: the message, of the type that the client sent.
fn of_message(message: Bytes, request: &Incoming) -> Answer {
    if message.is_empty() {
        return Answer { head: HttpResponse::new(StatusCode::NO_CONTENT), body: Body::None };
    }
    let mut head = HttpResponse::new(StatusCode::OK);
    let kind = match request::media_type(request.headers()).as_str() {
        "" | "application/x-www-form-urlencoded" => None,
        _ => request.headers().get(CONTENT_TYPE).cloned(),
    };
    head.headers_mut().insert(CONTENT_TYPE, kind.unwrap_or(HeaderValue::from_static("application/json")));
    Answer { head, body: Body::Whole(message) }
}

/// What handler `api` answers with: what the service's `go.api.Response` says.
fn of_response(message: &Bytes) -> Result<Answer, MicroError> {
    let broken = |detail: &str| MicroError::new(StatusCode::INTERNAL_SERVER_ERROR, detail);
    let said = message::Response::decode(message.as_ref())
        .map_err(|error| broken(&format!("the service's answer is no go.api.Response: {error}")))?;
    let status = match said.status_code {
        0 => StatusCode::OK,
        code => u16::try_from(code)
            .ok()
            .filter(|code| (200..=599).contains(code))
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or_else(|| broken(&format!("the service answered with the status {code}, which is none")))?,
    };
    let mut head = HttpResponse::new(status);
    for (name, pair) in &said.header {
        let name = if pair.key.is_empty() { name } else { &pair.key };
        for value in &pair.values {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value))
                && headers::passes_up(name.as_str(), std::iter::empty())
            {
                head.headers_mut().append(name, value);
            }
        }
    }
    if !head.headers().contains_key(CONTENT_TYPE) {
        head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let body = match status {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Body::None,
        _ => Body::Whole(Bytes::from(said.body)),
    };
    Ok(Answer { head, body })
}

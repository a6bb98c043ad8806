//! An action that is a method: a request of HTTP with JSON in, a call by RPC out, and its answer back.
//!
//! One message makes one answer. A client that accepts `application/x-ndjson` or `text/event-stream` gets each message as it
//! comes (`lines`), one that asks for WebSocket sends and gets them (`websocket`).

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use bytes::Bytes;
use url::form_urlencoded;

use super::{lines, websocket};
use crate::gateway::answer::{self, Answer, Body};
use crate::gateway::body::Prepared;
use crate::gateway::client::Teller;
use crate::gateway::keeper::Passage;
use crate::gateway::live::Table;
use crate::gateway::pipeline::Worker;
use crate::gateway::respond::Failure;
use crate::gateway::rule::{Call, Fallback};
use crate::listener::Incoming;
use crate::rpc::{Codec, MESSAGE_BYTES};
use crate::trace::TraceContext;
use crate::upstream::{RequestBody, RpcRequest, RpcStream, Tries};

/// A request with what a call of it needs.
pub(in crate::gateway) struct Asked<'a> {
    pub worker: &'a Worker,
    pub table: &'a Table,
    pub request: &'a Incoming,
    pub passage: &'a Passage<'a>,
    pub context: &'a TraceContext,
    pub teller: Teller<'a>,
    pub tries: Option<&'a Tries>,
}

/// How a client gets the messages of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A line of JSON each: `application/x-ndjson`.
    Lines,
    /// An event each: `text/event-stream`.
    Events,
}

impl Asked<'_> {
    /// Carries the call out on a node of `service`.
    ///
    /// # Errors
    /// [`Failure::Rpc`] with the service's status, or why none answered.
    pub async fn answer(self, service: &str, method: &str, call: &Call, body: Prepared) -> Result<Answer, Failure> {
        let message = match body.body {
            RequestBody::Upgrade(parts) => {
                let head = websocket::granted(self.request)?;
                let stream = self.open(service, method, call).await?;
                return Ok(Answer { head, body: Body::Messages(websocket::frames(parts, stream)) });
            }
            RequestBody::Whole(message) => message,
            RequestBody::Empty | RequestBody::Stream { .. } => of_query(&self.passage.query),
        };
        let Some(form) = wanted(self.request) else {
            return self.one(service, method, call, message).await;
        };
        let RpcStream { mut sender, receiver } = self.open(service, method, call).await?;
        // a callee that takes no message says why in its answer
        if sender.send(&message).await.is_ok() && sender.finish().is_err() {
            log::debug!("a callee ended its stream early");
        }
        let mut head = HttpResponse::new(StatusCode::OK);
        let (kind, body) = lines::answer(form, sender, receiver, self.context.request_id).await?;
        head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        Ok(Answer { head, body: Body::Messages(body) })
    }

    async fn one(&self, service: &str, method: &str, call: &Call, message: Bytes) -> Result<Answer, Failure> {
        let upstream = &self.worker.upstream;
        let mut answered = upstream.rpc(service, self.rpc(method), message.clone(), &call.policy).await;
        if let Err(error) = &answered
            && error.was_not_sent()
        {
            match &call.fallback {
                Some(Fallback::Respond(respond)) => return Ok(answer::fixed(respond)),
                Some(Fallback::Service(instead)) => {
                    answered = upstream.rpc(instead, self.rpc(method), message, &call.policy).await;
                }
                None => {}
            }
        }
        Ok(answer::of_message(answered?.message, call.answer))
    }

    async fn open(&self, service: &str, method: &str, call: &Call) -> Result<RpcStream, Failure> {
        Ok(self.worker.upstream.rpc_stream(service, self.rpc(method), &call.policy).await?)
    }

    fn rpc<'s>(&'s self, method: &'s str) -> RpcRequest<'s> {
        RpcRequest {
            method,
            codec: Codec::Json,
            metadata: self.passage.headers(self.request.headers()),
            context: self.context,
            call_key: self.table.settings.call_keys.first().map(String::as_str),
            forwarded: Some(self.teller.forwarded()),
            timeout: None,
            answer_bytes: self.table.settings.limits.body_bytes.max(MESSAGE_BYTES),
            tries: self.tries,
        }
    }
}

/// The query as a message: an object of strings.
fn of_query(query: &str) -> Bytes {
    let fields: serde_json::Map<String, serde_json::Value> =
        form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name.into_owned(), value.into())).collect();
    serde_json::Value::Object(fields).to_string().into()
}

/// How the client wants a stream's messages; `None`: it expects one.
fn wanted(request: &Incoming) -> Option<Form> {
    let accepts = |kind: &str| {
        request.headers().get_all(ACCEPT).any(|value| {
            let text = value.to_str().unwrap_or_default();
            text.split(',').any(|each| each.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(kind))
        })
    };
    if accepts("text/event-stream") {
        Some(Form::Events)
    } else if accepts("application/x-ndjson") || accepts("application/ndjson") {
        Some(Form::Lines)
    } else {
        None
    }
}

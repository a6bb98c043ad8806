//! Calls from a handler to other services, through the same `upstream` as the gateway's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ServiceError;
use super::publish::{self, PublishError};
use crate::balance::Balancer;
use crate::broker::Broker;
use crate::call_key::CallKeys;
use crate::metrics::Metrics;
use crate::rpc::Codec;
use crate::trace::{TraceContext, tracestate};
use crate::upstream::{
    self, Broken, Policy, RequestBody, RpcError, RpcReceiver, RpcRequest, RpcSender, RpcStream, Upstream,
    UpstreamRequest,
};

/// Which actions handlers may call, and how their nodes are found.
#[derive(Clone)]
pub struct CallTable {
    /// Chooses nodes; shared by the process.
    pub balancer: Arc<Balancer>,
    /// Service → action → where it goes.
    pub actions: Arc<BTreeMap<String, BTreeMap<String, CalledAction>>>,
    /// Bytes that an answer may have.
    pub answer_bytes: usize,
    /// Where messages are published; `None`: nowhere.
    pub broker: Option<Arc<dyn Broker>>,
    /// How services are called that have no action.
    pub usual: Policy,
}

/// An action of another service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalledAction {
    /// The path that is called; begins with `/`.
    pub path: String,
    /// Deadline and retries.
    pub policy: Policy,
    /// The service that is called where no node of this one is reached.
    pub fallback: Option<String>,
}

/// Why a call to another service gave no value.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// This node was not told of other services.
    #[error("this node has no table of services to call")]
    NoRegistry,
    /// No such action is in the table.
    #[error("cannot call `{action}`: {reason}")]
    UnknownAction {
        /// As it was given.
        action: String,
        /// What there is instead.
        reason: String,
    },
    /// The body cannot be written as JSON.
    #[error("cannot write the body for `{action}` as JSON")]
    Body {
        /// The action.
        action: String,
        /// What went wrong.
        #[source]
        source: serde_json::Error,
    },
    /// No node answered.
    #[error("cannot call `{action}`")]
    Failed {
        /// The action.
        action: String,
        /// What went wrong.
        #[source]
        source: upstream::CallError,
    },
    /// A node answered with another status than 2xx.
    #[error("`{action}` answered {status}: {message}")]
    Refused {
        /// The action.
        action: String,
        /// The HTTP status.
        status: u16,
        /// The answer's `msg`; empty if it has none.
        message: String,
        /// The whole answer.
        body: Bytes,
    },
    /// A call by RPC gave no answer.
    #[error("cannot call `{method}`: {source}")]
    Rpc {
        /// Service and method.
        method: String,
        /// What went wrong.
        #[source]
        source: RpcError,
    },
    /// The answer did not come to its end.
    #[error("the answer of `{action}` broke off")]
    Broken {
        /// The action.
        action: String,
        /// What went wrong.
        #[source]
        source: Broken,
    },
    /// The answer is not the JSON that was expected.
    #[error("the answer of `{action}` does not fit: {}", reason.message())]
    Unfit {
        /// The action.
        action: String,
        /// Field and position.
        reason: ServiceError,
    },
}

impl From<CallError> for ServiceError {
    /// A refusal that is the caller's fault (4xx, but not the guard's) goes on to the caller, the rest is 502, 503 or
    /// 504, or 500 where this service is at fault.
    fn from(error: CallError) -> Self {
        let status = match &error {
            CallError::Rpc { source, .. } => return of_rpc(source, &error),
            CallError::Refused { status, message, .. } if (400..500).contains(status) && *status != 403 => {
                return Self::new(*status, if message.is_empty() { error.to_string() } else { message.clone() });
            }
            CallError::NoRegistry | CallError::UnknownAction { .. } | CallError::Body { .. } => 500,
            CallError::Failed { source: upstream::CallError::NoNode(_), .. } => 503,
            CallError::Failed { source: upstream::CallError::Deadline { .. }, .. } => 504,
            CallError::Failed { .. } | CallError::Refused { .. } => 502,
            CallError::Broken { .. } | CallError::Unfit { .. } => 502,
        };
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Self::new(status, format!("{error}{cause}"))
    }
}

/// As of HTTP: a callee's refusal goes on to the caller with what it says.
fn of_rpc(source: &RpcError, error: &CallError) -> ServiceError {
    let status = source.status();
    match (source, status.to_http()) {
        (RpcError::Status { .. }, refused @ 400..=499) if refused != 403 => ServiceError::new(refused, status.message),
        (RpcError::Status { .. }, 504) | (RpcError::Deadline { .. }, _) => ServiceError::new(504, error.to_string()),
        (RpcError::NoNode(_), _) => ServiceError::new(503, error.to_string()),
        (RpcError::Request(_) | RpcError::Message(_), _) => ServiceError::new(500, error.to_string()),
        _ => ServiceError::new(502, error.to_string()),
    }
}

/// One worker's client.
pub(super) struct Calls {
    upstream: Upstream,
    table: CallTable,
    /// What signs the calls.
    call_keys: CallKeys,
    /// Who calls, as `tracestate` tells.
    own: Option<String>,
    /// How services are called that the table does not name.
    usual: Policy,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Calls").field("services", &self.table.actions.keys()).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    msg: String,
}

impl Calls {
    /// `service` is who calls.
    pub(super) fn new(table: CallTable, service: &str, call_keys: &CallKeys, metrics: &Metrics) -> Self {
        let upstream = Upstream::new(table.balancer.clone(), service, metrics);
        Self {
            usual: table.usual.clone(),
            upstream,
            table,
            own: tracestate::member(service),
            call_keys: call_keys.clone(),
        }
    }

    /// `tracestate` are the lines that came with the request for which this call is made.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        trace: &TraceContext,
        tracestate: &[&[u8]],
        action: &str,
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        let named = || action.to_owned();
        let (service, target) =
            self.find(action).map_err(|reason| CallError::UnknownAction { action: named(), reason })?;
        let body = serde_json::to_vec(body).map_err(|source| CallError::Body { action: named(), source })?;
        let request = UpstreamRequest {
            method: "POST",
            path: &target.path,
            query: "",
            headers: tracestate.iter().map(|line| ("tracestate", *line)).collect(),
            content_type: Some("application/json"),
            body: RequestBody::Whole(Bytes::from(body)),
            context: trace,
            call_key: self.call_keys.first().map(String::as_str),
            forwarded: None,
            tries: None,
        };
        let answer = self
            .upstream
            .call(service, target.fallback.as_deref(), request, &target.policy)
            .await
            .map_err(|source| CallError::Failed { action: named(), source })?;
        let status = answer.status;
        let body = answer
            .body
            .collect(self.table.answer_bytes)
            .await
            .map_err(|source| CallError::Broken { action: named(), source })?;
        if !(200..300).contains(&status) {
            let message = serde_json::from_slice::<Message>(&body).map_or_else(|_| String::new(), |found| found.msg);
            return Err(CallError::Refused { action: named(), status, message, body });
        }
        super::body::fit(&body).map_err(|reason| CallError::Unfit { action: named(), reason })
    }

    /// `about` is the request for which this call is made: its trace, its `tracestate`, and how long its caller still waits.
    pub(super) async fn rpc<T: DeserializeOwned>(
        &self,
        about: (&TraceContext, &[&[u8]], Option<Duration>),
        service: &str,
        method: &str,
        message: &impl Serialize,
    ) -> Result<T, CallError> {
        let named = || format!("{service} {method}");
        let message = serde_json::to_vec(message).map_err(|source| CallError::Body { action: named(), source })?;
        let request = self.request(about, method);
        let policy = self.policy(service);
        let answer = self.upstream.rpc(service, request, Bytes::from(message), policy).await;
        let answer = answer.map_err(|source| CallError::Rpc { method: named(), source })?;
        super::body::fit(&answer.message).map_err(|reason| CallError::Unfit { action: named(), reason })
    }

    pub(super) async fn rpc_stream(
        &self,
        about: (&TraceContext, &[&[u8]], Option<Duration>),
        service: &str,
        method: &str,
    ) -> Result<CallStream, CallError> {
        let named = format!("{service} {method}");
        let opened = self.upstream.rpc_stream(service, self.request(about, method), self.policy(service)).await;
        match opened {
            Ok(RpcStream { sender, receiver }) => Ok(CallStream { method: named, sender, receiver }),
            Err(source) => Err(CallError::Rpc { method: named, source }),
        }
    }

    fn request<'a>(
        &'a self,
        (trace, tracestate, timeout): (&'a TraceContext, &[&'a [u8]], Option<Duration>),
        method: &'a str,
    ) -> RpcRequest<'a> {
        RpcRequest {
            method,
            codec: Codec::Json,
            metadata: tracestate.iter().map(|line| ("tracestate", *line)).collect(),
            context: trace,
            call_key: self.call_keys.first().map(String::as_str),
            forwarded: None,
            timeout,
            answer_bytes: self.table.answer_bytes,
            tries: None,
        }
    }

    /// Publishes a message; `about` is the request for which this is done: its trace and its `tracestate`.
    pub(super) async fn publish(
        &self,
        (trace, lines): (&TraceContext, &[&[u8]]),
        topic: &str,
        headers: &[(&str, &str)],
        body: &impl Serialize,
    ) -> Result<(), PublishError> {
        let broker = self.table.broker.as_ref().ok_or(PublishError::NoBroker)?;
        publish::publish(broker, trace, (self.own.as_deref(), lines), topic, headers, body).await
    }

    /// How a service is called by RPC: as its first action, where it has any.
    fn policy(&self, service: &str) -> &Policy {
        let actions = self.table.actions.get(service);
        actions.and_then(|actions| actions.values().next()).map_or(&self.usual, |action| &action.policy)
    }

    fn find<'a>(&'a self, action: &'a str) -> Result<(&'a str, &'a CalledAction), String> {
        let (service, name) = action.split_once('/').ok_or_else(|| "name it as `service/action`".to_owned())?;
        let actions = self.table.actions.get(service).ok_or_else(|| {
            format!("no service `{service}` is configured; there is {}", list(self.table.actions.keys()))
        })?;
        let target = actions
            .get(name)
            .ok_or_else(|| format!("no action `{name}` in service `{service}`; it has {}", list(actions.keys())))?;
        Ok((service, target))
    }
}

/// A call whose messages come and go one by one. Dropping it cancels what is not over.
pub struct CallStream {
    method: String,
    sender: RpcSender,
    receiver: RpcReceiver,
}

impl CallStream {
    /// Sends a message, as soon as the callee takes it.
    ///
    /// # Errors
    /// [`CallError::Body`] where it cannot be written as JSON; else the callee wants no more, and [`CallStream::next`] tells
    /// why.
    pub async fn send(&mut self, message: &impl Serialize) -> Result<(), CallError> {
        let message =
            serde_json::to_vec(message).map_err(|source| CallError::Body { action: self.method.clone(), source })?;
        let sent = self.sender.send(&message).await;
        sent.map_err(|source| self.broken(source))
    }

    /// No more messages follow; answers still come.
    ///
    /// # Errors
    /// When the callee is gone.
    pub fn finish(&mut self) -> Result<(), CallError> {
        self.sender.finish().map_err(|source| self.broken(source))
    }

    /// The next answer; `None` after the last one.
    ///
    /// # Errors
    /// [`CallError`]: the callee's status, what broke the stream, or an answer that does not fit.
    ///
    /// # Cancel safety
    /// Safe in `select!`.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CallError> {
        let message = self.receiver.next().await;
        let message = message.map_err(|source| CallError::Rpc { method: self.method.clone(), source })?;
        let fit = |message: Bytes| super::body::fit(&message);
        message.map(fit).transpose().map_err(|reason| CallError::Unfit { action: self.method.clone(), reason })
    }

    fn broken(&self, source: h2_v4::Error) -> CallError {
        let (node, source) = (self.receiver.node().clone(), source.into());
        CallError::Rpc { method: self.method.clone(), source: RpcError::Broken { node, source } }
    }
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

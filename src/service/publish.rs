//! Messages from a handler to whoever subscribed.

use std::sync::Arc;

use serde::Serialize;

use super::ServiceError;
use crate::broker::{Broker, BrokerError, Message};
use crate::trace::{TraceContext, tracestate};

/// Why a message was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// This node was not told of a broker.
    #[error("this node has no broker to publish by")]
    NoBroker,
    /// The message cannot be written as JSON.
    #[error("cannot write the message for `{topic}` as JSON")]
    Body {
        /// Where it was to go.
        topic: String,
        /// What went wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The broker did not take it.
    #[error("cannot publish to `{topic}`")]
    Broker {
        /// Where it was to go.
        topic: String,
        /// What went wrong.
        #[source]
        source: BrokerError,
    },
}

impl From<PublishError> for ServiceError {
    /// 503 where the broker is away, else 500: the service is at fault.
    fn from(error: PublishError) -> Self {
        let away = matches!(&error, PublishError::Broker { source: BrokerError::Away { .. }, .. });
        Self::new(if away { 503 } else { 500 }, crate::causes::chain(&error))
    }
}

/// Publishes `body` as JSON, as a part of a request's trace. `lines` are those of `tracestate` that came with it, and
/// `own` goms's own member.
pub(super) async fn publish(
    broker: &Arc<dyn Broker>,
    trace: &TraceContext,
    (own, lines): (Option<&str>, &[&[u8]]),
    topic: &str,
    headers: &[(&str, &str)],
    body: &impl Serialize,
) -> Result<(), PublishError> {
    let body = serde_json::to_vec(body).map_err(|source| PublishError::Body { topic: topic.to_owned(), source })?;
    let mut message = Message::new(topic, body);
    let mut put = |name: &str, value: String| message.headers.push((name.to_owned(), value));
    put("content-type", "application/json".to_owned());
    put("x-request-id", trace.request_id.to_string());
    put("traceparent", trace.traceparent());
    let state = tracestate::with_caller(own, lines.iter().copied());
    if !state.is_empty() {
        put("tracestate", state);
    }
    message.headers.extend(headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())));
    broker.publish(message).await.map_err(|source| PublishError::Broker { topic: topic.to_owned(), source })
}

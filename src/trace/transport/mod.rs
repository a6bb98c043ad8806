//! How events leave the process: to RabbitMQ or directly to a trace consumer, each with confirmation.

mod amqp;
pub mod connection;
mod direct;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::spool::Batch;
use super::{Settings, TraceError, Transport};
use crate::registry::CatalogWatch;

/// The service name of trace consumers in the registry, as the originals register it.
pub const CONSUMER_SERVICE: &str = "traceConsumer";

/// Where a consumer takes events over HTTP.
pub const EVENTS_PATH: &str = "/goms/events";

/// Why a delivery was not confirmed.
#[derive(Debug)]
pub(super) struct Away {
    /// What happened, without credentials.
    pub reason: String,
    /// Wait at least so long before the next try.
    pub wait: Duration,
    /// The user knows: no second line about it.
    pub told: bool,
}

impl Away {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), wait: Duration::ZERO, told: false }
    }
}

impl fmt::Display for Away {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.reason)
    }
}

/// An event that will never be taken as it is.
#[derive(Debug)]
pub(super) struct Refused {
    /// Its JSON.
    pub event: Bytes,
    /// What the other side says.
    pub reason: String,
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.ends_with(&inner) {
            text = format!("{text}: {inner}");
        }
        cause = error.source();
    }
    text
}

/// One of the transports.
pub(super) enum Carrier {
    Amqp(Box<amqp::Publisher>),
    Direct(direct::Sender),
}

impl Carrier {
    pub fn new(settings: &Settings, catalog: CatalogWatch) -> Result<Self, TraceError> {
        Ok(match &settings.transport {
            Transport::Amqp(amqp) => {
                Self::Amqp(Box::new(amqp::Publisher::new(amqp.clone(), settings.message, catalog)?))
            }
            Transport::Direct { call_key } => Self::Direct(direct::Sender::new(call_key.clone(), catalog)),
        })
    }

    /// Delivers the batches in order; `Ok` once all are confirmed, with those that were refused for good. It may take as long as the other side needs: the
    /// spool goes on meanwhile. What was delivered before an error is delivered again, which is harmless.
    ///
    /// # Cancel safety
    /// May be dropped at any moment; what was not confirmed is delivered again.
    pub async fn deliver(&mut self, batches: &[Batch]) -> Result<Vec<Refused>, Away> {
        match self {
            Self::Amqp(publisher) => publisher.deliver(batches).await.map(|()| Vec::new()),
            Self::Direct(sender) => sender.deliver(batches).await,
        }
    }
}

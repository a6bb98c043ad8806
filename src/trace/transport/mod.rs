//! How events leave the process: to RabbitMQ or directly to a trace consumer, each with confirmation.

mod amqp;
pub mod connection;
mod direct;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::batch::Batch;
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

/// How much a transport takes at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Deliveries in flight.
    pub flights: usize,
    /// Batches a delivery.
    pub flight_batches: usize,
    /// Bytes a delivery; the batch that passes them is its last.
    pub flight_bytes: usize,
    /// Bytes in flight; the delivery that passes them is the last.
    pub bytes: usize,
}

/// What became of deliveries.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// So many of the oldest are confirmed.
    pub delivered: usize,
    /// Events of them that were refused for good.
    pub refused: Vec<Refused>,
}

/// One of the transports. Deliveries are handed over and confirmed in one order; until then they are in flight.
pub(super) enum Carrier {
    Amqp(Box<amqp::Publisher>),
    Direct(direct::Courier),
    #[cfg(test)]
    Scripted(scripted::Scripted),
}

impl Carrier {
    pub fn new(settings: &Settings, catalog: CatalogWatch) -> Result<Self, TraceError> {
        Ok(match &settings.transport {
            Transport::Amqp(amqp) => {
                Self::Amqp(Box::new(amqp::Publisher::new(amqp.clone(), settings.message, catalog)?))
            }
            Transport::Direct { call_key } => {
                Self::Direct(direct::Courier::new(direct::Sender::new(call_key.clone(), catalog)))
            }
        })
    }

    /// What may be in flight.
    pub fn limits(&self) -> Limits {
        match self {
            Self::Amqp(publisher) => publisher.limits(),
            Self::Direct(courier) => courier.limits(),
            #[cfg(test)]
            Self::Scripted(scripted) => scripted.limits,
        }
    }

    /// Takes a delivery behind those that are in flight, within the limits. It goes on its way with [`Carrier::progress`].
    pub fn send(&mut self, batches: Vec<Batch>) {
        match self {
            Self::Amqp(publisher) => publisher.send(batches),
            Self::Direct(courier) => courier.send(batches),
            #[cfg(test)]
            Self::Scripted(scripted) => scripted.sent.push(batches),
        }
    }

    /// Waits until the oldest deliveries are confirmed. It may take as long as the other side needs: the spool goes on
    /// meanwhile. To be called only while something is in flight.
    ///
    /// # Errors
    /// [`Away`] when one failed. Then all that is in flight is forgotten and is to be sent again: what had arrived all the
    /// same is doubled, which is harmless.
    ///
    /// # Cancel safety
    /// May be dropped and called again at any moment.
    pub async fn progress(&mut self) -> Result<Progress, Away> {
        match self {
            Self::Amqp(publisher) => {
                publisher.progress().await.map(|delivered| Progress { delivered, ..Progress::default() })
            }
            Self::Direct(courier) => courier.progress().await,
            #[cfg(test)]
            Self::Scripted(_) => std::future::pending().await,
        }
    }
}

/// Stands for a transport in tests of the spool: keeps what it is sent; the test tells the outcome itself.
#[cfg(test)]
pub(super) mod scripted {
    use super::{Batch, Limits};

    pub struct Scripted {
        pub limits: Limits,
        pub sent: Vec<Vec<Batch>>,
    }
}

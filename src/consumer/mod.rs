//! THE PIPELINE'S END: takes events from RabbitMQ or over HTTP, stores them, and only then acknowledges.
//!
//! May import: `trace`, `store`, `metrics`, `shutdown`, `backoff`.

use std::time::Duration;

use crate::trace::AmqpSettings;

/// What a trace consumer takes and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// RabbitMQ, when events travel through it.
    pub amqp: Option<AmqpSettings>,
    /// Messages that may be taken but not yet stored.
    pub prefetch: u16,
    /// Events a write to the store.
    pub batch_events: usize,
    /// How long a write may wait for company.
    pub batch_wait: Duration,
    /// Whose direct events and queries are accepted; empty: everyone's.
    pub call_keys: Vec<String>,
}

//! THE PIPELINE'S END: takes events from RabbitMQ or over HTTP, stores them, and only then acknowledges.
//!
//! May import: `trace`, `store`, `metrics`, `shutdown`, `backoff`.

mod amqp;
pub mod intake;
mod pipeline;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lapin::types::ShortString;

use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::store::TraceStore;
use crate::trace::AmqpSettings;
use crate::trace::dead_letter::DeadLetters;
use crate::trace::transport::connection::{Broker, SettingsError};
use intake::Intake;

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
    /// The file for direct events that can never be stored (those from RabbitMQ go to `<queue>.dead`); `None` only logs
    /// them.
    pub dead_letters: Option<PathBuf>,
}

/// Why a consumer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// RabbitMQ's settings make no sense.
    #[error(transparent)]
    Amqp(#[from] SettingsError),
    /// The listener cannot be used.
    #[error("cannot take trace events over HTTP")]
    Listen(#[source] std::io::Error),
    /// Neither RabbitMQ nor a listener.
    #[error("a trace consumer needs `amqpAddr` or an HTTP port to take events from")]
    NoSource,
}

/// A consumer at work.
#[derive(Debug)]
pub struct Running {
    shutdown: Shutdown,
}

impl Running {
    /// Takes nothing new, stores and acknowledges what was taken, and ends; at most `limit`. What is not stored by then
    /// was not acknowledged and is delivered again elsewhere. Returns whether all ended in time.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.shutdown.begin();
        self.shutdown.finished(limit).await
    }
}

/// Starts a consumer: reads RabbitMQ when `settings.amqp` is there, and takes events and searches over HTTP when
/// `listener` is there (both is possible). Needs a Tokio runtime. It also ends when `shutdown` begins.
///
/// # Errors
/// [`ConsumerError`]. A broker or store that is away is none: the consumer tries again by itself.
pub fn start(
    settings: &Settings,
    store: Arc<dyn TraceStore>,
    listener: Option<TcpListener>,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<Running, ConsumerError> {
    if settings.amqp.is_none() && listener.is_none() {
        return Err(ConsumerError::NoSource);
    }
    let source = settings.amqp.as_ref().map(amqp_names).transpose()?;
    let shutdown = shutdown.child();
    let pipeline = pipeline::start(settings, store.clone(), metrics, &shutdown);
    let refused = metrics
        .counter("consumer_refused_total", "trace events that the store can never keep", &[])
        .with_label_values::<&str>(&[]);
    if let Some(listener) = listener {
        let intake = Intake {
            pipeline: pipeline.clone(),
            store,
            call_keys: settings.call_keys.clone().into(),
            dead_letters: Arc::new(DeadLetters::new(settings.dead_letters.clone())),
            refused: refused.clone(),
        };
        intake::serve(intake, listener, &shutdown)?;
        if source.is_none() {
            log::info!("[direct] trace consumer is runner");
        }
    }
    if let Some((broker, dead_queue)) = source {
        let prefetch = settings.prefetch.max(1); // 0 would mean no limit
        let source = amqp::Source { broker, dead_queue, prefetch, pipeline, refused, shutdown: shutdown.clone() };
        shutdown.spawn(source.run());
    }
    Ok(Running { shutdown })
}

fn amqp_names(settings: &AmqpSettings) -> Result<(Broker, ShortString), SettingsError> {
    let dead = ShortString::try_new(format!("{}.dead", settings.queue)).map_err(|_| SettingsError::TooLong("queue"))?;
    Ok((Broker::new(settings)?, dead))
}

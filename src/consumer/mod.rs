//! THE PIPELINE'S END: takes events from RabbitMQ or over HTTP, stores them, and only then acknowledges. Spans of other
//! programs (`spans`) become events on the way.
//!
//! May import: `trace`, `store`, `metrics`, `shutdown`, `backoff`, `causes`, `call_key`, `json`.

mod amqp;
mod batch;
mod health;
mod instruments;
pub mod intake;
mod pipeline;
mod spans;
mod writer;

pub use health::Health;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lapin::types::ShortString;

use crate::call_key::CallKeys;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::store::TraceStore;
use crate::trace::AmqpSettings;
use crate::trace::dead_letter::DeadLetters;
use crate::trace::transport::connection::{Broker, SettingsError};
use instruments::Instruments;
use intake::Intake;
use spans::Protocol;

/// What a trace consumer takes and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// RabbitMQ, when events travel through it.
    pub amqp: Option<AmqpSettings>,
    /// Messages that may be taken but not yet stored.
    pub prefetch: u16,
    /// Bytes of messages and events that were taken and are not stored yet: half for messages as they came, half for the
    /// events read from them. What is larger than a half is taken alone.
    pub max_bytes: usize,
    /// Events a write to the store.
    pub batch_events: usize,
    /// Bytes of JSON a write.
    pub batch_bytes: usize,
    /// How long a write may wait for company.
    pub batch_wait: Duration,
    /// Writes at once.
    pub writes: usize,
    /// Whose direct events and queries are accepted; empty: everyone's.
    pub call_keys: CallKeys,
    /// The file for direct events that can never be stored (those from RabbitMQ go to `<queue>.dead`); `None` only logs
    /// them.
    pub dead_letters: Option<PathBuf>,
}

impl Settings {
    fn message_bytes(&self) -> usize {
        self.max_bytes / 2
    }

    fn parsed_bytes(&self) -> usize {
        (self.max_bytes / 2).clamp(1, u32::MAX as usize) // as a semaphore counts
    }
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

/// Where a consumer listens; each is bound already.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For events and searches of goms nodes.
    pub events: Option<TcpListener>,
    /// For spans of other programs in OTLP over HTTP.
    pub otlp: Option<TcpListener>,
    /// For those in Zipkin's JSON.
    pub zipkin: Option<TcpListener>,
    /// Whose spans in OTLP are taken and not stored.
    pub own: OwnProcesses,
}

/// The processes of this cluster, whose events come by themselves, so that their spans would be the same once more.
#[derive(Clone, Default)]
pub struct OwnProcesses(Option<Arc<IsOne>>);

type IsOne = dyn Fn(&str) -> bool + Send + Sync;

impl OwnProcesses {
    /// Those whose [`trace::INSTANCE`](crate::trace::INSTANCE) is one.
    #[must_use]
    pub fn new(is_one: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_one)))
    }

    fn have(&self, instance: &str) -> bool {
        self.0.as_ref().is_some_and(|is_one| is_one(instance))
    }
}

impl std::fmt::Debug for OwnProcesses {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("OwnProcesses").finish_non_exhaustive()
    }
}

impl From<Option<TcpListener>> for Listeners {
    fn from(events: Option<TcpListener>) -> Self {
        Self { events, ..Self::default() }
    }
}

/// A consumer at work.
#[derive(Debug)]
pub struct Running {
    shutdown: Shutdown,
    health: Health,
}

impl Running {
    /// What tells whether it is of use now.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Takes nothing new, stores and acknowledges what was taken, and ends; at most `limit`. What is not stored by then
    /// was not acknowledged and is delivered again elsewhere. Returns whether all ended in time.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.shutdown.begin();
        self.shutdown.finished(limit).await
    }
}

/// Starts a consumer: reads RabbitMQ when `settings.amqp` is there, and takes over HTTP what `listeners` are there for
/// (both is possible). Needs a Tokio runtime. It also ends when `shutdown` begins.
///
/// # Errors
/// [`ConsumerError`]. A broker or store that is away is none: the consumer tries again by itself.
pub fn start(
    settings: &Settings,
    store: Arc<dyn TraceStore>,
    listeners: impl Into<Listeners>,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<Running, ConsumerError> {
    let listeners = listeners.into();
    if settings.amqp.is_none() && listeners.events.is_none() {
        return Err(ConsumerError::NoSource);
    }
    let source = settings.amqp.as_ref().map(amqp_names).transpose()?;
    let shutdown = shutdown.child();
    let (health, instruments) = (Health::default(), Instruments::new(metrics));
    let pipeline = pipeline::start(settings, store.clone(), &instruments, &health, &shutdown);
    let dead_letters = Arc::new(DeadLetters::new(settings.dead_letters.clone()));
    let shared = spans::Shared::new(dead_letters.clone(), listeners.own);
    for (protocol, listener) in [(Protocol::Otlp, listeners.otlp), (Protocol::Zipkin, listeners.zipkin)] {
        let Some(listener) = listener else { continue };
        spans::serve(protocol, listener, settings, &pipeline, &instruments, &shared, &shutdown)?;
    }
    if let Some(listener) = listeners.events {
        let intake = Intake {
            pipeline: pipeline.clone(),
            store,
            call_keys: settings.call_keys.clone(),
            dead_letters,
            refused: instruments.refused.clone(),
        };
        intake::serve(intake, listener, &shutdown)?;
        if source.is_none() {
            log::info!("[direct] trace consumer is runner");
        }
    }
    if let Some((broker, dead_queue)) = source {
        health.set_queue(Some("not connected to rabbitmq yet".to_owned()));
        let prefetch = settings.prefetch.max(1); // 0 would mean no limit
        let (health, shutdown_source) = (health.clone(), shutdown.clone());
        let source = amqp::Source {
            broker,
            dead_queue,
            prefetch,
            room: amqp::Room::new(settings.message_bytes()),
            pipeline,
            instruments,
            health,
            shutdown: shutdown_source,
        };
        shutdown.spawn(source.run());
    }
    Ok(Running { shutdown, health })
}

fn amqp_names(settings: &AmqpSettings) -> Result<(Broker, ShortString), SettingsError> {
    let dead = ShortString::try_new(format!("{}.dead", settings.queue)).map_err(|_| SettingsError::TooLong("queue"))?;
    Ok((Broker::new(settings)?, dead))
}

//! WHAT HAPPENED: the events of a request, and their way to the transport.
//!
//! May import: `shutdown`, `backoff`, `metrics`, `causes`, `trust`, `call_key`, `registry` (to find a consumer).
//!
//! [`Recorder`] takes events without blocking → `spool` keeps them in batches, on disk while the transport is away →
//! `transport` delivers with confirmation. [`context`] reads and makes request ids and W3C trace contexts, [`tracestate`]
//! tells who called; [`event`] is the originals' JSON. `export` tells an OpenTelemetry collector the same as spans.

mod backlog;
mod batch;
pub mod context;
pub(crate) mod dead_letter;
pub mod event;
mod export;
mod go_form;
mod head;
pub(crate) mod otlp;
mod parse;
mod recorder;
mod redact;
mod sample;
mod spool;
mod thread;
pub mod tracestate;
pub mod transport;

pub use context::TraceContext;
pub use event::{Event, EventKind, Origin, RequestInfo};
pub use export::{OtlpSettings, TlsError};
pub use head::{Head, header_form};
pub use recorder::{Recorder, TraceBody};
pub use redact::{BodyPath, REDACTED, Redact};
pub use sample::Decision;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::call_key::SigningKey;
use crate::metrics::Metrics;
use crate::registry::CatalogWatch;
use crate::shutdown::Shutdown;

/// What names this run of the process among all others: its nodes have it in the registry, and its spans as the attribute
/// [`INSTANCE`] of their resource.
#[must_use]
pub fn instance() -> &'static str {
    static OF_PROCESS: OnceLock<String> = OnceLock::new();
    OF_PROCESS.get_or_init(|| uuid::Uuid::new_v4().simple().to_string())
}

/// The attribute by which a cluster knows spans of its own processes.
pub const INSTANCE: &str = "goms.instance";

/// What is recorded and how it travels.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The share of requests that is traced; 0 turns tracing off.
    pub sample: f64,
    /// Of the other requests a node keeps those that it saw end with 5xx or take so long.
    pub slow: Duration,
    /// Bytes of a body that an event keeps; a longer one is replaced by a note of its size.
    pub body_bytes: usize,
    /// What is replaced by `[redacted]` before it leaves the process.
    pub redact: Redact,
    /// Bytes on disk; over it the oldest events go.
    pub spool_bytes: u64,
    /// Where processes have their spools.
    pub spool_dir: PathBuf,
    /// How long an event may wait for company.
    pub flush_interval: Duration,
    /// One event a message, or arrays of up to 256.
    pub message: Message,
    /// Where events go.
    pub transport: Transport,
    /// Where they go as spans besides.
    pub otlp: Option<OtlpSettings>,
}

/// How many events a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// One, as Go consumers need.
    Single,
    /// A JSON array of up to 256.
    Batch,
}

/// Where events go.
#[derive(Clone, Debug)]
pub enum Transport {
    /// HTTP to a trace consumer found in the registry, guarded with the call key.
    Direct {
        /// What it sends as `Call-Service-Key`, if anything.
        call_key: SigningKey,
    },
    /// RabbitMQ.
    Amqp(AmqpSettings),
}

/// A queue in RabbitMQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqpSettings {
    /// `amqp://user:password@host:port/vhost`; several are tried in turn.
    pub urls: Vec<String>,
    /// The exchange; empty is the default exchange, which routes by queue name.
    pub exchange: String,
    /// The queue.
    pub queue: String,
    /// The routing key; with the default exchange it is the queue's name.
    pub routing_key: String,
    /// Whether a queue that does not exist yet is made durable.
    pub durable: bool,
}

/// Headers whose values never leave the process, besides the call key.
pub const REDACTED_HEADERS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];

/// The header that guards a service.
pub const CALL_KEY_HEADER: &str = "call-service-key";

/// Why tracing cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The folder of the spool cannot be used.
    #[error("cannot use the trace spool in `{dir}`; give another `--data-dir`, or set `traces.sample` to 0")]
    Spool {
        /// Which.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The operating system gives no thread.
    #[error("cannot start the thread of the trace spool")]
    Thread(#[source] std::io::Error),
    /// The OTLP collector cannot be spoken to by TLS.
    #[error("cannot export spans by TLS")]
    Otlp(#[from] TlsError),
    /// RabbitMQ's settings make no sense.
    #[error(transparent)]
    Amqp(#[from] transport::connection::SettingsError),
}

/// Starts the spool on a thread of its own, opens it, and gives the recorder that feeds it; with `sample` 0 nothing starts
/// and nothing is recorded. To be called within a tokio runtime: when that is dropped, the spool ends where it stands.
///
/// When `shutdown` begins, what was recorded is delivered for at most 2 s; the rest stays on disk for the next start.
/// So begin it after the servers have drained, and wait with `finished`.
///
/// # Errors
/// [`TraceError`] when the folder cannot be used or a broker address cannot be read. A transport that is away is no
/// error: events wait on disk.
pub fn start(
    settings: &Settings,
    catalog: CatalogWatch,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<Recorder, TraceError> {
    if settings.sample <= 0.0 {
        return Ok(Recorder::off());
    }
    let (recorder, events) = Recorder::channel(settings, metrics);
    thread::start(settings, catalog, (events, recorder.backlog()), metrics, shutdown)?;
    Ok(recorder)
}

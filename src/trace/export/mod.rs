//! Beside the main transport: each request that a node answered as a span, to an OpenTelemetry collector, by OTLP over
//! HTTP (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).
//!
//! ```text
//! spool ─ end event ─► Exporter::offer ─ span ─► queue of 16,384 ─► sender ─ 512 or what a second brought ─► collector
//!                                           └─ full: dropped, counted
//! ```
//! The collector is of use but not trusted to be there: nothing waits for it, nothing is written to disk for it, and
//! what the main transport delivers does not depend on it.

mod sender;
mod span;
mod tls;

use std::cell::Cell;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use prometheus::IntCounter;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::event::{Event, Origin};
use super::otlp::Span;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
pub use tls::TlsError;

/// Spans that may wait for the collector; at 700 bytes each about 11 MB.
const QUEUE_SPANS: usize = 16_384;

/// An OpenTelemetry collector, as the standard variables name it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OtlpSettings {
    /// Where spans are posted: an absolute `http://` or `https://` URL without credentials.
    pub url: String,
    /// What is sent with each request; values may be credentials.
    pub headers: Vec<(String, String)>,
    /// With `https://`: whom to trust, certificates in PEM; `None` is whom this system trusts.
    pub ca_file: Option<PathBuf>,
    /// With `https://`: a client certificate and its key in PEM.
    pub identity_files: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for OtlpSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        out.debug_struct("OtlpSettings").field("url", &self.place()).field("headers", &names).finish()
    }
}

impl OtlpSettings {
    /// The address as messages show it: without the query, which may be a key.
    #[must_use]
    pub fn place(&self) -> &str {
        self.url.split('?').next().unwrap_or_default()
    }
}

/// A span and whose it is.
type Told = (Arc<Origin>, Span);

/// Takes end events from the spool and never makes it wait.
pub(super) struct Exporter {
    queue: mpsc::Sender<Told>,
    dropped: IntCounter,
    /// That the queue is full was said.
    full: Cell<bool>,
}

impl Exporter {
    /// Starts the task that sends, on this thread.
    ///
    /// # Errors
    /// [`TlsError`] when a certificate or a key cannot be used.
    pub fn start(settings: &OtlpSettings, metrics: &Metrics, shutdown: &Shutdown) -> Result<Self, TlsError> {
        let tls = if settings.url.starts_with("https:") { Some(tls::config(settings)?) } else { None };
        let (queue, spans) = mpsc::channel(QUEUE_SPANS);
        let dropped = metrics
            .counter("trace_dropped_total", "trace events lost because a queue was full", &["where"])
            .with_label_values(&["otlp"]);
        let sender = sender::Sender::new(settings.clone(), tls, spans, dropped.clone(), metrics);
        shutdown.spawn_local(sender.run(shutdown.clone()));
        Ok(Self { queue, dropped, full: Cell::new(false) })
    }

    /// Queues the span of an end event; others tell nothing that it does not.
    pub fn offer(&self, event: &Event) {
        let Some(span) = span::of(event) else { return };
        let sent = self.queue.try_send((event.origin.clone(), span));
        if let Err(error) = &sent {
            self.dropped.inc();
            // closed: this process ends and has given the collector up, which was said
            if matches!(error, TrySendError::Full(_)) && !self.full.replace(true) {
                log::warn!("spans for the OTLP collector are dropped: {QUEUE_SPANS} wait for it already");
            }
        } else if self.full.get() && self.queue.capacity() > QUEUE_SPANS / 2 {
            // only at half, or a collector that is a little too slow would have two lines a span
            self.full.set(false);
            log::info!("spans for the OTLP collector are queued again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credential_shows() {
        let headers = vec![("authorization".to_owned(), "Bearer s3cret".to_owned())];
        let settings =
            OtlpSettings { url: "http://c:4318/v1/traces?key=s3cret".into(), headers, ..OtlpSettings::default() };
        let shown = format!("{settings:?}");
        assert!(!shown.contains("s3cret") && shown.contains("authorization"), "{shown}");
    }
}

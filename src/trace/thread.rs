//! The thread that the spool runs on, so that neither its work nor its disk holds up requests.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::{mpsc::Receiver, oneshot};

use super::backlog::Backlog;
use super::event::Event;
use super::export::Exporter;
use super::spool::Spool;
use super::transport::Carrier;
use super::{Settings, TraceError};
use crate::metrics::Metrics;
use crate::registry::CatalogWatch;
use crate::shutdown::Shutdown;

/// An exporter that ends tries for 2 s to send what it has.
const EXPORT_LIMIT: Duration = Duration::from_secs(3);

/// Starts the thread and waits until the spool is open. `shutdown` waits for its end; when the runtime that this was
/// called on is dropped before, the spool ends where it stands.
pub(super) fn start(
    settings: &Settings,
    catalog: CatalogWatch,
    events: (Receiver<Event>, Option<Arc<Backlog>>),
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<(), TraceError> {
    let (opened, is_open) = mpsc::sync_channel(1);
    let (mut ended, has_ended) = oneshot::channel::<()>();
    let (settings, metrics, ending) = (settings.clone(), metrics.clone(), shutdown.clone());
    let work = move || {
        let exports = Shutdown::new();
        let open = || {
            let mut spool = Spool::open(&settings, events, Carrier::new(&settings, catalog)?, &metrics)?;
            spool.otlp = match &settings.otlp {
                Some(otlp) => Some(Exporter::start(otlp, &metrics, &exports)?),
                None => None,
            };
            Ok(spool)
        };
        // a system has a `LocalSet`, which the HTTP client and the spool's own futures need
        actix_web::rt::System::new().block_on(async {
            let (told, spool) = match open() {
                Ok(spool) => (Ok(()), Some(spool)),
                Err(error) => (Err(error), None),
            };
            if opened.send(told).is_ok()
                && let Some(spool) = spool
            {
                tokio::select! {
                    () = spool.run(ending) => {
                        // the last events are with the exporter now
                        exports.begin();
                        exports.finished(EXPORT_LIMIT).await;
                    }
                    () = ended.closed() => {}
                }
            }
        });
        drop(ended); // also when it panics: only now the end has nothing more to wait for
    };
    std::thread::Builder::new().name("goms-trace".to_owned()).spawn(work).map_err(TraceError::Thread)?;
    is_open.recv().unwrap_or_else(|_| Err(TraceError::Thread(io::Error::other("it ended at once"))))?;
    shutdown.spawn(async move {
        drop(has_ended.await); // always an error: nothing is ever sent
    });
    Ok(())
}

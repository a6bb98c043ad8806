//! Where `goms trace` reads: Elasticsearch itself, or a trace consumer that keeps the embedded store.

use std::sync::Arc;

use crate::app::{AppError, process, trace_consumer};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::store::{self, Remote, Settings, TraceStore};

/// Finds the store: the config's Elasticsearch, else the consumers in the registry that take events.
///
/// # Errors
/// [`AppError::Unavailable`] when there is none, with how to start one.
pub async fn open(config: &Config) -> Result<Arc<dyn TraceStore>, AppError> {
    let shutdown = Shutdown::new();
    if let Settings::Elasticsearch(_) = config.store {
        return store::open(&config.store, &shutdown, &Metrics::new()).map_err(|error| AppError::Part(Box::new(error)));
    }
    let registry = process::open_registry(config)?;
    let catalog = process::known_catalog(&*registry, config, config.read_wait).await?;
    let consumers = trace_consumer::readable(&catalog);
    if consumers.is_empty() {
        return Err(AppError::Unavailable(
            "no trace consumer is running, and it keeps the events: start one with `goms trace-consumer` (or `goms up`)"
                .to_owned(),
        ));
    }
    Ok(Arc::new(Remote::open(consumers, config.call_keys.first().cloned(), &shutdown)))
}

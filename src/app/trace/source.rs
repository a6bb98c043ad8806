//! Where `goms trace` reads: Elasticsearch itself, or a trace consumer that keeps the embedded store.

use std::sync::Arc;

use crate::app::process::{self, Process};
use crate::app::{AppError, trace_consumer};
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

/// Where the dashboard of a process without a store of its own reads: Elasticsearch itself, or the trace consumers that
/// the registry names when it asks.
///
/// # Errors
/// When the settings of Elasticsearch cannot work.
pub fn of_process(process: &Process) -> Result<Arc<dyn TraceStore>, AppError> {
    let config = &process.config;
    if let Settings::Elasticsearch(_) = config.store {
        return store::open(&config.store, &process.background, &process.metrics)
            .map_err(|error| AppError::Part(Box::new(error)));
    }
    let catalog = process.registry.catalog();
    let addresses = move || catalog.borrow().as_deref().map(trace_consumer::readable).unwrap_or_default();
    Ok(Arc::new(Remote::follow(addresses, process.signing.clone(), &process.background)))
}

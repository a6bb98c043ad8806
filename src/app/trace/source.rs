//! Where `goms trace` reads: Elasticsearch itself, or a trace consumer that keeps the embedded store.

use crate::app::error::with_causes;
use crate::app::{AppError, process};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::registry::NodeState;
use crate::shutdown::Shutdown;
use crate::store::{self, Page, Query, Remote, Settings, StoreError, TraceStore};

/// A store to read.
pub enum Source {
    /// In this process.
    Store(std::sync::Arc<dyn TraceStore>),
    /// Through a consumer's API.
    Remote(Remote),
}

impl Source {
    /// Finds the store: the config's Elasticsearch, else a consumer in the registry that takes events.
    ///
    /// # Errors
    /// [`AppError::Unavailable`] when there is none, with how to start one.
    pub async fn open(config: &Config) -> Result<Self, AppError> {
        if let Settings::Elasticsearch(_) = config.store {
            let store = store::open(&config.store, &Shutdown::new(), &Metrics::new()).map_err(unavailable)?;
            return Ok(Self::Store(store));
        }
        let registry = process::open_registry(config)?;
        let catalog = process::known_catalog(&*registry, config.registry_wait).await?;
        let consumers: Vec<String> = catalog
            .nodes(super::super::trace_consumer::SERVICE)
            .iter()
            .filter(|node| node.meta.takes_events && node.state != NodeState::Draining)
            .filter_map(|node| node.id.http.socket())
            .map(|address| address.to_string())
            .collect();
        if consumers.is_empty() {
            return Err(AppError::Unavailable(
                "no trace consumer is running, and it keeps the events: start one with `goms trace-consumer` (or `goms up`)"
                    .to_owned(),
            ));
        }
        Ok(Self::Remote(Remote::new(consumers, config.call_keys.first().cloned())))
    }

    /// Finds events.
    ///
    /// # Errors
    /// [`AppError::Unavailable`] when the store does not answer.
    pub async fn query(&self, query: &Query) -> Result<Page, AppError> {
        match self {
            Self::Store(store) => store.query(query).await,
            Self::Remote(remote) => remote.query(query).await,
        }
        .map_err(unavailable)
    }
}

#[allow(clippy::needless_pass_by_value)] // as `map_err` hands it over
fn unavailable(error: StoreError) -> AppError {
    AppError::Unavailable(with_causes(&error))
}

//! The registry of a fleet that has Consul: the HTTP API of the agent beside each node.
//!
//! ```text
//! service  ID goms_user_10.0.0.1:9180_10.0.0.1:9080, Name user, Address and Port of HTTP, Tag goms (the namespace)
//! check    service:<ID>, by TTL; its Notes are the node's metadata as JSON; `warning`: it leaves
//! key      goms/drain/<ID>, in a session that ends with the check: someone took that node out of rotation
//! ```
//! One blocking query on all checks tells every node with its metadata and its machine's health, so that a process holds
//! two connections to its agent however many services there are.
//!
//! `api` is the agent's API, `reader` follows it into a `view`, `keeper` renews the nodes of this process.

mod api;
mod keeper;
mod reader;
mod view;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::malformed::Malformed;
use super::remembered::Remembered;
use super::{CatalogWatch, Node, NodeId, Publisher, Registry, RegistryError, Settings, check_service};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use api::{Api, ApiError};
use keeper::Own;

/// How long leaving may take in all: an ending process has better to do than to wait for an agent that is away.
const DEREGISTER_LIMIT: Duration = Duration::from_secs(4);

/// How to reach the agent.
#[derive(Clone, Debug, Default)]
pub struct ConsulSettings {
    /// `host:port`, with or without `http://` or `https://`.
    pub address: String,
    /// An ACL token.
    pub token: Option<String>,
    /// A CA certificate (PEM file) that vouches for an `https://` agent; `None`: whom Mozilla trusts.
    pub ca_file: Option<PathBuf>,
}

/// A handle; when it is dropped its tasks end, and nodes that were not deregistered go with their checks.
pub(super) struct Consul {
    shared: Arc<Shared>,
    shutdown: Shutdown,
}

struct Shared {
    api: Api,
    namespace: String,
    ttl: Duration,
    interval: Duration,
    grace: Duration,
    publisher: Publisher,
    malformed: Malformed,
    connected: IntGauge,
    /// Why the agent cannot be used now.
    trouble: Mutex<Option<String>>,
    own: Mutex<HashMap<NodeId, Arc<Own>>>,
    /// The agent was away or forgot a node: others may be missing for the same reason.
    gap: Notify,
    dropped: CancellationToken,
}

impl Consul {
    pub(super) fn open(
        settings: &Settings,
        consul: &ConsulSettings,
        shutdown: &Shutdown,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, RegistryError> {
        let connected = metrics.gauge("registry_connected", "Whether the registry's server answers", &[]);
        let shared = Arc::new(Shared {
            api: Api::new(consul)?,
            namespace: settings.namespace.clone(),
            ttl: settings.register_ttl,
            interval: settings.register_interval,
            grace: settings.grace,
            publisher: Publisher::new(),
            malformed: Malformed::new(metrics),
            connected: connected.with_label_values(&[] as &[&str]),
            trouble: Mutex::default(),
            own: Mutex::default(),
            gap: Notify::new(),
            dropped: CancellationToken::new(),
        });
        let (watched, ending, whole) = (shared.clone(), shared.clone(), shutdown.clone());
        let is_live = move || !watched.publisher.is_recalled() && watched.trouble().is_none();
        let ended = async move { ending.ended(&whole).await };
        let remembered = Remembered::start(settings, shared.publisher.subscribe(), is_live, (shutdown, ended));
        shutdown.spawn(reader::follow(shared.clone(), remembered, shutdown.clone()));
        Ok(Arc::new(Self { shared, shutdown: shutdown.clone() }))
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.shared.dropped.cancel();
    }
}

#[async_trait]
impl Registry for Consul {
    fn kind(&self) -> &'static str {
        "consul"
    }

    fn catalog(&self) -> CatalogWatch {
        self.shared.publisher.subscribe()
    }

    fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }

    async fn register(&self, node: Node) -> Result<(), RegistryError> {
        check_service(&node.id)?;
        let id = node.id.clone();
        let own = Arc::new(Own::new(node));
        // Locked before anyone can see it: who deregisters or renews waits for the end of this.
        let told = own.told.lock().await;
        if !self.shared.claim(&own) {
            return Err(RegistryError::Taken(id));
        }
        let claim = Claim { shared: &self.shared, own: &own, done: false };
        let is_new = match self.shared.place_first(&own.node).await {
            Ok(true) => false,
            Ok(false) => return Err(RegistryError::Taken(id)),
            Err(error) if error.is_away() && self.shared.publisher.is_recalled() => {
                log::warn!("node `{id}` of `{}` is registered once consul is back: {error}", id.service);
                true
            }
            Err(error) => return Err(self.shared.unavailable(error)),
        };
        claim.done();
        drop(told);
        self.shutdown.spawn(keeper::keep(self.shared.clone(), own, is_new, self.shutdown.clone()));
        Ok(())
    }

    async fn deregister(&self, id: &NodeId) -> Result<(), RegistryError> {
        let own = self.shared.own().remove(id).ok_or_else(|| RegistryError::Unknown(id.clone()))?;
        own.stop.cancel();
        self.shared.publisher.retire_own(id);
        let taken_out = async {
            let _told = own.told.lock().await;
            self.shared.take_out(id).await
        };
        match timeout(DEREGISTER_LIMIT, taken_out).await {
            Ok(done) => done.map_err(|error| self.shared.unavailable(error)),
            Err(late) => Err(self.shared.unavailable(late)),
        }
    }

    async fn set_draining(&self, id: &NodeId, draining: bool) -> Result<(), RegistryError> {
        let machine = self.shared.machine(id).await.map_err(|error| self.shared.unavailable(error))?;
        let machine = machine.ok_or_else(|| RegistryError::Unknown(id.clone()))?;
        self.shared.mark(id, &machine, draining).await.map_err(|error| self.shared.unavailable(error))
    }
}

/// Gives an id back unless its node was put, also when `register` is dropped half way.
struct Claim<'a> {
    shared: &'a Shared,
    own: &'a Arc<Own>,
    done: bool,
}

impl Claim<'_> {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.done {
            let id = &self.own.node.id;
            let mut own = self.shared.own();
            if own.get(id).is_some_and(|known| Arc::ptr_eq(known, self.own)) {
                own.remove(id);
            }
            self.shared.publisher.forget_own(id);
        }
    }
}

impl Shared {
    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn own(&self) -> MutexGuard<'_, HashMap<NodeId, Arc<Own>>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_own(&self, id: &NodeId) -> bool {
        self.own().contains_key(id)
    }

    /// Takes an id for this handle. `false` when it has it already.
    fn claim(&self, new: &Arc<Own>) -> bool {
        let mut own = self.own();
        if own.contains_key(&new.node.id) {
            return false;
        }
        self.publisher.add_own(new.node.id.clone());
        own.insert(new.node.id.clone(), new.clone());
        true
    }

    /// What keys of marks begin with.
    fn marks(&self) -> String {
        format!("{}/drain/", self.namespace)
    }

    /// Resolves once the handle is gone or the process ends.
    async fn ended(&self, shutdown: &Shutdown) {
        tokio::select! {
            () = shutdown.begun() => {}
            () = self.dropped.cancelled() => {}
        }
    }

    fn unavailable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RegistryError {
        RegistryError::Unavailable { kind: "consul", address: self.api.address(), source: source.into() }
    }

    /// Puts or removes the mark that takes a node out of rotation.
    async fn mark(&self, id: &NodeId, machine: &str, draining: bool) -> Result<(), ApiError> {
        let (prefix, key) = (self.marks(), id.key(&self.namespace));
        if draining { self.api.mark(&prefix, &key, machine).await } else { self.api.unmark(&prefix, &key).await }
    }
}

//! The registry of a fleet: etcd v3, shared with the originals' nodes where there are any.
//!
//! ```text
//! goms_user_10.0.0.1:9180_10.0.0.1:9080 → 0                        a node, as the originals write it
//! /goms/nodes/user/10.0.0.1:9180_10.0.0.1:9080 → {"version":…}     what a node of ours says of itself
//! /goms/drain/user/10.0.0.1:9180_10.0.0.1:9080 →                   someone took that node out of rotation
//! ```
//! With another namespace than `goms`, all three begin with that. All three hang on the node's lease and go with it.
//!
//! Records of Go Micro (see `go_micro`) are read beside them; with that [`Format`](super::Format) a node of this process
//! is one, in place of the first two keys.
//!
//! `link` is the connection, `reader` follows the keys into a `view`, `keeper` holds one lease a node, `hearing` one a topic that
//! this process hears by Go Micro's HTTP broker.

mod hearing;
mod keeper;
mod link;
mod reader;
mod view;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use prometheus::IntGauge;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::malformed::Malformed;
use super::remembered::Remembered;
use super::{CatalogWatch, EtcdSettings, Hearer, HearersWatch, Node, NodeId, Publisher, Registry, RegistryError};
use super::{Settings, check_service};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use keeper::{Own, PlaceError, client_txn};
use link::{Link, LinkError};
use view::{Keys, View};

/// How long leaving may take in all: an ending process has better to do than to wait for an etcd that is away, and its
/// lease runs out by itself.
const DEREGISTER_LIMIT: Duration = Duration::from_secs(4);
/// How many of its leases a handle remembers: far more than can be alive, since each is one loss of etcd's memory.
const MAX_GRANTED: usize = 10_000;

/// A handle; when it is dropped its tasks end, and nodes that were not deregistered go with their leases.
pub(super) struct Etcd {
    shared: Arc<Shared>,
    shutdown: Shutdown,
}

struct Shared {
    link: Link,
    keys: Keys,
    ttl: Duration,
    interval: Duration,
    grace: Duration,
    publisher: Publisher,
    hearers: watch::Sender<Option<Arc<Vec<Hearer>>>>,
    /// What this process hears, by the hearers' ids.
    heard: Mutex<HashMap<String, Arc<hearing::Heard>>>,
    malformed: Malformed,
    connected: IntGauge,
    /// Why etcd cannot be used now.
    trouble: Mutex<Option<String>>,
    own: Mutex<HashMap<NodeId, Arc<Own>>>,
    /// Every lease this handle was granted: a key on one of them is our own leftover.
    granted: Mutex<HashSet<i64>>,
    /// This user may not read the records of Go Micro, which was told.
    shut_out: AtomicBool,
    dropped: CancellationToken,
}

impl Etcd {
    pub(super) fn open(
        settings: &Settings,
        etcd: &EtcdSettings,
        shutdown: &Shutdown,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, RegistryError> {
        if settings.register_interval.is_zero() || settings.register_interval >= settings.register_ttl {
            return Err(RegistryError::Setting {
                setting: "register_interval",
                reason: format!(
                    "{:?} must be over 0 and shorter than `register_ttl`, {:?}",
                    settings.register_interval, settings.register_ttl
                ),
            });
        }
        let connected = metrics.gauge("registry_connected", "Whether the registry's server answers", &[]);
        let shared = Arc::new(Shared {
            link: Link::new(etcd)?,
            keys: Keys::new(&settings.namespace, settings.format),
            ttl: settings.register_ttl,
            interval: settings.register_interval,
            grace: settings.grace,
            publisher: Publisher::new(),
            hearers: watch::Sender::new(None),
            heard: Mutex::default(),
            malformed: Malformed::new(metrics),
            connected: connected.with_label_values(&[] as &[&str]),
            trouble: Mutex::default(),
            own: Mutex::default(),
            granted: Mutex::default(),
            shut_out: AtomicBool::new(false),
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

impl Drop for Etcd {
    fn drop(&mut self) {
        self.shared.dropped.cancel();
    }
}

#[async_trait]
impl Registry for Etcd {
    fn kind(&self) -> &'static str {
        "etcd"
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
        let own = Arc::new(Own {
            node,
            lease: tokio::sync::Mutex::new(None),
            wake: Notify::new(),
            stop: CancellationToken::new(),
        });
        // Locked before anyone can see it: who deregisters or renews waits for the end of this.
        let mut lease = own.lease.lock().await;
        if !self.shared.claim(&own) {
            return Err(RegistryError::Taken(id));
        }
        let claim = Claim { shared: &self.shared, own: &own, done: false };
        match self.shared.place_first(&own.node, &mut lease).await {
            Ok(()) => {
                claim.done();
                self.shutdown.spawn(keeper::keep(self.shared.clone(), own.clone(), false, self.shutdown.clone()));
                Ok(())
            }
            // a user that etcd does not take is told at once, whatever the disk knows
            Err(PlaceError::Link(error)) if error.is_transient() && self.shared.publisher.is_recalled() => {
                log::warn!("node `{id}` of `{}` is registered once etcd is back: {error}", id.service);
                claim.done();
                self.shutdown.spawn(keeper::keep(self.shared.clone(), own.clone(), true, self.shutdown.clone()));
                Ok(())
            }
            Err(error) => {
                if let Some(lease) = lease.take() {
                    self.shared.revoke(lease).await;
                }
                Err(match error {
                    PlaceError::Taken => RegistryError::Taken(id),
                    PlaceError::Link(error) => self.shared.unavailable(error),
                })
            }
        }
    }

    async fn deregister(&self, id: &NodeId) -> Result<(), RegistryError> {
        let own = self.shared.own().remove(id).ok_or_else(|| RegistryError::Unknown(id.clone()))?;
        own.stop.cancel();
        self.shared.publisher.retire_own(id);
        let taken_out = async {
            match own.lease.lock().await.take() {
                Some(lease) => self.shared.take_out(&own.node, lease).await,
                None => Ok(()), // it was lost and could not be put again
            }
        };
        let done = timeout(DEREGISTER_LIMIT, taken_out).await.unwrap_or(Err(LinkError::Timeout));
        done.map_err(|error| self.shared.unavailable(error))
    }

    async fn set_draining(&self, id: &NodeId, draining: bool) -> Result<(), RegistryError> {
        self.shared.mark(id, draining).await
    }

    fn hearers(&self) -> Option<HearersWatch> {
        Some(self.shared.hearers.subscribe())
    }

    async fn hear(&self, hearer: Hearer) -> Result<(), RegistryError> {
        let heard = hearing::tell(&self.shared, hearer).await.map_err(|error| self.shared.unavailable(error))?;
        self.shutdown.spawn(hearing::keep(self.shared.clone(), heard, self.shutdown.clone()));
        Ok(())
    }

    async fn unhear(&self, id: &str) -> Result<(), RegistryError> {
        let Some(heard) = self.shared.heard().remove(id) else { return Ok(()) };
        heard.stop.cancel();
        if let Some(lease) = heard.lease.lock().await.take() {
            self.shared.revoke(lease).await;
        }
        Ok(())
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
            let mut own = self.shared.own();
            if own.get(&self.own.node.id).is_some_and(|known| Arc::ptr_eq(known, self.own)) {
                own.remove(&self.own.node.id);
            }
            self.shared.publisher.forget_own(&self.own.node.id);
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

    fn heard(&self) -> MutexGuard<'_, HashMap<String, Arc<hearing::Heard>>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Wakes the keepers of what is not there.
    fn wake_missing(&self, view: &View) {
        for (id, own) in self.own().iter() {
            if !view.is_present(id) {
                own.wake.notify_one();
            }
        }
        for (id, heard) in self.heard().iter() {
            if !view.is_heard(id) {
                heard.wake.notify_one();
            }
        }
    }

    fn granted(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn was_granted(&self, lease: i64) -> bool {
        self.granted().contains(&lease)
    }

    fn remember_grant(&self, lease: i64) {
        let mut granted = self.granted();
        if granted.len() >= MAX_GRANTED {
            granted.clear();
        }
        granted.insert(lease);
    }

    /// Resolves once the handle is gone or the process ends.
    async fn ended(&self, shutdown: &Shutdown) {
        tokio::select! {
            () = shutdown.begun() => {}
            () = self.dropped.cancelled() => {}
        }
    }

    fn unavailable(&self, source: LinkError) -> RegistryError {
        RegistryError::Unavailable { kind: "etcd", address: self.link.address(), source: source.into() }
    }

    /// Puts or removes the mark that takes a node out of rotation.
    async fn mark(&self, id: &NodeId, draining: bool) -> Result<(), RegistryError> {
        let mark = self.keys.drain(id);
        // The key may change its lease between the two steps; then once more.
        for _ in 0..10 {
            let (key, lease, revision) = self.key_of(id).await?.ok_or_else(|| RegistryError::Unknown(id.clone()))?;
            let options = Some(PutOptions::new().with_lease(lease));
            let change =
                if draining { TxnOp::put(mark.clone(), "", options) } else { TxnOp::delete(mark.clone(), None) };
            let same = Compare::mod_revision(key.clone(), CompareOp::Equal, revision);
            let txn = Txn::new().when([same]).and_then([change]);
            match self.link.call(|mut client| client_txn(&mut client, &txn)).await {
                Ok(answer) if answer.succeeded() => return Ok(()),
                Ok(_) => {}
                Err(error) if error.is_lease_gone() => {}
                Err(error) => return Err(self.unavailable(error)),
            }
        }
        Err(RegistryError::Unknown(id.clone()))
    }

    /// The key of any node with its lease and revision.
    async fn key_of(&self, id: &NodeId) -> Result<Option<(String, i64, i64)>, RegistryError> {
        let catalog = self.publisher.current();
        let known = catalog.as_ref().and_then(|catalog| catalog.find(id));
        for key in self.keys.of(id, known.and_then(|node| node.meta.record.as_deref())) {
            if let Some((lease, revision)) = self.holder_of(&key).await.map_err(|error| self.unavailable(error))? {
                return Ok(Some((key, lease, revision)));
            }
        }
        Ok(None)
    }
}

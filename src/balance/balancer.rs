//! The balancer: every service's ring of endpoints, kept up with the catalog.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::Selector;
use super::endpoint::{Endpoint, Permit};
use super::pick::Ring;
use crate::registry::{Catalog, CatalogWatch, Node, NodeId};
use crate::shutdown::Shutdown;

/// Chooses nodes for a whole process.
///
/// A reader holds a service's lock only while it looks at a few counters; a writer comes only when the catalog changes.
#[derive(Debug)]
pub struct Balancer {
    selectors: HashMap<String, Selector>,
    services: RwLock<BTreeMap<String, Arc<Service>>>,
    random: AtomicU64,
}

#[derive(Debug, Default)]
struct Service {
    selector: Selector,
    ring: RwLock<Ring>,
    handed: AtomicU64,
}

/// Why there is no node to call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// The catalog holds no such service, or nothing is known of the cluster yet.
    #[error("no node of service `{0}` is registered")]
    UnknownService(String),
    /// It is known, but each of its nodes leaves or is gone.
    #[error("service `{0}` has no node that takes requests now")]
    NoNode(String),
}

/// A service as `/cluster` and `goms cluster` show it.
#[derive(Clone, Debug)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Index in `nodes` that the next request uses.
    pub poll_next: usize,
    /// Its nodes in catalog order.
    pub nodes: Vec<NodeView>,
    /// Requests that this process handed to the service; a retried one counts once.
    pub request_finish: u64,
}

/// A node with what this process measured of it.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The node.
    pub node: Arc<Node>,
    /// Requests without a complete answer.
    pub in_flight: usize,
    /// Tries it answered.
    pub answered: u64,
    /// Tries that found nobody listening.
    pub refused: u64,
}

impl Balancer {
    /// A balancer that follows `catalog` until `shutdown` begins. `selectors` says how a service's nodes are chosen
    /// (round robin where it says nothing). What is known already is there when it returns.
    #[must_use]
    pub fn start(mut catalog: CatalogWatch, selectors: HashMap<String, Selector>, shutdown: &Shutdown) -> Arc<Self> {
        let balancer = Arc::new(Self::new(selectors, uuid::Uuid::new_v4().as_u64_pair().0));
        if let Some(known) = catalog.borrow_and_update().clone() {
            balancer.apply(&known);
        }
        let (follower, ending) = (balancer.clone(), shutdown.clone());
        shutdown.spawn(async move {
            loop {
                tokio::select! {
                    () = ending.begun() => return,
                    changed = catalog.changed() => if changed.is_err() {
                        return; // the registry is gone: the last known nodes stay
                    },
                }
                let known = catalog.borrow_and_update().clone();
                if let Some(known) = known {
                    follower.apply(&known);
                }
            }
        });
        balancer
    }

    /// An empty balancer; `seed` steers the random pickers.
    pub(super) fn new(selectors: HashMap<String, Selector>, seed: u64) -> Self {
        Self { selectors, services: RwLock::default(), random: AtomicU64::new(seed) }
    }

    /// Chooses a node of `service` for one try: never one of `tried` while another can be called. An empty `tried`
    /// means a new request, which counts in [`ServiceView::request_finish`]. `client` is whom a source-hash picker
    /// looks at.
    ///
    /// # Errors
    /// [`PickError`] when there is nobody to call.
    pub fn pick(&self, service: &str, client: Option<IpAddr>, tried: &[NodeId]) -> Result<Permit, PickError> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let known = services.get(service).ok_or_else(|| PickError::UnknownService(service.to_owned()))?;
        let ring = known.ring.read().unwrap_or_else(PoisonError::into_inner);
        let endpoint = ring
            .pick(known.selector, client, tried, &self.random)
            .ok_or_else(|| PickError::NoNode(service.to_owned()))?;
        if tried.is_empty() {
            known.handed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Permit::new(endpoint.clone()))
    }

    /// Every service with its nodes and numbers, in order of name.
    #[must_use]
    pub fn view(&self) -> Vec<ServiceView> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let view = |(name, service): (&String, &Arc<Service>)| {
            let ring = service.ring.read().unwrap_or_else(PoisonError::into_inner);
            let nodes = ring.endpoints.iter().map(|endpoint| NodeView {
                node: endpoint.node().clone(),
                in_flight: endpoint.in_flight(),
                answered: endpoint.answered(),
                refused: endpoint.refused(),
            });
            ServiceView {
                name: name.clone(),
                poll_next: ring.poll_next(),
                nodes: nodes.collect(),
                request_finish: service.handed.load(Ordering::Relaxed),
            }
        };
        services.iter().map(view).collect()
    }

    /// Takes over a new catalog: endpoints keep their counters, a service that was called stays known without nodes.
    pub(super) fn apply(&self, catalog: &Catalog) {
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        for (name, _) in catalog.services() {
            if !services.contains_key(name) {
                let selector = self.selectors.get(name).copied().unwrap_or_default();
                services.insert(name.to_owned(), Arc::new(Service { selector, ..Service::default() }));
            }
        }
        services.retain(|name, service| {
            let nodes = catalog.nodes(name);
            let mut ring = service.ring.write().unwrap_or_else(PoisonError::into_inner);
            let unchanged = nodes.len() == ring.endpoints.len()
                && nodes.iter().zip(&ring.endpoints).all(|(node, known)| Arc::ptr_eq(node, known.node()));
            if !unchanged {
                let endpoints = nodes.iter().map(|node| endpoint(node, &ring.endpoints)).collect();
                *ring = ring.rebuilt(endpoints);
            }
            !nodes.is_empty() || service.handed.load(Ordering::Relaxed) > 0
        });
    }
}

fn endpoint(node: &Arc<Node>, known: &[Arc<Endpoint>]) -> Arc<Endpoint> {
    match known.iter().find(|endpoint| endpoint.node().id == node.id) {
        Some(same) if **same.node() == **node => same.clone(),
        before => Arc::new(Endpoint::new(node.clone(), before.map(|before| &**before))),
    }
}

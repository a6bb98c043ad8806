//! The catalog: a snapshot of all nodes, and the one place that publishes it and tells joins and leaves apart.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::CatalogWatch;
use super::node::{Node, NodeId};

/// All nodes by service. Within a service: those of the first read in key order, later ones in the order they joined,
/// as the originals' `/cluster` shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    services: BTreeMap<String, Vec<Arc<Node>>>,
}

impl Catalog {
    /// Every service with its nodes; a service without nodes is not there.
    pub fn services(&self) -> impl Iterator<Item = (&str, &[Arc<Node>])> {
        self.services.iter().map(|(name, nodes)| (name.as_str(), nodes.as_slice()))
    }

    /// The nodes of one service, none if it is unknown.
    #[must_use]
    pub fn nodes(&self, service: &str) -> &[Arc<Node>] {
        self.services.get(service).map_or(&[], Vec::as_slice)
    }

    /// Every node.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.services.values().flatten()
    }

    /// One node.
    #[must_use]
    pub fn find(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.nodes(&id.service).iter().find(|node| node.id == *id)
    }
}

/// Publishes catalogs for a backend: keeps the order of joining and logs `join` and `leave` of other processes' nodes
/// in the originals' form, once each.
#[derive(Debug)]
pub struct Publisher {
    sender: watch::Sender<Option<Arc<Catalog>>>,
    own: Mutex<HashSet<NodeId>>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { sender: watch::Sender::new(None), own: Mutex::default() }
    }
}

impl Publisher {
    /// A channel that carries `None` until the first [`Publisher::publish`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows what is published.
    #[must_use]
    pub fn subscribe(&self) -> CatalogWatch {
        self.sender.subscribe()
    }

    /// A node of this process: its join and leave are not logged.
    pub fn add_own(&self, id: NodeId) {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    /// The newest catalog, if any was published.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Catalog>> {
        self.sender.borrow().clone()
    }

    /// Makes `nodes` (every node there is now, each id once) the newest catalog. Readers are woken only by a change.
    pub fn publish(&self, mut nodes: Vec<Node>) {
        nodes.sort_by(|one, other| one.id.cmp(&other.id));
        nodes.dedup_by(|one, other| one.id == other.id);
        let before = self.current();
        let mut after = Catalog::default();
        let mut fresh: BTreeMap<NodeId, Node> = nodes.into_iter().map(|node| (node.id.clone(), node)).collect();
        for known in before.iter().flat_map(|catalog| catalog.all()) {
            match fresh.remove(&known.id) {
                Some(node) => after.push(if node == **known { known.clone() } else { Arc::new(node) }),
                None => self.log(&known.id, "leave"),
            }
        }
        for (id, node) in fresh {
            self.log(&id, "join");
            after.push(Arc::new(node));
        }
        let after = Arc::new(after);
        self.sender.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&*after);
            if changed {
                *current = Some(after);
            }
            changed
        });
    }

    fn log(&self, id: &NodeId, what: &str) {
        if !self.own.lock().unwrap_or_else(PoisonError::into_inner).contains(id) {
            log::info!(target: "goms::cluster", "[{}] node [{id}] {what}", id.service);
        }
    }
}

impl Catalog {
    fn push(&mut self, node: Arc<Node>) {
        self.services.entry(node.id.service.clone()).or_default().push(node);
    }
}

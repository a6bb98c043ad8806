//! The catalog: a snapshot of all nodes, and the one place that publishes it and tells joins and leaves apart.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::node::{Node, NodeId};
use super::{CatalogWatch, go_micro};

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

    /// The nodes of one service, none if it is unknown. It is found by its short name and by the one that it has with
    /// Go Micro, where no other has them.
    #[must_use]
    pub fn nodes(&self, service: &str) -> &[Arc<Node>] {
        let other = || self.services.get(&go_micro::other_name(service));
        self.services.get(service).or_else(other).map_or(&[], Vec::as_slice)
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
/// in the originals' form, once each. One task of a backend publishes; any may read.
#[derive(Debug)]
pub struct Publisher {
    sender: watch::Sender<Option<Arc<Catalog>>>,
    own: Mutex<HashMap<NodeId, Own>>,
    /// The newest catalog is one from disk.
    recalled: AtomicBool,
}

/// What a node of this process is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Registered,
    /// Deregistered, but readers may still be told of its leave.
    Leaving,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { sender: watch::Sender::new(None), own: Mutex::default(), recalled: AtomicBool::new(false) }
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
        self.own().insert(id, Own::Registered);
    }

    /// A node of this process that was deregistered: once it is gone from the catalog, its id is anyone's.
    pub fn retire_own(&self, id: &NodeId) {
        let mut own = self.own();
        if self.sender.borrow().as_ref().is_some_and(|catalog| catalog.find(id).is_some()) {
            own.insert(id.clone(), Own::Leaving);
        } else {
            own.remove(id);
        }
    }

    /// A node that was announced with [`Publisher::add_own`] and could not be registered.
    pub fn forget_own(&self, id: &NodeId) {
        self.own().remove(id);
    }

    /// The newest catalog, if any was published.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Catalog>> {
        self.sender.borrow().clone()
    }

    /// Makes `nodes` (every node there is now, in the order they joined as far as the backend knows it) the newest
    /// catalog. The first ones ever are put in the order of their keys; later ones follow as they come. Of nodes with
    /// the same id the first counts. Readers are woken only by a change.
    pub fn publish(&self, nodes: Vec<Node>) {
        for line in self.replace(nodes) {
            log::info!(target: "goms::cluster", "{line}");
        }
    }

    /// Publishes nodes as they were known before this process began, where nothing was published yet. Returns whether it
    /// did. Their joins are not logged.
    pub(super) fn recall(&self, nodes: Vec<Node>) -> bool {
        let mut catalog = Catalog::default();
        nodes.into_iter().for_each(|node| catalog.push(Arc::new(node)));
        self.sender.send_if_modified(|current| {
            let is_first = current.is_none();
            if is_first {
                self.recalled.store(true, Ordering::Release);
                *current = Some(Arc::new(catalog));
            }
            is_first
        })
    }

    /// Whether the newest catalog is one from disk, since the server did not answer yet.
    pub(super) fn is_recalled(&self) -> bool {
        self.recalled.load(Ordering::Acquire)
    }

    /// Publishes and returns the lines to log.
    fn replace(&self, mut nodes: Vec<Node>) -> Vec<String> {
        let mut lines = Vec::new();
        let before = self.current();
        if before.is_none() {
            nodes.sort_by_cached_key(|node| node.id.key(""));
        }
        let mut order = Vec::with_capacity(nodes.len());
        let mut fresh: HashMap<NodeId, Node> = HashMap::with_capacity(nodes.len());
        for node in nodes {
            if !fresh.contains_key(&node.id) {
                order.push(node.id.clone());
                fresh.insert(node.id.clone(), node);
            }
        }
        let mut after = Catalog::default();
        for known in before.iter().flat_map(|catalog| catalog.all()) {
            match fresh.remove(&known.id) {
                Some(node) => after.push(if node == **known { known.clone() } else { Arc::new(node) }),
                None => lines.extend(self.leave(&known.id)),
            }
        }
        for node in order.iter().filter_map(|id| fresh.remove(id)) {
            lines.extend(self.join(&node.id));
            after.push(Arc::new(node));
        }
        self.sender.send_if_modified(|current| {
            self.recalled.store(false, Ordering::Release);
            let changed = current.as_deref() != Some(&after);
            if changed {
                *current = Some(Arc::new(after));
            }
            changed
        });
        lines
    }

    fn own(&self) -> MutexGuard<'_, HashMap<NodeId, Own>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, id: &NodeId) -> Option<String> {
        (!self.own().contains_key(id)).then(|| format!("[{}] node [{id}] join", id.service))
    }

    fn leave(&self, id: &NodeId) -> Option<String> {
        let mut own = self.own();
        match own.get(id) {
            None => return Some(format!("[{}] node [{id}] leave", id.service)),
            Some(Own::Leaving) => drop(own.remove(id)),
            Some(Own::Registered) => {}
        }
        None
    }
}

impl Catalog {
    fn push(&mut self, node: Arc<Node>) {
        self.services.entry(node.id.service.clone()).or_default().push(node);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HostPort, NodeMeta};
    use super::*;

    fn node(rpc: u16) -> Node {
        let ip = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        let id = NodeId { service: "user".into(), rpc: HostPort::new(ip, rpc), http: HostPort::new(ip, 1) };
        Node::new(id, NodeMeta::default())
    }

    fn ports(publisher: &Publisher) -> Vec<u16> {
        let catalog = publisher.current().expect("published");
        catalog.nodes("user").iter().filter_map(|node| node.id.rpc.port).collect()
    }

    #[test]
    fn the_first_read_is_in_key_order_and_later_nodes_follow_as_they_join() {
        let publisher = Publisher::new();
        assert!(publisher.current().is_none());
        publisher.publish(vec![node(9180), node(10180), node(8180)]);
        assert_eq!(ports(&publisher), [10180, 8180, 9180], "as texts, `10180` comes before `8180`");
        publisher.publish(vec![node(8000), node(10180), node(7000), node(9180), node(8000)]);
        assert_eq!(ports(&publisher), [10180, 9180, 8000, 7000]);
        publisher.publish(vec![node(8180), node(7000)]);
        assert_eq!(ports(&publisher), [7000, 8180], "who comes back joins at the end");
    }

    #[test]
    fn readers_are_woken_only_by_a_change_and_none_is_not_empty() {
        let publisher = Publisher::new();
        let mut watch = publisher.subscribe();
        assert!(watch.borrow_and_update().is_none());
        publisher.publish(Vec::new());
        assert!(watch.has_changed().expect("open"));
        assert_eq!(watch.borrow_and_update().as_deref(), Some(&Catalog::default()));
        publisher.publish(Vec::new());
        assert!(!watch.has_changed().expect("open"));
        publisher.publish(vec![node(1)]);
        publisher.publish(vec![node(1), node(2)]);
        assert_eq!(watch.borrow_and_update().as_ref().map(|catalog| catalog.all().count()), Some(2));
        let mut draining = node(2);
        draining.state = super::super::NodeState::Draining;
        publisher.publish(vec![node(1), draining.clone()]);
        assert!(watch.has_changed().expect("open"));
        assert_eq!(
            publisher.current().and_then(|catalog| catalog.find(&draining.id).cloned()).as_deref(),
            Some(&draining)
        );
    }

    #[test]
    fn joins_and_leaves_of_others_are_told_once_in_the_originals_form() {
        let publisher = Publisher::new();
        publisher.add_own(node(1).id);
        assert_eq!(publisher.replace(vec![node(1), node(9180)]), ["[user] node [127.0.0.1:9180_127.0.0.1:1] join"]);
        assert!(publisher.replace(vec![node(9180), node(1)]).is_empty());
        let mut stale = node(9180);
        stale.state = super::super::NodeState::Stale;
        assert!(publisher.replace(vec![stale]).is_empty(), "a change of state is no leave, nor is an own node's gap");
        assert_eq!(publisher.replace(vec![node(1)]), ["[user] node [127.0.0.1:9180_127.0.0.1:1] leave"]);
        publisher.retire_own(&node(1).id);
        assert!(publisher.replace(Vec::new()).is_empty());
        // The same id in another process.
        assert_eq!(publisher.replace(vec![node(1)]), ["[user] node [127.0.0.1:1_127.0.0.1:1] join"]);
    }

    #[test]
    fn an_id_is_own_from_registration_until_it_is_gone() {
        let publisher = Publisher::new();
        publisher.publish(Vec::new());
        publisher.add_own(node(1).id);
        publisher.publish(vec![node(1)]);
        publisher.publish(Vec::new());
        assert!(publisher.own().contains_key(&node(1).id), "the backend puts it back; that is no join");
        publisher.publish(vec![node(1)]);
        publisher.retire_own(&node(1).id);
        assert!(publisher.own().contains_key(&node(1).id));
        publisher.publish(Vec::new());
        assert!(publisher.own().is_empty());
    }
}

//! A registry inside this process, for tests and for programs that embed a whole cluster.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    CatalogWatch, Hearer, HearersWatch, Node, NodeId, NodeState, Publisher, Registry, RegistryError, check_service,
};

/// Nodes in memory. Clones of the `Arc` are handles to the same nodes.
#[derive(Debug)]
pub struct Memory {
    publisher: Publisher,
    nodes: Mutex<Nodes>,
    hearers: watch::Sender<Option<Arc<Vec<Hearer>>>>,
}

#[derive(Debug, Default)]
struct Nodes {
    /// In the order they joined.
    list: Vec<Node>,
    drained: HashSet<NodeId>,
}

impl Memory {
    /// An empty registry; its catalog is known at once.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let hearers = watch::Sender::new(Some(Arc::default()));
        let memory = Self { publisher: Publisher::new(), nodes: Mutex::default(), hearers };
        memory.publisher.publish(Vec::new());
        Arc::new(memory)
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_hearers(&self, change: impl FnOnce(&mut Vec<Hearer>)) {
        self.hearers.send_modify(|known| change(Arc::make_mut(known.get_or_insert_default())));
    }

    /// Called with the nodes locked, so that catalogs come in order.
    fn publish(&self, nodes: &Nodes) {
        let told = nodes.list.iter().cloned().map(|mut node| {
            let drained = node.meta.draining || nodes.drained.contains(&node.id);
            node.state = if drained { NodeState::Draining } else { NodeState::Ready };
            node
        });
        self.publisher.publish(told.collect());
    }
}

#[async_trait]
impl Registry for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn catalog(&self) -> CatalogWatch {
        self.publisher.subscribe()
    }

    async fn register(&self, node: Node) -> Result<(), RegistryError> {
        check_service(&node.id)?;
        let mut nodes = self.nodes();
        if nodes.list.iter().any(|known| known.id == node.id) {
            return Err(RegistryError::Taken(node.id));
        }
        self.publisher.add_own(node.id.clone());
        nodes.list.push(node);
        self.publish(&nodes);
        Ok(())
    }

    async fn deregister(&self, id: &NodeId) -> Result<(), RegistryError> {
        let mut nodes = self.nodes();
        let place = nodes.list.iter().position(|node| node.id == *id);
        let place = place.ok_or_else(|| RegistryError::Unknown(id.clone()))?;
        nodes.list[place].meta.draining = true;
        self.publish(&nodes);
        nodes.list.remove(place);
        nodes.drained.remove(id);
        self.publisher.retire_own(id);
        self.publish(&nodes);
        Ok(())
    }

    async fn set_draining(&self, id: &NodeId, draining: bool) -> Result<(), RegistryError> {
        let mut nodes = self.nodes();
        if !nodes.list.iter().any(|node| node.id == *id) {
            return Err(RegistryError::Unknown(id.clone()));
        }
        if draining {
            nodes.drained.insert(id.clone());
        } else {
            nodes.drained.remove(id);
        }
        self.publish(&nodes);
        Ok(())
    }

    fn hearers(&self) -> Option<HearersWatch> {
        Some(self.hearers.subscribe())
    }

    async fn hear(&self, hearer: Hearer) -> Result<(), RegistryError> {
        self.change_hearers(|known| known.push(hearer));
        Ok(())
    }

    async fn unhear(&self, id: &str) -> Result<(), RegistryError> {
        self.change_hearers(|known| known.retain(|hearer| hearer.id != id));
        Ok(())
    }
}

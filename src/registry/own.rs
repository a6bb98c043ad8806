//! The nodes of this process in a registry that others write: goms tells nobody of them, and knows them itself at once.

use std::collections::HashSet;

use super::{HostPort, Node, NodeId, NodeState, RegistryError};

/// They, and what this process said of them.
#[derive(Debug, Default)]
pub(super) struct OwnNodes {
    /// In the order they joined.
    nodes: Vec<Node>,
    /// Those of them that were taken out of rotation.
    drained: HashSet<NodeId>,
    /// What this process took out, whatever the others write.
    left: HashSet<NodeId>,
}

impl OwnNodes {
    /// Adds one.
    ///
    /// # Errors
    /// [`RegistryError::Taken`] when it is there already.
    pub(super) fn add(&mut self, node: Node) -> Result<(), RegistryError> {
        if self.nodes.iter().any(|known| known.id == node.id) {
            return Err(RegistryError::Taken(node.id));
        }
        self.left.remove(&node.id);
        self.nodes.push(node);
        Ok(())
    }

    /// One says that it leaves.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] when it is none of this process.
    pub(super) fn leave(&mut self, id: &NodeId) -> Result<(), RegistryError> {
        let node = self.nodes.iter_mut().find(|node| node.id == *id);
        node.ok_or_else(|| RegistryError::Unknown(id.clone()))?.meta.draining = true;
        Ok(())
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, id: &NodeId) {
        self.nodes.retain(|node| node.id != *id);
        self.drained.remove(id);
        self.left.insert(id.clone());
    }

    /// Takes one out of rotation, or puts it back. `false`: it is none of this process.
    pub(super) fn drain(&mut self, id: &NodeId, draining: bool) -> bool {
        let is_own = self.nodes.iter().any(|node| node.id == *id);
        if is_own && draining {
            self.drained.insert(id.clone());
        } else {
            self.drained.remove(id);
        }
        is_own
    }

    /// What the others wrote, with the nodes of this process in the place of what is written of them.
    pub(super) fn among<'a>(&self, written: impl IntoIterator<Item = &'a Node>) -> Vec<Node> {
        let is_own = |id: &NodeId| self.nodes.iter().map(|node| &node.id).chain(&self.left).any(|own| is_same(own, id));
        let others = written.into_iter().filter(|node| !is_own(&node.id));
        let mine = self.nodes.iter().cloned().map(|mut node| {
            let drained = node.meta.draining || self.drained.contains(&node.id);
            node.state = if drained { NodeState::Draining } else { NodeState::Ready };
            node
        });
        others.cloned().chain(mine).collect()
    }
}

/// Whether both are the same program: what others write may name only one of its ports.
fn is_same(one: &NodeId, other: &NodeId) -> bool {
    let agree = |one: HostPort, other: HostPort| one == other || one.port.is_none() || other.port.is_none();
    let same = |one: HostPort, other: HostPort| one.port.is_some() && one == other;
    one == other
        || one.service == other.service
            && agree(one.http, other.http)
            && agree(one.rpc, other.rpc)
            && (same(one.http, other.http) || same(one.rpc, other.rpc))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(rpc: Option<u16>, http: Option<u16>) -> Node {
        let at = |port| HostPort { ip: [10, 0, 0, 1].into(), port };
        Node::new(NodeId { service: "user".into(), rpc: at(rpc), http: at(http) }, crate::registry::NodeMeta::default())
    }

    #[test]
    fn an_own_node_stands_in_the_place_of_what_is_written_of_it() {
        let mut own = OwnNodes::default();
        let (mine, written, other) = (node(Some(1), Some(2)), node(None, Some(2)), node(Some(3), Some(2)));
        let all = [written, other.clone()];
        own.add(mine.clone()).expect("added");
        assert!(matches!(own.add(mine.clone()), Err(RegistryError::Taken(_))));
        assert_eq!(own.among(&all), [other.clone(), mine.clone()]);
        assert!(own.drain(&mine.id, true) && !own.drain(&other.id, true));
        assert_eq!(own.among(&all)[1].state, NodeState::Draining);
        own.leave(&mine.id).expect("it is there");
        own.remove(&mine.id);
        assert_eq!(own.among(&all), [other], "and what is written of it is hidden");
        assert!(matches!(own.leave(&mine.id), Err(RegistryError::Unknown(_))));
    }
}

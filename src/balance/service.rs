//! A service: its nodes as one catalog tells them, with what outlives a change of the catalog.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Selector;
use super::balancer::{NodeView, PickError, ServiceView};
use super::endpoint::Endpoint;
use super::permit::Permit;
use super::pick::Ring;
use crate::registry::Node;

/// A service with its nodes, which never change: another catalog makes another `Service` around the same [`Lasting`].
#[derive(Debug)]
pub(super) struct Service {
    lasting: Arc<Lasting>,
    ring: Ring,
}

/// What of a service outlives a change of its nodes.
#[derive(Debug)]
struct Lasting {
    name: String,
    selector: Selector,
    handed: AtomicU64,
}

impl Service {
    pub fn new(name: &str, selector: Selector, nodes: &[Arc<Node>]) -> Self {
        let endpoints = nodes.iter().map(|node| endpoint(node, &[])).collect();
        let lasting = Lasting { name: name.to_owned(), selector, handed: AtomicU64::new(0) };
        Self { lasting: Arc::new(lasting), ring: Ring::new(endpoints) }
    }

    /// The service with these nodes; itself where nothing changed.
    pub fn with_nodes(self: &Arc<Self>, nodes: &[Arc<Node>]) -> Arc<Self> {
        let known = &self.ring.endpoints;
        let unchanged = nodes.len() == known.len()
            && nodes.iter().zip(known).all(|(node, endpoint)| Arc::ptr_eq(node, endpoint.node()));
        if unchanged {
            return self.clone();
        }
        let endpoints = nodes.iter().map(|node| endpoint(node, known)).collect();
        Arc::new(Self { lasting: self.lasting.clone(), ring: self.ring.rebuilt(endpoints) })
    }

    /// As [`super::LocalBalancer::pick`].
    pub fn pick(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        tried: &[Arc<Node>],
        random: &AtomicU64,
    ) -> Result<Permit, PickError> {
        let lasting = &*self.lasting;
        let index = self
            .ring
            .pick(lasting.selector, client, tried, random)
            .ok_or_else(|| PickError::NoNode(lasting.name.clone()))?;
        if tried.is_empty() {
            lasting.handed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Permit::new(self.clone(), index))
    }

    /// The endpoint at an index that a pick gave.
    pub fn endpoint(&self, index: usize) -> &Endpoint {
        &self.ring.endpoints[index]
    }

    pub fn was_called(&self) -> bool {
        self.lasting.handed.load(Ordering::Relaxed) > 0
    }

    pub fn view(&self) -> ServiceView {
        let nodes = self.ring.endpoints.iter().map(|endpoint| NodeView {
            node: endpoint.node().clone(),
            in_flight: endpoint.in_flight(),
            answered: endpoint.answered(),
            refused: endpoint.refused(),
        });
        ServiceView {
            name: self.lasting.name.clone(),
            poll_next: self.ring.poll_next(),
            nodes: nodes.collect(),
            request_finish: self.lasting.handed.load(Ordering::Relaxed),
        }
    }
}

fn endpoint(node: &Arc<Node>, known: &[Arc<Endpoint>]) -> Arc<Endpoint> {
    match known.iter().find(|endpoint| endpoint.node().id == node.id) {
        Some(same) if **same.node() == **node => same.clone(),
        before => Arc::new(Endpoint::new(node.clone(), before.map(|before| &**before))),
    }
}

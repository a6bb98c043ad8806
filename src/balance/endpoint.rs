//! An endpoint: a node plus what this process measures of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::registry::{Node, NodeState};

/// A node as this process sees it. The counters live as long as the node is known, whatever state it goes through.
#[derive(Debug)]
pub struct Endpoint {
    node: Arc<Node>,
    load: Arc<Load>,
    /// Identifies the node to the source-hash picker.
    pub(super) hash: u64,
    /// A stale node that refused a connection is gone.
    given_up: AtomicBool,
}

#[derive(Debug, Default)]
struct Load {
    in_flight: AtomicUsize,
    answered: AtomicU64,
    refused: AtomicU64,
    /// The last try found nobody; for the log, which tells changes.
    is_away: AtomicBool,
}

impl Endpoint {
    pub(super) fn new(node: Arc<Node>, before: Option<&Endpoint>) -> Self {
        let hash = super::pick::hash_bytes(node.id.to_string().as_bytes());
        let load = before.map(|before| before.load.clone()).unwrap_or_default();
        Self { node, load, hash, given_up: AtomicBool::new(false) }
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Requests that have no complete answer yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.load.in_flight.load(Ordering::Relaxed)
    }

    /// Tries that it answered, whatever the status.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.load.answered.load(Ordering::Relaxed)
    }

    /// Tries that found nobody listening.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.load.refused.load(Ordering::Relaxed)
    }

    /// Whether a new request may go there.
    #[must_use]
    pub fn is_pickable(&self) -> bool {
        self.node.id.http.port.is_some()
            && match self.node.state {
                NodeState::Ready => true,
                NodeState::Draining => false,
                NodeState::Stale => !self.given_up.load(Ordering::Relaxed),
            }
    }
}

/// The right to send one try to a node; counts as in flight until it is dropped, so it travels with the answer's body.
#[derive(Debug)]
pub struct Permit {
    endpoint: Arc<Endpoint>,
}

impl Permit {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.load.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { endpoint }
    }

    /// Where to send it.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.endpoint.node
    }

    /// The node answered.
    pub fn answered(&self) {
        let (load, id) = (&self.endpoint.load, &self.endpoint.node.id);
        load.answered.fetch_add(1, Ordering::Relaxed);
        if load.is_away.load(Ordering::Relaxed) && load.is_away.swap(false, Ordering::Relaxed) {
            log::info!("node can be reached again service={} node={id}", id.service);
        }
    }

    /// Nobody listens there: a node that is only `stale` gets nothing more.
    pub fn refused(&self) {
        let (load, id) = (&self.endpoint.load, &self.endpoint.node.id);
        load.refused.fetch_add(1, Ordering::Relaxed);
        if self.endpoint.node.state == NodeState::Stale && !self.endpoint.given_up.swap(true, Ordering::Relaxed) {
            log::info!("stale node refused a connection and gets no more calls service={} node={id}", id.service);
        } else if !load.is_away.swap(true, Ordering::Relaxed) {
            log::warn!("node cannot be reached, its calls go to the others service={} node={id}", id.service);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.endpoint.load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

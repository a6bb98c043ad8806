//! An endpoint: a node plus what this process measures of it.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::outlier::Health;
use crate::registry::{Node, NodeState};

/// A node as this process sees it. The counters live as long as the node is known, whatever state it goes through.
#[derive(Debug)]
pub(super) struct Endpoint {
    node: Arc<Node>,
    load: Arc<Load>,
    /// Identifies the node to the source-hash picker.
    pub hash: u64,
    /// A stale node that refused a connection is gone.
    given_up: AtomicBool,
    health: Arc<Health>,
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
    pub fn new(node: Arc<Node>, before: Option<&Endpoint>) -> Self {
        let hash = super::pick::hash_bytes(node.id.to_string().as_bytes());
        let load = before.map(|before| before.load.clone()).unwrap_or_default();
        // under the same addresses another process may have started, which did nothing wrong yet
        let same = before.filter(|before| before.node.meta.started_ms == node.meta.started_ms);
        let health = same.map(|before| before.health.clone()).unwrap_or_default();
        Self { node, load, hash, given_up: AtomicBool::new(false), health }
    }

    /// How it did of late.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Requests that have no complete answer yet.
    pub fn in_flight(&self) -> usize {
        self.load.in_flight.load(Ordering::Relaxed)
    }

    /// Tries that it answered, whatever the status.
    pub fn answered(&self) -> u64 {
        self.load.answered.load(Ordering::Relaxed)
    }

    /// Tries that found nobody listening.
    pub fn refused(&self) -> u64 {
        self.load.refused.load(Ordering::Relaxed)
    }

    /// Whether a new request may go there.
    pub fn is_pickable(&self) -> bool {
        self.node.id.http.port.is_some()
            && match self.node.state {
                NodeState::Ready => true,
                NodeState::Draining => false,
                NodeState::Stale => !self.given_up.load(Ordering::Relaxed),
            }
    }

    /// Whether it may and is not ejected.
    pub fn is_in(&self, now_ms: &impl Deref<Target = u64>) -> bool {
        self.is_pickable() && !self.health.is_out(now_ms)
    }

    /// One more request is in flight.
    pub fn enter(&self) {
        self.load.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// One less is.
    pub fn leave(&self) {
        self.load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn note_answer(&self) {
        let (load, id) = (&self.load, &self.node.id);
        load.answered.fetch_add(1, Ordering::Relaxed);
        if load.is_away.load(Ordering::Relaxed) && load.is_away.swap(false, Ordering::Relaxed) {
            log::info!("node can be reached again service={} node={id}", id.service);
        }
    }

    pub fn note_refusal(&self) {
        let (load, id) = (&self.load, &self.node.id);
        load.refused.fetch_add(1, Ordering::Relaxed);
        if self.node.state == NodeState::Stale && !self.given_up.swap(true, Ordering::Relaxed) {
            log::info!("stale node refused a connection and gets no more calls service={} node={id}", id.service);
        } else if !load.is_away.swap(true, Ordering::Relaxed) {
            log::warn!("node cannot be reached, its calls go to the others service={} node={id}", id.service);
        }
    }
}

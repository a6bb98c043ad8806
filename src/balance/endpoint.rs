//! An endpoint: a node plus what this process measures of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::clock::Now;
use super::latency::Latency;
use super::outlier::{Health, WARM};
use super::pick::Kind;
use super::settings::Settings;
use crate::registry::{Node, NodeState};

/// A node as this process sees it. The counters live as long as the node is known, whatever state it goes through.
#[derive(Debug)]
pub(super) struct Endpoint {
    node: Arc<Node>,
    load: Arc<Load>,
    /// Identifies the node to the source-hash picker.
    pub hash: u64,
    /// Its share of the requests, as it says itself.
    pub weight: u32,
    /// It stands in the zone that is preferred.
    pub is_near: bool,
    /// It is of the version and the zone that are wanted.
    fits: bool,
    takes_http: bool,
    takes_rpc: bool,
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
    latency: Latency,
}

/// A node asks for a thousand times another's share at most: the arithmetic stays exact, whatever it says of itself.
pub const MOST_WEIGHT: u32 = 1_000;

impl Endpoint {
    /// An endpoint for a node that came at `joined_ms` on the balancer's clock (`None`: it was there before the balancer),
    /// or that is known as `before`.
    pub fn new(node: Arc<Node>, before: Option<&Endpoint>, settings: &Settings, joined_ms: Option<u64>) -> Self {
        // under the same addresses another process may have started, which did nothing wrong yet
        let same = before.filter(|before| before.node.meta.started_ms == node.meta.started_ms);
        let health = match same {
            Some(before) => before.health.clone(),
            None => Arc::new(joined_ms.map_or_else(Health::default, Health::joined)),
        };
        let meta = &node.meta;
        let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        Self {
            hash: super::pick::hash_bytes(node.id.to_string().as_bytes()),
            load: before.map(|before| before.load.clone()).unwrap_or_default(),
            weight: meta.weight.clamp(1, MOST_WEIGHT),
            is_near: !meta.zone.is_empty() && settings.near_zone.as_ref() == Some(&meta.zone),
            fits: fits(&settings.version, &meta.version) && fits(&settings.zone, &meta.zone),
            takes_http: node.takes_http(),
            takes_rpc: node.rpc_protocol().is_some(),
            given_up: AtomicBool::new(false),
            health,
            node,
        }
    }

    /// How fast it answers, where that is measured.
    pub fn latency(&self) -> &Latency {
        &self.load.latency
    }

    /// How much of its share it gets after it came, in thousandths.
    pub fn warmth(&self, settings: &Settings, now: &Now<'_>) -> u32 {
        settings.slow_start.map_or(WARM, |slow_start| self.health.warmth(slow_start, now))
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

    /// Whether a new request of that kind may go there.
    pub fn takes(&self, kind: Kind) -> bool {
        self.is_pickable()
            && match kind {
                Kind::Http => self.takes_http,
                Kind::Rpc => self.takes_rpc,
            }
    }

    /// Whether a new request of any kind may go there.
    pub fn is_pickable(&self) -> bool {
        self.fits
            && (self.takes_http || self.takes_rpc)
            && match self.node.state {
                NodeState::Ready => true,
                NodeState::Draining => false,
                NodeState::Stale => !self.given_up.load(Ordering::Relaxed),
            }
    }

    /// Whether one may, it is not ejected and is well.
    pub fn is_in(&self, kind: Kind, now: &Now<'_>) -> bool {
        self.takes(kind) && !self.health.is_unwell() && !self.health.is_out(now)
    }

    /// One more request is in flight, unless there are as many as may be.
    pub fn enter(&self, most: Option<usize>) -> bool {
        let Some(most) = most else {
            self.load.in_flight.fetch_add(1, Ordering::Relaxed);
            return true;
        };
        let one_more = |now| (now < most).then_some(now + 1);
        self.load.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
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

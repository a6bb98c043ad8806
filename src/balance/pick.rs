//! The pickers: which of a service's endpoints gets the next try.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Selector;
use super::endpoint::Endpoint;
use crate::registry::Node;

/// A service's endpoints in catalog order, and whose turn it is.
#[derive(Debug)]
pub(super) struct Ring {
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Index of the endpoint from which the next search starts; always under `endpoints.len()`, or 0.
    turn: AtomicUsize,
}

impl Ring {
    /// The first endpoint has the turn.
    pub fn new(endpoints: Vec<Arc<Endpoint>>) -> Self {
        Self { endpoints, turn: AtomicUsize::new(0) }
    }

    /// The ring after a change of the catalog. The turn stays with the node that had it, or goes to the first node
    /// after it that is still there.
    pub fn rebuilt(&self, endpoints: Vec<Arc<Endpoint>>) -> Self {
        let turn = self.turn.load(Ordering::Relaxed);
        let old = &self.endpoints;
        let next = (0..old.len())
            .map(|step| &old[(turn + step) % old.len()].node().id)
            .find_map(|id| endpoints.iter().position(|endpoint| endpoint.node().id == *id));
        // nobody who stood in the old ring from `turn` on is left: begin at the front
        Self { endpoints, turn: AtomicUsize::new(next.unwrap_or(0)) }
    }

    /// The index that the next request uses.
    pub fn poll_next(&self, now_ms: &impl Deref<Target = u64>) -> usize {
        let turn = self.turn.load(Ordering::Relaxed);
        self.first_from(turn, |endpoint| endpoint.is_in(now_ms))
            .or_else(|| self.first_from(turn, Endpoint::is_pickable))
            .unwrap_or(turn)
    }

    /// Chooses an endpoint and gives its index; one that is ejected only if no other is left, and one that was tried only
    /// if no other can be called at all. `None`: there is none.
    pub fn pick(
        &self,
        selector: Selector,
        client: Option<IpAddr>,
        tried: &[Arc<Node>],
        random: &AtomicU64,
        now_ms: &impl Deref<Target = u64>,
    ) -> Option<usize> {
        let is_in = |endpoint: &Endpoint| endpoint.is_in(now_ms);
        if !tried.is_empty() {
            let is_fresh = |endpoint: &Endpoint| tried.iter().all(|tried| tried.id != endpoint.node().id);
            let picked = self
                .select(selector, client, random, |endpoint| is_in(endpoint) && is_fresh(endpoint))
                .or_else(|| self.select(selector, client, random, |node| node.is_pickable() && is_fresh(node)));
            if picked.is_some() {
                return picked;
            }
        }
        let picked = self.select(selector, client, random, is_in);
        picked.or_else(|| self.select(selector, client, random, Endpoint::is_pickable))
    }

    fn select(
        &self,
        selector: Selector,
        client: Option<IpAddr>,
        random: &AtomicU64,
        usable: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        match selector {
            Selector::RoundRobin => self.take_turn(usable),
            Selector::Random => self.any(random, usable),
            Selector::LeastConn => self.least_loaded(usable),
            Selector::P2c => {
                let (one, other) = (self.any(random, &usable)?, self.any(random, &usable)?);
                let load = |index: usize| self.endpoints[index].in_flight();
                Some(if load(other) < load(one) { other } else { one })
            }
            Selector::SourceHash => match client {
                Some(client) => self.by_source(client, usable),
                None => self.take_turn(usable),
            },
        }
    }

    fn take_turn(&self, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let mut turn = self.turn.load(Ordering::Relaxed);
        loop {
            let index = self.first_from(turn, &usable)?;
            let after = (index + 1) % self.endpoints.len();
            match self.turn.compare_exchange_weak(turn, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(index),
                Err(now) => turn = now,
            }
        }
    }

    fn any(&self, random: &AtomicU64, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let count = self.usable(&usable).count();
        let nth = (next_random(random) % count.max(1) as u64) as usize;
        self.usable(usable).nth(nth).map(|(index, _)| index)
    }

    /// Among equals the one whose turn it is.
    fn least_loaded(&self, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let least = self.usable(&usable).map(|(_, endpoint)| endpoint.in_flight()).min();
        self.take_turn(|endpoint| usable(endpoint) && Some(endpoint.in_flight()) <= least)
            .or_else(|| self.take_turn(usable)) // the loads moved between the two looks
    }

    /// Highest random weight (Thaler and Ravishankar, 1998): when a node leaves, only its own clients move.
    fn by_source(&self, client: IpAddr, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let client = match client {
            IpAddr::V4(ip) => hash_bytes(&ip.octets()),
            IpAddr::V6(ip) => hash_bytes(&ip.octets()),
        };
        self.usable(usable).max_by_key(|(_, endpoint)| mix(client ^ endpoint.hash)).map(|(index, _)| index)
    }

    fn usable(&self, usable: impl Fn(&Endpoint) -> bool) -> impl Iterator<Item = (usize, &Arc<Endpoint>)> {
        self.endpoints.iter().enumerate().filter(move |(_, endpoint)| usable(endpoint))
    }

    fn first_from(&self, turn: usize, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let len = self.endpoints.len();
        (0..len).map(|step| (turn + step) % len).find(|&index| usable(&self.endpoints[index]))
    }
}

/// FNV-1a, 64 bits.
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// SplitMix64's finaliser (Steele, Lea and Flood, 2014).
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn next_random(state: &AtomicU64) -> u64 {
    mix(state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
}

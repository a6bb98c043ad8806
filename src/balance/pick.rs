//! The pickers: which of a service's endpoints gets the next try.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Selector;
use super::clock::Now;
use super::endpoint::Endpoint;
use super::settings::Settings;
use super::turns::Turns;
use crate::registry::Node;

/// A service's endpoints in catalog order, and whose turn it is.
#[derive(Debug)]
pub(super) struct Ring {
    pub endpoints: Vec<Arc<Endpoint>>,
    turns: Turns,
    /// All nodes say the same weight of themselves.
    is_even: bool,
}

/// What is to be sent to a node; not each takes every kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An HTTP request, to its HTTP port.
    Http,
    /// A remote call, by the [`RpcProtocol`](crate::registry::RpcProtocol) that the node speaks.
    Rpc,
}

/// What a pick looks at besides the endpoints.
pub(super) struct Ask<'a> {
    pub kind: Kind,
    pub settings: &'a Settings,
    pub client: Option<IpAddr>,
    pub tried: &'a [Arc<Node>],
    pub random: &'a AtomicU64,
    pub now: &'a Now<'a>,
}

/// Why nobody was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nobody {
    /// Whoever could be called has as many requests in flight as it may.
    HasRoom,
    /// There is none to call.
    IsThere,
}

impl Ask<'_> {
    fn has_room(&self, endpoint: &Endpoint) -> bool {
        self.settings.limit.as_ref().is_none_or(|limit| endpoint.in_flight() < limit.in_flight)
    }

    /// What an endpoint weighs now; over 0.
    fn weight(&self, endpoint: &Endpoint) -> i64 {
        i64::from(endpoint.weight) * i64::from(endpoint.warmth(self.settings, self.now))
    }

    /// Its requests in flight for its weight, on any scale.
    fn load_share(&self, endpoint: &Endpoint) -> u128 {
        ((endpoint.in_flight() as u128) << 32) / u128::from(self.weight(endpoint).unsigned_abs())
    }
}

impl Ring {
    /// The first endpoint has the turn.
    pub fn new(endpoints: Vec<Arc<Endpoint>>) -> Self {
        Self::with_turns(endpoints, Turns::default())
    }

    fn with_turns(endpoints: Vec<Arc<Endpoint>>, turns: Turns) -> Self {
        let is_even = endpoints.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        Self { endpoints, turns, is_even }
    }

    /// The ring after a change of the catalog. The turn stays with the node that had it, or goes to the first node
    /// after it that is still there; credits stay with their nodes.
    pub fn rebuilt(&self, endpoints: Vec<Arc<Endpoint>>) -> Self {
        let (turn, old) = (self.turns.next(), &self.endpoints);
        let next = (0..old.len())
            .map(|step| &old[(turn + step) % old.len()].node().id)
            .find_map(|id| endpoints.iter().position(|endpoint| endpoint.node().id == *id));
        let before = self.turns.credit();
        let place = |new: &Arc<Endpoint>| old.iter().position(|old| old.node().id == new.node().id);
        let credit = |new| place(new).and_then(|place| before.get(place)).copied().unwrap_or(0);
        let credits = endpoints.iter().map(credit).collect();
        // nobody who stood in the old ring from `turn` on is left: begin at the front
        Self::with_turns(endpoints, Turns::new(next.unwrap_or(0), credits))
    }

    /// The index that the next request uses.
    pub fn poll_next(&self, ask: &Ask<'_>) -> usize {
        let peek = |usable: &dyn Fn(&Endpoint) -> bool| {
            let (len, usable) = (self.endpoints.len(), |index: usize| usable(&self.endpoints[index]));
            if ask.settings.selector != Selector::RoundRobin || self.weighs_even(ask) {
                return self.turns.peek(len, usable);
            }
            self.turns.peek_weighted(len, |index| usable(index).then(|| ask.weight(&self.endpoints[index])))
        };
        let found = peek(&|endpoint| endpoint.is_in(ask.kind, ask.now) && endpoint.is_near);
        let found = found.or_else(|| peek(&|endpoint| endpoint.is_in(ask.kind, ask.now)));
        found.or_else(|| peek(&|endpoint| endpoint.takes(ask.kind))).unwrap_or_else(|| self.turns.next())
    }

    /// Chooses an endpoint and gives its index: a near one if there is one, one that is ejected only if no other is left,
    /// and one that was tried only if no other can be called at all. One that is busy is waited for rather than that.
    pub fn pick(&self, ask: &Ask<'_>) -> Result<usize, Nobody> {
        let is_fresh = |endpoint: &Endpoint| ask.tried.iter().all(|tried| tried.id != endpoint.node().id);
        match self.pick_among(ask, is_fresh) {
            Err(Nobody::IsThere) if !ask.tried.is_empty() => self.pick_among(ask, |_| true),
            found => found,
        }
    }

    fn pick_among(&self, ask: &Ask<'_>, wanted: impl Fn(&Endpoint) -> bool) -> Result<usize, Nobody> {
        let is_in = |endpoint: &Endpoint| endpoint.is_in(ask.kind, ask.now) && wanted(endpoint);
        let is_left = |endpoint: &Endpoint| endpoint.takes(ask.kind) && wanted(endpoint);
        if ask.settings.near_zone.is_some() {
            let near = self.select(ask, |endpoint| endpoint.is_near && is_in(endpoint) && ask.has_room(endpoint));
            if let Some(index) = near {
                return Ok(index);
            }
        }
        if let Some(index) = self.select(ask, |endpoint| is_in(endpoint) && ask.has_room(endpoint)) {
            return Ok(index);
        }
        if ask.settings.limit.is_some() && self.usable(is_in).next().is_some() {
            return Err(Nobody::HasRoom);
        }
        match self.select(ask, |endpoint| is_left(endpoint) && ask.has_room(endpoint)) {
            Some(index) => Ok(index),
            None if self.usable(is_left).next().is_some() => Err(Nobody::HasRoom),
            None => Err(Nobody::IsThere),
        }
    }

    fn select(&self, ask: &Ask<'_>, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        match (ask.settings.selector, ask.client) {
            (Selector::RoundRobin | Selector::SourceHash, None) | (Selector::RoundRobin, _) => {
                self.take_turn(ask, usable)
            }
            (Selector::Random, _) => self.any(ask, usable),
            (Selector::LeastConn, _) => self.least_loaded(ask, usable),
            (Selector::P2c, _) => self.better_of_two(ask, usable),
            (Selector::SourceHash, Some(client)) => self.by_source(ask, client, usable),
        }
    }

    fn take_turn(&self, ask: &Ask<'_>, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let (len, usable) = (self.endpoints.len(), |index: usize| usable(&self.endpoints[index]));
        if self.weighs_even(ask) {
            self.turns.take(len, usable)
        } else {
            self.turns.take_weighted(len, |index| usable(index).then(|| ask.weight(&self.endpoints[index])))
        }
    }

    fn any(&self, ask: &Ask<'_>, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let total: i64 = self.usable(&usable).map(|(_, endpoint)| ask.weight(endpoint)).sum();
        let mut left = below(next_random(ask.random), total);
        let mut has_it = |endpoint| {
            left -= ask.weight(endpoint);
            left < 0
        };
        self.usable(usable).find(|(_, endpoint)| has_it(endpoint)).map(|(index, _)| index)
    }

    /// Fewest requests in flight for its weight; among equals the one whose turn it is.
    fn least_loaded(&self, ask: &Ask<'_>, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let load = |endpoint: &Endpoint| ask.load_share(endpoint);
        let least = self.usable(&usable).map(|(_, endpoint)| load(endpoint)).min();
        self.take_turn(ask, |endpoint| usable(endpoint) && Some(load(endpoint)) <= least)
            .or_else(|| self.take_turn(ask, usable)) // the loads moved between the two looks
    }

    /// Power of two choices (Mitzenmacher, 2001): of two different ones the one with the smaller product of expected
    /// latency and requests in flight, for its weight. Latency says nothing while that of one is not known.
    fn better_of_two(&self, ask: &Ask<'_>, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let count = self.usable(&usable).count();
        let nth = |nth: usize| self.usable(&usable).nth(nth);
        let first = next_random(ask.random) as usize % count.max(1);
        let (one, first_node) = nth(first)?;
        if count == 1 {
            return Some(one);
        }
        let second = next_random(ask.random) as usize % (count - 1);
        let Some((other, second_node)) = nth(if second < first { second } else { second + 1 }) else {
            return Some(one); // it just became unusable
        };
        let latencies =
            (first_node.latency().expected_us(ask.now.us()), second_node.latency().expected_us(ask.now.us()));
        let (one_us, other_us) = match latencies {
            (Some(one), Some(other)) => (one, other),
            // among equals the one that is not measured yet
            (one, other) => (if one.is_some() { 1.001 } else { 1.0 }, if other.is_some() { 1.001 } else { 1.0 }),
        };
        let cost = |endpoint: &Endpoint, us: f64| us * (endpoint.in_flight() + 1) as f64 / ask.weight(endpoint) as f64;
        Some(if cost(second_node, other_us) < cost(first_node, one_us) { other } else { one })
    }

    /// Highest random weight (Thaler and Ravishankar, 1998): when a node leaves, only its own clients move. With weights
    /// as Schindelhauer and Schomaker (2005) do; without it is the same order.
    fn by_source(&self, ask: &Ask<'_>, client: IpAddr, usable: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let client = match client {
            IpAddr::V4(ip) => hash_bytes(&ip.octets()),
            IpAddr::V6(ip) => hash_bytes(&ip.octets()),
        };
        let hash = |endpoint: &Endpoint| mix(client ^ endpoint.hash);
        if self.weighs_even(ask) {
            return self.usable(usable).max_by_key(|(_, endpoint)| hash(endpoint)).map(|(index, _)| index);
        }
        let score = |endpoint: &Endpoint| {
            let share = ((hash(endpoint) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64; // between 0 and 1, neither of them
            -(ask.weight(endpoint) as f64) / share.ln()
        };
        let scored = self.usable(usable).map(|(index, endpoint)| (score(endpoint), index));
        scored.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, index)| index)
    }

    fn usable(&self, usable: impl Fn(&Endpoint) -> bool) -> impl Iterator<Item = (usize, &Arc<Endpoint>)> {
        self.endpoints.iter().enumerate().filter(move |(_, endpoint)| usable(endpoint))
    }

    /// All have the same weight now, so that turns need none.
    fn weighs_even(&self, ask: &Ask<'_>) -> bool {
        let warmth = |endpoint: &Arc<Endpoint>| endpoint.warmth(ask.settings, ask.now);
        self.is_even
            && (ask.settings.slow_start.is_none()
                || self.endpoints.windows(2).all(|pair| warmth(&pair[0]) == warmth(&pair[1])))
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

/// A number from 0 to under `limit`. With weights of at most a million, none is favoured to speak of.
fn below(random: u64, limit: i64) -> i64 {
    (random % limit.max(1).unsigned_abs()) as i64 // under `limit`
}

fn next_random(state: &AtomicU64) -> u64 {
    mix(state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
}

//! A service: its nodes as one catalog tells them, with what outlives a change of the catalog.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;

use super::Selector;
use super::balancer::{NodeView, PickError, ServiceView};
use super::breaker::{Circuit, Passage};
use super::budget::Budget;
use super::clock::Clock;
use super::endpoint::Endpoint;
use super::outlier::Reason;
use super::permit::{Admission, Permit};
use super::pick::{Ask, Kind, Nobody, Ring};
use super::queue::Queue;
use super::settings::{Ejection, Settings};
use super::shed::Shedder;
use crate::registry::{Node, NodeId};

/// A service with its nodes, which never change: another catalog makes another `Service` around the same [`Lasting`].
#[derive(Debug)]
pub(super) struct Service {
    lasting: Arc<Lasting>,
    settings: Arc<Settings>,
    ring: Ring,
}

/// What of a service outlives a change of its nodes.
#[derive(Debug)]
struct Lasting {
    name: String,
    clock: Clock,
    handed: AtomicU64,
    /// One node at a time is ejected, so that two workers together leave as many in as one would.
    ejecting: Mutex<()>,
    circuit: Circuit,
    budget: Mutex<Budget>,
    queue: Queue,
    shedder: Shedder,
    counters: Counters,
}

/// What a pick is for.
pub(super) struct Call<'a> {
    pub kind: Kind,
    pub client: Option<IpAddr>,
    pub tried: &'a [Arc<Node>],
    pub random: &'a AtomicU64,
}

/// What a service counts for `/metrics`.
#[derive(Debug)]
pub(super) struct Counters {
    pub ejections: IntCounter,
    pub breaks: IntCounter,
    pub shed: IntCounter,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Service {
    /// A service without nodes yet.
    pub fn new(name: &str, settings: Settings, clock: Clock, counters: Counters) -> Self {
        let lasting = Lasting {
            name: name.to_owned(),
            clock,
            handed: AtomicU64::new(0),
            ejecting: Mutex::default(),
            circuit: Circuit::default(),
            budget: Mutex::default(),
            queue: Queue::default(),
            shedder: Shedder::default(),
            counters,
        };
        Self { lasting: Arc::new(lasting), settings: Arc::new(settings), ring: Ring::new(Vec::new()) }
    }

    /// The service with these nodes; itself where nothing changed. `were_there`: new ones did not come just now.
    pub fn with_nodes(self: &Arc<Self>, nodes: &[Arc<Node>], were_there: bool) -> Arc<Self> {
        let known = &self.ring.endpoints;
        let unchanged = nodes.len() == known.len()
            && nodes.iter().zip(known).all(|(node, endpoint)| Arc::ptr_eq(node, endpoint.node()));
        if unchanged {
            return self.clone();
        }
        let joined_ms = (!were_there).then(|| self.lasting.clock.now_ms());
        let endpoint = |node: &Arc<Node>| match known.iter().find(|endpoint| endpoint.node().id == node.id) {
            Some(same) if **same.node() == **node => same.clone(),
            before => {
                let before = before.map(|before| &**before);
                Arc::new(Endpoint::new(node.clone(), before, &self.settings, joined_ms))
            }
        };
        let endpoints = nodes.iter().map(endpoint).collect();
        let (lasting, settings) = (self.lasting.clone(), self.settings.clone());
        Arc::new(Self { lasting, settings, ring: self.ring.rebuilt(endpoints) })
    }

    /// The service with these settings; itself where they are the same.
    pub fn with_settings(self: &Arc<Self>, settings: &Settings) -> Arc<Self> {
        if *self.settings == *settings {
            return self.clone();
        }
        let again = |known: &Arc<Endpoint>| Arc::new(Endpoint::new(known.node().clone(), Some(known), settings, None));
        let endpoints = self.ring.endpoints.iter().map(again).collect();
        let (lasting, settings) = (self.lasting.clone(), Arc::new(settings.clone()));
        Arc::new(Self { lasting, settings, ring: self.ring.rebuilt(endpoints) })
    }

    /// As [`super::LocalBalancer::pick`]. A new request stands behind those that wait; `is_first_in_line` is one of those.
    pub fn pick(self: &Arc<Self>, call: &Call<'_>, is_first_in_line: bool) -> Result<Permit, PickError> {
        let (lasting, now) = (&*self.lasting, self.lasting.clock.now());
        if call.tried.is_empty() && !is_first_in_line && lasting.queue.waiting() > 0 {
            return Err(PickError::Full(lasting.name.clone()));
        }
        if let Some(target) = self.settings.shed
            && call.tried.is_empty()
            && !is_first_in_line
            && lasting.shedder.refuses(micros(target), now.ms())
        {
            lasting.counters.shed.inc();
            return Err(PickError::Shed(lasting.name.clone()));
        }
        let passage = match self.settings.breaker {
            Some(_) => lasting.circuit.enter(|| now.ms()),
            None => Passage::Free,
        };
        if let Passage::Refused { retry_after } = passage {
            return Err(PickError::Open { service: lasting.name.clone(), retry_after });
        }
        let &Call { kind, client, tried, random } = call;
        let ask = Ask { kind, settings: &self.settings, client, tried, random, now: &now };
        let index = self.enter_one(&ask).inspect_err(|_| self.end_probe(passage))?;
        if tried.is_empty() {
            lasting.handed.fetch_add(1, Ordering::Relaxed);
        }
        let is_trial = self.endpoint(index).health().begin_trial(&now);
        let started_us = (self.settings.selector == Selector::P2c || self.settings.shed.is_some()).then(|| now.us());
        Ok(Permit::new(self.clone(), index, Admission { passage, is_trial, started_us }))
    }

    fn enter_one(&self, ask: &Ask<'_>) -> Result<usize, PickError> {
        let most = self.settings.limit.as_ref().map(|limit| limit.in_flight);
        loop {
            let index = self.ring.pick(ask).map_err(|nobody| match nobody {
                Nobody::HasRoom => PickError::Full(self.lasting.name.clone()),
                Nobody::IsThere => PickError::NoNode(self.lasting.name.clone()),
            })?;
            if self.endpoint(index).enter(most) {
                return Ok(index);
            } // else another worker took the last room since
        }
    }

    /// Waits in the queue until `attempt` gives something else than [`PickError::Full`]. That is given when the queue is
    /// full too, or the wait too long.
    pub async fn queued(&self, mut attempt: impl FnMut() -> Result<Permit, PickError>) -> Result<Permit, PickError> {
        let lasting = &*self.lasting;
        let full = || PickError::Full(lasting.name.clone());
        let limit = self.settings.limit.as_ref().ok_or_else(full)?;
        let place = lasting.queue.enter(limit.queue).ok_or_else(full)?;
        let waiting = place.wait_for(|| match attempt() {
            Err(PickError::Full(_)) => None,
            found => Some(found),
        });
        tokio::time::timeout(limit.queue_timeout, waiting).await.unwrap_or_else(|_| Err(full()))
    }

    /// There is a newer catalog.
    pub fn nodes_changed(&self) {
        self.lasting.queue.all_changed();
    }

    /// A request has come to its end.
    pub fn one_left(&self) {
        if self.settings.limit.is_some() {
            self.lasting.queue.one_left();
        }
    }

    /// A request that passed the breaker has come to its end.
    pub fn end_probe(&self, passage: Passage) {
        if passage == Passage::Probe {
            self.lasting.circuit.end_probe();
        }
    }

    /// Takes a retry out of what the service may get; `false`: there is none left.
    pub fn take_retry(&self) -> bool {
        let requests = self.lasting.handed.load(Ordering::Relaxed);
        self.lasting.budget.lock().unwrap_or_else(PoisonError::into_inner).take(requests)
    }

    /// A try on this endpoint that began then was answered, or failed.
    pub fn measure(&self, index: usize, started_us: u64, is_answered: bool) {
        let now_us = self.lasting.clock.now().us();
        let (latency, took_us) = (self.endpoint(index).latency(), now_us.saturating_sub(started_us));
        if self.settings.shed.is_some() {
            self.lasting.shedder.measure(took_us);
        }
        if is_answered { latency.answered(took_us, now_us) } else { latency.failed(took_us, now_us) }
    }

    /// Whether an answer with this status counts as a failure.
    pub fn is_failure(&self, status: u16) -> bool {
        self.settings.ejection.as_ref().is_some_and(|ejection| ejection.is_failure(status))
    }

    /// A success there is news that should not wait for the end of the answer's body.
    pub fn waits_for(&self, index: usize) -> bool {
        self.endpoint(index).health().is_ejected() || self.lasting.circuit.open_for(|| 0).is_some()
    }

    /// A try on this endpoint went well.
    pub fn succeeded(&self, index: usize) {
        let (lasting, endpoint) = (&*self.lasting, self.endpoint(index));
        let now_ms = || lasting.clock.now_ms();
        if endpoint.health().succeeded(self.settings.ejection.as_ref(), now_ms) {
            log::info!("node is back after its ejection service={} node={}", lasting.name, endpoint.node().id);
        }
        if self.settings.breaker.is_some() && lasting.circuit.succeeded(now_ms) {
            log::info!("breaker closed, the service answers again service={}", lasting.name);
        }
    }

    /// A try on this endpoint failed.
    pub fn failed(&self, index: usize) {
        let (lasting, now_ms) = (&*self.lasting, self.lasting.clock.now_ms());
        let ejection = self.settings.ejection.as_ref();
        let reason = self.endpoint(index).health().failed(ejection, now_ms);
        if let (Some(ejection), Some(reason)) = (ejection, reason) {
            self.eject(index, ejection, reason, now_ms);
        }
        let every_node_fails = || self.pickable().all(|endpoint| endpoint.health().is_failing());
        if let Some(breaker) = &self.settings.breaker
            && lasting.circuit.failed(breaker, now_ms, every_node_fails)
        {
            lasting.counters.breaks.inc();
            let (name, open) = (&lasting.name, breaker.open);
            log::warn!("breaker opened, every node of the service fails service={name} for={open:?}");
        }
    }

    fn pickable(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.ring.endpoints.iter().filter(|endpoint| endpoint.is_pickable())
    }

    /// Ejects a node, unless too many are out already.
    fn eject(&self, index: usize, ejection: &Ejection, reason: Reason, now_ms: u64) {
        let (lasting, endpoint) = (&*self.lasting, self.endpoint(index));
        let _one_at_a_time = lasting.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let health = endpoint.health();
        if health.out_for(now_ms).is_some_and(|left| reason != Reason::Trial || !left.is_zero()) {
            return; // another worker was faster
        }
        let id = &endpoint.node().id;
        let others_out = self.pickable().filter(|other| other.node().id != *id && other.health().is_ejected());
        if others_out.count() >= ejection.most_out(self.pickable().count()) {
            return;
        }
        let duration = health.eject(ejection, now_ms);
        lasting.counters.ejections.inc();
        let name = &lasting.name;
        log::warn!(
            "node ejected, its calls go to the others service={name} node={id} for={duration:?} reason=\"{reason}\""
        );
    }

    /// Its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.ring.endpoints.iter().map(|endpoint| endpoint.node())
    }

    /// What health checks say of a node, where it is one of these.
    pub fn report(&self, id: &NodeId, is_well: bool) {
        if let Some(endpoint) = self.ring.endpoints.iter().find(|endpoint| endpoint.node().id == *id) {
            endpoint.health().set_well(is_well);
        }
    }

    /// The endpoint at an index that a pick gave.
    pub fn endpoint(&self, index: usize) -> &Endpoint {
        &self.ring.endpoints[index]
    }

    /// Its full name.
    pub fn name(&self) -> &str {
        &self.lasting.name
    }

    pub fn was_called(&self) -> bool {
        self.lasting.handed.load(Ordering::Relaxed) > 0
    }

    pub fn view(&self) -> ServiceView {
        let (now, random) = (self.lasting.clock.now(), AtomicU64::new(0)); // what is random cannot be foretold
        let kind = if self.ring.endpoints.iter().any(|known| known.takes(Kind::Http)) { Kind::Http } else { Kind::Rpc };
        let ask = Ask { kind, settings: &self.settings, client: None, tried: &[], random: &random, now: &now };
        let nodes = self.ring.endpoints.iter().map(|endpoint| NodeView {
            node: endpoint.node().clone(),
            in_flight: endpoint.in_flight(),
            answered: endpoint.answered(),
            refused: endpoint.refused(),
            ejected_for: endpoint.health().out_for(now.ms()),
            is_unwell: endpoint.health().is_unwell(),
        });
        ServiceView {
            name: self.lasting.name.clone(),
            poll_next: self.ring.poll_next(&ask),
            nodes: nodes.collect(),
            request_finish: self.lasting.handed.load(Ordering::Relaxed),
            waiting: self.lasting.queue.waiting(),
            shed_percent: self.lasting.shedder.percent(),
            breaker_open_for: self.lasting.circuit.open_for(|| now.ms()),
        }
    }
}

//! The nodes of the cluster as this process knows them: what the registry tells, what the gateway of this process
//! measures of them, and what the nodes of this process say themselves.

use std::collections::{BTreeMap, HashMap};

use crate::registry::{Node, NodeState};

use super::Dashboard;

/// How a node is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// It failed and gets no requests for a while.
    Ejected,
    /// Health checks say so.
    Unwell,
    /// Missing since the registry came back.
    Stale,
    /// It gets no new requests.
    Draining,
    /// It takes requests.
    Ready,
}

/// All, in the order of a filter's choice.
pub(super) const STATES: [State; 5] = [State::Ready, State::Draining, State::Ejected, State::Unwell, State::Stale];

impl State {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ejected => "ejected",
            Self::Unwell => "unwell",
            Self::Stale => "stale",
            Self::Draining => "draining",
            Self::Ready => "ready",
        }
    }

    /// What it means.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Ejected => "it failed and gets no requests for a while",
            Self::Unwell => "its health checks fail; it gets requests only where no other node can take them",
            Self::Stale => "missing since the registry came back; called until it refuses a connection",
            Self::Draining => "it gets no new requests",
            Self::Ready => "it takes requests",
        }
    }

    /// The class of its badge.
    pub fn class(self) -> &'static str {
        match self {
            Self::Ejected => "badge bad",
            Self::Unwell | Self::Stale | Self::Draining => "badge warn",
            Self::Ready => "badge good",
        }
    }
}

/// A node as pages show it.
#[derive(Clone, Debug)]
pub(super) struct NodeRow {
    pub name: String,
    pub address: String,
    pub state: State,
    pub version: String,
    pub zone: String,
    pub started_ms: i64,
    pub in_flight: Option<u64>,
    pub answered: Option<u64>,
}

/// A service with its nodes, and what the gateway of this process knows of it.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceRow {
    pub nodes: Vec<NodeRow>,
    /// Requests that wait for a node.
    pub waiting: usize,
    /// Percent of the new requests that are refused.
    pub shed_percent: u32,
    /// Its breaker lets nothing through, or one request at a time.
    pub is_broken: bool,
}

impl ServiceRow {
    /// How many are in a state.
    pub fn count(&self, state: State) -> usize {
        self.nodes.iter().filter(|node| node.state == state).count()
    }
}

/// Every service by name; `None` while the registry is not known yet.
pub(super) fn services(dashboard: &Dashboard) -> Option<BTreeMap<String, ServiceRow>> {
    let catalog = dashboard.inner.catalog.borrow().clone()?;
    let views = dashboard.inner.gateway.get().map(|gateway| (gateway.balance)()).unwrap_or_default();
    let mut seen = HashMap::new();
    let mut rows: BTreeMap<String, ServiceRow> = BTreeMap::new();
    for view in views {
        let row = ServiceRow {
            waiting: view.waiting,
            shed_percent: view.shed_percent,
            is_broken: view.breaker_open_for.is_some(),
            nodes: Vec::new(),
        };
        if !view.nodes.is_empty() && !catalog.nodes(&view.name).is_empty() {
            rows.insert(view.name, row);
        }
        seen.extend(view.nodes.into_iter().map(|node| (node.node.id.clone(), node)));
    }
    let reported: HashMap<(String, String), _> = dashboard
        .inner
        .admin
        .own_nodes()
        .into_iter()
        .map(|report| ((report.service.clone(), report.node.clone()), report))
        .collect();
    for node in catalog.all() {
        let name = node.id.to_string();
        let key = (node.id.service.clone(), name);
        let (view, report) = (seen.get(&node.id), reported.get(&key));
        // a node of this process knows best how many it works on; of another the gateway knows those that it sent
        let in_flight = report.and_then(|report| report.in_flight).or(view.map(|view| view.in_flight as u64));
        let answered = report.and_then(|report| report.answered).or(view.map(|view| view.answered));
        let state = match view {
            Some(view) if view.ejected_for.is_some() => State::Ejected,
            Some(view) if view.is_unwell => State::Unwell,
            _ => told(node.state),
        };
        rows.entry(key.0).or_default().nodes.push(NodeRow {
            name: key.1,
            address: address(node),
            state,
            version: node.meta.version.clone(),
            zone: node.meta.zone.clone(),
            started_ms: node.meta.started_ms,
            in_flight,
            answered,
        });
    }
    Some(rows)
}

fn told(state: NodeState) -> State {
    match state {
        NodeState::Ready => State::Ready,
        NodeState::Draining => State::Draining,
        NodeState::Stale => State::Stale,
    }
}

fn address(node: &Node) -> String {
    let socket = node.id.http.socket().or(node.id.rpc.socket());
    socket.map_or_else(|| node.id.to_string(), |socket| socket.to_string())
}

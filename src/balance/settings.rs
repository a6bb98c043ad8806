//! How a service's nodes are chosen and watched.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Selector;
use crate::registry::Origin;

/// How a service's nodes are chosen and watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whose nodes these are; `None`: the service of the same name. So a part of a service (its nodes of one version) has a
    /// name of its own, and its own turns, breaker and queue.
    pub of: Option<String>,
    /// Servers that stand in the config, in place of nodes of the cluster; empty: nodes of the cluster.
    pub origins: Vec<Origin>,
    /// Which of them gets the next request.
    pub selector: Selector,
    /// Only nodes of this version.
    pub version: Option<String>,
    /// Only nodes of this zone.
    pub zone: Option<String>,
    /// Nodes of this zone as long as one can be called: that of the caller, or empty where it has none.
    pub near_zone: Option<String>,
    /// For so long after it came or came back from an ejection, a node's share grows from a tenth to all of it. Nodes that
    /// were there before the balancer have theirs at once.
    pub slow_start: Option<Duration>,
    /// When one that fails is left out for a while; `None`: never.
    pub ejection: Option<Ejection>,
    /// When the whole service gets no requests for a while; `None`: never.
    pub breaker: Option<Breaker>,
    /// How many requests a node may have in flight; `None`: as many as come.
    pub limit: Option<NodeLimit>,
    /// How long its answers should take on average; while they take longer, a part of the new requests is refused. `None`:
    /// none is.
    pub shed: Option<Duration>,
}

/// How many requests of this process a node may have in flight, and who waits while each has as many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLimit {
    /// So many a node.
    pub in_flight: usize,
    /// So many wait; any more are refused at once.
    pub queue: usize,
    /// For so long, before they are refused too.
    pub queue_timeout: Duration,
}

impl NodeLimit {
    /// A limit with the usual queue.
    #[must_use]
    pub fn new(in_flight: usize) -> Self {
        // a second's wait is what a caller bears; a hundred fill a small node's second
        Self { in_flight, queue: 100, queue_timeout: Duration::from_secs(1) }
    }
}

impl Settings {
    /// The same for the nodes of one version of `service`.
    #[must_use]
    pub fn of_version(&self, service: &str, version: &str) -> Self {
        Self { of: Some(service.to_owned()), version: Some(version.to_owned()), ..self.clone() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            of: None,
            origins: Vec::new(),
            selector: Selector::default(),
            version: None,
            zone: None,
            near_zone: None,
            slow_start: None,
            ejection: Some(Ejection::default()),
            breaker: None,
            limit: None,
            shed: None,
        }
    }
}

/// When a node is left out for a while. A try fails when no connection comes about, the answer is cut off or is not HTTP,
/// or the deadline passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// After so many failures in a row.
    pub failures: u32,
    /// Or after this percentage of failures in a window of at least 20 tries; `None`: however many.
    pub error_percent: Option<u32>,
    /// How long such a window is.
    pub window: Duration,
    /// For how long it is left out the first time; the second time in close succession twice as long, and so on up to ten
    /// times.
    pub duration: Duration,
    /// At most this percentage of a service's nodes is out at once (but one of several may always be, the last one never).
    pub max_percent: u32,
    /// Answers that are failures too.
    pub statuses: Vec<RangeInclusive<u16>>,
}

/// When a service gets no requests for a while, so that callers get an answer at once and it can come to its senses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// After so many failed tries in a row, on whichever nodes, where the last try on each node failed.
    pub failures: u32,
    /// For how long. Then one request at a time may pass, until one is answered.
    pub open: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, open: Duration::from_secs(10) }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            failures: 5, // as Envoy's `consecutive_5xx`
            error_percent: None,
            window: Duration::from_secs(10),
            duration: Duration::from_secs(10),
            max_percent: 50,
            statuses: Vec::new(),
        }
    }
}

impl Ejection {
    /// Whether an answer with this status is a failure.
    pub(super) fn is_failure(&self, status: u16) -> bool {
        self.statuses.iter().any(|range| range.contains(&status))
    }

    /// How many nodes may be out at once of so many that could be called.
    pub(super) fn most_out(&self, nodes: usize) -> usize {
        let share = nodes.saturating_mul(self.max_percent as usize) / 100; // a percentage fits
        share.max(1).min(nodes.saturating_sub(1))
    }
}

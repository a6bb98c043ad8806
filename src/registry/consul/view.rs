//! What Consul tells, as nodes: a pure state. The clock is an argument.
//!
//! - Each read is the whole truth of a moment: a node is there while its check passes or warns (it leaves), and its
//!   machine is not critical.
//! - A node that is missing is gone, but for one grace period after a gap (the agent was away or restarted empty) it may
//!   be one that could not renew: it stays as `stale`, unless it had said that it leaves.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::super::malformed::Malformed;
use super::super::{Node, NodeId, NodeMeta, NodeState};
use super::api::{Check, check_id};

/// The nodes as Consul told last.
#[derive(Debug)]
pub(super) struct View {
    namespace: String,
    grace: Duration,
    nodes: HashMap<NodeId, Entry>,
    /// Keys of nodes that someone took out of rotation.
    marks: HashSet<String>,
    unsettled_until: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    created: u64,
    meta: NodeMeta,
    /// It said that it leaves.
    leaving: bool,
    marked: bool,
    /// Set while the node is missing: when to drop it.
    missing: Option<Instant>,
}

impl View {
    pub(super) fn new(namespace: &str, grace: Duration) -> Self {
        Self {
            namespace: namespace.to_owned(),
            grace,
            nodes: HashMap::new(),
            marks: HashSet::new(),
            unsettled_until: None,
        }
    }

    /// The agent did not answer for a while, so that checks may have failed whose owners wanted to renew.
    pub(super) fn gap(&mut self, now: Instant) {
        self.unsettled_until = Some(now + self.grace);
    }

    /// Takes a read over. `own` tells the nodes of this process, which put themselves back.
    pub(super) fn read(
        &mut self,
        checks: &[Check],
        now: Instant,
        own: impl Fn(&NodeId) -> bool,
        malformed: &Malformed,
    ) {
        let dead: HashSet<&str> = checks
            .iter()
            .filter(|check| check.service_id.is_empty() && check.status == "critical")
            .map(|check| check.node.as_str())
            .collect();
        let mut before = std::mem::take(&mut self.nodes);
        for check in
            checks.iter().filter(|check| !check.service_id.is_empty() && check.check_id == check_id(&check.service_id))
        {
            let id = match NodeId::parse_key(&self.namespace, &check.service_id) {
                Ok(id) => id,
                Err(error) => {
                    malformed.skip(&check.service_id, &error);
                    continue;
                }
            };
            if check.status == "critical" || dead.contains(check.node.as_str()) {
                continue;
            }
            let meta = serde_json::from_str(&check.notes).unwrap_or_else(|error| {
                malformed.skip(&check.check_id, &error);
                NodeMeta::default()
            });
            before.remove(&id);
            let leaving = check.status == "warning" || meta.draining;
            let marked = self.marks.contains(&check.service_id);
            self.nodes.insert(id, Entry { created: check.create_index, meta, leaving, marked, missing: None });
        }
        let unsettled = self.unsettled_until.is_some_and(|until| now < until);
        for (id, mut entry) in before {
            if own(&id) || (!entry.leaving && (entry.missing.is_some() || unsettled)) {
                entry.missing = entry.missing.or(Some(now + self.grace));
                self.nodes.insert(id, entry);
            }
        }
    }

    /// Takes the marks over, which nodes that are missing keep.
    pub(super) fn mark(&mut self, keys: Vec<String>) {
        self.marks = keys.into_iter().collect();
        for (id, entry) in &mut self.nodes {
            if entry.missing.is_none() {
                entry.marked = self.marks.contains(&id.key(&self.namespace));
            }
        }
    }

    /// Drops what was missing for too long. Returns whether anything was.
    pub(super) fn expire(&mut self, now: Instant, own: impl Fn(&NodeId) -> bool) -> bool {
        let count = self.nodes.len();
        self.nodes.retain(|id, entry| own(id) || entry.missing.is_none_or(|until| until > now));
        self.nodes.len() < count
    }

    /// When [`View::expire`] has something to do.
    pub(super) fn next_expiry(&self, own: impl Fn(&NodeId) -> bool) -> Option<Instant> {
        self.nodes.iter().filter(|(id, _)| !own(id)).filter_map(|(_, entry)| entry.missing).min()
    }

    /// All nodes in the order they joined.
    pub(super) fn nodes(&self) -> Vec<Node> {
        let mut sorted = BTreeMap::new();
        for (id, entry) in &self.nodes {
            let mut node = Node::new(id.clone(), entry.meta.clone());
            node.meta.draining |= entry.leaving;
            node.state = match () {
                () if entry.leaving || entry.marked => NodeState::Draining,
                () if entry.missing.is_some() => NodeState::Stale,
                () => NodeState::Ready,
            };
            sorted.insert((entry.created, id.key(&self.namespace)), node);
        }
        sorted.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    const GRACE: Duration = Duration::from_secs(10);

    fn check(port: u16, status: &str) -> Check {
        let key = format!("goms_user_10.0.0.1:{port}_10.0.0.1:80");
        Check {
            node: "one".into(),
            check_id: check_id(&key),
            status: status.into(),
            notes: r#"{"version":"1"}"#.into(),
            service_id: key,
            create_index: u64::from(port),
        }
    }

    fn machine(status: &str) -> Check {
        Check { node: "one".into(), check_id: "serfHealth".into(), status: status.into(), ..Check::default() }
    }

    fn told(view: &View) -> Vec<(u16, NodeState)> {
        view.nodes().iter().map(|node| (node.id.rpc.port.unwrap_or_default(), node.state)).collect()
    }

    struct Bench {
        view: View,
        now: Instant,
        malformed: Malformed,
    }

    impl Bench {
        fn new() -> Self {
            Self { view: View::new("goms", GRACE), now: Instant::now(), malformed: Malformed::new(&Metrics::new()) }
        }

        fn read(&mut self, checks: &[Check]) -> Vec<(u16, NodeState)> {
            self.view.read(checks, self.now, |_| false, &self.malformed);
            told(&self.view)
        }
    }

    #[test]
    fn states_follow_the_checks() {
        use NodeState::{Draining, Ready};
        let mut bench = Bench::new();
        let all = [check(2, "passing"), check(1, "passing"), machine("passing")];
        assert_eq!(bench.read(&all), [(1, Ready), (2, Ready)]);
        assert_eq!(bench.read(&[check(1, "warning"), check(2, "critical")]), [(1, Draining)]);
        assert_eq!(bench.read(&[check(1, "passing"), machine("critical")]), []);
        bench.view.mark(vec![check(1, "").service_id]);
        assert_eq!(bench.read(&all), [(1, Draining), (2, Ready)]);
        assert!(!bench.view.nodes()[0].meta.draining, "someone else's mark");
        bench.view.mark(Vec::new());
        assert_eq!(told(&bench.view), [(1, Ready), (2, Ready)]);
    }

    #[test]
    fn after_a_gap_who_is_missing_stays_for_the_grace_unless_it_was_leaving() {
        use NodeState::{Ready, Stale};
        let mut bench = Bench::new();
        bench.read(&[check(1, "passing"), check(2, "warning"), check(3, "passing")]);
        bench.view.gap(bench.now);
        assert_eq!(bench.read(&[check(3, "passing")]), [(1, Stale), (3, Ready)]);
        assert_eq!(bench.view.next_expiry(|_| false), Some(bench.now + GRACE));
        assert!(!bench.view.expire(bench.now + GRACE / 2, |_| false));
        bench.now += GRACE;
        assert!(bench.view.expire(bench.now, |_| false));
        assert_eq!(told(&bench.view), [(3, Ready)]);
        assert_eq!(bench.read(&[]), [], "the gap is over");
    }

    #[test]
    fn own_nodes_are_waited_for_and_junk_is_set_aside() {
        let mut bench = Bench::new();
        bench.read(&[check(1, "passing")]);
        bench.view.read(&[], bench.now, |_| true, &bench.malformed);
        assert_eq!(told(&bench.view), [(1, NodeState::Stale)]);
        assert!(!bench.view.expire(bench.now + GRACE * 2, |_| true));
        let mut junk = check(5, "passing");
        junk.service_id = "web".into();
        junk.check_id = check_id("web");
        let mut foreign = check(6, "passing");
        foreign.check_id = "another check of the same service".into();
        let mut odd = check(7, "passing");
        odd.notes = "no json".into();
        assert_eq!(bench.read(&[junk, foreign, odd])[..], [(1, NodeState::Stale), (7, NodeState::Ready)]);
    }
}

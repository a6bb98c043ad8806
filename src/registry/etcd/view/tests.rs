use super::*;
use crate::metrics::Metrics;

const NODE: &str = "goms_user_127.0.0.1:9180_127.0.0.1:9080";
const META: &str = "/goms/nodes/user/127.0.0.1:9180_127.0.0.1:9080";
const MARK: &str = "/goms/drain/user/127.0.0.1:9180_127.0.0.1:9080";
const GRACE: Duration = Duration::from_secs(15);

struct Bench {
    view: View,
    malformed: Malformed,
    now: Instant,
    own: bool,
}

impl Bench {
    fn new() -> Self {
        let (view, malformed) = (View::new(Keys::new("goms", Format::Goms), GRACE), Malformed::new(&Metrics::new()));
        Self { view, malformed, now: Instant::now(), own: false }
    }

    fn read(&mut self, found: &[(&str, &str)]) {
        let found = found.iter().map(|(key, value)| put(key, value, 1)).collect();
        self.view.read(found, self.now, &self.malformed);
    }

    fn apply(&mut self, change: Change) {
        let own = self.own;
        self.view.apply(change, self.now, |_| own, &self.malformed);
    }

    /// State and version of each node.
    fn told(&self) -> Vec<(NodeState, String)> {
        self.view.nodes().into_iter().map(|node| (node.state, node.meta.version)).collect()
    }
}

fn put(key: &str, value: &str, revision: i64) -> Change {
    Change { key: key.to_owned(), value: Some(value.into()), revision, created: revision }
}

fn delete(key: &str, revision: i64) -> Change {
    Change { key: key.to_owned(), value: None, revision, created: 0 }
}

fn version(version: &str) -> String {
    format!("{{\"version\":\"{version}\"}}")
}

fn one(state: NodeState, version: &str) -> Vec<(NodeState, String)> {
    vec![(state, version.to_owned())]
}

#[test]
fn a_deletion_is_a_leave_at_once() {
    let mut bench = Bench::new();
    bench.read(&[(NODE, "0"), (META, &version("1"))]);
    assert_eq!(bench.told(), one(NodeState::Ready, "1"));
    bench.apply(delete(NODE, 2));
    assert_eq!(bench.told(), []);
    bench.apply(delete(META, 2));
    bench.apply(put(NODE, "0", 3));
    assert_eq!(bench.told(), one(NodeState::Ready, ""), "what its former life said is forgotten");
}

#[test]
fn what_is_missing_after_a_gap_is_stale_for_the_grace_then_dropped() {
    let mut bench = Bench::new();
    bench.read(&[(NODE, "0"), (META, &version("1"))]);
    bench.read(&[]);
    assert_eq!(bench.told(), one(NodeState::Stale, "1"));
    let due = bench.view.next_expiry(|_| false).expect("something to drop");
    assert_eq!(due, bench.now + GRACE);
    assert_eq!(bench.view.next_expiry(|_| true), None, "own nodes put themselves back");
    assert!(!bench.view.expire(due - Duration::from_millis(1), |_| false));
    bench.now += Duration::from_secs(5);
    bench.read(&[]); // a second gap does not make it live longer
    assert_eq!(bench.view.next_expiry(|_| false), Some(due));
    assert!(!bench.view.expire(due, |_| true));
    assert!(bench.view.expire(due, |_| false));
    assert_eq!(bench.told(), []);
}

#[test]
fn who_comes_back_is_ready_with_what_it_says_now() {
    let mut bench = Bench::new();
    bench.read(&[(NODE, "0"), (META, &version("1"))]);
    bench.read(&[]);
    // An empty store counts from 1 again. The watch of metadata is ahead of that of keys.
    bench.apply(put(META, &version("2"), 2));
    bench.apply(put(NODE, "0", 2));
    assert_eq!(bench.told(), one(NodeState::Ready, "2"));
    assert_eq!(bench.view.take_unexplained(), []);
}

#[test]
fn leases_that_run_out_after_a_gap_make_stale_but_a_graceful_leave_is_one() {
    let mut bench = Bench::new();
    bench.read(&[(NODE, "0"), (META, &version("1"))]);
    bench.view.gap(bench.now);
    bench.apply(delete(META, 2));
    bench.apply(delete(NODE, 2));
    assert_eq!(bench.told(), one(NodeState::Stale, "1"));
    bench.apply(put(NODE, "0", 3));
    bench.apply(put(META, "{\"draining\":true}", 4));
    assert_eq!(bench.told(), one(NodeState::Draining, ""));
    bench.apply(delete(NODE, 5));
    assert_eq!(bench.told(), []);
    bench.apply(put(NODE, "0", 6));
    bench.now += GRACE;
    bench.apply(delete(NODE, 7));
    assert_eq!(bench.told(), [], "the gap is long over");
}

#[test]
fn a_draining_node_that_is_missing_after_a_gap_has_left() {
    let mut bench = Bench::new();
    bench.read(&[(NODE, "0"), (META, "{\"draining\":true}")]);
    bench.read(&[]);
    assert_eq!(bench.told(), []);
}

#[test]
fn a_mark_stays_with_a_missing_node_and_goes_with_a_gone_one() {
    let mut bench = Bench::new();
    bench.read(&[(NODE, "0"), (MARK, "")]);
    assert_eq!(bench.told(), one(NodeState::Draining, ""));
    bench.own = true;
    bench.apply(delete(NODE, 2));
    bench.apply(delete(MARK, 2));
    assert_eq!(bench.told(), one(NodeState::Draining, ""), "its keeper puts both back");
    bench.apply(put(NODE, "0", 3));
    bench.apply(put(MARK, "", 3));
    assert_eq!(bench.told(), one(NodeState::Draining, ""));
    bench.apply(delete(MARK, 4));
    assert_eq!(bench.told(), one(NodeState::Ready, ""));
    bench.own = false;
    bench.apply(put(MARK, "", 5));
    bench.apply(delete(NODE, 6));
    bench.apply(put(NODE, "0", 7));
    assert_eq!(bench.told(), one(NodeState::Ready, ""));
}

#[test]
fn metadata_that_is_ahead_of_a_restarts_key_is_kept() {
    let mut bench = Bench::new();
    bench.read(&[(NODE, "0"), (META, &version("1"))]);
    bench.apply(delete(META, 2));
    bench.apply(put(META, &version("2"), 3));
    bench.apply(delete(NODE, 2));
    bench.apply(put(NODE, "0", 3));
    assert_eq!(bench.told(), one(NodeState::Ready, "2"));
    bench.apply(put(META, &version("1"), 1));
    assert_eq!(bench.told(), one(NodeState::Ready, "2"), "older than what is known");
}

#[test]
fn a_join_without_metadata_is_to_be_looked_up_once() {
    let mut bench = Bench::new();
    bench.read(&[("goms_order_127.0.0.1:1_127.0.0.1:2", "0")]);
    assert_eq!(bench.view.take_unexplained(), [], "a read is complete");
    bench.apply(put(NODE, "0", 2));
    assert_eq!(bench.view.take_unexplained().iter().map(|id| id.key("goms")).collect::<Vec<_>>(), [NODE]);
    assert_eq!(bench.view.take_unexplained(), []);
}

#[test]
fn junk_changes_nothing_and_order_is_that_of_joining() {
    let mut bench = Bench::new();
    bench.read(&[("goms_", "0"), ("goms_user", "0"), (META, "no json"), (NODE, "0")]);
    assert_eq!(bench.told(), one(NodeState::Ready, ""));
    bench.apply(delete("goms_user", 2));
    bench.apply(put("goms_user_127.0.0.1:1_127.0.0.1:2", "0", 9));
    bench.apply(put("goms_user_127.0.0.1:3_127.0.0.1:4", "0", 8));
    let ports: Vec<_> = bench.view.nodes().iter().filter_map(|node| node.id.rpc.port).collect();
    assert_eq!(ports, [9180, 3, 1]);
}

const RECORD: &str = "/micro/registry/go.micro.srv.greeter/n1";

fn record(port: u16, version: &str) -> String {
    format!(
        r#"{{"name":"go.micro.srv.greeter","version":"{version}","nodes":[{{"address":"127.0.0.1:{port}","metadata":{{"protocol":"grpc"}}}}]}}"#
    )
}

#[test]
fn a_record_of_go_micro_is_a_node_until_it_is_deleted() {
    let mut bench = Bench::new();
    bench.read(&[(NODE, "0"), (META, &version("1")), (RECORD, &record(1, "latest"))]);
    let ready = |version: &str| (NodeState::Ready, version.to_owned());
    let mut told = bench.told();
    told.sort_by(|one, other| one.1.cmp(&other.1));
    assert_eq!(told, [ready("1"), ready("latest")]);
    assert_eq!(bench.view.take_unexplained(), []);
    // another version, then junk, which changes nothing, then another address
    bench.apply(put(RECORD, &record(1, "2"), 5));
    bench.apply(put(RECORD, "{\"name\":", 6));
    assert!(bench.told().contains(&ready("2")) && bench.told().len() == 2);
    bench.apply(put(RECORD, &record(2, "3"), 7));
    assert!(bench.told().contains(&ready("3")) && bench.told().len() == 2);
    bench.apply(delete(RECORD, 8));
    assert_eq!(bench.told(), one(NodeState::Ready, "1"));
}

#[test]
fn a_node_of_go_micro_that_a_gap_lost_stays_as_stale() {
    let mut bench = Bench::new();
    bench.read(&[(RECORD, &record(1, "1"))]);
    bench.read(&[]);
    assert_eq!(bench.told(), one(NodeState::Stale, "1"));
    bench.apply(put(RECORD, &record(1, "1"), 2));
    assert_eq!(bench.told(), one(NodeState::Ready, "1"));
    bench.apply(put("/goms/drain/go.micro.srv.greeter/127.0.0.1:1_127.0.0.1:", "", 3));
    assert_eq!(bench.told(), one(NodeState::Draining, "1"));
}

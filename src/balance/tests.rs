mod breaker;
mod ejection;
mod pickers;
mod queue;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::balancer::{Balancer, PickError};
use super::clock::Clock;
use super::{Kind, Permit, Selector, Settings};
use crate::metrics::Metrics;
use crate::registry::{HostPort, Node, NodeId, NodeMeta, NodeState, Publisher};

fn id(port: u16) -> NodeId {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    NodeId { service: "user".into(), rpc: HostPort::new(ip, port + 1000), http: HostPort::new(ip, port) }
}

fn node(port: u16) -> Node {
    Node::new(id(port), NodeMeta::default())
}

struct Cluster {
    publisher: Publisher,
    balancer: Arc<Balancer>,
    metrics: Metrics,
    /// What the clock shows.
    now_ms: Arc<AtomicU64>,
}

impl Cluster {
    fn new(selector: Selector, ports: &[u16]) -> Self {
        Self::with(Settings { selector, ..Settings::default() }, ports)
    }

    fn with(settings: Settings, ports: &[u16]) -> Self {
        let (metrics, now_ms, began) = (Metrics::new(), Arc::new(AtomicU64::new(0)), Instant::now());
        let shown = now_ms.clone();
        let clock = Clock::new(move || began + Duration::from_millis(shown.load(Ordering::Relaxed)));
        let settings = HashMap::from([("user".to_owned(), settings)]);
        let balancer = Arc::new(Balancer::new(settings, &metrics, clock, 7));
        let cluster = Self { publisher: Publisher::new(), balancer, metrics, now_ms };
        cluster.set(ports.iter().map(|&port| node(port)).collect());
        cluster
    }

    /// Time passes.
    fn wait_ms(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    fn set(&self, nodes: Vec<Node>) {
        self.publisher.publish(nodes);
        self.balancer.apply(self.publisher.current().unwrap());
    }

    fn pick(&self, tried: &[u16]) -> Result<Permit, PickError> {
        let tried: Vec<Arc<Node>> = tried.iter().map(|&port| Arc::new(node(port))).collect();
        self.balancer.local().pick("user", Kind::Http, None, &tried)
    }

    fn ports(&self, count: usize) -> Vec<u16> {
        (0..count).map(|_| port(&self.pick(&[]).unwrap())).collect()
    }

    fn poll_next(&self) -> usize {
        self.balancer.view()[0].poll_next
    }
}

fn port(permit: &Permit) -> u16 {
    permit.node().id.http.port.unwrap()
}

#[test]
fn round_robin_goes_strictly_in_turn() {
    let cluster = Cluster::new(Selector::RoundRobin, &[1, 2, 3]);
    assert_eq!(cluster.poll_next(), 0);
    assert_eq!(cluster.ports(4), [1, 2, 3, 1]);
    assert_eq!((cluster.poll_next(), cluster.balancer.view()[0].request_finish), (1, 4));
}

#[test]
fn each_kind_of_request_goes_to_who_takes_it() {
    let cluster = Cluster::new(Selector::RoundRobin, &[]);
    let speaks = |port: u16, protocols: &[&str], id: NodeId| {
        let protocols = protocols.iter().map(|word| (*word).to_owned()).collect();
        Node::new(
            NodeId { service: "user".into(), ..id },
            NodeMeta { started_ms: port.into(), protocols, ..NodeMeta::default() },
        )
    };
    let none = HostPort { port: None, ..id(1).http };
    let ours = speaks(1, &["http", "grpc"], id(1));
    let grpc = speaks(2, &["grpc"], NodeId { http: none, ..id(2) });
    let mucp = speaks(3, &["mucp"], NodeId { rpc: none, ..id(3) });
    let web = speaks(4, &["http"], NodeId { rpc: none, ..id(4) });
    cluster.set(vec![ours.clone(), grpc, mucp.clone(), web]);
    let picked = |kind: Kind| {
        let local = cluster.balancer.local();
        (0..4).map(|_| local.pick("user", kind, None, &[]).unwrap().node().meta.started_ms).collect::<Vec<_>>()
    };
    assert_eq!(picked(Kind::Http), [1, 4, 1, 4]);
    let mut rpc = picked(Kind::Rpc)[..3].to_vec();
    rpc.sort_unstable();
    assert_eq!(rpc, [1, 2, 3]);
    // none is left for one of the kinds
    cluster.set(vec![mucp]);
    assert_eq!(cluster.pick(&[]).err(), Some(PickError::NoNode("user".into())));
    assert_eq!(picked(Kind::Rpc), [3; 4]);
}

#[test]
fn a_service_of_go_micro_has_two_names_unless_another_has_one_of_them() {
    let cluster = Cluster::new(Selector::RoundRobin, &[]);
    let of = |service: &str, port: u16| Node::new(NodeId { service: service.into(), ..id(port) }, NodeMeta::default());
    let picked = |name: &str| {
        cluster.balancer.local().pick(name, Kind::Http, None, &[]).map(|permit| port(&permit)).map_err(|_| ())
    };
    cluster.set(vec![of("go.micro.srv.greeter", 1), of("go.micro.api.greeter", 2), of("shop", 3)]);
    assert_eq!((picked("greeter"), picked("go.micro.srv.greeter")), (Ok(1), Ok(1)));
    assert_eq!((picked("greeter-api"), picked("go.micro.api.greeter")), (Ok(2), Ok(2)));
    assert_eq!((picked("shop"), picked("go.micro.srv.shop"), picked("go.micro.api.shop")), (Ok(3), Ok(3), Err(())));
    let shown = cluster.balancer.view();
    assert_eq!(shown.iter().map(|service| service.request_finish).collect::<Vec<_>>(), [2, 2, 2], "each is shown once");
    cluster.set(vec![of("go.micro.srv.greeter", 1), of("greeter", 4)]);
    assert_eq!((picked("greeter"), picked("go.micro.srv.greeter")), (Ok(4), Ok(1)));
}

#[test]
fn turns_are_exact_across_threads() {
    let cluster = Arc::new(Cluster::new(Selector::RoundRobin, &[1, 2, 3]));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let cluster = cluster.clone();
            std::thread::spawn(move || cluster.ports(750))
        })
        .collect();
    let mut counts = HashMap::new();
    for port in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
        *counts.entry(port).or_insert(0) += 1;
    }
    assert_eq!(counts, HashMap::from([(1, 1000), (2, 1000), (3, 1000)]));
    assert_eq!((cluster.poll_next(), cluster.balancer.view()[0].request_finish), (0, 3000));
}

#[test]
fn defect_01_a_leave_never_leaves_a_stale_index() {
    let cluster = Cluster::new(Selector::RoundRobin, &[1, 2, 3]);
    assert_eq!(cluster.ports(2), [1, 2]);
    cluster.set(vec![node(1)]);
    assert_eq!(cluster.poll_next(), 0);
    assert_eq!(cluster.ports(2), [1, 1]);
    cluster.set(vec![]);
    assert_eq!(cluster.pick(&[]).err(), Some(PickError::NoNode("user".into())));
    assert_eq!((cluster.poll_next(), cluster.balancer.view()[0].request_finish), (0, 4));
    cluster.set(vec![node(2), node(3)]);
    assert_eq!(cluster.ports(3), [2, 3, 2]);
}

#[test]
fn the_turn_stays_with_its_node_when_others_come_and_go() {
    let cluster = Cluster::new(Selector::RoundRobin, &[1, 2, 3]);
    assert_eq!(cluster.ports(2), [1, 2]);
    cluster.set(vec![node(2), node(3)]);
    assert_eq!((cluster.poll_next(), cluster.ports(2)), (1, vec![3, 2]));
    cluster.set(vec![node(1), node(2), node(3)]);
    assert_eq!(cluster.ports(3), [3, 1, 2]); // 1 joined last, so it stands last
}

#[test]
fn a_retry_takes_the_next_node_and_counts_once() {
    let cluster = Cluster::new(Selector::RoundRobin, &[1, 2, 3]);
    assert_eq!(cluster.ports(1), [1]);
    assert_eq!(port(&cluster.pick(&[1]).unwrap()), 2);
    assert_eq!(port(&cluster.pick(&[1, 2]).unwrap()), 3);
    assert_eq!(port(&cluster.pick(&[1, 2, 3]).unwrap()), 1, "all were tried: round again");
    assert_eq!(port(&cluster.pick(&[2]).unwrap()), 3, "a tried one is skipped at its turn");
    assert_eq!(cluster.balancer.view()[0].request_finish, 1);
}

#[test]
fn draining_nodes_get_nothing_and_stale_ones_until_they_refuse() {
    let cluster = Cluster::new(Selector::RoundRobin, &[1, 2, 3]);
    let with = |port, state| Node { state, ..node(port) };
    cluster.set(vec![with(1, NodeState::Draining), with(2, NodeState::Stale), node(3)]);
    assert_eq!(cluster.poll_next(), 1);
    assert_eq!(cluster.ports(3), [2, 3, 2]);
    let stale = cluster.pick(&[3]).unwrap();
    stale.refused();
    assert_eq!(cluster.ports(2), [3, 3]);
    cluster.set(vec![with(1, NodeState::Draining), node(2), node(3)]);
    assert_eq!(cluster.balancer.view()[0].nodes[1].refused, 1, "counters survive");
    assert_eq!(cluster.ports(2), [2, 3]);
    cluster.set(vec![with(1, NodeState::Draining)]);
    assert_eq!(cluster.pick(&[]).err(), Some(PickError::NoNode("user".into())));
}

#[test]
fn a_permit_counts_in_flight_until_it_goes() {
    let cluster = Cluster::new(Selector::LeastConn, &[1, 2, 3]);
    let (one, two) = (cluster.pick(&[]).unwrap(), cluster.pick(&[]).unwrap());
    assert_eq!((port(&one), port(&two)), (1, 2));
    assert_eq!(cluster.balancer.view()[0].nodes.iter().map(|node| node.in_flight).collect::<Vec<_>>(), [1, 1, 0]);
    let three = cluster.pick(&[]).unwrap();
    assert_eq!(port(&three), 3);
    two.answered(200);
    drop(two);
    assert_eq!(cluster.ports(3), [2, 2, 2], "the only one that has none");
    assert_eq!(cluster.balancer.view()[0].nodes[1].answered, 1);
}

#[test]
fn random_pickers_follow_their_seed() {
    let any = Cluster::new(Selector::Random, &[1, 2, 3]);
    let picks = any.ports(12);
    assert_eq!(picks, Cluster::new(Selector::Random, &[1, 2, 3]).ports(12));
    assert!([1, 2, 3].iter().all(|port| picks.contains(port)), "{picks:?}");
    let p2c = Cluster::new(Selector::P2c, &[1]);
    assert_eq!(p2c.ports(2), [1, 1]);
}

#[test]
fn a_client_keeps_its_node_when_another_leaves() {
    let cluster = Cluster::new(Selector::SourceHash, &[1, 2, 3]);
    let of = |last| {
        let client = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
        port(&cluster.balancer.local().pick("user", Kind::Http, client, &[]).unwrap())
    };
    let before: Vec<u16> = (0..60).map(of).collect();
    assert_eq!(before, (0..60).map(of).collect::<Vec<u16>>());
    assert!([1, 2, 3].iter().all(|port| before.contains(port)), "{before:?}");
    cluster.set(vec![node(1), node(3)]);
    for (last, before) in before.iter().enumerate().filter(|(_, before)| **before != 2) {
        assert_eq!(of(last as u8), *before);
    }
}

#[test]
fn an_unknown_service_is_told_apart() {
    let cluster = Cluster::new(Selector::RoundRobin, &[1]);
    assert_eq!(
        cluster.balancer.local().pick("order", Kind::Http, None, &[]).err(),
        Some(PickError::UnknownService("order".into()))
    );
}

#[test]
fn a_worker_sees_each_change_at_its_next_pick() {
    let cluster = Cluster::new(Selector::RoundRobin, &[1, 2]);
    let local = cluster.balancer.local();
    let pick = || local.pick("user", Kind::Http, None, &[]).map(|permit| port(&permit));
    assert_eq!((pick(), pick()), (Ok(1), Ok(2)));
    let held = local.pick("user", Kind::Http, None, &[]).unwrap();
    cluster.set(vec![node(2)]);
    assert_eq!((pick(), pick()), (Ok(2), Ok(2)));
    cluster.set(vec![node(2), node(1)]);
    assert_eq!((pick(), pick()), (Ok(2), Ok(1)), "who left and came back is another node");
    assert_eq!(cluster.balancer.view()[0].nodes.iter().map(|node| node.in_flight).collect::<Vec<_>>(), [0, 0]);
    drop(held);
    assert_eq!(cluster.balancer.view()[0].request_finish, 7);
}

#[test]
fn a_pick_allocates_nothing() {
    let cluster = Cluster::new(Selector::RoundRobin, &[1, 2, 3]);
    let local = cluster.balancer.local();
    let counted = allocation_counter::measure(|| {
        let first = local.pick("user", Kind::Http, None, &[]).unwrap();
        drop(local.pick("user", Kind::Http, None, std::slice::from_ref(first.node())).unwrap());
    });
    assert_eq!(counted.count_total, 0);
}

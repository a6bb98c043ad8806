//! What every backend does.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use goms::registry::{Backend, HostPort, Node, NodeId, NodeMeta, NodeState, Registry, RegistryError, memory};

use super::{ELSEWHERE, expected};
use super::{TempDir, consul_settings, etcd_settings, id_at, node, ready, settings, simple, told, wait_for, wait_told};
use crate::support::servers::{self, unique};

const LIMIT: Duration = Duration::from_secs(5);

/// Opens one more handle to the same cluster.
type Open<'a> = &'a dyn Fn() -> Arc<dyn Registry>;

async fn suite(open: Open<'_>) {
    suite_of_records(open).await;
    all_that_nodes_say_is_kept(open).await;
}

/// All but what a record of Go Micro has no room for: a second address, weight, zone.
async fn suite_of_records(open: Open<'_>) {
    starts_known_and_empty(open).await;
    joins_are_seen_in_their_order(open).await;
    drains_both_ways_from_everywhere(open).await;
    deregister_drains_then_goes(open).await;
    a_live_id_is_taken(open).await;
    unknown_ids_are_errors(open).await;
    slow_readers_see_the_newest(open).await;
    names_that_break_keys_are_refused(open).await;
}

async fn clean(registry: &Arc<dyn Registry>, nodes: &[&goms::registry::Node]) {
    for node in nodes {
        registry.deregister(&node.id).await.expect("deregistered");
    }
    wait_told(&mut registry.catalog(), LIMIT, &[]).await;
}

async fn starts_known_and_empty(open: Open<'_>) {
    let registry = open();
    wait_told(&mut registry.catalog(), LIMIT, &[]).await;
    assert!(registry.catalog().borrow().is_some(), "known, and no nodes");
}

async fn joins_are_seen_in_their_order(open: Open<'_>) {
    let (one, two) = (open(), open());
    wait_told(&mut two.catalog(), LIMIT, &[]).await;
    let (first, second, third) = (node("user"), node("user"), node("user"));
    for (registry, joining, seen) in [
        (&one, &third, ready(&[&third])),
        (&two, &first, ready(&[&third, &first])),
        (&one, &second, ready(&[&third, &first, &second])),
    ] {
        registry.register(joining.clone()).await.expect("registered");
        wait_told(&mut one.catalog(), LIMIT, &seen).await;
        wait_told(&mut two.catalog(), LIMIT, &seen).await;
    }
    let catalog = two.catalog().borrow().clone().expect("known");
    assert_eq!(**catalog.find(&first.id).expect("there"), first, "with its metadata");
    let late = open();
    // The first read is in the order of keys.
    wait_told(&mut late.catalog(), LIMIT, &ready(&[&first, &second, &third])).await;
    two.deregister(&first.id).await.expect("deregistered");
    clean(&one, &[&second, &third]).await;
}

async fn drains_both_ways_from_everywhere(open: Open<'_>) {
    let (one, two) = (open(), open());
    let leaving = node("user");
    one.register(leaving.clone()).await.expect("registered");
    for by in [&one, &two] {
        for (draining, state) in [(true, NodeState::Draining), (true, NodeState::Draining), (false, NodeState::Ready)] {
            by.set_draining(&leaving.id, draining).await.expect("marked");
            for reader in [&one, &two, &open()] {
                wait_told(&mut reader.catalog(), LIMIT, &expected(&[(&leaving, state)])).await;
            }
        }
    }
    // The mark goes with the node.
    two.set_draining(&leaving.id, true).await.expect("marked");
    clean(&one, &[&leaving]).await;
    one.register(leaving.clone()).await.expect("registered again");
    wait_told(&mut two.catalog(), LIMIT, &ready(&[&leaving])).await;
    clean(&one, &[&leaving]).await;
}

async fn deregister_drains_then_goes(open: Open<'_>) {
    let (one, two) = (open(), open());
    let leaving = node("user");
    one.register(leaving.clone()).await.expect("registered");
    let mut watch = two.catalog();
    wait_told(&mut watch, LIMIT, &ready(&[&leaving])).await;
    let seen = Mutex::new(Vec::new());
    let watching = async {
        wait_for(&mut watch, LIMIT, "gone", |catalog| {
            seen.lock().expect("no panic").push(catalog.find(&leaving.id).map(|node| node.state));
            catalog.find(&leaving.id).is_none()
        })
        .await;
    };
    let (result, ()) = tokio::join!(one.deregister(&leaving.id), watching);
    result.expect("deregistered");
    let mut seen = seen.into_inner().expect("no panic");
    seen.dedup();
    // A reader may skip a state, but never sees another order.
    let order = [Some(NodeState::Ready), Some(NodeState::Draining), None];
    let mut rest = order.iter();
    assert!(seen.iter().all(|state| rest.any(|next| next == state)), "{seen:?}");
    assert!(matches!(one.deregister(&leaving.id).await, Err(RegistryError::Unknown(id)) if id == leaving.id));
}

async fn a_live_id_is_taken(open: Open<'_>) {
    let (one, two) = (open(), open());
    let mut held = node("user");
    one.register(held.clone()).await.expect("registered");
    held.meta.version = "another".into();
    for registry in [&one, &two] {
        let result = registry.register(held.clone()).await;
        assert!(matches!(&result, Err(RegistryError::Taken(id)) if *id == held.id), "{result:?}");
    }
    let catalog = wait_for(&mut one.catalog(), LIMIT, "still there", |catalog| catalog.all().count() == 1).await;
    assert_eq!(catalog.find(&held.id).map(|node| node.meta.version.as_str()), Some("1.2.3"), "the first is left alone");
    clean(&one, &[&held]).await;
    two.register(held.clone()).await.expect("free now");
    wait_told(&mut one.catalog(), LIMIT, &ready(&[&held])).await;
    clean(&two, &[&held]).await;
    wait_told(&mut one.catalog(), LIMIT, &[]).await;
}

async fn unknown_ids_are_errors(open: Open<'_>) {
    let registry = open();
    let unknown = id_at(ELSEWHERE, "user", 1);
    assert!(matches!(registry.deregister(&unknown).await, Err(RegistryError::Unknown(id)) if id == unknown));
    for draining in [true, false] {
        let result = registry.set_draining(&unknown, draining).await;
        assert!(matches!(&result, Err(RegistryError::Unknown(id)) if *id == unknown), "{result:?}");
    }
}

async fn slow_readers_see_the_newest(open: Open<'_>) {
    let (one, two) = (open(), open());
    let mut slow = two.catalog();
    let mut quick = two.catalog();
    let nodes: Vec<_> = (0..20).map(|_| node("user")).collect();
    for node in &nodes {
        one.register(node.clone()).await.expect("registered");
    }
    for node in &nodes[..19] {
        one.deregister(&node.id).await.expect("deregistered");
    }
    wait_told(&mut quick, LIMIT, &ready(&[&nodes[19]])).await;
    assert!(slow.has_changed().expect("open"));
    assert_eq!(slow.borrow_and_update().as_deref().map(told), Some(ready(&[&nodes[19]])));
    clean(&one, &[&nodes[19]]).await;
}

async fn names_that_break_keys_are_refused(open: Open<'_>) {
    let registry = open();
    for bad in ["", "a_b", "a/b", "../../x"] {
        let result = registry.register(node(bad)).await;
        assert!(matches!(result, Err(RegistryError::Setting { setting: "service", .. })), "{bad}: {result:?}");
    }
}

/// Every kind of address, a name that is no ASCII, and more metadata than fits into a line.
async fn all_that_nodes_say_is_kept(open: Open<'_>) {
    let (one, two) = (open(), open());
    let meta = NodeMeta {
        version: "1.0.0-rc.1+\u{e9} \"quoted\" \\ = ; ,".into(),
        weight: 1000,
        zone: "rack/7".into(),
        started_ms: 1_700_000_000_123,
        admin: Some(([127, 0, 0, 1], 8280).into()),
        draining: false,
        protocols: vec!["http".into(), "grpc".into()],
        endpoints: (0..200).map(|number| format!("/an/endpoint/of/the/service/{number}")).collect(),
        takes_events: true,
        rpc_services: vec!["greeter.Say".to_owned()],
        ..NodeMeta::default()
    };
    let at = |service: &str, ip: &str, rpc: Option<u16>, http: Option<u16>| {
        let address = |port| HostPort { ip: ip.parse().expect("an IP"), port };
        Node::new(NodeId { service: service.into(), rpc: address(rpc), http: address(http) }, meta.clone())
    };
    let nodes = [
        at("\u{7528}\u{6237}", "2001:db8::7", Some(9180), Some(9080)),
        at("go-micro.api", "192.0.2.9", None, Some(9080)),
        at("traceConsumer", "192.0.2.9", None, None),
    ];
    for node in &nodes {
        one.register(node.clone()).await.expect("registered");
    }
    let catalog = wait_for(&mut two.catalog(), LIMIT, "all", |catalog| catalog.all().count() == nodes.len()).await;
    for node in &nodes {
        assert_eq!(catalog.find(&node.id).map(|found| &**found), Some(node));
    }
    clean(&one, &nodes.each_ref()).await;
    wait_told(&mut two.catalog(), LIMIT, &[]).await;
}

#[tokio::test]
async fn memory_conforms() {
    suite_of_one_process(memory::Memory::new()).await;
}

#[tokio::test]
async fn static_conforms() {
    let dir = TempDir::new();
    let file = dir.path().join("nodes.yml");
    std::fs::write(&file, "services: {}").expect("a file");
    suite_of_one_process(simple(&settings(Backend::Static { file }, "goms"))).await;
}

/// Handles are clones of one; a fresh reader sees the order of joining, not of keys.
async fn suite_of_one_process(shared: Arc<dyn Registry>) {
    let open = move || -> Arc<dyn Registry> { shared.clone() };
    starts_known_and_empty(&open).await;
    drains_both_ways_from_everywhere(&open).await;
    deregister_drains_then_goes(&open).await;
    a_live_id_is_taken(&open).await;
    unknown_ids_are_errors(&open).await;
    slow_readers_see_the_newest(&open).await;
    names_that_break_keys_are_refused(&open).await;
    all_that_nodes_say_is_kept(&open).await;
}

#[tokio::test]
async fn local_conforms() {
    let dir = TempDir::new();
    let settings = settings(Backend::Local { dir: dir.path().to_owned() }, "goms");
    suite(&|| simple(&settings)).await;
}

#[tokio::test]
async fn etcd_conforms() {
    let Some(address) = servers::etcd() else { return };
    let settings = etcd_settings(&address, &unique("conform"));
    suite(&|| simple(&settings)).await;
}

/// Records of Go Micro have no namespace: an etcd of its own.
#[tokio::test]
async fn etcd_in_the_form_of_go_micro_conforms() {
    let Some(etcd) = crate::support::etcd::Etcd::start() else { return };
    let settings = etcd_settings(&etcd.address(), "goms");
    let settings = goms::registry::Settings { format: goms::registry::Format::GoMicro, ..settings };
    suite_of_records(&|| simple(&settings)).await;
}

#[tokio::test]
async fn consul_conforms() {
    let Some(address) = servers::consul() else { return };
    let settings = consul_settings(&address, &unique("conform"));
    suite(&|| simple(&settings)).await;
}

#[tokio::test]
async fn mdns_conforms() {
    let settings = settings(Backend::Mdns, &unique("conform"));
    suite(&|| simple(&settings)).await;
}

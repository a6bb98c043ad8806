//! etcd while it is well: what is written, and living beside the originals' nodes.

use std::time::Duration;

use goms::registry::{Backend, EtcdSettings, NodeMeta, NodeState, RegistryError, open};

use super::{HERE, etcd_settings, expected, handle, node, node_at, ready, settings, simple, told, wait_for};
use super::{wait_told, wait_until};
use crate::support::etcd::ctl;
use crate::support::servers::{self, unique};

const LIMIT: Duration = Duration::from_secs(5);

fn run(address: &str, arguments: &[&str]) -> String {
    let (ok, text) = ctl(address, arguments);
    assert!(ok, "etcdctl {arguments:?}: {text}");
    text
}

/// The lease of a key, as hexadecimal digits.
fn lease(address: &str, key: &str) -> Option<String> {
    let text = run(address, &["get", key, "-w", "fields"]);
    let line = text.lines().find(|line| line.starts_with("\"Lease\""))?;
    let number: i64 = line.rsplit(' ').next()?.parse().ok()?;
    Some(format!("{number:x}"))
}

#[tokio::test]
async fn ttl_and_interval_show_in_the_lease_with_all_keys_on_it() {
    let Some(address) = servers::etcd() else { return };
    let namespace = unique("ttl");
    let mut settings = etcd_settings(&address, &namespace);
    settings.register_ttl = Duration::from_secs(30);
    settings.register_interval = Duration::from_secs(10);
    let registry = simple(&settings);
    let node = node("user");
    registry.register(node.clone()).await.expect("registered");
    registry.set_draining(&node.id, true).await.expect("marked");
    let key = node.id.key(&namespace);
    assert_eq!(run(&address, &["get", &key, "--print-value-only"]).trim(), "0");
    let meta = format!("/{namespace}/nodes/user/{}", node.id);
    let said = run(&address, &["get", &meta, "--print-value-only"]);
    assert_eq!(serde_json::from_str::<NodeMeta>(&said).expect("JSON"), node.meta);
    let lease = lease(&address, &key).expect("a lease");
    let told = run(&address, &["lease", "timetolive", &lease, "--keys"]);
    assert!(told.contains("granted with TTL(30s)"), "{told}");
    for key in [&key, &meta, &format!("/{namespace}/drain/user/{}", node.id)] {
        assert!(told.contains(key.as_str()), "{key} in {told}");
    }
    registry.deregister(&node.id).await.expect("deregistered");
    assert!(run(&address, &["get", "--prefix", &format!("{namespace}_")]).is_empty());
    assert!(run(&address, &["get", "--prefix", &format!("/{namespace}/")]).is_empty());
    assert!(run(&address, &["lease", "timetolive", &lease]).contains("already expired"));
}

#[tokio::test]
async fn nodes_of_the_originals_are_seen_drained_and_gone() {
    let Some(address) = servers::etcd() else { return };
    let namespace = unique("originals");
    let registry = simple(&etcd_settings(&address, &namespace));
    let mut watch = registry.catalog();
    wait_told(&mut watch, LIMIT, &[]).await;
    let mut go = node_at(HERE, "user", 9180);
    go.meta = NodeMeta::default();
    let key = go.id.key(&namespace);
    let granted = run(&address, &["lease", "grant", "60"]);
    let lease = granted.split(' ').nth(1).expect("a lease id");
    run(&address, &["put", &key, "0", "--lease", lease]);
    wait_told(&mut watch, LIMIT, &ready(&[&go])).await;
    let catalog = watch.borrow().clone().expect("known");
    assert_eq!(**catalog.find(&go.id).expect("there"), go);
    registry.set_draining(&go.id, true).await.expect("marked");
    wait_told(&mut watch, LIMIT, &expected(&[(&go, NodeState::Draining)])).await;
    // Its own record is untouched; the mark goes with its lease.
    assert_eq!(run(&address, &["get", &key, "--print-value-only"]).trim(), "0");
    run(&address, &["lease", "revoke", lease]);
    wait_told(&mut watch, LIMIT, &[]).await;
    assert!(run(&address, &["get", "--prefix", &format!("/{namespace}/")]).is_empty());
    // A consumer of theirs has no ports; a fifth field is ignored.
    run(&address, &["put", &format!("{namespace}_traceConsumer_127.0.0.1:_127.0.0.1:"), "0"]);
    run(&address, &["put", &format!("{key}_more"), "0"]);
    let both = |catalog: &goms::registry::Catalog| {
        told(catalog).iter().map(|(id, _)| id.as_str()).eq(["127.0.0.1:_127.0.0.1:", "127.0.0.1:9180_127.0.0.1:80"])
    };
    wait_for(&mut watch, LIMIT, "both", both).await;
    run(&address, &["del", "--prefix", &format!("{namespace}_")]);
    wait_told(&mut watch, LIMIT, &[]).await;
}

#[tokio::test]
async fn defect_03_malformed_keys_are_skipped_and_counted() {
    let Some(address) = servers::etcd() else { return };
    let namespace = unique("malformed");
    let good = node("user");
    let before = [format!("{namespace}_"), format!("{namespace}_user"), format!("{namespace}_user_1.1.1.1:1")];
    for key in &before {
        run(&address, &["put", key, "0"]);
    }
    let (registry, _shutdown, metrics) = handle(&etcd_settings(&address, &namespace));
    wait_told(&mut registry.catalog(), LIMIT, &[]).await;
    assert!(metrics.render().contains("goms_registry_malformed_total 3"), "{}", metrics.render());
    let after =
        [format!("{namespace}_user_junk_junk"), format!("{namespace}__1.1.1.1:1_1.1.1.1:2"), "\u{fffd}".to_owned()];
    for key in &after[..2] {
        run(&address, &["put", key, "0"]);
        run(&address, &["put", key, "1"]);
        run(&address, &["del", key]);
    }
    run(&address, &["put", &format!("/{namespace}/nodes/user/{}", good.id), "{no json"]);
    registry.register(good.clone()).await.expect("registered");
    wait_told(&mut registry.catalog(), LIMIT, &ready(&[&good])).await;
    wait_until(LIMIT, "six are counted, once each", || metrics.render().contains("goms_registry_malformed_total 6"))
        .await;
    registry.deregister(&good.id).await.expect("deregistered");
    run(&address, &["del", "--prefix", &format!("{namespace}_")]);
}

#[tokio::test]
async fn defect_08_a_restart_within_the_ttl_leaves_no_duplicate() {
    let Some(address) = servers::etcd() else { return };
    let namespace = unique("restart");
    let mut settings = etcd_settings(&address, &namespace);
    settings.register_ttl = Duration::from_secs(20);
    let watcher = simple(&settings);
    let mut watch = watcher.catalog();
    let node = node_at(HERE, "user", 9180);
    let key = node.id.key(&namespace);
    let first = simple(&settings);
    first.register(node.clone()).await.expect("registered");
    wait_told(&mut watch, LIMIT, &ready(&[&node])).await;
    drop(first); // as a killed process: its lease lives on for 20 s
    let version = |field: &str| {
        let text = run(&address, &["get", &key, "-w", "fields"]);
        text.lines().find(|line| line.starts_with(&format!("\"{field}\""))).map(str::to_owned)
    };
    let (old_lease, restarted) = (lease(&address, &key), std::time::Instant::now());
    let second = simple(&settings);
    second.register(node.clone()).await.expect("takes over");
    assert!(restarted.elapsed() < Duration::from_secs(2), "its ports are bound: no need to wait for the lease");
    assert_ne!(lease(&address, &key), old_lease);
    // A Go node's list doubles where a live key is put: this one was deleted and is new.
    assert_eq!(version("Version").as_deref(), Some("\"Version\" : 1"));
    wait_told(&mut watch, LIMIT, &ready(&[&node])).await;
    assert_eq!(run(&address, &["get", "--prefix", &format!("{namespace}_"), "--keys-only"]).trim(), key);
    second.deregister(&node.id).await.expect("deregistered");
    wait_told(&mut watch, LIMIT, &[]).await;
}

#[tokio::test]
async fn defect_08_a_live_owner_elsewhere_is_not_overwritten_and_a_dead_one_is() {
    let Some(address) = servers::etcd() else { return };
    let settings = etcd_settings(&address, &unique("owner"));
    let (first, second) = (simple(&settings), simple(&settings));
    let node = node("user"); // an advertised address: its ports prove nothing
    first.register(node.clone()).await.expect("registered");
    let result = second.register(node.clone()).await;
    assert!(matches!(result, Err(RegistryError::Taken(_))), "{result:?}");
    drop(first);
    second.register(node.clone()).await.expect("free once the lease ran out");
    wait_told(&mut second.catalog(), LIMIT, &ready(&[&node])).await;
    second.deregister(&node.id).await.expect("deregistered");
}

#[tokio::test]
async fn defect_10_joins_between_the_read_and_the_watch_are_seen() {
    let Some(address) = servers::etcd() else { return };
    let settings = etcd_settings(&address, &unique("joins"));
    let writer = simple(&settings);
    let nodes: Vec<_> = (0..40).map(|_| node("user")).collect();
    let mut readers = Vec::new();
    for node in &nodes {
        readers.push(simple(&settings)); // reads while the next ones join
        writer.register(node.clone()).await.expect("registered");
    }
    for reader in &readers {
        let all = |catalog: &goms::registry::Catalog| catalog.all().count() == nodes.len();
        let catalog = wait_for(&mut reader.catalog(), LIMIT, "every node", all).await;
        assert!(catalog.all().all(|node| node.state == NodeState::Ready && node.meta.weight == 7), "{catalog:?}");
    }
    for node in &nodes {
        writer.deregister(&node.id).await.expect("deregistered");
    }
    for reader in &readers {
        wait_told(&mut reader.catalog(), LIMIT, &[]).await;
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_at_once() {
    let refused = |endpoints: &[&str], ttl: u64, interval: u64| {
        let endpoints = endpoints.iter().map(|text| (*text).to_owned()).collect();
        let etcd = EtcdSettings { endpoints, ..EtcdSettings::default() };
        let mut settings = settings(Backend::Etcd(etcd), "goms");
        settings.register_ttl = Duration::from_secs(ttl);
        settings.register_interval = Duration::from_secs(interval);
        let opened = open(&settings, &goms::shutdown::Shutdown::new(), &goms::metrics::Metrics::new());
        matches!(opened, Err(RegistryError::Setting { .. }))
    };
    assert!(refused(&[], 10, 3));
    assert!(refused(&["a:b"], 10, 3));
    assert!(refused(&["127.0.0.1:1"], 3, 3));
    assert!(refused(&["127.0.0.1:1"], 3, 0));
    assert!(!refused(&["127.0.0.1:1|http://127.0.0.1:2"], 10, 3));
}

#[tokio::test]
async fn one_of_several_endpoints_is_enough() {
    let Some(address) = servers::etcd() else { return };
    let registry = simple(&etcd_settings(&format!("127.0.0.1:1|http://{address}|127.0.0.1:2"), &unique("several")));
    let node = node("user");
    registry.register(node.clone()).await.expect("registered");
    wait_told(&mut registry.catalog(), LIMIT, &ready(&[&node])).await;
    registry.deregister(&node.id).await.expect("deregistered");
}

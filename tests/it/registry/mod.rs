//! Who is where: every backend against one suite, then what each alone must survive.

mod conformance;
mod consul;
mod etcd;
mod etcd_faults;
mod kubernetes;
mod local;
mod mdns;
mod static_file;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use goms::metrics::Metrics;
use goms::registry::{
    Backend, Catalog, CatalogWatch, ConsulSettings, EtcdSettings, HostPort, Node, NodeId, NodeMeta, NodeState,
    Registry, Settings, open,
};
use goms::shutdown::Shutdown;

use crate::support::servers::unique;

/// An address that is no machine's: no registration can prove its owner dead by having bound its ports.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A folder that goes with the test.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        let path = std::env::temp_dir().join(unique("goms-registry-"));
        std::fs::create_dir_all(&path).expect("temporary folder");
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove `{}`: {error}", self.0.display());
        }
    }
}

fn id_at(ip: IpAddr, service: &str, rpc: u16) -> NodeId {
    NodeId { service: service.to_owned(), rpc: HostPort::new(ip, rpc), http: HostPort::new(ip, 80) }
}

/// A node of another machine with a port that no other call gives.
fn node(service: &str) -> Node {
    static PORT: AtomicU16 = AtomicU16::new(10_000);
    node_at(ELSEWHERE, service, PORT.fetch_add(1, Ordering::Relaxed))
}

fn node_at(ip: IpAddr, service: &str, rpc: u16) -> Node {
    let meta = NodeMeta { version: "1.2.3".into(), weight: 7, zone: "a".into(), ..NodeMeta::default() };
    Node::new(id_at(ip, service, rpc), meta)
}

pub fn settings(backend: Backend, namespace: &str) -> Settings {
    Settings {
        backend,
        namespace: namespace.to_owned(),
        register_ttl: Duration::from_secs(3),
        register_interval: Duration::from_secs(1),
        grace: Duration::from_secs(3),
        format: goms::registry::Format::default(),
        remember: None,
    }
}

pub fn etcd_settings(address: &str, namespace: &str) -> Settings {
    let etcd = EtcdSettings { endpoints: vec![address.to_owned()], ..EtcdSettings::default() };
    settings(Backend::Etcd(etcd), namespace)
}

fn consul_settings(address: &str, namespace: &str) -> Settings {
    let consul = ConsulSettings { address: address.to_owned(), ..ConsulSettings::default() };
    settings(Backend::Consul(consul), namespace)
}

/// A handle as a process would open it.
fn handle(settings: &Settings) -> (Arc<dyn Registry>, Shutdown, Metrics) {
    let (shutdown, metrics) = (Shutdown::new(), Metrics::new());
    let registry = open(settings, &shutdown, &metrics).expect("registry opens");
    (registry, shutdown, metrics)
}

fn simple(settings: &Settings) -> Arc<dyn Registry> {
    handle(settings).0
}

/// What a catalog says, service by service: address and state.
fn told(catalog: &Catalog) -> Vec<(String, NodeState)> {
    catalog.all().map(|node| (node.id.to_string(), node.state)).collect()
}

fn expected(nodes: &[(&Node, NodeState)]) -> Vec<(String, NodeState)> {
    nodes.iter().map(|(node, state)| (node.id.to_string(), *state)).collect()
}

fn ready(nodes: &[&Node]) -> Vec<(String, NodeState)> {
    expected(&nodes.iter().map(|node| (*node, NodeState::Ready)).collect::<Vec<_>>())
}

/// Waits until the catalog is known and fits.
async fn wait_for(
    watch: &mut CatalogWatch,
    limit: Duration,
    what: &str,
    fits: impl Fn(&Catalog) -> bool,
) -> Arc<Catalog> {
    let known = |catalog: &Option<Arc<Catalog>>| catalog.as_deref().is_some_and(&fits);
    let found = tokio::time::timeout(limit, watch.wait_for(known)).await;
    if let Ok(found) = found {
        return found.expect("registry is open").clone().expect("known");
    }
    drop(found);
    panic!("not within {limit:?}: {what}; it is {:?}", watch.borrow().as_deref().map(told))
}

/// Waits until the catalog tells exactly this, in any order of services.
async fn wait_told(watch: &mut CatalogWatch, limit: Duration, wanted: &[(String, NodeState)]) {
    wait_for(watch, limit, &format!("{wanted:?}"), |catalog| told(catalog) == wanted).await;
}

/// Waits for a condition outside of any catalog.
async fn wait_until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + limit;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

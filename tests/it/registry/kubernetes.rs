//! Kubernetes: a real API server, to which the test writes what its controllers would.

use std::path::PathBuf;
use std::time::Duration;

use goms::registry::{Backend, KubernetesSettings, NodeState, RegistryError, Remember, Settings, own_ip};
use serde_json::{Value, json};

use super::{TempDir, handle, node_at, settings, simple, wait_for, wait_until};
use crate::support::goms::{Folder, Goms, command};
use crate::support::http;
use crate::support::kubernetes::{ACCOUNT, Kubernetes, collection, manifest};

const LIMIT: Duration = Duration::from_secs(15);
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn of(kubernetes: &Kubernetes) -> Settings {
    settings_of(kubernetes.address(), kubernetes.ca_file(), ACCOUNT)
}

fn settings_of(address: String, ca_file: PathBuf, token: &str) -> Settings {
    let kubernetes = KubernetesSettings {
        address,
        token: Some(token.to_owned()),
        ca_file: Some(ca_file),
        pods: "default".to_owned(),
        selector: KubernetesSettings::SELECTOR.to_owned(),
    };
    settings(Backend::Kubernetes(kubernetes), "goms")
}

/// One pod's address and conditions: ready, serving, terminating.
type Pod<'a> = (&'a str, [bool; 3]);

const READY: [bool; 3] = [true, true, false];
const ENDING: [bool; 3] = [false, true, true];
const STARTING: [bool; 3] = [false, false, false];

fn slice(name: &str, labels: Value, http: u16, pods: &[Pod<'_>]) -> Value {
    let endpoint = |(address, [ready, serving, terminating]): &Pod<'_>| {
        json!({ "addresses": [address], "zone": "a", "targetRef": { "kind": "Pod", "name": format!("pod-{address}") },
                "conditions": { "ready": ready, "serving": serving, "terminating": terminating } })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": { "name": name, "labels": labels },
        "addressType": "IPv4", "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": "http", "port": http, "protocol": "TCP" }, { "name": "rpc", "port": 9180, "protocol": "TCP" }],
    })
}

fn user(name: &str, http: u16, pods: &[Pod<'_>]) -> Value {
    slice(name, json!({ "kubernetes.io/service-name": "goms-user", "goms.dev/service": "user" }), http, pods)
}

fn told(catalog: &goms::registry::Catalog) -> Vec<(String, String, NodeState)> {
    catalog.all().map(|node| (node.id.service.clone(), node.id.http.to_string(), node.state)).collect()
}

fn wanted(nodes: &[(&str, NodeState)]) -> Vec<(String, String, NodeState)> {
    nodes.iter().map(|(address, state)| ("user".to_owned(), format!("{address}:9080"), *state)).collect()
}

#[tokio::test]
async fn slices_become_nodes_while_they_change() {
    use NodeState::{Draining, Ready};
    let Some(kubernetes) = Kubernetes::start() else { return };
    kubernetes.grant();
    kubernetes.create(SLICES, &user("user-a", 9080, &[("10.1.0.1", READY), ("10.1.0.2", STARTING)]), false);
    // a Service that never asked to be found: no key is sent to it
    let stranger = json!({ "kubernetes.io/service-name": "database" });
    kubernetes.create(SLICES, &slice("database-a", stranger, 5432, &[("10.1.0.9", READY)]), false);
    let registry = simple(&of(&kubernetes));
    let mut catalog = registry.catalog();
    let mut shows = async |nodes: &[(&str, NodeState)]| {
        let nodes = wanted(nodes);
        wait_for(&mut catalog, LIMIT, &format!("{nodes:?}"), |catalog| told(catalog) == nodes).await
    };
    let seen = shows(&[("10.1.0.1", Ready)]).await;
    let node = &seen.nodes("user")[0];
    assert_eq!((node.id.rpc.port, node.meta.zone.as_str()), (Some(9180), "a"));
    assert_eq!(node.meta.labels["pod"], "pod-10.1.0.1");

    kubernetes.replace(&format!("{SLICES}/user-a"), &user("user-a", 9080, &[("10.1.0.1", READY), ("10.1.0.2", READY)]));
    shows(&[("10.1.0.1", Ready), ("10.1.0.2", Ready)]).await;
    kubernetes.create(SLICES, &user("user-b", 9080, &[("10.1.0.3", READY)]), false);
    shows(&[("10.1.0.1", Ready), ("10.1.0.2", Ready), ("10.1.0.3", Ready)]).await;
    kubernetes
        .replace(&format!("{SLICES}/user-a"), &user("user-a", 9080, &[("10.1.0.1", ENDING), ("10.1.0.2", READY)]));
    shows(&[("10.1.0.1", Draining), ("10.1.0.2", Ready), ("10.1.0.3", Ready)]).await;
    kubernetes.replace(&format!("{SLICES}/user-a"), &user("user-a", 9080, &[("10.1.0.2", READY)]));
    shows(&[("10.1.0.2", Ready), ("10.1.0.3", Ready)]).await;
    kubernetes.delete(&format!("{SLICES}/user-b"));
    shows(&[("10.1.0.2", Ready)]).await;

    // nobody but Kubernetes takes a pod out
    let error =
        registry.set_draining(&catalog.borrow().as_deref().expect("known").nodes("user")[0].id.clone(), true).await;
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("kubectl label pod pod-10.1.0.2"), "{error}");
}

#[tokio::test]
async fn a_node_that_registers_is_the_pod_that_is_written() {
    let Some(kubernetes) = Kubernetes::start() else { return };
    kubernetes.grant();
    kubernetes.create(SLICES, &user("user-a", 80, &[("192.0.2.7", READY), ("10.1.0.2", READY)]), false);
    let registry = simple(&of(&kubernetes));
    let mut catalog = registry.catalog();
    let own = node_at(super::ELSEWHERE, "user", 9180);
    registry.register(own.clone()).await.expect("registered");
    let seen = wait_for(&mut catalog, LIMIT, "both", |catalog| catalog.all().count() == 2).await;
    assert_eq!(seen.find(&own.id).expect("it").meta, own.meta, "with what it says of itself");
    assert!(matches!(registry.register(own.clone()).await, Err(RegistryError::Taken(_))));
    registry.deregister(&own.id).await.expect("deregistered");
    let seen = wait_for(&mut catalog, LIMIT, "the other", |catalog| catalog.all().count() == 1).await;
    assert_eq!(seen.nodes("user")[0].id.http.to_string(), "10.1.0.2:80");
}

#[tokio::test]
async fn rights_that_are_missing_are_named_and_come_without_a_restart() {
    let Some(kubernetes) = Kubernetes::start() else { return };
    let (registry, _shutdown, metrics) = handle(&of(&kubernetes));
    let trouble = || registry.trouble().unwrap_or_default();
    wait_until(LIMIT, "told", || trouble().contains("cannot list resource \"endpointslices\"")).await;
    assert!(trouble().contains("scripts/kubernetes/registry.yaml"), "{}", trouble());
    assert!(metrics.render().contains("goms_registry_connected 0"));
    let wrong = simple(&settings_of(kubernetes.address(), kubernetes.ca_file(), "wrong"));
    wait_until(LIMIT, "refused", || wrong.trouble().unwrap_or_default().contains("Unauthorized")).await;
    kubernetes.grant();
    wait_for(&mut registry.catalog(), LIMIT, "known", |catalog| catalog.all().count() == 0).await;
    assert_eq!((registry.trouble(), metrics.render().contains("goms_registry_connected 1")), (None, true));
}

#[tokio::test]
async fn while_the_server_is_away_nodes_stay_and_a_start_goes_on_from_disk() {
    let Some(mut kubernetes) = Kubernetes::start() else { return };
    kubernetes.grant();
    kubernetes.create(SLICES, &user("user-a", 9080, &[("10.1.0.1", READY)]), false);
    let folder = TempDir::new();
    let mut settings = of(&kubernetes);
    settings.remember = Some(Remember { dir: folder.path().to_owned(), age: Duration::from_secs(3600) });
    let registry = simple(&settings);
    let one = wanted(&[("10.1.0.1", NodeState::Ready)]);
    wait_for(&mut registry.catalog(), LIMIT, "one", |catalog| told(catalog) == one).await;
    wait_until(LIMIT, "kept", || std::fs::read_dir(folder.path()).is_ok_and(|files| files.count() == 1)).await;
    kubernetes.kill();
    wait_until(LIMIT, "noticed", || registry.trouble().is_some()).await;
    assert_eq!(registry.catalog().borrow().as_deref().map(told), Some(one));
    let begun = simple(&settings);
    let stale = wanted(&[("10.1.0.1", NodeState::Stale)]);
    wait_for(&mut begun.catalog(), LIMIT, "remembered", |catalog| told(catalog) == stale).await;
    kubernetes.up();
    kubernetes.replace(&format!("{SLICES}/user-a"), &user("user-a", 9080, &[("10.1.0.4", READY)]));
    let now = wanted(&[("10.1.0.4", NodeState::Ready)]);
    for registry in [registry, begun] {
        wait_for(&mut registry.catalog(), LIMIT, "back", |catalog| told(catalog) == now).await;
    }
}

/// Pods have no loopback addresses, so the nodes listen on this machine's own.
#[test]
fn a_gateway_calls_pods_and_none_that_ends() {
    let Some(kubernetes) = Kubernetes::start() else { return };
    kubernetes.grant();
    let ip = own_ip().to_string();
    if own_ip().is_loopback() {
        eprintln!("SKIPPED: this machine has no address besides loopback");
        return;
    }
    let folder = Folder::new();
    folder.write("goms.yml", &format!(
        "callServiceKey: k\nservices: {{ user: {{ hello: /hello }} }}\nregistry: {{ kind: kubernetes, address: '{}', token: {ACCOUNT}, caFile: '{}', pods: default }}\n",
        kubernetes.address(), kubernetes.ca_file().display(),
    ));
    let start = |arguments: &[&str]| {
        let ports = ["--http-port", "0", "--rpc-port", "0", "--admin-port", "0", "--advertise-ip", &ip];
        Goms::spawn(command(folder.path(), &[arguments, &ports].concat()))
    };
    let port = |node: &Goms| node.wait_for("Http Listen on port: ").rsplit(' ').next().expect("a port").to_owned();
    let nodes = ["one", "two"].map(|_| start(&["service", "user", "--bind", &ip]));
    let ports = nodes.each_ref().map(|node| port(node).parse::<u16>().expect("a number"));
    for (name, port) in [("user-one", ports[0]), ("user-two", ports[1])] {
        kubernetes.create(SLICES, &user(name, port, &[(&ip, READY)]), false);
    }
    let gateway = start(&["gateway", "--bind", "127.0.0.1"]);
    let address = format!("127.0.0.1:{}", port(&gateway));
    for port in ports {
        gateway.wait_for(&format!("{ip}:{port}] join"));
    }
    let asked = || http::get(&address, "/api/user/hello").expect("an answer").status;
    assert_eq!([(); 8].map(|()| asked()), [200; 8]);
    // the kubelet ends a pod: its slice says so first, then the process gets SIGTERM
    let [one, two] = nodes;
    kubernetes.replace(&format!("{SLICES}/user-one"), &user("user-one", ports[0], &[(&ip, ENDING)]));
    let heard = || one.log().matches("GET /hello").count();
    let drained = || {
        let before = heard();
        assert_eq!([(); 8].map(|()| asked()), [200; 8]);
        heard() == before
    };
    let deadline = std::time::Instant::now() + LIMIT;
    while !drained() {
        assert!(std::time::Instant::now() < deadline, "the ending pod is still called:\n{}", gateway.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(one.terminate(), 0);
    kubernetes.delete(&format!("{SLICES}/user-one"));
    assert_eq!([(); 8].map(|()| asked()), [200; 8]);
    drop(two);
}

#[test]
fn the_manifests_are_what_kubernetes_takes() {
    let Some(kubernetes) = Kubernetes::start() else { return };
    for file in ["goms.yaml", "registry.yaml"] {
        let objects = manifest(file);
        assert!(objects.len() >= 4, "{file}");
        for object in objects {
            kubernetes.create(&collection(&object), &object, true);
        }
    }
}

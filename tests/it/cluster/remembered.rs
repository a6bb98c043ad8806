//! Processes that start while their registry's server is away: the catalog on disk has its place.

use std::path::PathBuf;

use super::{gateway, service, until, wait_for_nodes};
use crate::support::etcd::Etcd;
use crate::support::goms::{Folder, Goms, run};
use crate::support::http::{get, wait_for_status};
use crate::support::load::Load;

const PATH: &str = "/api/user/login";

fn config(folder: &Folder, etcd: &str) -> String {
    let text = format!(
        "etcdAddr: ['{etcd}']\nregistry: {{ ttl: 6s, interval: 2s }}\nservices: {{ user: {{ login: /login }} }}\n"
    );
    folder.write("config.yml", &text)
}

/// What is kept on disk, once it has so many nodes of the service.
fn kept(folder: &Folder, service: &str, count: usize) -> PathBuf {
    until("the catalog on disk", || {
        let file = std::fs::read_dir(folder.path().join("catalog")).ok()?.find_map(|entry| {
            let path = entry.ok()?.path();
            path.extension().is_some_and(|end| end == "json").then_some(path)
        })?;
        let page: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
        let nodes = page["nodes"].as_array()?.iter().filter(|node| node["service"] == service).count();
        (nodes == count).then_some(file)
    })
}

/// How many nodes of a service the gateway knows.
fn known(address: &str, service: &str) -> usize {
    let page = get(address, "/cluster").expect("an answer").json();
    page["services"][service]["Nodes"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_gateway_that_starts_without_etcd_goes_on_with_the_nodes_of_before_and_catches_up() {
    let Some(mut etcd) = Etcd::start() else { return };
    let folder = Folder::new();
    let config = config(&folder, &etcd.address());
    let with = ["--config", config.as_str(), "--access-log=false"];
    let (first, address) = gateway(&folder, &with);
    let mut users: Vec<Goms> = (0..2).map(|_| service(&folder, "user", &with).0).collect();
    wait_for_nodes(&folder, "user", 2, &with[..2]);
    wait_for_status(&address, PATH, 200);
    kept(&folder, "user", 2);

    etcd.kill();
    first.kill();
    let port = address.rsplit(':').next().expect("a port").to_owned();
    let again = ["gateway", "--http-port", &port, "--rpc-port", "0", "--bind", "127.0.0.1"];
    let second = Goms::start_in(folder.path(), &[&again[..], &with].concat());
    second.wait_for("etcd is away, going on with 3 nodes as it told them ");
    wait_for_status(&address, PATH, 200);
    let load = Load::start(&address, "GET", PATH, 4);
    load.wait_for(200);
    // one is gone meanwhile: it is called until it refuses
    users.remove(0).kill();
    load.wait_for(300);
    let log = second.log();
    assert_eq!(log.matches("registered once etcd is back").count(), 1, "{log}");
    assert_eq!(log.matches("unavailable").count(), 1, "a clear line, not a stack of retries: {log}");

    // etcd is back, with the node that stayed and a new one
    etcd.up();
    second.wait_for("is back");
    second.wait_for("is registered");
    let (_fresh, _) = service(&folder, "user", &with);
    wait_for_nodes(&folder, "user", 2, &with[..2]);
    until("the new nodes", || (known(&address, "user") == 2).then_some(()));
    load.wait_for(200);
    let outcomes = load.stop();
    assert_eq!(outcomes.keys().map(String::as_str).collect::<Vec<_>>(), ["200"], "{outcomes:?}");
    wait_for_nodes(&folder, "gateway", 1, &with[..2]);
    drop(users);
}

#[test]
fn a_file_that_is_torn_is_ignored_and_the_absence_of_etcd_told_once() {
    let Some(mut etcd) = Etcd::start() else { return };
    let folder = Folder::new();
    let config = config(&folder, &etcd.address());
    let with = ["--config", config.as_str(), "--access-log=false"];
    let (gateway, _address) = gateway(&folder, &with);
    let file = kept(&folder, "gateway", 1);
    gateway.terminate();
    etcd.kill();
    let whole = std::fs::read(&file).expect("it can be read");
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("it can be written");
    let args = ["gateway", "--http-port", "0", "--rpc-port", "0", "--bind", "127.0.0.1", "--registry-wait", "1s"];
    let output = run(folder.path(), &[&args[..], &with].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("catalog on disk is ignored file="), "{said}");
    assert_eq!(said.matches("unavailable").count(), 1, "{said}");
    assert!(said.lines().count() <= 6, "{said}");
    // and what only reads has no use for it
    std::fs::write(&file, &whole).expect("it can be written");
    let output = run(folder.path(), &["cluster", "nodes", "--registry-wait", "1s", "--config", &config]);
    assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stdout));
}

//! Nodes that fail in ways nobody announced, under load: each request is counted.

use super::{gateway, service, wait_for_nodes};
use crate::support::goms::{Folder, Goms};
use crate::support::http::wait_for_status;
use crate::support::load::Load;
use crate::support::{servers, slow};

fn assert_only_200(load: Load) -> u64 {
    let outcomes = load.stop();
    assert_eq!(outcomes.keys().map(String::as_str).collect::<Vec<_>>(), ["200"], "{outcomes:?}");
    outcomes["200"]
}

#[test]
fn a_frozen_node_fails_no_get_and_is_left_out_until_it_answers_again() {
    let folder = Folder::new();
    let text = "services: { user: { login: { path: /login, timeout: 300ms } } }\nupstreams: { user: { ejection: { for: 1s } } }\n";
    let config = folder.write("config.yml", text);
    let with = ["--config", config.as_str(), "--access-log=false"];
    let (gateway, address) = gateway(&folder, &with);
    let users: Vec<Goms> = (0..3).map(|_| service(&folder, "user", &with).0).collect();
    wait_for_nodes(&folder, "user", 3, &with[..2]);
    wait_for_status(&address, "/api/user/login", 200);
    let load = Load::start(&address, "GET", "/api/user/login", 4);
    load.wait_for(200);
    users[0].signal("STOP");
    let ejected = gateway.wait_for("node ejected, its calls go to the others service=user");
    load.wait_for(500); // the others are not held up: each of these would have taken its turn at the frozen one
    users[0].signal("CONT");
    gateway.wait_for("node is back after its ejection service=user");
    load.wait_for(200);
    assert_only_200(load);
    assert!(ejected.contains("reason="), "{ejected}");
}

/// On etcd a killed node stays registered until its lease ends, so nothing but the failed tries tells of it.
#[test]
fn kill_9_of_a_node_that_etcd_still_lists_fails_no_get() {
    let Some(etcd) = servers::etcd() else { return };
    let requests = if slow() { 50_000 } else { 3_000 };
    let folder = Folder::new();
    let namespace = servers::unique("ns");
    let config = folder.write(
        "config.yml",
        &format!("etcdAddr: [\"{etcd}\"]\nregistry: {{ namespace: {namespace}, ttl: 30s, interval: 10s }}\nservices: {{ user: {{ login: /login }} }}\n"),
    );
    let with = ["--config", config.as_str(), "--access-log=false"];
    let (gateway, address) = gateway(&folder, &with);
    let mut users: Vec<Goms> = (0..3).map(|_| service(&folder, "user", &with).0).collect();
    wait_for_nodes(&folder, "user", 3, &with[..2]);
    wait_for_status(&address, "/api/user/login", 200);
    let load = Load::start(&address, "GET", "/api/user/login", 8);
    load.wait_for(500);
    users.remove(0).kill();
    load.wait_for(requests);
    assert!(assert_only_200(load) >= requests);
    let log = gateway.log();
    assert!(!log.contains("leave"), "the lease lasts longer than the test: {log}");
}

/// No request has to find out: the gateway asks by itself.
#[test]
fn a_frozen_node_is_found_unwell_without_a_request() {
    let folder = Folder::new();
    let check = "upstreams: { user: { health: { path: /login, every: 50ms, timeout: 200ms } } }\n";
    let config =
        folder.write("config.yml", &format!("callServiceKey: k\nservices: {{ user: {{ login: /login }} }}\n{check}"));
    let with = ["--config", config.as_str(), "--access-log=false"];
    let (gateway, address) = gateway(&folder, &with);
    let users: Vec<Goms> = (0..2).map(|_| service(&folder, "user", &with).0).collect();
    wait_for_nodes(&folder, "user", 2, &with[..2]);
    users[0].signal("STOP");
    gateway.wait_for("node is unwell service=user");
    let load = Load::start(&address, "GET", "/api/user/login", 2);
    load.wait_for(200);
    users[0].signal("CONT");
    gateway.wait_for("node is well again service=user");
    load.wait_for(200);
    assert_only_200(load);
}

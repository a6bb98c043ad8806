//! An etcd of three members that loses one, and then its leader, under load.

use super::{gateway, service, until, wait_for_nodes};
use crate::support::etcd::Etcd;
use crate::support::goms::{Folder, Goms};
use crate::support::http::{get, wait_for_status};
use crate::support::load::Load;

const PATHS: [&str; 2] = ["/api/user/login", "/api/order/submit"];

#[test]
fn one_of_three_members_killed_and_then_the_leader_fail_no_request_and_no_lease() {
    let Some(mut members) = Etcd::start_three() else { return };
    let folder = Folder::new();
    let addresses = members.each_ref().map(|etcd| format!("'{}'", etcd.address())).join(",");
    let config = folder.write(
        "config.yml",
        &format!(
            "etcdAddr: [{addresses}]\nregistry: {{ ttl: 5s, interval: 1s, wait: 60s }}\n\
             services: {{ user: {{ login: /login }}, order: {{ submit: /order/submit }} }}\n"
        ),
    );
    let with = ["--config", config.as_str(), "--access-log=false"];
    let (gateway, address) = gateway(&folder, &with);
    let mut nodes: Vec<Goms> =
        ["user", "user", "order", "order"].iter().map(|name| service(&folder, name, &with).0).collect();
    for (name, path) in ["user", "order"].iter().zip(PATHS) {
        wait_for_nodes(&folder, name, 2, &with[..2]);
        wait_for_status(&address, path, 200);
    }
    let loads = PATHS.map(|path| Load::start(&address, "GET", path, 2));
    let known = |name: &str| {
        let page = get(&address, "/cluster").expect("an answer").json();
        page["services"][name]["Nodes"].as_array().map_or(0, Vec::len)
    };
    let mut changes = 0;
    // who joins and who leaves is seen with two of three, whichever is missing
    for leader in [false, true] {
        let victim = until("a leader", || members.iter().position(|etcd| etcd.leads() == leader));
        members[victim].kill();
        loads.iter().for_each(|load| load.wait_for(300));
        nodes.push(service(&folder, "user", &with).0);
        until("the node that joined", || (known("user") == 3).then_some(()));
        nodes.pop().expect("it was pushed").terminate();
        until("the node that left", || (known("user") == 2).then_some(()));
        changes += 1;
        // longer than a lease
        let until_then = std::time::Instant::now() + std::time::Duration::from_secs(6);
        while std::time::Instant::now() < until_then {
            loads.iter().for_each(|load| load.wait_for(20));
        }
        assert_eq!((known("user"), known("order")), (2, 2));
        members[victim].up();
    }
    for load in loads {
        let outcomes = load.stop();
        assert_eq!(outcomes.keys().map(String::as_str).collect::<Vec<_>>(), ["200"], "{outcomes:?}");
    }
    let log = gateway.log();
    assert_eq!(log.matches("] leave").count(), changes, "no lease was lost: {log}");
    for node in &nodes {
        assert!(!node.log().contains("registered again"), "{}", node.log());
    }
}

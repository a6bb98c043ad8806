//! Separate processes on the local registry: joins, leaves, turns, and nodes that come and go under load.

use std::collections::BTreeSet;

use super::{consumer, four_events, gateway, service, until, wait_for_nodes};
use crate::support::goms::{Folder, Goms, run};
use crate::support::http::{get, post, wait_for_status};
use crate::support::load::Load;

/// `ip:rpc_ip:http` of the nodes of a service, in the gateway's order.
fn nodes(gateway: &str, service: &str) -> Vec<String> {
    let page = get(gateway, "/cluster").expect("the page").json();
    let nodes = page["services"][service]["Nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().filter_map(|node| node.as_str().map(str::to_owned)).collect()
}

fn wait_for_gateway_to_see(gateway: &str, service: &str, count: usize) {
    until(&format!("the gateway sees {count} nodes of {service}"), || {
        (nodes(gateway, service).len() == count).then_some(())
    });
}

#[test]
fn nodes_log_each_others_joins_and_leaves_once_and_take_turns() {
    let folder = Folder::new();
    let (gateway, address) = gateway(&folder, &[]);
    let mut users: Vec<(Goms, String)> = (0..3).map(|_| service(&folder, "user", &[])).collect();
    wait_for_gateway_to_see(&address, "user", 3);
    let of = |at: &str| {
        nodes(&address, "user").into_iter().find(|node| node.ends_with(&format!("_{at}"))).expect("its node")
    };
    let first = of(&users[0].1);
    for other in [&gateway, &users[1].0, &users[2].0] {
        // a later one finds it at its first read, which it tells as a join too
        other.wait_for(&format!("[user] node [{first}] join"));
    }
    assert!(!users[0].0.log().contains(&format!("[{first}] join")), "its own join: {}", users[0].0.log());

    // strictly in turn, and `/cluster` tells the truth at any moment
    let order = nodes(&address, "user");
    for turn in 0..7u64 {
        let page = get(&address, "/cluster").expect("the page").json();
        assert_eq!(page["services"]["user"]["PollNext"], turn % 3);
        assert_eq!(page["services"]["user"]["RequestFinish"], turn);
        let answer = post(&address, "/api/user/login", "{}").expect("an answer");
        let id = answer.header("x-request-id").expect("an id").to_owned();
        let expected = &order[usize::try_from(turn % 3).expect("small")];
        let (user, _) = users.iter().find(|(_, at)| expected.ends_with(&format!("_{at}"))).expect("that node");
        user.wait_for(&id); // the access log of the node whose turn it was
    }
    let status = run(folder.path(), &["cluster", "status", "user", "--output", "json"]).stdout;
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&status).expect("rows");
    let mut answered: Vec<u64> = rows.iter().filter_map(|row| row["answered"].as_u64()).collect();
    answered.sort_unstable();
    assert_eq!(answered, [2, 2, 3], "what each node tells of itself");

    let (killed, at) = users.remove(0);
    let killed_node = of(&at);
    killed.kill();
    gateway.wait_for(&format!("[user] node [{killed_node}] leave"));
    wait_for_gateway_to_see(&address, "user", 2);
    let log = gateway.log();
    for what in ["join", "leave"] {
        assert_eq!(log.matches(&format!("[user] node [{killed_node}] {what}")).count(), 1, "{log}");
    }
}

#[test]
fn defect_07_kill_9_of_one_of_three_fails_no_get() {
    let folder = Folder::new();
    let (_gateway, address) = gateway(&folder, &[]);
    let mut users: Vec<Goms> = (0..3).map(|_| service(&folder, "user", &["--access-log=false"]).0).collect();
    wait_for_gateway_to_see(&address, "user", 3);
    let load = Load::start(&address, "GET", "/api/user/login", 8);
    load.wait_for(500);
    users.remove(0).kill();
    load.wait_for(500);
    users.push(service(&folder, "user", &["--access-log=false"]).0);
    wait_for_gateway_to_see(&address, "user", 3);
    load.wait_for(500);
    let outcomes = load.stop();
    assert_eq!(outcomes.keys().map(String::as_str).collect::<Vec<_>>(), ["200"], "{outcomes:?}");
}

#[test]
fn defect_09_sigterm_of_nodes_under_load_cuts_nothing_off() {
    let folder = Folder::new();
    let (_gateway, address) = gateway(&folder, &[]);
    let users: Vec<Goms> = (0..3).map(|_| service(&folder, "user", &["--access-log=false"]).0).collect();
    wait_for_gateway_to_see(&address, "user", 3);
    // POST: what is cut off could not be tried again
    let load = Load::start(&address, "POST", "/api/user/login", 8);
    let mut fresh = Vec::new();
    for user in users {
        load.wait_for(300);
        fresh.push(service(&folder, "user", &["--access-log=false"]).0);
        assert_eq!(user.terminate(), 0);
    }
    load.wait_for(300);
    let outcomes = load.stop();
    assert_eq!(outcomes.keys().map(String::as_str).collect::<Vec<_>>(), ["200"], "{outcomes:?}");
    wait_for_nodes(&folder, "user", 3, &[]);
}

#[test]
fn defect_09_sigterm_of_the_gateway_answers_what_it_took() {
    let folder = Folder::new();
    let (gateway, address) = gateway(&folder, &[]);
    let (_user, _) = service(&folder, "user", &["--access-log=false"]);
    wait_for_gateway_to_see(&address, "user", 1);
    let load = Load::start(&address, "POST", "/api/user/login", 4);
    load.wait_for(300);
    assert_eq!(gateway.terminate(), 0);
    let outcomes = load.stop();
    // After its end nobody listens; before it, every request that was taken was answered. A connection that the kernel
    // had set up when the listener closed, but that nobody had accepted, is reset by the kernel: at most one a client.
    let (fresh, cut): (Vec<_>, Vec<_>) =
        outcomes.iter().filter(|each| each.0 != "200").partition(|each| each.0.starts_with("connect: "));
    let reset: u64 = fresh.iter().filter(|each| !each.0.contains("refused")).map(|each| *each.1).sum();
    assert!(cut.is_empty() && reset <= 4, "{outcomes:?}");
}

#[test]
fn defect_08_a_second_process_on_taken_ports_leaves_the_first_alone() {
    let folder = Folder::new();
    let (_gateway, address) = gateway(&folder, &[]);
    let (_user, at) = service(&folder, "user", &[]);
    wait_for_gateway_to_see(&address, "user", 1);
    let port = at.rsplit(':').next().expect("a port");
    let second = run(folder.path(), &["service", "user", "--bind", "127.0.0.1", "--http-port", port]);
    assert_eq!(second.status.code(), Some(69));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&format!("cannot listen on {at}")) && said.contains("--http-port"), "{said}");
    assert_eq!(nodes(&address, "user").len(), 1);
    for _ in 0..3 {
        assert_eq!(get(&address, "/api/user/login").expect("an answer").status, 200);
    }
}

#[test]
fn defect_08_a_restart_leaves_no_duplicate() {
    let folder = Folder::new();
    let (_gateway, address) = gateway(&folder, &[]);
    let (user, at) = service(&folder, "user", &["--rpc-port", "0"]);
    wait_for_gateway_to_see(&address, "user", 1);
    let node = nodes(&address, "user").remove(0);
    let (http, rpc) = (at.rsplit(':').next().expect("http"), node.split(['_', ':']).nth(1).expect("rpc").to_owned());
    user.kill();
    let (_again, _) = service(&folder, "user", &["--http-port", http, "--rpc-port", &rpc]);
    until("the same node, once", || (nodes(&address, "user") == [node.clone()]).then_some(()));
}

#[test]
fn without_a_node_the_gateway_says_so_and_recovers() {
    let folder = Folder::new();
    let (_gateway, address) = gateway(&folder, &[]);
    let answer = get(&address, "/api/user/login").expect("an answer");
    assert_eq!(answer.status, 503);
    let (user, _) = service(&folder, "user", &[]);
    wait_for_status(&address, "/api/user/login", 200);
    user.kill();
    wait_for_status(&address, "/api/user/login", 503);
    let (_user, _) = service(&folder, "user", &[]);
    wait_for_status(&address, "/api/user/login", 200);
}

#[test]
fn events_wait_for_a_consumer_and_survive_its_crash() {
    let folder = Folder::new();
    let (gateway, address) = gateway(&folder, &[]);
    let (_user, _) = service(&folder, "user", &[]);
    wait_for_status(&address, "/api/user/login", 200);
    gateway.wait_for("goms trace-consumer"); // the hint
    let early = post(&address, "/api/user/login", "{\"n\":1}").expect("an answer");
    let first = consumer(&folder, &[]);
    four_events(&folder, early.header("x-request-id").expect("an id"), &[]);
    first.kill();
    let meanwhile = post(&address, "/api/user/login", "{\"n\":2}").expect("an answer");
    assert_eq!(meanwhile.status, 200);
    let _second = consumer(&folder, &[]);
    let ids: BTreeSet<String> = [&early, &meanwhile]
        .iter()
        .flat_map(|answer| four_events(&folder, answer.header("x-request-id").expect("an id"), &[]))
        .filter_map(|event| event["eventId"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(ids.len(), 8, "every event once");
}

#[test]
fn cluster_watch_and_drain_steer_a_running_cluster() {
    let folder = Folder::new();
    let (_gateway, address) = gateway(&folder, &[]);
    let watch = Goms::start_in(folder.path(), &["cluster", "watch"]);
    watch.wait_for("[gateway] node [");
    let (user, at) = service(&folder, "user", &[]);
    let line = watch.wait_for(&format!("_{at}] join"));
    assert!(line.contains("[user] node ["), "{line}");
    let drained = run(folder.path(), &["cluster", "drain", &at]);
    assert_eq!(drained.status.code(), Some(0), "{}", String::from_utf8_lossy(&drained.stderr));
    watch.wait_for(&format!("_{at}] draining"));
    wait_for_status(&address, "/api/user/login", 503);
    assert_eq!(run(folder.path(), &["cluster", "drain", "--undo", &at]).status.code(), Some(0));
    wait_for_status(&address, "/api/user/login", 200);
    user.kill();
    watch.wait_for(&format!("_{at}] leave"));
    let unknown = run(folder.path(), &["cluster", "status", "usr"]);
    assert_eq!(unknown.status.code(), Some(69));
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(said, "goms: no service `usr` in the cluster; it has gateway\n");
}

#[test]
fn an_advertised_address_and_the_flags_of_the_originals_are_taken() {
    let folder = Folder::new();
    let args = ["gateway", "-http_port", "0", "--rpc_port=0", "-bind", "127.0.0.1", "-advertise_ip", "127.0.0.2"];
    let gateway = Goms::start_in(folder.path(), &args);
    let port = gateway.wait_for("[gateway] Http Listen on port: ").rsplit(' ').next().expect("a port").to_owned();
    let address = format!("127.0.0.1:{port}");
    until("the gateway on its own page", || (nodes(&address, "gateway").len() == 1).then_some(()));
    let node = nodes(&address, "gateway").remove(0);
    assert!(node.starts_with("127.0.0.2:") && node.ends_with(&format!("_127.0.0.2:{port}")), "{node}");
    assert_eq!(gateway.terminate(), 0);
}

#[test]
fn a_heavier_node_gets_more_requests() {
    let folder = Folder::new();
    let (_gateway, address) = gateway(&folder, &[]);
    let (_heavy, _) = service(&folder, "user", &["--weight", "3"]);
    let (_light, _) = service(&folder, "user", &[]);
    wait_for_gateway_to_see(&address, "user", 2);
    for _ in 0..8 {
        assert_eq!(post(&address, "/api/user/login", "{}").expect("an answer").status, 200);
    }
    let status = run(folder.path(), &["cluster", "status", "user", "--output", "json"]).stdout;
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&status).expect("rows");
    let mut answered: Vec<u64> = rows.iter().filter_map(|row| row["answered"].as_u64()).collect();
    answered.sort_unstable();
    assert_eq!(answered, [2, 6]);
}

#[test]
fn a_frozen_node_is_ejected_and_comes_back_once_it_thaws() {
    let folder = Folder::new();
    let config = folder.write(
        "config.yml",
        "services: { user: { login: { path: /login, timeout: 300ms } } }
upstreams: { user: { ejection: { failures: 2, for: 500ms } } }
",
    );
    let (gateway, address) = gateway(&folder, &["--config", &config]);
    let (frozen, _) = service(&folder, "user", &[]);
    let _others = [service(&folder, "user", &[]), service(&folder, "user", &[])];
    wait_for_gateway_to_see(&address, "user", 3);
    let ejected = || get(&address, "/cluster").expect("the page").json()["services"]["user"]["Ejected"].clone();
    let ask = || assert_eq!(get(&address, "/api/user/login").expect("an answer").status, 200);
    frozen.signal("STOP");
    (0..9).for_each(|_| ask()); // each meets it at most once, and goes on to another
    assert_eq!(ejected().as_array().map(Vec::len), Some(1), "{}", gateway.log());
    gateway.wait_for("node ejected, its calls go to the others service=user");
    frozen.signal("CONT");
    until("the node is back", || {
        ask();
        ejected().is_null().then_some(())
    });
    gateway.wait_for("node is back after its ejection service=user");
}

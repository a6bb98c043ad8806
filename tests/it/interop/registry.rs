//! Who is where, between the two.

use std::time::Duration;

use serde_json::Value;

use super::{Cluster, Version};
use crate::support::goms::{Goms, PATIENCE, run};
use crate::support::wait_for;

/// What `goms cluster nodes` shows.
fn seen(cluster: &Cluster) -> Vec<Value> {
    let args = ["cluster", "nodes", "--output", "json", "--registry-address", &cluster.etcd.address()];
    let output = run(cluster.path(), &args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match serde_json::from_str(&text) {
        Ok(Value::Array(rows)) => rows,
        other => panic!("{other:?}: {text}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[tokio::test]
async fn nodes_of_both_versions_are_seen_and_drained_like_any() {
    let Some(cluster) = Cluster::start(&[Version::V2, Version::V5]) else { return };
    let two = cluster.go(Version::V2, &["-name", "go.micro.srv.two"]);
    let five = cluster.go(Version::V5, &["-name", "go.micro.srv.five"]);
    let rows = |service: &str| seen(&cluster).into_iter().filter(|row| row["service"] == service).collect::<Vec<_>>();
    wait_for("both", || rows("go.micro.srv.two").len() == 1 && rows("go.micro.srv.five").len() == 1).await;
    let node = rows("go.micro.srv.two")[0].clone();
    assert_eq!((&node["version"], &node["state"]), (&"latest".into(), &"ready".into()));
    let address = node["node"].as_str().expect("text").split('_').next().expect("rpc").to_owned();
    let etcd = cluster.etcd.address();
    let drained = run(cluster.path(), &["cluster", "drain", &address, "--registry-address", &etcd]);
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    assert_eq!(rows("go.micro.srv.two")[0]["state"], "draining");
    two.terminate();
    five.terminate();
    wait_for("both gone", || seen(&cluster).is_empty()).await;
}

#[tokio::test]
async fn a_node_of_ours_is_a_record_like_theirs() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let service = cluster.goms(&["service", "user", "--registry-format", "go-micro"]);
    service.wait_for("Registry [etcd] Registering node: go.micro.srv.user-");
    service.wait_for("Server [grpc] Listening on 127.0.0.1:");
    wait_for("the record", || !cluster.records("go.micro.srv.user").is_empty()).await;
    let (key, record) = cluster.records("go.micro.srv.user").remove(0);
    assert_eq!(record["name"], "go.micro.srv.user");
    assert!(record["version"].is_string() && record["endpoints"].is_array());
    let node = &record["nodes"][0];
    assert!(key.ends_with(node["id"].as_str().expect("text")), "{key}");
    for (name, value) in
        [("broker", "http"), ("protocol", "grpc"), ("registry", "etcd"), ("server", "grpc"), ("transport", "grpc")]
    {
        assert_eq!(node["metadata"][name], value, "{name}");
    }
    // its lease, as its users look at it
    let lease = cluster.etcd.ctl(&["get", &key, "-w", "json"]);
    let lease: Value = serde_json::from_str(&lease).expect("json");
    let lease = format!("{:x}", lease["kvs"][0]["lease"].as_i64().expect("a lease"));
    let told = cluster.etcd.ctl(&["lease", "timetolive", "--keys", &lease]);
    assert!(told.contains("granted with TTL(30s)") && told.contains(&key), "{told}");
    // deleted by hand, it comes back; ours is no other node
    cluster.etcd.ctl(&["del", &key]);
    wait_for("its return", || cluster.records("go.micro.srv.user").len() == 1).await;
    assert_eq!(cluster.records("go.micro.srv.user")[0].0, key);
    service.signal("TERM");
    wait_for("its end", || cluster.records("go.micro.srv.user").is_empty()).await;
}

#[tokio::test]
async fn names_protocols_and_spellings() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let start = |args: &[&str], spelt: &[&str]| {
        let mut command = crate::support::goms::command(cluster.path(), &[args, spelt].concat());
        command.env("MICRO_REGISTRY_ADDRESS", format!("http://{}", cluster.etcd.address()));
        Goms::spawn(command)
    };
    let base = ["--registry_format=go-micro", "--selector=cache", "--bind", "127.0.0.1"];
    let mucp =
        start(&["service", "user", "--go-micro-protocol", "mucp", "--registry=etcdv3", "--registry_ttl=5"], &base);
    let named = start(&["service", "user", "--name", "shop.users", "--registry_interval=2", "--register_ttl=6"], &base);
    mucp.wait_for("Server [mucp] Listening on 127.0.0.1:");
    named.wait_for("Registering node: shop.users-");
    let there = |service: &str| cluster.records(service).len() == 1;
    wait_for("both", || there("go.micro.srv.user") && there("shop.users")).await;
    let node = cluster.records("go.micro.srv.user")[0].1["nodes"][0].clone();
    assert_eq!((&node["metadata"]["protocol"], &node["metadata"]["transport"]), (&"mucp".into(), &"http".into()));
    let http = mucp.wait_for("Http Listen on port: ");
    assert_eq!(node["address"].as_str(), http.rsplit(' ').next().map(|port| format!("127.0.0.1:{port}")).as_deref());
}

#[tokio::test]
async fn junk_beside_good_records_hurts_nobody() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let put = |key: &str, value: &str| {
        cluster.etcd.ctl(&["put", &format!("/micro/registry/{key}"), value]);
    };
    let good = r#"{"name":"a","version":null,"nodes":[{"address":"127.0.0.1:1","metadata":null}]}"#;
    for (index, junk) in ["", "{", "null", &good[..40], r#"{"nodes":[{"address":"no"}]}"#].into_iter().enumerate() {
        put(&format!("junk/{index}"), junk);
    }
    put("a/1", good);
    let rows = seen(&cluster);
    assert_eq!((rows.len(), &rows[0]["service"]), (1, &"a".into()));
    // and while a process follows
    let gateway = cluster.goms(&["gateway", "--http-port", "0", "--rpc-port", "0"]);
    gateway.wait_for_count("is skipped", 5, PATIENCE);
    put("a/1", "{\"half");
    put("b/1", good);
    gateway.wait_for("`/micro/registry/a/1` is skipped");
    assert!(gateway.wait_for_count("[a] node", 1, Duration::from_secs(5)).contains("join"));
}

//! The same commands on real etcd, RabbitMQ and Elasticsearch.

use std::process::Command;

use super::{consumer, four_events, gateway, service, until};
use crate::support::etcd::{Etcd, ctl};
use crate::support::goms::{Folder, Goms, run};
use crate::support::http::{post, request, wait_for_status};
use crate::support::servers;

#[test]
fn the_whole_path_on_etcd_rabbitmq_and_elasticsearch() {
    let (Some(etcd), Some(amqp), Some(es)) = (servers::etcd(), servers::amqp(), servers::elasticsearch()) else {
        return;
    };
    let folder = Folder::new();
    let (namespace, queue, index) = (servers::unique("ns"), servers::unique("trace-"), servers::unique("trace_logs-"));
    let config = folder.write(
        "config.yml",
        &format!(
            "callServiceKey: goms by panco\netcdAddr:\n  - \"{etcd}\"\namqpaddr: \"{amqp}\"\nesAddr: \"{es}\"\n\
             esIndex: {index}\namqp: {{queue: {queue}}}\nregistry: {{namespace: {namespace}}}\n\
             services:\n  user:\n    register: \"/register\"\n    login: \"/login\"\n  order:\n    submit: \"/order/submit\"\n"
        ),
    );
    let with = ["--config", config.as_str(), "--register-ttl", "30", "--register-interval", "10"];
    let consumer = consumer(&folder, &with);
    consumer.wait_for("[amqp] trace consumer is runner");
    let (gateway, address) = gateway(&folder, &with);
    let (user, at) = service(&folder, "user", &with);
    gateway.wait_for(&format!("_{at}] join"));
    wait_for_status(&address, "/api/user/login", 200);

    // the keys are the originals', value 0, on a lease as asked for
    let etcdctl = |args: &[&str]| {
        let out = Command::new("etcdctl").args(["--endpoints", &etcd]).args(args).env("ETCDCTL_API", "3").output();
        String::from_utf8(out.expect("etcdctl runs").stdout).expect("text")
    };
    let keys = etcdctl(&["get", "--prefix", &format!("{namespace}_")]);
    let lines: Vec<&str> = keys.lines().collect();
    assert_eq!(lines.len(), 6, "{keys}");
    assert!(lines.iter().skip(1).step_by(2).all(|value| *value == "0"), "{keys}");
    assert!(lines.iter().any(|key| key.starts_with(&format!("{namespace}_user_")) && key.ends_with(&at)), "{keys}");

    let headers = [("Content-Type", "application/json"), ("Authorization", "Bearer hidden")];
    let answer =
        request("POST", &address, "/api/user/login?a=1&b=3", &headers, Some(b"{\"n\":12345678901234567890.50}"));
    let answer = answer.expect("an answer");
    assert!(answer.text().contains("\"body\":{\"n\":12345678901234567890.50}"), "{}", answer.text());
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let events = four_events(&folder, &id, &with);
    let text = serde_json::to_string(&events).expect("json");
    assert!(!text.contains("hidden") && !text.contains("goms by panco"), "{text}");
    consumer.wait_for("amqp trace consumer success count=");
    // and there they are for Kibana too
    let es = es.trim_start_matches("http://").to_owned();
    let query = format!("{{\"query\":{{\"match\":{{\"requestId\":\"{id}\"}}}}}}");
    let found = post(&es, &format!("/{index}/_search"), &query).expect("an answer").json();
    assert_eq!(found["hits"]["total"]["value"], 4, "{found}");

    assert_eq!(user.terminate(), 0);
    gateway.wait_for(&format!("_{at}] leave"));
    let left = etcdctl(&["get", "--prefix", &format!("{namespace}_user")]);
    assert!(left.is_empty(), "{left}");
    assert_eq!(gateway.terminate(), 0);
    assert_eq!(consumer.terminate(), 0);
}

#[test]
fn defect_02_etcd_restarted_empty_loses_no_call_and_every_node_returns() {
    let Some(mut etcd) = Etcd::start() else { return };
    let folder = Folder::new();
    let addr = etcd.address();
    let with = ["--etcd-addr", addr.as_str(), "--register-ttl", "3", "--register-interval", "1"];
    let (_gateway, address) = gateway(&folder, &with);
    let (_user, at) = service(&folder, "user", &with);
    wait_for_status(&address, "/api/user/login", 200);
    etcd.kill();
    for _ in 0..20 {
        assert_eq!(post(&address, "/api/user/login", "{}").expect("an answer").status, 200);
    }
    etcd.up_empty();
    let nodes = || run(folder.path(), &["cluster", "nodes", "--output", "json", "--etcd-addr", &addr]).stdout;
    until("every node is registered again", || {
        let text = String::from_utf8(nodes()).ok()?;
        assert_eq!(post(&address, "/api/user/login", "{}").expect("an answer").status, 200);
        (text.contains(&at) && text.contains("gateway")).then_some(())
    });
}

#[test]
fn etcd_away_at_the_start_ends_with_69_after_the_wait() {
    let folder = Folder::new();
    // bound and never accepted: nobody else takes the port
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = closed.local_addr().expect("an address").to_string();
    let args = ["gateway", "--http-port", "0", "--rpc-port", "0", "--etcd-addr", &addr, "--registry-wait", "1"];
    let ended = run(folder.path(), &args);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(69), "{said}");
    assert!(said.contains(&addr) && said.contains("--registry-wait"), "{said}");
}

#[test]
fn a_gateway_joins_the_older_system_by_its_namespace() {
    let Some(etcd) = servers::etcd() else { return };
    let folder = Folder::new();
    let with = ["--namespace", "go-ms", "--etcd-addr", etcd.as_str()];
    let (goms, address) = gateway(&folder, &with);
    let page = until("the gateway on its own page", || {
        let page = crate::support::http::get(&address, "/cluster?form=go-ms").ok()?.json();
        page["servers"]["gateway"]["Nodes"][0].as_str().is_some_and(|node| node.ends_with(&address)).then_some(page)
    });
    assert!(page.get("status").is_none(), "{page}");
    let keys = ctl(&etcd, &["get", "--prefix", "--keys-only", "go-ms_gateway_"]).1;
    assert!(keys.contains(&address), "{keys}");
    assert_eq!(Goms::terminate(goms), 0);
}

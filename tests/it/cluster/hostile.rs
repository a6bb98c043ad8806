//! Junk in etcd and RabbitMQ while a cluster runs, and events of the originals among goms's own.

use std::net::{Shutdown, TcpListener, TcpStream};

use lapin::options::QueueDeclareOptions;

use super::{consumer, four_events, gateway, service, until};
use crate::support::etcd::ctl;
use crate::support::events::run as block_on;
use crate::support::goms::{Folder, run};
use crate::support::http::{get, post, wait_for_status};
use crate::support::rabbitmq::Client;
use crate::support::servers;

const GO_EVENTS: &str = include_str!("../data/go-trace-events.jsonl");

#[test]
fn junk_in_etcd_and_rabbitmq_harms_nobody_and_go_events_are_found() {
    let (Some(etcd), Some(amqp), Some(es)) = (servers::etcd(), servers::amqp(), servers::elasticsearch()) else {
        return;
    };
    let folder = Folder::new();
    let (namespace, queue, index) = (servers::unique("ns"), servers::unique("trace-"), servers::unique("trace_logs-"));
    let config = folder.write(
        "config.yml",
        &format!(
            "callServiceKey: goms by panco\netcdAddr: [\"{etcd}\"]\namqpAddr: \"{amqp}\"\nesAddr: \"{es}\"\n\
             esIndex: {index}\namqp: {{queue: {queue}}}\nregistry: {{namespace: {namespace}}}\n\
             services: {{user: {{login: /login}}}}\n"
        ),
    );
    let with = ["--config", config.as_str()];
    // the queue of a Go node: all flags false; it is used as it is
    let go_events: Vec<&str> = GO_EVENTS.lines().collect();
    let array = format!("[{},{}]", go_events[2], go_events[3]);
    let messages: [&[u8]; 7] =
        [b"not json \xff", b"", b"{}", b"[1,null]", go_events[0].as_bytes(), go_events[1].as_bytes(), array.as_bytes()];
    block_on(async {
        let client = Client::connect(&amqp).await;
        client.declare(&queue, QueueDeclareOptions::default()).await;
        for message in messages {
            client.publish(&queue, message).await;
        }
    });
    let (gateway, address) = gateway(&folder, &with);
    let (user, _) = service(&folder, "user", &with);
    wait_for_status(&address, "/api/user/login", 200);
    let junk = [
        "",
        "x",
        "user_a",
        "user_1:2_3:4_5",
        "user_127.0.0.1:99999_127.0.0.1:1",
        "_127.0.0.1:1_127.0.0.1:2",
        "user_:_:",
    ];
    for key in junk {
        assert!(ctl(&etcd, &["put", &format!("{namespace}_{key}"), "0"]).0);
    }
    for (node, key) in [(&gateway, junk[6]), (&user, junk[6])] {
        node.wait_for(&format!("registry key `{namespace}_{key}` is skipped"));
        assert_eq!(node.log().matches("is skipped").count(), junk.len(), "once each: {}", node.log());
    }
    let page = get(&address, "/cluster").expect("the page").json();
    assert_eq!(page["services"]["user"]["Nodes"].as_array().map(Vec::len), Some(1), "{page}");

    // started after the junk: both read around it
    let reader = consumer(&folder, &with);
    let answer = post(&address, "/api/user/login", "{}").expect("an answer");
    assert_eq!(answer.status, 200);
    four_events(&folder, answer.header("x-request-id").expect("an id"), &with);
    for line in &go_events {
        let event: serde_json::Value = serde_json::from_str(line).expect("an event");
        let id = event["requestId"].as_str().expect("an id");
        until("the event of a Go node", || {
            let args = ["trace", "search", "--config", &config, "--text", id, "--output", "json"];
            let found = String::from_utf8(run(folder.path(), &args).stdout).ok()?;
            (found.contains(id) && found.contains("eventId")).then_some(())
        });
    }
    block_on(async {
        let client = Client::connect(&amqp).await;
        let dead = format!("{queue}.dead");
        assert_eq!(client.look(&dead).await.map(|found| found.0), Some(5), "set aside, not lost");
        client.delete(&dead).await;
    });
    for node in [reader, user, gateway] {
        assert_eq!(node.terminate(), 0);
    }

    assert!(ctl(&etcd, &["del", "--prefix", &format!("{namespace}_")]).0);
    block_on(async { Client::connect(&amqp).await.delete(&queue).await });
}

#[test]
fn defect_05_elasticsearch_away_loses_nothing_on_the_whole_path() {
    let (Some(amqp), Some(es)) = (servers::amqp(), servers::elasticsearch()) else { return };
    let folder = Folder::new();
    let (queue, index) = (servers::unique("trace-"), servers::unique("trace_logs-"));
    let gate = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let config = folder.write(
        "config.yml",
        &format!(
            "amqpAddr: \"{amqp}\"\nesAddr: \"http://{gate}\"\nesIndex: {index}\namqp: {{queue: {queue}}}\n\
             services: {{user: {{login: /login}}}}\n"
        ),
    );
    let with = ["--config", config.as_str()];
    let (gateway, address) = gateway(&folder, &with);
    let (user, _) = service(&folder, "user", &with);
    let reader = consumer(&folder, &with);
    wait_for_status(&address, "/api/user/login", 200);
    let ids: Vec<String> = (0..10)
        .map(|_| post(&address, "/api/user/login", "{}").expect("an answer"))
        .map(|answer| answer.header("x-request-id").expect("an id").to_owned())
        .collect();
    reader.wait_for("the trace store takes nothing now");
    let found = run(folder.path(), &["trace", "search", "--config", &config]);
    assert_eq!(found.status.code(), Some(69), "{}", String::from_utf8_lossy(&found.stderr));
    // Elasticsearch comes where it was looked for
    let listener = TcpListener::bind(gate).expect("the port is still free");
    let server = es.trim_start_matches("http://").to_owned();
    std::thread::spawn(move || listener.incoming().flatten().for_each(|client| join(client, &server)));
    for id in &ids {
        four_events(&folder, id, &with);
    }
    for node in [reader, user, gateway] {
        assert_eq!(node.terminate(), 0);
    }
    block_on(async { Client::connect(&amqp).await.delete(&queue).await });
}

/// Carries bytes both ways until one side ends.
fn join(client: TcpStream, server: &str) {
    let server = TcpStream::connect(server).expect("the server answers");
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
        std::thread::spawn(move || {
            // an error is an end as well
            std::io::copy(&mut from, &mut to).ok();
            to.shutdown(Shutdown::Both).ok();
        });
    }
}

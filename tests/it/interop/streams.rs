//! Streams from a service of ours to nodes of Go Micro.

use std::time::Duration;

use goms::metrics::Metrics;
use goms::registry::{Backend, EtcdSettings, Format, Node, Settings, open};
use goms::shutdown::Shutdown;
use goms::{Context, Service, ServiceError};
use serde_json::{Value, json};

use super::{Cluster, Version};
use crate::rpc::table;
use crate::service::{JSON, ask, parts, start};

const SERVICE: &str = "go.micro.srv.greeter";

/// The service's nodes as the registry tells them.
async fn nodes(cluster: &Cluster) -> Vec<Node> {
    let settings = Settings {
        backend: Backend::Etcd(EtcdSettings { endpoints: vec![cluster.etcd.address()], ..EtcdSettings::default() }),
        namespace: "goms".to_owned(),
        register_ttl: Duration::from_secs(10),
        register_interval: Duration::from_secs(3),
        grace: Duration::from_secs(10),
        format: Format::default(),
        remember: None,
    };
    let shutdown = Shutdown::new();
    let registry = open(&settings, &shutdown, &Metrics::new()).expect("it opens");
    let mut catalog = registry.catalog();
    let known = catalog.wait_for(|known| known.as_ref().is_some_and(|known| !known.nodes(SERVICE).is_empty()));
    let known = tokio::time::timeout(Duration::from_secs(10), known).await.expect("in time").expect("open").clone();
    shutdown.begin();
    known.expect("known").nodes(SERVICE).iter().map(|node| Node::clone(node)).collect::<Vec<_>>()
}

/// Sends each name and takes an answer for it, where `each`; else all of them, then all answers.
async fn talk(ctx: Context, asked: Value) -> Result<Value, ServiceError> {
    let method = ctx.param("method").unwrap_or_default();
    let mut stream = ctx.rpc_stream(SERVICE, &method).await?;
    let mut replies: Vec<Value> = Vec::new();
    for name in asked["names"].as_array().into_iter().flatten() {
        stream.send(&json!({"name": name})).await?;
        if asked["each"] == true {
            replies.extend(stream.next().await?);
        }
    }
    stream.finish()?;
    while let Some(reply) = stream.next().await? {
        replies.push(reply);
    }
    Ok(json!({"replies": replies}))
}

async fn talks_with(version: Version) {
    let Some(cluster) = Cluster::start(&[version]) else { return };
    let node = cluster.go(version, &["-name", SERVICE]);
    let (calls, shutdown) = table(nodes(&cluster).await);
    let (mut front, _events) = parts("front");
    front.calls = Some(calls);
    let front = start(Service::new("front").route("/talk", talk), front);
    let say = |method: &str, body: Value| {
        let answer = ask(front.address(), "POST", &format!("/talk?method={method}"), &[JSON], &body.to_string());
        (answer.status, serde_json::from_str::<Value>(&answer.body).expect("json"))
    };
    let replies = |texts: &[&str]| {
        let replies: Vec<Value> = texts.iter().map(|text| json!({"msg": text})).collect();
        (200, json!({"replies": replies}))
    };
    for _ in 0..3 {
        let each = say("Say.Chat", json!({"names": ["Ann", "Bob", "Cy"], "each": true}));
        assert_eq!(each, replies(&["Hello Ann", "Hello Bob", "Hello Cy"]), "{version:?}");
        let none = say("Say.Chat", json!({"names": []}));
        assert_eq!(none, replies(&[]), "{version:?}");
        let all = say("Say.Stream", json!({"names": ["Ann"]}));
        assert_eq!(all, replies(&["Hello Ann 1", "Hello Ann 2", "Hello Ann 3"]), "{version:?}");
    }
    let (status, _) = say("Say.Nothing", json!({"names": ["Ann"]}));
    assert!((400..=599).contains(&status), "{version:?}: {status}");
    // a node that is killed is told as such, not waited for
    node.kill();
    let (status, answer) = say("Say.Chat", json!({"names": ["Ann"], "each": true}));
    assert!([502, 503].contains(&status), "{version:?}: {status} {answer}");
    shutdown.begin();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_node_of_v2() {
    talks_with(Version::V2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_node_of_v5() {
    talks_with(Version::V5).await;
}

//! Peers that are silently gone: something between swallows what they say, and their connections stay open.

use std::time::Duration;

use super::gateway::{Front, JOHN, greeter, serving};
use super::raw::{Raw, ended, framed};
use crate::service::next;
use crate::support::proxy::Proxy;

const QUICK: &str = "{ every: 100ms, timeout: 200ms }";

#[tokio::test]
async fn calls_of_a_silent_node_end() {
    let (node, _events) = greeter();
    let proxy = Proxy::start(&node.address().to_string());
    let mut known = serving("greeter", &node, &["greeter.Say"]);
    known.id.rpc.port = proxy.address.rsplit(':').next().and_then(|port| port.parse().ok());
    let config = format!("services: {{greeter: {{x: /x}}}}\nupstreams: {{greeter: {{keepalive: {QUICK}}}}}");
    let front = Front::open(vec![known], &config);
    let raw = Raw::connect(front.running.address()).await;
    // pings that are answered end nothing
    let late = raw.call("/greeter.Say/Never", &[("grpc-timeout", "1000m")], framed(JOHN)).await;
    assert_eq!(late.code, Some(4));
    let (response, mut sender) = raw.begin("/greeter.Say/Never", &[]).await;
    sender.send_data(framed(JOHN), true).expect("sent");
    proxy.mute();
    let ended = tokio::time::timeout(Duration::from_secs(10), ended(response)).await.expect("an end in time");
    assert_eq!(ended.code, Some(14), "{}", ended.message);
    // the next call gets a connection of its own
    proxy.away(true);
    proxy.away(false);
    let answer = raw.call("/greeter.Say/Hello", &[], framed(JOHN)).await;
    assert_eq!(answer.code, Some(0), "{}", answer.message);
    front.end().await;
    assert!(node.stop(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn calls_of_a_silent_caller_end() {
    let (node, mut events) = greeter();
    let known = serving("greeter", &node, &["greeter.Say"]);
    let front = Front::open(vec![known], &format!("limits: {{rpcKeepalive: {QUICK}}}"));
    let proxy = Proxy::start(&front.running.address().to_string());
    let raw = Raw::connect(proxy.address.parse().expect("an address")).await;
    let late = raw.call("/greeter.Say/Never", &[("grpc-timeout", "1000m")], framed(JOHN)).await;
    assert_eq!((late.code, next(&mut events).await.status), (Some(4), None));
    assert!(next(&mut events).await.status.is_some());
    let (_response, mut sender) = raw.begin("/greeter.Say/Never", &[]).await;
    sender.send_data(framed(JOHN), true).expect("sent");
    assert_eq!(next(&mut events).await.status, None);
    proxy.mute();
    assert_eq!(next(&mut events).await.status, Some(499));
    front.end().await;
    assert!(node.stop(Duration::from_secs(2)).await);
}

//! A gateway of ours in the place of `micro api`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use goms::broker::{Backend, Settings, Subscription, open};
use goms::shutdown::Shutdown;
use serde_json::json;

use super::{Cluster, Version};
use crate::support::goms::Goms;
use crate::support::http::{PATIENCE, get, post, request};
use crate::support::{servers, slow};

const FORMAT: [&str; 2] = ["--registry-format", "go-micro"];
const API: [&str; 2] = ["--handler", "api"];
const RPC: [&str; 4] = ["--handler", "rpc", "--namespace", "go.micro.srv"];

/// Whether a tier is in Go, and in which form of registry it is written.
#[derive(Clone, Copy, Debug)]
enum Tier {
    Go,
    Ours,
    OursInGoForm,
}

fn node(cluster: &Cluster, tier: Tier, name: &str, label: &str) -> Goms {
    let (kind, prefix) = if name == "greeter-api" { ("api", "api") } else { ("server", "srv") };
    let full = format!("go.micro.{prefix}.greeter");
    let marked = format!("{prefix} {label}");
    match tier {
        Tier::Go => cluster.go(Version::V2, &["-mode", kind, "-name", &full, "-label", &marked]),
        Tier::Ours => cluster.goms(&["service", name, "--label", label]),
        Tier::OursInGoForm => cluster.goms(&[&["service", name, "--label", label], &FORMAT[..]].concat()),
    }
}

/// All four combinations of two nodes a tier.
fn two_tiers(api: Tier, srv: Tier) {
    let Some(cluster) = Cluster::start(&[Version::V2]) else { return };
    let _nodes = [("greeter", srv), ("greeter-api", api)]
        .map(|(name, tier)| ["one", "two"].map(|label| node(&cluster, tier, name, label)));
    let (_gateway, address) = cluster.gateway(&API, 4);
    greets_in_all_ways(&address, &format!("{api:?} {srv:?}"));
}

/// Until each node of a tier has met each of the other.
fn greets_in_all_ways(address: &str, of: &str) {
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let answer = get(address, "/greeter/say/hello?name=John").expect("an answer");
        let kind = answer.header("content-type");
        assert_eq!((answer.status, kind), (200, Some("application/json")), "{of}: {}", answer.text());
        seen.insert(answer.text());
        if seen.len() == 4 {
            break;
        }
    }
    let expected = ["one", "two"]
        .map(|api| ["one", "two"].map(|srv| format!(r#"{{"api":"api {api}","message":"Hello John srv {srv}"}}"#)));
    assert_eq!(seen, expected.concat().into_iter().collect(), "{of}");
}

#[test]
fn the_two_tiers_of_the_greeter_are_ours() {
    two_tiers(Tier::Ours, Tier::Ours);
}

#[test]
fn the_two_tiers_are_ours_in_the_form_of_go_micro() {
    two_tiers(Tier::OursInGoForm, Tier::OursInGoForm);
}

#[test]
fn the_api_tier_is_in_go() {
    two_tiers(Tier::Go, Tier::OursInGoForm);
}

#[test]
fn the_service_tier_is_in_go() {
    two_tiers(Tier::Ours, Tier::Go);
}

#[test]
fn both_tiers_are_in_go() {
    two_tiers(Tier::Go, Tier::Go);
}

#[test]
fn a_gateway_in_go_calls_our_tiers() {
    let Some(cluster) = Cluster::start(&[Version::V2]) else { return };
    let _nodes = ["greeter", "greeter-api"]
        .map(|name| ["one", "two"].map(|label| node(&cluster, Tier::OursInGoForm, name, label)));
    let gateway = cluster.go_gateway();
    let address = gateway.wait_for("gateway on ").rsplit(' ').next().expect("an address").to_owned();
    greets_in_all_ways(&address, "Go's gateway");
}

#[test]
fn handler_rpc_makes_json_of_a_request_for_nodes_of_every_kind() {
    let Some(cluster) = Cluster::start(&[Version::V2, Version::V5]) else { return };
    let _two = cluster.go(Version::V2, &["-name", "go.micro.srv.two"]);
    let _five = cluster.go(Version::V5, &["-name", "go.micro.srv.five"]);
    let _ours = cluster.goms(&["service", "greeter", "--name", "go.micro.srv.ours"]);
    let (_gateway, address) = cluster.gateway(&RPC, 3);
    for service in ["two", "five", "ours"] {
        let answer = get(&address, &format!("/{service}/say/hello?name=huohuo")).expect("an answer");
        assert_eq!((answer.status, answer.json()), (200, json!({"msg": "Hello huohuo"})), "{service}");
        let answer = post(&address, &format!("/{service}/say/hello?name=no"), r#"{"name":"Ann"}"#).expect("an answer");
        assert_eq!((answer.status, answer.json()), (200, json!({"msg": "Hello Ann"})), "{service}");
        let named =
            format!(r#"{{"service":"go.micro.srv.{service}","endpoint":"Say.Hello","request":{{"name":"Bob"}}}}"#);
        let answer = post(&address, "/rpc", &named).expect("an answer");
        assert_eq!((answer.status, answer.json()), (200, json!({"msg": "Hello Bob"})), "{service}");
    }
    for service in ["two", "five"] {
        // a service's own error passes
        let answer = get(&address, &format!("/{service}/say/hello?name=teapot")).expect("an answer");
        let id = format!("go.micro.srv.{service}");
        let expected = json!({"id": id, "code": 418, "detail": "no coffee here", "status": "I'm a teapot"});
        assert_eq!((answer.status, answer.json()), (418, expected), "{service}");
    }
}

/// `micro api` knows 408, not 504.
#[test]
fn an_answer_that_does_not_come_in_time_is_408() {
    if !slow() {
        return;
    }
    let Some(cluster) = Cluster::start(&[Version::V5]) else { return };
    let node = cluster.go(Version::V5, &["-name", "go.micro.srv.five"]);
    let (_gateway, address) = cluster.gateway(&RPC, 1);
    node.signal("STOP");
    let answer = get(&address, "/five/say/hello?name=x").expect("an answer");
    node.signal("CONT");
    assert_eq!((answer.status, answer.json()["status"].as_str()), (408, Some("Request Timeout")), "{}", answer.text());
}

#[test]
fn errors_are_those_of_go_micro() {
    let Some(cluster) = Cluster::start(&[Version::V2]) else { return };
    let _two = cluster.go(Version::V2, &["-name", "go.micro.srv.two"]);
    let (_gateway, address) = cluster.gateway(&RPC, 1);
    let unknown =
        json!({"id": "go.micro.api", "code": 500, "detail": "service not found", "status": "Internal Server Error"});
    let answer = get(&address, "/nobody/say/hello").expect("an answer");
    assert_eq!((answer.status, answer.json()), (500, unknown));
    for (path, body) in [("/two/say/hello", "{"), ("/rpc", "{}"), ("/rpc", r#"{"service":"x"}"#)] {
        let answer = post(&address, path, body).expect("an answer");
        assert_eq!((answer.status, answer.json()["status"].as_str()), (400, Some("Bad Request")), "{path} {body}");
        assert_eq!(answer.json()["id"], "go.micro.api");
    }
    // an unknown method is the service's to tell
    let answer = get(&address, "/two/say/nothing").expect("an answer");
    assert!((400..=599).contains(&answer.status) && answer.json()["code"] == answer.status, "{}", answer.text());
}

fn killed(version: Version) {
    let Some(cluster) = Cluster::start(&[version]) else { return };
    let args = ["-name", "go.micro.srv.greeter", "-ttl", "60s"];
    let one = cluster.go(version, &[&args[..], &["-label", "one"]].concat());
    let _two = cluster.go(version, &[&args[..], &["-label", "two"]].concat());
    let (_gateway, address) = cluster.gateway(&RPC, 2);
    let ask = || get(&address, "/greeter/say/hello?name=x").expect("an answer");
    let both: BTreeSet<String> = (0..4).map(|_| ask().text()).collect();
    assert_eq!(both.len(), 2, "{both:?}");
    one.kill();
    for _ in 0..60 {
        let answer = ask();
        assert_eq!((answer.status, answer.text().contains("two")), (200, true), "{}", answer.text());
    }
}

#[test]
fn a_killed_node_of_v2_fails_no_call() {
    killed(Version::V2);
}

#[test]
fn a_killed_node_of_v5_fails_no_call() {
    killed(Version::V5);
}

/// A text of a client as a frame of WebSocket (RFC 6455 section 5.2), masked by nothing but zeros.
fn frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short one");
    assert!(length < 126);
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// The next frame's kind and text.
fn read_frame(from: &mut impl Read) -> (u8, String) {
    let mut head = [0; 2];
    from.read_exact(&mut head).expect("a frame");
    assert!(head[1] < 126, "a short one, not masked");
    let mut text = vec![0; head[1].into()];
    from.read_exact(&mut text).expect("its bytes");
    (head[0] & 0x0f, String::from_utf8_lossy(&text).into_owned())
}

/// A connection that speaks WebSocket (RFC 6455 section 1.3 has the key and what is made of it).
fn websocket(address: &str, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("a head");
        answer.push(byte[0]);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    socket
}

#[test]
fn handler_rpc_carries_streams_by_websocket() {
    let Some(cluster) = Cluster::start(&[Version::V2, Version::V5]) else { return };
    let _two = cluster.go(Version::V2, &["-name", "go.micro.srv.two"]);
    let _five = cluster.go(Version::V5, &["-name", "go.micro.srv.five"]);
    let (_gateway, address) = cluster.gateway(&RPC, 2);
    for service in ["two", "five"] {
        let mut socket = websocket(&address, &format!("/{service}/say/chat"));
        for name in ["Ann", "Bob"] {
            socket.write_all(&frame(&format!(r#"{{"name":"{name}"}}"#))).expect("sent");
            let (kind, text) = read_frame(&mut socket);
            assert_eq!((kind, text.trim()), (1, format!(r#"{{"msg":"Hello {name}"}}"#).as_str()), "{service}");
        }
        // the client closes
        socket.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).expect("sent");
        assert_eq!(read_frame(&mut socket).0, 8, "{service}");
    }
}

#[test]
fn handlers_http_and_web_pass_requests_on() {
    let Some(cluster) = Cluster::start(&[Version::V2]) else { return };
    let _web = cluster.go(Version::V2, &["-mode", "web", "-name", "go.micro.web.greeter", "-label", "here"]);
    for handler in ["http", "proxy", "web"] {
        let (_gateway, address) = cluster.gateway(&["--handler", handler, "--namespace", "go.micro.web"], 1);
        let answer = request("PUT", &address, "/greeter/a?b=c", &[], Some(b"x")).expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "PUT /greeter/a?b=c here"), "{handler}");
    }
}

#[test]
fn handler_web_carries_websocket() {
    let Some(cluster) = Cluster::start(&[Version::V2]) else { return };
    let _web = cluster.go(Version::V2, &["-mode", "web", "-name", "go.micro.web.greeter"]);
    let (_gateway, address) = cluster.gateway(&["--handler", "web", "--namespace", "go.micro.web"], 1);
    let mut socket = websocket(&address, "/greeter/chat");
    for text in ["Ann", "Bob"] {
        socket.write_all(&frame(text)).expect("sent");
        let mut same = vec![0; frame(text).len()];
        socket.read_exact(&mut same).expect("what the node sends back");
        assert_eq!(same, frame(text));
    }
}

/// What the config says of a service holds for its paths, whichever of its names it has there.
#[test]
fn calls_keep_to_their_upstream_s_policy() {
    let Some(cluster) = Cluster::start(&[Version::V2, Version::V5]) else { return };
    let _two = cluster.go(Version::V2, &["-name", "go.micro.srv.two"]);
    let _five = cluster.go(Version::V5, &["-name", "go.micro.srv.five"]);
    let once = "timeout: 200ms, retry: { attempts: 1 }";
    let text = format!(
        "upstreams: {{ go.micro.srv.two: {{ {once} }}, five: {{ {once} }} }}\nmicro: {{ handler: rpc, namespace: go.micro.srv }}\n"
    );
    let config = cluster.folder.write("config.yml", &text);
    let (_gateway, address) = cluster.gateway(&["--config", &config], 2);
    for service in ["two", "five"] {
        let answer = get(&address, &format!("/{service}/say/hello?name=Ann")).expect("an answer");
        assert_eq!(answer.status, 200, "{service} {}", answer.text());
        // it needs five seconds, which the usual policy would give it
        let answer = get(&address, &format!("/{service}/say/hello?name=slow")).expect("an answer");
        assert_eq!((answer.status, answer.json()["code"].as_u64()), (408, Some(408)), "{service} {}", answer.text());
    }
}

/// Nodes of Go Micro never ask for the call key, so they do not get it; ours in their form do, and get it.
#[test]
fn the_call_key_goes_to_nodes_that_ask_for_it() {
    let Some(cluster) = Cluster::start(&[Version::V2, Version::V5]) else { return };
    let config = cluster.folder.write("config.yml", "callServiceKey: secret\nservices: { user: { login: /login } }\n");
    let with = ["--config", config.as_str()];
    let _two = cluster.go(Version::V2, &["-name", "go.micro.srv.two"]);
    let _five = cluster.go(Version::V5, &["-name", "go.micro.srv.five"]);
    let ours = ["service", "greeter", "--name", "go.micro.srv.ours"];
    let _ours = cluster.goms(&[&ours[..], &FORMAT, &with].concat());
    let _web = cluster.go(Version::V2, &["-mode", "web", "-name", "go.micro.srv.web"]);
    let (_gateway, address) = cluster.gateway(&[&RPC[..], &with].concat(), 4);
    for service in ["two", "five"] {
        let answer = get(&address, &format!("/{service}/say/hello?name=key")).expect("an answer");
        assert_eq!((answer.status, answer.json()), (200, json!({"msg": "key "})), "{service}");
    }
    let answer = get(&address, "/ours/say/hello?name=Ann").expect("an answer");
    assert_eq!((answer.status, answer.json()), (200, json!({"msg": "Hello Ann"})));
    let http = ["--handler", "http", "--namespace", "go.micro.srv"];
    let (_gateway, address) = cluster.gateway(&[&http[..], &with].concat(), 4);
    let answer = get(&address, "/web/x").expect("an answer");
    assert_eq!((answer.status, answer.header("x-got-key")), (200, Some("")), "{}", answer.text());
}

/// It needs no node of Go Micro, but a broker that two processes share.
#[tokio::test]
async fn handler_event_publishes_a_request() {
    let Some(url) = servers::amqp() else { return };
    let namespace = servers::unique("ns");
    let shutdown = Shutdown::new();
    let settings = Settings {
        backend: Backend::Amqp(vec![url.clone()]),
        namespace: "goms".to_owned(),
        attempts: 1,
        backoff: Duration::from_millis(20),
        runtime_dir: std::env::temp_dir(),
    };
    let broker = open(&settings, None, &shutdown).await.expect("it opens");
    let subscription = Subscription { topic: format!("{namespace}.orders"), group: None };
    let mut heard = broker.subscribe(subscription).await.expect("subscribed");
    let args = ["gateway", "--http-port=0", "--rpc-port=0", "--admin-port=0", "--bind=127.0.0.1", "--handler=event"];
    let gateway = Goms::start(&[&args[..], &["--namespace", &namespace, "--broker-address", &url]].concat());
    let port = gateway.wait_for("Http Listen on port: ").rsplit(' ').next().expect("a port").to_owned();
    let address = format!("127.0.0.1:{port}");
    for (method, path, body, data) in [
        ("POST", "/orders/placed.now", Some(&b"{\"n\":1}"[..]), r#"{"n":1}"#),
        ("GET", "/orders/placed.now?a=1&a=2", None, r#"{"a":["1","2"]}"#),
    ] {
        let answer = request(method, &address, path, &[("X-User", "ann")], body).expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, ""));
        let delivery = tokio::time::timeout(PATIENCE, heard.next()).await.expect("in time").expect("a message");
        let event: serde_json::Value = serde_json::from_slice(&delivery.message.body).expect("json");
        delivery.ack().await.expect("acknowledged");
        assert_eq!((&event["name"], &event["data"]), (&json!("placed.now"), &json!(data)));
        assert_eq!(event["header"]["X-User"], json!({"key": "X-User", "values": ["ann"]}));
        assert!(event["id"].as_str().expect("text").starts_with(&format!("{namespace}.orders-placed.now-")));
    }
    let answer = get(&address, "/").expect("an answer");
    assert_eq!((answer.status, &answer.json()["id"]), (500, &json!("go.micro.api")));
    shutdown.begin();
}

//! Calls between the two, without a gateway.

use std::collections::BTreeMap;

use super::{Cluster, Version};
use crate::support::http::request;

const FORMAT: [&str; 2] = ["--registry-format", "go-micro"];

fn all(count: usize, reply: &str) -> (usize, usize, BTreeMap<String, usize>) {
    (count, 0, BTreeMap::from([(reply.to_owned(), count)]))
}

#[test]
fn a_v2_client_calls_our_service_by_grpc() {
    let Some(cluster) = Cluster::start(&[Version::V2]) else { return };
    let _node = cluster.goms(&[&["service", "greeter", "--label", "one"], &FORMAT[..]].concat());
    let came = cluster.go_client(Version::V2, &["-name", "go.micro.srv.greeter", "-calls", "20"]);
    assert_eq!((came.ok, came.failed, came.replies), all(20, "Hello John srv one"), "{:?}", came.errors);
}

#[test]
fn a_v2_client_has_streams_of_our_service() {
    let Some(cluster) = Cluster::start(&[Version::V2]) else { return };
    let _node = cluster.goms(&[&["service", "greeter"], &FORMAT[..]].concat());
    let record = cluster.records("go.micro.srv.greeter").remove(0).1;
    let is_stream = |endpoint: &serde_json::Value| endpoint["metadata"]["stream"] == "true";
    let endpoints = record["endpoints"].as_array().expect("a list");
    let streams: Vec<_> =
        endpoints.iter().filter(|one| is_stream(one)).filter_map(|one| one["name"].as_str()).collect();
    assert_eq!((endpoints.len(), streams), (3, vec!["Say.Chat", "Say.Stream"]));
    let came = cluster.go_client(Version::V2, &["-name", "go.micro.srv.greeter", "-method", "chat", "-calls", "5"]);
    assert_eq!((came.ok, came.replies), (5, BTreeMap::from([("Hello John".to_owned(), 15)])), "{:?}", came.errors);
    let came = cluster.go_client(Version::V2, &["-name", "go.micro.srv.greeter", "-method", "stream", "-calls", "5"]);
    let replies = (1..=3).map(|nth| (format!("Hello John {nth}"), 5)).collect();
    assert_eq!((came.ok, came.replies), (5, replies), "{:?}", came.errors);
}

/// Nodes of Go Micro pass on the content-length of the request that they serve.
#[test]
fn a_foreign_content_length_breaks_no_call() {
    let Some(cluster) = Cluster::start(&[Version::V2]) else { return };
    let _node = cluster.goms(&[&["service", "greeter"], &FORMAT[..]].concat());
    for length in ["0", "3", "9999"] {
        let args = ["-name", "go.micro.srv.greeter", "-calls", "5", "-length", length];
        let came = cluster.go_client(Version::V2, &args);
        assert_eq!((came.ok, came.failed, came.replies), all(5, "Hello John"), "{length}: {:?}", came.errors);
    }
}

/// By hand, as programs in other languages may.
#[test]
fn mucp_is_http_with_json_or_protobuf() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let mucp = ["service", "greeter", "--go-micro-protocol", "mucp"];
    let _node = cluster.goms(&[&mucp, &FORMAT[..]].concat());
    let record = cluster.records("go.micro.srv.greeter").remove(0).1;
    let address = record["nodes"][0]["address"].as_str().expect("an address").to_owned();
    let call = |kind: &str, endpoint: &str, body: &[u8]| {
        let headers = [("Content-Type", kind), ("Micro-Endpoint", endpoint), ("Micro-Id", "7")];
        let answer = request("POST", &address, "/", &headers, Some(body)).expect("an answer");
        assert_eq!((answer.status, answer.header("micro-id")), (200, Some("7")));
        answer
    };
    assert_eq!(call("application/json", "Say.Hello", br#"{"name":"Ann"}"#).text(), r#"{"msg":"Hello Ann"}"#);
    assert_eq!(call("application/protobuf", "Say.Hello", b"\x0a\x03Ann").body, b"\x0a\x09Hello Ann");
    for (kind, endpoint, body, code) in [
        ("application/json", "Say.Nothing", &b"{}"[..], 404),
        ("application/json", "Hello", b"{}", 400),
        ("application/json", "Say.Hello", b"{", 400),
        ("application/protobuf", "Say.Hello", b"\xff", 400),
        ("text/html", "Say.Hello", b"x", 415),
        ("application/json", "Say.Chat", b"{}", 501),
    ] {
        let answer = call(kind, endpoint, body);
        let error: serde_json::Value =
            serde_json::from_str(answer.header("micro-error").expect("an error")).expect("json");
        assert_eq!((error["code"].as_i64(), answer.body.len()), (Some(code), 0), "{kind} {endpoint}: {error}");
        assert_eq!(error["id"], "greeter");
    }
}

#[test]
fn a_v5_client_calls_our_service_by_mucp() {
    let Some(cluster) = Cluster::start(&[Version::V5]) else { return };
    let mucp = ["service", "greeter", "--label", "one", "--go-micro-protocol", "mucp"];
    let _node = cluster.goms(&[&mucp, &FORMAT[..]].concat());
    let came = cluster.go_client(Version::V5, &["-name", "go.micro.srv.greeter", "-calls", "20"]);
    assert_eq!((came.ok, came.failed, came.replies), all(20, "Hello John srv one"), "{:?}", came.errors);
    for (method, replies) in [("stream", "Hello John srv one 2"), ("chat", "Hello John srv one")] {
        let came = cluster.go_client(Version::V5, &["-name", "go.micro.srv.greeter", "-method", method]);
        assert_eq!((came.ok, came.failed), (1, 0), "{method}: {:?}", came.errors);
        assert!(came.replies.contains_key(replies), "{method}: {:?}", came.replies);
    }
    let came = cluster.go_client(Version::V5, &["-name", "go.micro.srv.greeter"]);
    assert_eq!(came.ok, 1, "{:?}", came.errors);
}

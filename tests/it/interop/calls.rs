//! Calls between the two, without a gateway.

use std::collections::BTreeMap;

use super::{Cluster, Version};

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
fn a_v5_client_calls_our_service_by_mucp() {
    let Some(cluster) = Cluster::start(&[Version::V5]) else { return };
    let mucp = ["service", "greeter", "--label", "one", "--go-micro-protocol", "mucp"];
    let _node = cluster.goms(&[&mucp, &FORMAT[..]].concat());
    let came = cluster.go_client(Version::V5, &["-name", "go.micro.srv.greeter", "-calls", "20"]);
    assert_eq!((came.ok, came.failed, came.replies), all(20, "Hello John srv one"), "{:?}", came.errors);
    // a stream is refused with a reason, and the node goes on
    let came = cluster.go_client(Version::V5, &["-name", "go.micro.srv.greeter", "-method", "stream"]);
    assert_eq!((came.ok, came.failed), (0, 1));
    let came = cluster.go_client(Version::V5, &["-name", "go.micro.srv.greeter"]);
    assert_eq!(came.ok, 1, "{:?}", came.errors);
}

//! RPC: services, clients and a gateway over real sockets.

mod calls;
mod gateway;
mod gateway_breaks;
mod gateway_tls;
mod hostile;
pub mod interop;
mod keepalive;
mod raw;
mod streams;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use goms::Service;
use goms::balance::Balancer;
use goms::listener::Tls;
use goms::metrics::Metrics;
use goms::registry::{HostPort, Node, NodeId, NodeMeta, Publisher};
use goms::service::{CallTable, Parts, Running, serve_rpc};
use goms::shutdown::Shutdown;
use serde::{Deserialize, Serialize};

use crate::service::{RUNTIME, listener};

/// What `Say.Hello` of the greeter takes.
#[derive(Serialize, Deserialize)]
pub struct Request {
    pub name: String,
}

/// What it answers.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    pub msg: String,
}

/// Serves the methods of a service.
pub fn start(service: Service, parts: Parts) -> Running {
    start_by(service, parts, None)
}

/// The same, by TLS.
pub fn start_by(service: Service, parts: Parts, tls: Option<Tls>) -> Running {
    let _runtime = RUNTIME.enter();
    serve_rpc(listener(), service, (parts, tls)).expect("a listener")
}

/// A node that takes RPC at this address, and HTTP nowhere that answers.
pub fn node(service: &str, rpc: SocketAddr) -> Node {
    let rpc = HostPort::new(rpc.ip(), rpc.port());
    let http = HostPort::new(rpc.ip, 1);
    Node::new(NodeId { service: service.to_owned(), rpc, http }, NodeMeta::default())
}

/// How handlers call these nodes.
pub fn table(nodes: Vec<Node>) -> (CallTable, Shutdown) {
    let registry = Publisher::new();
    registry.publish(nodes);
    let shutdown = Shutdown::new();
    let balancer = Balancer::start(registry.subscribe(), HashMap::new(), &Metrics::new(), &shutdown);
    (
        CallTable {
            balancer,
            actions: Arc::new(BTreeMap::new()),
            answer_bytes: 1 << 20,
            broker: None,
            usual: goms::upstream::Policy::default(),
        },
        shutdown,
    )
}

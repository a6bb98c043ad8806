//! A node: a fact that the registry tells. What a caller measures of it lives in `balance`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One of a node's two addresses; a trace consumer of the originals has no ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// The IP other nodes call it by.
    pub ip: IpAddr,
    /// `None`: does not listen (`127.0.0.1:` in a key).
    pub port: Option<u16>,
}

impl HostPort {
    /// An address with a port.
    #[must_use]
    pub fn new(ip: IpAddr, port: u16) -> Self {
        Self { ip, port: Some(port) }
    }

    /// The address as one can connect to it.
    #[must_use]
    pub fn socket(self) -> Option<std::net::SocketAddr> {
        self.port.map(|port| std::net::SocketAddr::new(self.ip, port))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(out, "{ip}:")?,
            IpAddr::V6(ip) => write!(out, "[{ip}]:")?,
        }
        self.port.map_or(Ok(()), |port| write!(out, "{port}"))
    }
}

/// What makes a node that node: its service and its two addresses. Displayed as the originals do in log lines and at
/// `/cluster`: `ip:rpc_ip:http`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// The service; holds no `_` and is not empty.
    pub service: String,
    /// Where it takes RPC.
    pub rpc: HostPort,
    /// Where it takes HTTP.
    pub http: HostPort,
}

impl fmt::Display for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}_{}", self.rpc, self.http)
    }
}

/// What a node of ours says of itself beside its key. Everything has a default: an original says nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeMeta {
    /// The version of the service.
    pub version: String,
    /// Its share of the requests, where a picker weighs.
    pub weight: u32,
    /// Where it stands, for pickers that prefer what is near.
    pub zone: String,
    /// When it started, in milliseconds of Unix time; 0 if unknown.
    pub started_ms: i64,
    /// Its admin port as other processes could reach it.
    pub admin: Option<std::net::SocketAddr>,
    /// It is about to leave: send nothing new.
    pub draining: bool,
    /// What it speaks: `http`, `grpc` (on its RPC port), `mucp` (Go Micro's RPC, on its HTTP port).
    pub protocols: Vec<String>,
    /// The paths or methods it serves.
    pub endpoints: Vec<String>,
    /// The full names of its services of gRPC, sorted: `greeter.Say`.
    pub rpc_services: Vec<String>,
    /// Of the methods it serves, those that are streams.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<String>,
    /// What a node of Go Micro says of itself besides, and what such nodes are to be told.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The key of its record, where another system wrote that.
    #[serde(skip)]
    pub record: Option<String>,
    /// A trace consumer that takes events over HTTP.
    pub takes_events: bool,
    /// Which process it is of, by a number of that run of it: its spans name it too.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// Which of its ports take nothing but TLS: `http`, `rpc`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<String>,
}

impl Default for NodeMeta {
    fn default() -> Self {
        Self {
            version: String::new(),
            weight: 1,
            zone: String::new(),
            started_ms: 0,
            admin: None,
            draining: false,
            protocols: vec!["http".to_owned()],
            endpoints: Vec::new(),
            streams: Vec::new(),
            labels: BTreeMap::new(),
            record: None,
            rpc_services: Vec::new(),
            takes_events: false,
            tls: Vec::new(),
            instance: String::new(),
        }
    }
}

/// The label under which a node names the path of its OpenAPI document.
const OPENAPI: &str = "openapi";

impl NodeMeta {
    /// The path at which it serves a document of its API (OpenAPI), if it says so: the label `openapi`.
    #[must_use]
    pub fn openapi(&self) -> Option<&str> {
        self.labels.get(OPENAPI).map(String::as_str).filter(|path| path.starts_with('/'))
    }

    /// Says where that document is.
    pub fn tell_openapi(&mut self, path: &str) {
        self.labels.insert(OPENAPI.to_owned(), path.to_owned());
    }

    /// Tells what it answers by RPC: its methods (`Say.Hello`) and the full names of its services (`greeter.Say`).
    pub fn tell_methods(&mut self, endpoints: Vec<String>, rpc_services: Vec<String>) {
        if !rpc_services.is_empty() {
            self.protocols.push("grpc".to_owned());
        }
        (self.endpoints, self.rpc_services) = (endpoints, rpc_services);
    }
}

/// What a reader should do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Call it.
    Ready,
    /// Send it nothing new: it leaves, or someone took it out of rotation.
    Draining,
    /// Missing since the registry came back; call it until it refuses a connection.
    Stale,
}

/// A node as the registry tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Which.
    pub id: NodeId,
    /// What it says of itself.
    pub meta: NodeMeta,
    /// What to do with it.
    pub state: NodeState,
    /// Whose name and protocol it has, where it is no node of the cluster but stands in the config.
    pub origin: Option<Arc<Origin>>,
}

/// A server that is no node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Called by TLS.
    pub tls: bool,
}

impl fmt::Display for Origin {
    /// `http://host:port`, without the port where it is the usual one.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl Origin {
    /// What `Host` names: without the port where it is the usual one.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }
}

/// One of the ports of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePort {
    /// That of HTTP.
    Http,
    /// That of gRPC.
    Rpc,
}

impl NodePort {
    /// What [`NodeMeta::tls`] calls it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Rpc => "rpc",
        }
    }
}

/// How a node takes RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcProtocol {
    /// gRPC on its RPC port.
    Grpc,
    /// Go Micro's own, over HTTP/1.1, on its HTTP port.
    Mucp,
}

impl Node {
    /// Whether plain HTTP requests may go there.
    #[must_use]
    pub fn takes_http(&self) -> bool {
        self.id.http.port.is_some() && (self.meta.protocols.is_empty() || self.speaks("http"))
    }

    /// How it takes RPC; `None`: not at all.
    #[must_use]
    pub fn rpc_protocol(&self) -> Option<RpcProtocol> {
        if self.id.rpc.port.is_some() {
            return Some(RpcProtocol::Grpc);
        }
        (self.id.http.port.is_some() && self.speaks("mucp")).then_some(RpcProtocol::Mucp)
    }

    /// Whether it says that this port of it takes nothing but TLS.
    #[must_use]
    pub fn takes_tls(&self, port: NodePort) -> bool {
        self.meta.tls.iter().any(|known| known == port.word())
    }

    /// Whether it is one of those that share the call key: what another system wrote down never asks for it, nor does a server
    /// that stands in the config.
    #[must_use]
    pub fn knows_call_key(&self) -> bool {
        self.meta.record.is_none() && self.origin.is_none()
    }

    fn speaks(&self, protocol: &str) -> bool {
        self.meta.protocols.iter().any(|known| known == protocol)
    }

    /// A ready node.
    #[must_use]
    pub fn new(id: NodeId, meta: NodeMeta) -> Self {
        Self { id, meta, state: NodeState::Ready, origin: None }
    }
}

//! Go Micro's records (v2 to v5): one key a node, whose value tells the service too.
//!
//! ```text
//! /micro/registry/go.micro.srv.greeter/go.micro.srv.greeter-5fb79ba8-… →
//!   {"name":"go.micro.srv.greeter","version":"latest","metadata":null,
//!    "endpoints":[{"name":"Say.Hello","request":{…},"response":{…},"metadata":{"stream":"true"}}],
//!    "nodes":[{"id":"go.micro.srv.greeter-5fb79ba8-…","address":"127.0.0.1:45869",
//!              "metadata":{"broker":"http","protocol":"grpc","registry":"etcd","server":"grpc","transport":"grpc"}}]}
//! ```
//! Anything in it may be `null`. What a node of goms says beyond that is JSON in its node's metadata under `goms`.

pub(super) mod hearer;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::node::{HostPort, Node, NodeId, NodeMeta};

/// What all keys of records begin with.
pub(super) const PREFIX: &str = "/micro/registry/";
/// What names of services begin with there.
const SERVICES: &str = "go.micro.srv.";
/// What names of the API tier begin with.
const APIS: &str = "go.micro.api.";
/// How a short name says that it is the API tier.
const API_SUFFIX: &str = "-api";
/// Where a node of goms tells what it says of itself.
const OURS: &str = "goms";
/// More nodes than this no record holds that a Go node wrote: it writes one.
const MAX_NODES: usize = 1_000;

/// Why a record is no node's.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// It is no JSON object.
    #[error("value is no JSON object: {0}")]
    Json(serde_json::Error),
    /// Its key lacks a part, or the service's name cannot be one.
    #[error("key is not `{PREFIX}<service>/<node>`")]
    Key,
    /// It has no nodes.
    #[error("value names no node")]
    NoNode,
    /// A node's address cannot be called.
    #[error("node's address `{0}` is no `ip:port`")]
    Address(String),
}

/// The name under which a service stands in Go Micro's registry: a name with a dot is one already, `greeter-api` is
/// `go.micro.api.greeter`, `greeter` is `go.micro.srv.greeter`.
#[must_use]
pub fn full_name(service: &str) -> String {
    if service.contains('.') {
        return service.to_owned();
    }
    match service.strip_suffix(API_SUFFIX).filter(|stem| !stem.is_empty()) {
        Some(stem) => format!("{APIS}{stem}"),
        None => format!("{SERVICES}{service}"),
    }
}

/// The name by which a service may be called too, where no other has it: [`full_name`] the other way round.
#[must_use]
pub fn short_name(service: &str) -> Option<String> {
    let short = match service.strip_prefix(APIS) {
        Some(stem) => format!("{stem}{API_SUFFIX}"),
        None => service.strip_prefix(SERVICES)?.to_owned(),
    };
    (full_name(&short) == service).then_some(short)
}

/// The other name by which a service may be called: short of a full one, full of a short one.
#[must_use]
pub fn other_name(service: &str) -> String {
    short_name(service).unwrap_or_else(|| full_name(service))
}

/// A node's key: always the same for the same addresses, so that a node that starts again takes its place.
pub(super) fn key(id: &NodeId) -> String {
    let service = id.service.replace('/', "-");
    format!("{PREFIX}{service}/{}", node_id(id))
}

/// `<service>-<uuid>`, as Go nodes name themselves.
pub(super) fn node_id(id: &NodeId) -> String {
    let digest = Sha256::digest(id.key(OURS));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    let uuid = uuid::Builder::from_custom_bytes(bytes).into_uuid();
    format!("{}-{uuid}", id.service)
}

/// What a node of goms says of itself, with the addresses that its record has no place for.
#[derive(Serialize, Deserialize)]
struct Ours {
    rpc: Option<u16>,
    http: Option<u16>,
    meta: NodeMeta,
}

/// The record of a node of ours, as Go nodes read it: its RPC address, or its HTTP address where it speaks mucp.
pub(super) fn record(node: &Node) -> Vec<u8> {
    let (id, meta) = (&node.id, &node.meta);
    let is_mucp = meta.protocols.iter().any(|protocol| protocol == "mucp");
    let (server, transport, address) = if is_mucp { ("mucp", "http", id.http) } else { ("grpc", "grpc", id.rpc) };
    let endpoint = |name: &String| {
        let metadata = if meta.streams.contains(name) { json!({"stream": "true"}) } else { json!({}) };
        let value = |name: &str| json!({"name": name, "type": name, "values": null});
        json!({"name": name, "request": value("Request"), "response": value("Response"), "metadata": metadata})
    };
    let ours = Ours { rpc: id.rpc.port, http: id.http.port, meta: meta.clone() };
    let labels = meta.labels.iter().map(|(name, value)| (name.as_str(), value.clone()));
    let mut metadata: BTreeMap<&str, String> = labels.collect();
    // behind the labels, none of which may say how the node is called
    metadata.extend([
        ("broker", "http".to_owned()),
        ("protocol", server.to_owned()),
        ("registry", "etcd".to_owned()),
        ("server", server.to_owned()),
        ("transport", transport.to_owned()),
        // a struct of plain fields always becomes JSON
        (OURS, serde_json::to_string(&ours).unwrap_or_default()),
    ]);
    let record = json!({
        "name": id.service,
        "version": if meta.version.is_empty() { "latest" } else { &meta.version },
        "metadata": {},
        "endpoints": meta.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "nodes": [{"id": node_id(id), "address": address.to_string(), "metadata": metadata}],
    });
    record.to_string().into_bytes()
}

/// The nodes of a record.
///
/// # Errors
/// [`RecordError`]; a record with a good node and a bad one gives the good one.
pub(super) fn read(key: &str, value: &[u8]) -> Result<Vec<Node>, RecordError> {
    let record: Map<String, Value> = crate::json::value(value).map_err(RecordError::Json)?;
    let service = service_of(key, &record).ok_or(RecordError::Key)?;
    let endpoints: Vec<&Value> = array(record.get("endpoints")).collect();
    let version = text(record.get("version")).unwrap_or_default();
    let mut nodes = Vec::new();
    let mut bad = None;
    for said in array(record.get("nodes")).take(MAX_NODES) {
        match node(key, &service, version, &endpoints, said) {
            Ok(node) => nodes.push(node),
            Err(error) => bad = Some(error),
        }
    }
    match bad {
        _ if !nodes.is_empty() => Ok(nodes),
        Some(error) => Err(error),
        None => Err(RecordError::NoNode),
    }
}

/// The name that the record says, else that of its key (where `/` stands as `-`).
fn service_of(key: &str, record: &Map<String, Value>) -> Option<String> {
    let (of_key, node) = key.strip_prefix(PREFIX)?.split_once('/')?;
    let name = text(record.get("name")).filter(|name| !name.is_empty()).unwrap_or(of_key);
    let bad = |letter: char| letter == '/' || letter.is_control() || letter.is_whitespace();
    (!node.is_empty() && !name.is_empty() && !name.starts_with('.') && !name.contains(bad)).then(|| name.to_owned())
}

fn node(key: &str, service: &str, version: &str, endpoints: &[&Value], said: &Value) -> Result<Node, RecordError> {
    let shown = text(said.get("address")).unwrap_or_default();
    let address = address(shown, said.get("port")).ok_or_else(|| RecordError::Address(shown.to_owned()))?;
    let labels: BTreeMap<String, String> = match said.get("metadata") {
        Some(Value::Object(labels)) => {
            labels.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
        }
        _ => BTreeMap::new(),
    };
    if let Some(ours) = labels.get(OURS).and_then(|ours| serde_json::from_str::<Ours>(ours).ok()) {
        let at = |port| HostPort { ip: address.ip, port };
        let id = NodeId { service: service.to_owned(), rpc: at(ours.rpc), http: at(ours.http) };
        return Ok(Node::new(id, ours.meta));
    }
    let none = HostPort { ip: address.ip, port: None };
    let label = |name: &str| labels.get(name).map(String::as_str);
    let (protocol, rpc, http) = match label("protocol").or_else(|| label("server")) {
        Some("grpc") => ("grpc", address, none),
        Some("mucp" | "rpc") => ("mucp", none, address),
        _ if label("transport") == Some("grpc") => ("grpc", address, none),
        _ => ("http", none, address), // what v2's web package serves says nothing of itself
    };
    let named =
        || endpoints.iter().filter_map(|endpoint| Some((text(endpoint.get("name"))?, endpoint.get("metadata"))));
    let is_stream = |metadata: Option<&Value>| text(metadata.and_then(|all| all.get("stream"))) == Some("true");
    let meta = NodeMeta {
        version: version.to_owned(),
        protocols: vec![protocol.to_owned()],
        endpoints: named().map(|(name, _)| name.to_owned()).collect(),
        streams: named().filter(|(_, metadata)| is_stream(*metadata)).map(|(name, _)| name.to_owned()).collect(),
        labels,
        record: Some(key.to_owned()),
        ..NodeMeta::default()
    };
    Ok(Node::new(NodeId { service: service.to_owned(), rpc, http }, meta))
}

fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str)
}

fn array(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

/// `ip:port`, or as v1 wrote it: an address and a number.
fn address(text: &str, port: Option<&Value>) -> Option<HostPort> {
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return (socket.port() != 0).then(|| HostPort::new(socket.ip(), socket.port()));
    }
    let ip: IpAddr = text.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    let port = port.and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)?;
    Some(HostPort::new(ip, port))
}

#[cfg(test)]
mod tests;

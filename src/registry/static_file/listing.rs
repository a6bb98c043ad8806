//! What stands in the file of a static registry: YAML, or JSON, which is YAML too.
//!
//! ```yaml
//! services:
//!   user:
//!     - 10.0.0.1:9080                                        # where it takes HTTP
//!     - { http: "10.0.0.2:9080", rpc: "10.0.0.2:9180", weight: 2, version: 1.4.0, zone: a, draining: true }
//! ```

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::SocketAddr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::super::{HostPort, Node, NodeId, NodeMeta, NodeState, check_service};

/// Why a file is no listing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListingError {
    #[error("cannot be read")]
    Read(#[source] std::io::Error),
    #[error("has {0} bytes, over the {MOST_BYTES} of a listing")]
    Size(u64),
    #[error("{0}")]
    Form(serde_yaml::Error),
    #[error("service `{service}`: {reason}")]
    Name { service: String, reason: String },
    #[error("service `{service}` lists the node `{node}` twice")]
    Twice { service: String, node: String },
}

/// Far over any listing: 100,000 nodes.
pub(super) const MOST_BYTES: u64 = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    #[serde(default)]
    services: BTreeMap<String, Vec<Entry>>,
}

/// One node: its address for HTTP alone, or with more.
struct Entry(Listed);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Listed {
    http: Address,
    rpc: Option<Address>,
    #[serde(default)]
    version: String,
    #[serde(default)]
    zone: String,
    weight: Option<std::num::NonZeroU32>,
    #[serde(default)]
    draining: bool,
    #[serde(default)]
    takes_events: bool,
    protocols: Option<Vec<String>>,
    #[serde(default)]
    endpoints: Vec<String>,
    /// Full names of services of gRPC.
    #[serde(default)]
    rpc_services: Vec<String>,
    /// The path at which it serves its OpenAPI document.
    openapi: Option<String>,
}

/// `ip:port`.
#[derive(Clone, Copy, Serialize)]
struct Address(SocketAddr);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        address(&text).map_err(D::Error::custom)
    }
}

fn address(text: &str) -> Result<Address, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => Ok(Address(address)),
        _ => Err(format!("`{text}` is no address of a node; write `ip:port`, for example `10.0.0.1:9080`")),
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Entry;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a node: `ip:port`, or a mapping with `http: \"ip:port\"`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Entry, E> {
                Ok(Entry(Listed::at(address(text).map_err(E::custom)?)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                Listed::deserialize(MapAccessDeserializer::new(map)).map(Entry)
            }
        }
        from.deserialize_any(Either)
    }
}

impl Listed {
    fn at(http: Address) -> Self {
        Self {
            http,
            rpc: None,
            version: String::new(),
            zone: String::new(),
            weight: None,
            draining: false,
            takes_events: false,
            protocols: None,
            endpoints: Vec::new(),
            rpc_services: Vec::new(),
            openapi: None,
        }
    }

    fn node(self, service: &str) -> Node {
        let port = |address: Address| HostPort::new(address.0.ip(), address.0.port());
        let http = port(self.http);
        let rpc = self.rpc.map_or(HostPort { ip: http.ip, port: None }, port);
        let default = NodeMeta::default();
        let mut meta = NodeMeta {
            version: self.version,
            zone: self.zone,
            weight: self.weight.map_or(default.weight, std::num::NonZeroU32::get),
            draining: self.draining,
            takes_events: self.takes_events,
            protocols: self.protocols.unwrap_or(default.protocols),
            endpoints: self.endpoints,
            rpc_services: self.rpc_services,
            ..default
        };
        if let Some(path) = &self.openapi {
            meta.tell_openapi(path);
        }
        let mut node = Node::new(NodeId { service: service.to_owned(), rpc, http }, meta);
        if node.meta.draining {
            node.state = NodeState::Draining;
        }
        node
    }
}

/// The nodes of a file, in its order. An empty file lists none.
///
/// # Errors
/// What is wrong with it, with line and column where the form is.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, ListingError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let listing: Listing = serde_yaml::from_str(text).map_err(ListingError::Form)?;
    let mut nodes = Vec::new();
    let mut seen = HashSet::new();
    for (service, entries) in listing.services {
        for entry in entries {
            let node = entry.0.node(&service);
            check_service(&node.id)
                .map_err(|error| ListingError::Name { service: service.clone(), reason: error.to_string() })?;
            if !seen.insert(node.id.clone()) {
                return Err(ListingError::Twice { service, node: node.id.to_string() });
            }
            nodes.push(node);
        }
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_node_are_read_from_yaml_and_json() {
        let yaml = "services:\n  user:\n    - 10.0.0.1:9080\n    - { http: \"10.0.0.2:9080\", rpc: \"10.0.0.2:9180\", weight: 2, version: 1.4.0, zone: a, draining: true }\n";
        let json = r#"{"services":{"user":["10.0.0.1:9080",{"http":"10.0.0.2:9080","rpc":"10.0.0.2:9180","weight":2,"version":"1.4.0","zone":"a","draining":true}]}}"#;
        let nodes = parse(yaml).expect("good");
        assert_eq!(parse(json).expect("good"), nodes);
        assert_eq!(nodes[0].id.to_string(), "10.0.0.1:_10.0.0.1:9080");
        assert_eq!(nodes[0].meta, NodeMeta::default());
        assert_eq!(nodes[1].id.to_string(), "10.0.0.2:9180_10.0.0.2:9080");
        let meta = &nodes[1].meta;
        assert_eq!((meta.weight, meta.version.as_str(), meta.zone.as_str()), (2, "1.4.0", "a"));
        assert_eq!((nodes[0].state, nodes[1].state), (NodeState::Ready, NodeState::Draining));
        assert_eq!(parse(" \n").expect("empty"), []);
        assert_eq!(parse("services: {}").expect("none"), []);
        assert_eq!(parse("services:\n  user: [\"[::1]:80\"]").expect("good")[0].id.http.to_string(), "[::1]:80");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, wanted) in [
            ("services:\n  user:\n    - localhost:80\n", "`localhost:80` is no address of a node; write `ip:port`"),
            ("services:\n  user:\n    - 1.1.1.1:80\n    - { http: \"1.1.1.1:81\", wieght: 2 }\n", "line 4"),
            ("services:\n  user:\n    - { http: \"1.1.1.1:81\", weight: 0 }\n", "weight"),
            ("services:\n  user: [{ rpc: \"1.1.1.1:81\" }]\n", "missing field `http`"),
            ("servces: {}", "unknown field `servces`"),
            ("services: {user: [7]}", "a node: `ip:port`, or a mapping"),
            ("services: {a_b: [\"1.1.1.1:1\"]}", "service `a_b`"),
            ("services: {user: [\"1.1.1.1:1\", \"1.1.1.1:1\"]}", "twice"),
            ("services: {user: [", "line 2"),
            ("services: {user: [\"1.1.1.1:0\"]}", "`1.1.1.1:0` is no address"),
        ] {
            let said = parse(text).expect_err(text).to_string();
            assert!(said.contains(wanted), "{text}: {said}");
        }
    }
}

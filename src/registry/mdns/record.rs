//! A node as a DNS-SD instance (RFC 6763): who it is and what it says stands in TXT, since a node has two addresses and
//! may be called by one that its own machine does not know.
//!
//! ```text
//! user-3f2a…-0._goms._tcp.local.   SRV, A, AAAA of the machine
//!   TXT node=goms_user_10.0.0.1:9180_10.0.0.1:9080   its key
//!       life=3f2a…                                    which start of the process
//!       turn=0                                        which announcement of that; the highest counts
//!       drained=1                                     someone took it out of rotation
//!       m0={"version":… m1=…                          its metadata as JSON, in pieces
//! ```
//! What changes is another instance, and the one before says goodbye: a cache that has a text for less than a second
//! would keep it beside the new one (RFC 6762 section 10.2).

use mdns_sd::{ResolvedService, ServiceInfo, TxtProperties};
use serde::{Deserialize, Serialize};

use super::super::key::KeyError;
use super::super::{Node, NodeId, NodeMeta, NodeState, RegistryError};

/// What nodes are found under.
pub(super) const NODES: &str = "_goms._tcp.local.";
/// A piece of metadata: a string of TXT has 255 bytes (RFC 6763 section 6.1), its key and `=` among them.
const PIECE_BYTES: usize = 240;
/// A packet may have 9,000 bytes (RFC 6762 section 17), with a record to itself where it needs it.
const META_BYTES: usize = 8_000;
/// A label of DNS has 63 bytes; the rest is the node's life and turn.
const NAME_BYTES: usize = 36;
/// A string of TXT without its key.
const KEY_BYTES: usize = 250;
/// SRV wants a port; a node without one is never called.
const NO_PORT: u16 = 9;

/// A node as its process announces it.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) node: Node,
    pub(super) drained: bool,
    pub(super) life: String,
    pub(super) turn: u32,
}

/// A node as it was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) id: NodeId,
    pub(super) meta: NodeMeta,
    pub(super) drained: bool,
    pub(super) life: String,
    pub(super) turn: u32,
}

/// Why an instance is no node of ours.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum RecordError {
    /// Of another cluster: nothing to speak of.
    #[error("of another namespace")]
    Foreign,
    #[error("has no `{0}` in TXT")]
    Missing(&'static str),
    #[error(transparent)]
    Key(KeyError),
    #[error("metadata: {0}")]
    Meta(String),
}

impl Own {
    pub(super) fn new(node: Node) -> Self {
        Self { node, drained: false, life: uuid::Uuid::new_v4().simple().to_string(), turn: 0 }
    }

    /// The instance's name.
    pub(super) fn name(&self) -> String {
        let service = &self.node.id.service;
        let end =
            service.char_indices().map(|(at, letter)| at + letter.len_utf8()).take_while(|end| *end <= NAME_BYTES);
        format!("{}-{}-{}", &service[..end.last().unwrap_or_default()], &self.life[..12], self.turn)
    }

    /// What is announced.
    ///
    /// # Errors
    /// When the node does not fit into DNS.
    pub(super) fn info(&self, namespace: &str) -> Result<ServiceInfo, RegistryError> {
        let bad = |reason: String| RegistryError::Setting { setting: "service", reason };
        let key = self.node.id.key(namespace);
        if key.len() > KEY_BYTES {
            return Err(bad(format!("`{key}` is too long for mDNS, which takes {KEY_BYTES} bytes")));
        }
        let texts = [("node", key), ("life", self.life.clone()), ("turn", self.turn.to_string())];
        let mut texts: Vec<(String, String)> = texts.map(|(name, text)| (name.to_owned(), text)).into();
        if self.drained {
            texts.push(("drained".to_owned(), "1".to_owned()));
        }
        texts.extend(pieces(&self.node.meta).into_iter().enumerate().map(|(at, piece)| (format!("m{at}"), piece)));
        let port = self.node.id.http.port.or(self.node.id.rpc.port).unwrap_or(NO_PORT);
        let host = format!("goms-{}.local.", &self.life[..12]);
        let info = ServiceInfo::new(NODES, &self.name(), &host, "", port, &texts[..]);
        let mut info = info.map_err(|error| bad(error.to_string()))?.enable_addr_auto();
        info.set_requires_probe(false); // its name is random: nobody else has it
        Ok(info)
    }
}

/// The metadata in pieces that fit. What does not fit loses its list of endpoints, which only pages show.
fn pieces(meta: &NodeMeta) -> Vec<String> {
    let json = |meta: &NodeMeta| serde_json::to_string(meta).unwrap_or_default(); // a struct of plain fields
    let mut text = json(meta);
    if text.len() > META_BYTES {
        text = json(&NodeMeta { endpoints: Vec::new(), ..meta.clone() });
    }
    let mut pieces = vec![String::new()];
    for letter in text.chars() {
        match pieces.last_mut() {
            Some(last) if last.len() + letter.len_utf8() <= PIECE_BYTES => last.push(letter),
            _ => pieces.push(letter.into()),
        }
    }
    pieces
}

/// Reads what was found.
pub(super) fn read(namespace: &str, service: &ResolvedService) -> Result<Found, RecordError> {
    let texts = service.get_properties();
    let text = |name: &'static str| texts.get_property_val_str(name).ok_or(RecordError::Missing(name));
    let id = NodeId::parse_key(namespace, text("node")?).map_err(|error| match error {
        KeyError::Namespace(_) => RecordError::Foreign,
        other => RecordError::Key(other),
    })?;
    let json = joined(texts);
    let meta = serde_json::from_str(&json).map_err(|error| RecordError::Meta(error.to_string()))?;
    let turn = text("turn")?.parse().map_err(|_| RecordError::Missing("turn"))?;
    Ok(Found { id, meta, drained: texts.get("drained").is_some(), life: text("life")?.to_owned(), turn })
}

fn joined(texts: &TxtProperties) -> String {
    (0..).map_while(|at| texts.get_property_val_str(&format!("m{at}"))).collect()
}

impl Found {
    pub(super) fn node(&self) -> Node {
        let mut node = Node::new(self.id.clone(), self.meta.clone());
        if self.drained || self.meta.draining {
            node.state = NodeState::Draining;
        }
        node
    }
}

/// What one process asks of another's node, announced for as long as it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) node: String,
    pub(super) drained: bool,
}

/// What requests are found under.
pub(super) const REQUESTS: &str = "_goms-ask._tcp.local.";

impl Request {
    /// What is announced.
    pub(super) fn info(&self) -> Result<ServiceInfo, mdns_sd::Error> {
        let life = uuid::Uuid::new_v4().simple().to_string();
        let texts = [("node", self.node.as_str()), ("drained", if self.drained { "1" } else { "0" })];
        let host = format!("goms-{}.local.", &life[..12]);
        let mut info = ServiceInfo::new(REQUESTS, &life, &host, "", NO_PORT, &texts[..])?.enable_addr_auto();
        info.set_requires_probe(false);
        Ok(info)
    }

    /// Reads what was found; `None`: no request.
    pub(super) fn read(service: &ResolvedService) -> Option<Self> {
        let text = |name| service.get_property_val_str(name);
        Some(Self { node: text("node")?.to_owned(), drained: text("drained")? == "1" })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::super::super::HostPort;
    use super::*;

    fn own(service: &str, endpoints: usize) -> Own {
        let at = |port| HostPort::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let endpoints = (0..endpoints).map(|number| format!("/\u{e9}ndpoint/{number}")).collect();
        let meta = NodeMeta { version: "1=2".into(), endpoints, ..NodeMeta::default() };
        Own::new(Node::new(NodeId { service: service.into(), rpc: at(1), http: at(2) }, meta))
    }

    #[test]
    fn a_node_survives_the_way_through_its_texts() {
        for endpoints in [0, 1, 300] {
            let mut own = own("user", endpoints);
            own.drained = endpoints == 1;
            let told = own.info("goms").expect("fits").as_resolved_service();
            let found = read("goms", &told).expect("a node");
            assert_eq!((&found.id, &found.meta), (&own.node.id, &own.node.meta));
            assert_eq!((found.drained, &found.life), (own.drained, &own.life));
            assert_eq!(read("other", &told), Err(RecordError::Foreign));
        }
        let told = own("user", 2_000).info("goms").expect("fits").as_resolved_service();
        let found = read("goms", &told).expect("a node").meta;
        assert_eq!((found.version.as_str(), found.endpoints.len()), ("1=2", 0), "what does not fit stays away");
    }

    #[test]
    fn names_fit_into_a_label_and_keys_into_a_text() {
        let name = own(&"\u{7528}".repeat(40), 0).name();
        assert!(name.len() <= 63 && name.starts_with('\u{7528}'), "{name}");
        assert!(own(&"a".repeat(300), 0).info("goms").is_err());
    }
}

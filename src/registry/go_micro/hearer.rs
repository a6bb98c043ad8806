//! Who hears a topic by Go Micro's HTTP broker: a record of the service `micro.http.broker`, a key for each topic.
//!
//! ```text
//! /micro/registry/micro.http.broker/orders-5fb79ba8-… →
//!   {"name":"micro.http.broker","version":"ff.http.broadcast","metadata":null,"endpoints":null,
//!    "nodes":[{"id":"orders-5fb79ba8-…","address":"127.0.0.1:45869",
//!              "metadata":{"broker":"http","secure":"false","topic":"orders"}}]}
//! ```
//! Another version than `ff.http.broadcast` is the name of a group, whose members share what is published.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::{MAX_NODES, PREFIX, RecordError, address, array, text};

/// The service whose nodes they are.
const SERVICE: &str = "micro.http.broker";
/// The version of those that are in no group.
const BROADCAST: &str = "ff.http.broadcast";

/// A process that hears a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hearer {
    /// What it calls itself: what is published to it names it.
    pub id: String,
    /// Where it takes what is published.
    pub address: SocketAddr,
    /// What it hears.
    pub topic: String,
    /// The group that it shares with; `None`: it hears all.
    pub group: Option<String>,
    /// It takes TLS alone.
    pub tls: bool,
}

/// Whether a key is a hearer's.
pub(in crate::registry) fn is_key(key: &str) -> bool {
    key.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(SERVICE)).is_some_and(|rest| rest.starts_with('/'))
}

/// A hearer's key; `id` is what it calls itself.
pub(in crate::registry) fn key(id: &str) -> String {
    format!("{PREFIX}{SERVICE}/{}", id.replace('/', "-"))
}

/// A hearer's record.
pub(in crate::registry) fn record(hearer: &Hearer) -> Vec<u8> {
    let secure = if hearer.tls { "true" } else { "false" };
    let metadata = json!({"broker": "http", "secure": secure, "topic": hearer.topic});
    let record = json!({
        "name": SERVICE,
        "version": hearer.group.as_deref().unwrap_or(BROADCAST),
        "metadata": null,
        "endpoints": null,
        "nodes": [{"id": hearer.id, "address": hearer.address.to_string(), "metadata": metadata}],
    });
    record.to_string().into_bytes()
}

/// The hearers of a record.
///
/// # Errors
/// [`RecordError`]; a record with a good one and a bad one gives the good one.
pub(in crate::registry) fn read(value: &[u8]) -> Result<Vec<Hearer>, RecordError> {
    let record: Map<String, Value> = crate::json::value(value).map_err(RecordError::Json)?;
    let group = text(record.get("version")).filter(|version| !version.is_empty() && *version != BROADCAST);
    let mut hearers = Vec::new();
    let mut bad = RecordError::NoNode;
    for said in array(record.get("nodes")).take(MAX_NODES) {
        let label = |name: &str| text(said.get("metadata").and_then(|all| all.get(name)));
        let (Some(id), Some(topic), Some("http")) = (text(said.get("id")), label("topic"), label("broker")) else {
            continue; // of another broker, which is nothing to us
        };
        let shown = text(said.get("address")).unwrap_or_default();
        match address(shown, said.get("port")).and_then(super::HostPort::socket) {
            Some(address) => hearers.push(Hearer {
                id: id.to_owned(),
                address,
                topic: topic.to_owned(),
                group: group.map(str::to_owned),
                tls: label("secure") == Some("true"),
            }),
            None => bad = RecordError::Address(shown.to_owned()),
        }
    }
    if hearers.is_empty() { Err(bad) } else { Ok(hearers) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hearer(group: Option<&str>) -> Hearer {
        Hearer {
            id: "a/b-1".to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 4000)),
            topic: "a/b".to_owned(),
            group: group.map(str::to_owned),
            tls: false,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for group in [None, Some("mail")] {
            let one = hearer(group);
            assert_eq!(read(&record(&one)).expect("good"), [one]);
        }
        let key = key("a/b-1");
        assert_eq!(key, "/micro/registry/micro.http.broker/a-b-1");
        assert!(is_key(&key) && !is_key("/micro/registry/micro.http.brokers/1") && !is_key("/micro/registry/a/1"));
    }

    #[test]
    fn what_go_writes_is_read_and_junk_is_told() {
        let of_go =
            br#"{"name":"micro.http.broker","version":"ff.http.broadcast","metadata":null,"endpoints":null,"nodes":[
            null,{"id":"x-1","address":"no","metadata":{"broker":"http","topic":"x"}},
            {"id":"x-2","address":"10.0.0.1:80","metadata":{"broker":"http","secure":"true","topic":"x"}}]}"#;
        let read_ = read(of_go).expect("one of them is good");
        assert_eq!((read_.len(), &*read_[0].id, read_[0].tls, &read_[0].group), (1, "x-2", true, &None));
        for bad in
            ["", "{", "null", "{}", r#"{"nodes":[{"id":"a","address":"1","metadata":{"broker":"http","topic":"x"}}]}"#]
        {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}

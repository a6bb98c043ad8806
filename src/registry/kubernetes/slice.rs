//! EndpointSlices as nodes (`discovery.k8s.io/v1`, <https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/>).
//! Kubernetes gives a slice the labels of its Service.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use super::super::{HostPort, Node, NodeId, NodeMeta, NodePort, NodeState, check_service};

/// The Service that a slice is of, as Kubernetes labels it.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The service that its pods serve, where that is called otherwise; who is to be found has it (see `selector`).
pub(super) const SERVICE: &str = "goms.dev/service";
const VERSION: &str = "goms.dev/version";
const WEIGHT: &str = "goms.dev/weight";
/// `http`, `rpc` or `all`: which ports take nothing but TLS.
const TLS: &str = "goms.dev/tls";
/// `true`: its pods are trace consumers that take events over HTTP.
const TAKES_EVENTS: &str = "goms.dev/takes-events";
/// `true`: its pods serve a document of their API at [`OPENAPI_PATH`]. A label's value cannot be a path.
const OPENAPI: &str = "goms.dev/openapi";
const OPENAPI_PATH: &str = "/openapi.json";
/// The label of a node that has its pod's name.
const POD: &str = "pod";

/// A slice, as far as goms reads it. Any list may be `null`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Slice {
    pub(super) metadata: Metadata,
    address_type: String,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) resource_version: String,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    addresses: Option<Vec<String>>,
    conditions: Conditions,
    target_ref: Option<Target>,
    zone: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Target {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

/// What a service's pods are called by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ports {
    http: Option<u16>,
    rpc: Option<u16>,
    admin: Option<u16>,
}

impl Slice {
    fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn is_true(&self, key: &str) -> bool {
        self.label(key) == Some("true")
    }

    fn service_name(&self) -> &str {
        self.label(SERVICE_NAME).unwrap_or(&self.metadata.name)
    }

    /// The ports by their names; one that has another name, or none, is that of HTTP where no port is called so.
    fn ports(&self) -> Ports {
        let mut found = Ports::default();
        let mut other = None;
        for port in self.ports.iter().flatten() {
            let (Some(number), None | Some("TCP")) = (port.port, port.protocol.as_deref()) else { continue };
            match port.name.as_deref() {
                Some("http" | "https") => found.http = Some(number),
                Some("rpc" | "grpc") => found.rpc = Some(number),
                Some("admin") => found.admin = Some(number),
                _ => other = other.or(Some(number)),
            }
        }
        if found.rpc.is_none() {
            found.http = found.http.or(other);
        }
        found
    }

    fn meta(&self, ports: Ports) -> NodeMeta {
        let mut meta = NodeMeta {
            version: self.label(VERSION).unwrap_or_default().to_owned(),
            weight: self.label(WEIGHT).and_then(|text| text.parse().ok()).unwrap_or(1),
            protocols: Vec::new(),
            takes_events: self.is_true(TAKES_EVENTS),
            ..NodeMeta::default()
        };
        for (port, word) in [(ports.http, "http"), (ports.rpc, "grpc")] {
            if port.is_some() {
                meta.protocols.push(word.to_owned());
            }
        }
        let tls = self.label(TLS).unwrap_or_default();
        let secure = [NodePort::Http, NodePort::Rpc].map(NodePort::word).into_iter();
        meta.tls = secure.filter(|word| tls == *word || tls == "all").map(str::to_owned).collect();
        let shown = |key: &str| !key.contains("kubernetes.io/") && key != SERVICE;
        meta.labels = self.metadata.labels.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        meta.labels.retain(|key, _| shown(key));
        if self.is_true(OPENAPI) {
            meta.tell_openapi(OPENAPI_PATH);
        }
        meta
    }

    /// Its nodes; `Err`: why it has none.
    fn nodes(&self) -> Result<Vec<Node>, String> {
        let ports = self.ports();
        if ports.http.is_none() && ports.rpc.is_none() {
            return Err("it has no port of TCP called `http` or `rpc`".to_owned());
        }
        let (service, meta) = (self.label(SERVICE).unwrap_or(self.service_name()), self.meta(ports));
        let mut nodes = Vec::new();
        for endpoint in self.endpoints.iter().flatten() {
            // all addresses of an endpoint are the same pod's, so one is enough
            let address = endpoint.addresses.iter().flatten().find_map(|text| text.parse::<IpAddr>().ok());
            let (Some(ip), Some(state)) = (address, endpoint.conditions.state()) else { continue };
            let at = |port| HostPort { ip, port };
            let id = NodeId { service: service.to_owned(), rpc: at(ports.rpc), http: at(ports.http) };
            check_service(&id).map_err(|error| error.to_string())?;
            let mut meta = meta.clone();
            meta.zone = endpoint.zone.clone().unwrap_or_default();
            meta.admin = ports.admin.map(|port| SocketAddr::new(ip, port));
            if let Some(target) = &endpoint.target_ref {
                meta.labels.insert(POD.to_owned(), target.name.clone());
            }
            nodes.push(Node { state, ..Node::new(id, meta) });
        }
        Ok(nodes)
    }
}

impl Conditions {
    /// `None`: not to be called. A pod that ends serves on for a while, and is sent nothing new. What is not said counts as
    /// ready.
    fn state(self) -> Option<NodeState> {
        let is_ending = self.terminating.unwrap_or(false);
        match (self.ready, self.serving) {
            (_, Some(true)) if is_ending => Some(NodeState::Draining),
            (None | Some(true), _) if !is_ending => Some(NodeState::Ready),
            _ => None,
        }
    }
}

/// The nodes of all slices. A Service with two families of addresses has slices of either, with the same pods: those of IPv4
/// count. `skip` is told of slices that have no nodes, and why.
pub(super) fn nodes<'a>(slices: impl IntoIterator<Item = &'a Slice> + Clone, skip: impl Fn(&str, &str)) -> Vec<Node> {
    let first: HashSet<&str> =
        slices.clone().into_iter().filter(|slice| slice.address_type == "IPv4").map(Slice::service_name).collect();
    let mut all = Vec::new();
    for slice in slices {
        let name = &slice.metadata.name;
        match slice.address_type.as_str() {
            "IPv6" if first.contains(slice.service_name()) => {}
            "IPv4" | "IPv6" => match slice.nodes() {
                Ok(nodes) => all.extend(nodes),
                Err(reason) => skip(name, &reason),
            },
            other => skip(name, &format!("its addresses are of type `{other}`")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(of: serde_json::Value) -> Slice {
        serde_json::from_value(of).expect("a slice")
    }

    fn told(slices: &[Slice]) -> Vec<(String, NodeState)> {
        let nodes = nodes(slices, |name, reason| panic!("{name}: {reason}"));
        nodes.iter().map(|node| (format!("{}@{}", node.id.service, node.id), node.state)).collect()
    }

    #[test]
    fn conditions_become_states() {
        let state = |ready, serving, terminating| Conditions { ready, serving, terminating }.state();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(state(None, None, None), Some(NodeState::Ready), "not said");
        assert_eq!(state(yes, yes, no), Some(NodeState::Ready));
        assert_eq!(state(yes, None, None), Some(NodeState::Ready));
        assert_eq!(state(no, no, no), None, "not ready yet");
        assert_eq!(state(no, yes, yes), Some(NodeState::Draining));
        assert_eq!(state(yes, yes, yes), Some(NodeState::Draining), "`publishNotReadyAddresses` says ready");
        assert_eq!(state(no, no, yes), None);
    }

    #[test]
    fn ports_are_found_by_name_and_labels_say_more() {
        let one = slice(json!({
            "metadata": { "name": "shop-x1", "labels": {
                "kubernetes.io/service-name": "shop", "goms.dev/service": "Shop", "goms.dev/version": "2", "goms.dev/weight": "3",
                "goms.dev/tls": "rpc", "team": "a" } },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["10.0.0.1"], "zone": "z1", "targetRef": { "kind": "Pod", "name": "shop-1" } }],
            "ports": [{ "name": "admin", "port": 9090 }, { "name": "grpc", "port": 2 }, { "name": "http", "port": 1, "protocol": "TCP" }],
        }));
        let nodes = nodes(&[one], |name, reason| panic!("{name}: {reason}"));
        let node = &nodes[0];
        assert_eq!((node.id.service.as_str(), node.id.to_string().as_str()), ("Shop", "10.0.0.1:2_10.0.0.1:1"));
        let meta = &node.meta;
        assert_eq!((meta.version.as_str(), meta.weight, meta.zone.as_str()), ("2", 3, "z1"));
        assert_eq!((&meta.tls[..], meta.admin), (&["rpc".to_owned()][..], Some(([10, 0, 0, 1], 9090).into())));
        assert_eq!((meta.labels["pod"].as_str(), meta.labels["team"].as_str()), ("shop-1", "a"));
        assert!(!meta.labels.contains_key("kubernetes.io/service-name"));
        assert_eq!(meta.protocols, ["http", "grpc"]);
    }

    #[test]
    fn labels_say_who_takes_events_and_who_has_a_document() {
        let of = |labels: serde_json::Value| {
            let one = slice(json!({
                "metadata": { "name": "a", "labels": labels }, "addressType": "IPv4",
                "endpoints": [{ "addresses": ["10.0.0.1"] }], "ports": [{ "name": "http", "port": 1 }],
            }));
            let meta = &nodes(&[one], |name, reason| panic!("{name}: {reason}"))[0].meta;
            (meta.takes_events, meta.openapi().map(str::to_owned))
        };
        assert_eq!(of(json!({ "goms.dev/takes-events": "true" })), (true, None));
        assert_eq!(of(json!({ "goms.dev/openapi": "true" })), (false, Some("/openapi.json".to_owned())));
        assert_eq!(of(json!({ "goms.dev/takes-events": "false", "goms.dev/openapi": "no" })), (false, None));
        assert_eq!(of(json!(null)), (false, None));
    }

    #[test]
    fn a_pod_with_two_families_is_one_node_and_nulls_are_none() {
        let of = |kind: &str, address: &str| {
            slice(json!({
                "metadata": { "name": kind, "labels": { "kubernetes.io/service-name": "user" } }, "addressType": kind,
                "endpoints": [{ "addresses": [address] }], "ports": [{ "name": null, "port": 80, "protocol": "TCP" }],
            }))
        };
        let (four, six) = (of("IPv4", "10.0.0.1"), of("IPv6", "fd00::1"));
        assert_eq!(told(&[six.clone(), four]), [("user@10.0.0.1:_10.0.0.1:80".to_owned(), NodeState::Ready)]);
        assert_eq!(told(&[six]), [("user@[fd00::1]:_[fd00::1]:80".to_owned(), NodeState::Ready)]);
        let empty =
            json!({ "metadata": { "name": "e" }, "addressType": "IPv4", "endpoints": null, "ports": [{ "port": 1 }] });
        assert_eq!(told(&[slice(empty)]), []);
    }

    #[test]
    fn what_has_no_nodes_says_why() {
        let reasons = std::cell::RefCell::new(Vec::new());
        let slices = [
            json!({ "metadata": { "name": "a" }, "addressType": "FQDN" }),
            json!({ "metadata": { "name": "b" }, "addressType": "IPv4", "ports": null }),
            json!({ "metadata": { "name": "c" }, "addressType": "IPv4", "ports": [{ "name": "dns", "protocol": "UDP", "port": 53 }] }),
            json!({ "metadata": { "name": "d", "labels": { "goms.dev/service": "a_b" } }, "addressType": "IPv4",
                    "endpoints": [{ "addresses": ["10.0.0.1"] }], "ports": [{ "port": 1 }] }),
        ]
        .map(slice);
        assert!(nodes(&slices, |name, _| reasons.borrow_mut().push(name.to_owned())).is_empty());
        assert_eq!(reasons.into_inner(), ["a", "b", "c", "d"]);
    }
}

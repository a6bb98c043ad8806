//! The page `/cluster`: every service with its nodes, whose turn it is, and how many requests went there.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::balance::ServiceView;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    poll_next: usize,
    nodes: Vec<String>,
    request_finish: u64,
}

#[derive(Serialize)]
struct Goms {
    services: BTreeMap<String, Service>,
    status: bool,
}

#[derive(Serialize)]
struct GoMs {
    servers: BTreeMap<String, Service>,
}

/// `{"services":{"user":{"PollNext":0,"Nodes":["ip:rpc_ip:http"],"RequestFinish":0}},"status":true}`; with the query
/// `form=go-ms` the same under `servers` and without `status`.
pub(super) fn page(view: Vec<ServiceView>, query: &str) -> Vec<u8> {
    let shown = |service: ServiceView| {
        let nodes = service.nodes.iter().map(|node| node.node.id.to_string()).collect();
        let shown = Service { poll_next: service.poll_next, nodes, request_finish: service.request_finish };
        (service.name, shown)
    };
    let services: BTreeMap<String, Service> = view.into_iter().map(shown).collect();
    let go_ms = query.split('&').any(|pair| pair == "form=go-ms");
    let page = if go_ms {
        serde_json::to_vec(&GoMs { servers: services })
    } else {
        serde_json::to_vec(&Goms { services, status: true })
    };
    page.unwrap_or_default() // string keys and plain numbers cannot fail
}

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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ejected: Vec<Ejected>,
    /// Nodes that health checks found unwell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unwell: Vec<String>,
    /// Requests that wait until a node has room.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<usize>,
    /// Of the new requests, so many percent are refused since the service is slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    shed_percent: Option<u32>,
    /// Milliseconds until the open breaker lets one request through.
    #[serde(skip_serializing_if = "Option::is_none")]
    breaker_open_ms: Option<u128>,
}

/// A node that gets no requests for a while because it failed.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ejected {
    node: String,
    /// Milliseconds until it is tried again.
    left_ms: u128,
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
/// `form=go-ms` the same under `servers` and without `status`. Where nodes are ejected, a service also has
/// `"Ejected":[{"Node":"ip:rpc_ip:http","LeftMs":9000}]`, and while its breaker is not closed `"BreakerOpenMs":9000`,
/// where health checks found nodes unwell
/// `"Unwell":["ip:rpc_ip:http"]`, while requests wait for room `"Waiting":3`, and while it is slow `"ShedPercent":20`; none of them in the older form.
pub(super) fn page(view: Vec<ServiceView>, query: &str) -> Vec<u8> {
    let go_ms = query.split('&').any(|pair| pair == "form=go-ms");
    let shown = |service: ServiceView| {
        let nodes = service.nodes.iter().map(|node| node.node.id.to_string()).collect();
        let mut shown = Service {
            poll_next: service.poll_next,
            nodes,
            request_finish: service.request_finish,
            ejected: Vec::new(),
            unwell: Vec::new(),
            waiting: None,
            shed_percent: None,
            breaker_open_ms: None,
        };
        if !go_ms {
            let ejected = service.nodes.iter().filter_map(|node| {
                let left = node.ejected_for?;
                Some(Ejected { node: node.node.id.to_string(), left_ms: left.as_millis() })
            });
            shown.ejected = ejected.collect();
            let unwell = service.nodes.iter().filter(|node| node.is_unwell);
            shown.unwell = unwell.map(|node| node.node.id.to_string()).collect();
            shown.waiting = Some(service.waiting).filter(|waiting| *waiting > 0);
            shown.shed_percent = Some(service.shed_percent).filter(|percent| *percent > 0);
            shown.breaker_open_ms = service.breaker_open_for.map(|left| left.as_millis());
        }
        (service.name, shown)
    };
    let services: BTreeMap<String, Service> = view.into_iter().map(shown).collect();
    let page = if go_ms {
        serde_json::to_vec(&GoMs { servers: services })
    } else {
        serde_json::to_vec(&Goms { services, status: true })
    };
    page.unwrap_or_default() // string keys and plain numbers cannot fail
}

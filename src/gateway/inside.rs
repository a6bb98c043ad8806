//! `X-Goms-Explain`: in place of its answer, who runs the cluster is told what became of a request and why.
//!
//! The request is carried out. Who may ask holds the call key, and sends it as `Call-Service-Key`; in a cluster without one
//! it must come from this machine, and through no proxy: with no field that proxies add, and not from one of `trustedProxies`.

use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::Settings;
use super::asked::{self, Asked};
use super::explain::Explanation;
use super::live::Table;
use super::pipeline::Worker;
use crate::balance::ServiceView;
use crate::call_key::CallKeys;
use crate::listener::Incoming;
use crate::trace::CALL_KEY_HEADER;
use crate::upstream::{Tries, Try};

/// What asks for it, with any value but `0`.
const ASKS: HeaderName = HeaderName::from_static("x-goms-explain");
/// What a proxy in front of a gateway sends, besides `X-Forwarded-…`.
const FROM_PROXY: [&str; 6] = ["forwarded", "via", "x-real-ip", "true-client-ip", "cf-connecting-ip", "x-client-ip"];

/// What is noted of a request whose client wants to know.
#[derive(Default)]
pub(super) struct Inside {
    pub tries: Tries,
}

impl Inside {
    /// `None`: nobody asked, or nobody who may know.
    pub fn asked(request: &Incoming, settings: &Settings) -> Option<Box<Self>> {
        let value = request.headers().get(ASKS)?;
        (value != "0" && may_know(request, settings)).then(Box::default)
    }

    /// Tells it all. `answer` is what an ordinary client would have got; its body is left out.
    pub fn tell(
        self,
        worker: &Worker,
        table: &Table,
        request: &Incoming,
        answer: &HttpResponse,
    ) -> HttpResponse<BoxBody> {
        let explanation = match asked::unambiguous(request.path(), asked::host_of(request)) {
            Ok(path) => Explanation::of(&table.routes, &Asked::new(request, &path)),
            Err(failure) => Explanation { tried: Vec::new(), outcome: Err(failure.to_string()) },
        };
        let tries = self.tries.into_inner();
        let mut services: Vec<&str> = tries.iter().map(|tried| tried.service.as_str()).collect();
        services.dedup();
        let view = worker.balancer.view();
        let nodes = view.iter().filter(|service| services.contains(&service.name.as_str())).map(nodes);
        let headers = answer.headers().iter().map(|(name, value)| (name.to_string(), shown(value).into()));
        let mut told = explanation.json();
        if let Value::Object(told) = &mut told {
            told.insert("services".into(), nodes.collect::<serde_json::Map<_, _>>().into());
            told.insert("tries".into(), tries.iter().map(tried).collect());
            let headers: serde_json::Map<String, Value> = headers.collect();
            told.insert("answer".into(), json!({"status": answer.status().as_u16(), "headers": headers}));
        }
        HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(format!("{told:#}\n"))
    }
}

fn may_know(request: &Incoming, settings: &Settings) -> bool {
    let keys = &settings.call_keys;
    if keys.is_empty() {
        let ip = request.head().peer_addr.map(|peer| peer.ip().to_canonical());
        let is_here = ip.is_some_and(|ip| ip.is_loopback() && !settings.trusted_proxies.hold(ip));
        let of_proxy = |name: &str| name.starts_with("x-forwarded-") || FROM_PROXY.contains(&name);
        return is_here && !request.headers().keys().any(|name| of_proxy(name.as_str()));
    }
    let mut brought = request.headers().get_all(CALL_KEY_HEADER);
    let (Some(value), None) = (brought.next(), brought.next()) else { return false };
    CallKeys::from(keys.to_vec()).knows(value.as_bytes())
}

fn shown(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn tried(tried: &Try) -> Value {
    json!({"service": tried.service, "node": tried.node, "result": tried.result, "ms": tried.took.as_secs_f64() * 1e3})
}

/// A service's nodes as the balancer sees them now, after the request.
fn nodes(service: &ServiceView) -> (String, Value) {
    let node = |node: &crate::balance::NodeView| {
        let meta = &node.node.meta;
        json!({
            "node": node.node.id.to_string(),
            "state": node.node.state,
            "version": meta.version,
            "zone": meta.zone,
            "weight": meta.weight,
            "inFlight": node.in_flight,
            "unwell": node.is_unwell,
            "ejectedMs": node.ejected_for.map(|left| left.as_millis()),
        })
    };
    let open = service.breaker_open_for.map(|left| left.as_millis());
    let told = json!({
        "nodes": service.nodes.iter().map(node).collect::<Vec<_>>(),
        "waiting": service.waiting,
        "shedPercent": service.shed_percent,
        "breakerOpenMs": open,
    });
    (service.name.clone(), told)
}

//! The pages and the JSON of the admin port.

use actix_web::http::header::{ACCEPT, ContentType, HeaderValue, VARY};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::{Admin, OwnNode};
use crate::metrics::Load;
use crate::registry::{Node, NodeState};

/// A node of this process, as `/api/nodes` tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Its service.
    pub service: String,
    /// `ip:rpc_ip:http`.
    pub node: String,
    /// The service's version.
    pub version: String,
    /// When it started, in milliseconds of Unix time.
    pub started_ms: i64,
    /// Requests that are running now; `None` where none are counted.
    pub in_flight: Option<u64>,
    /// Requests that were answered since the start.
    pub answered: Option<u64>,
}

/// The answer of `/api/nodes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reported {
    /// The nodes of the process.
    pub nodes: Vec<NodeReport>,
}

/// A call key of this process, as `/api/keys` tells it; never the key itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyReport {
    /// The first hexadecimal digits of its SHA-256.
    pub fingerprint: String,
    /// The process signs its own calls with it.
    pub signs: bool,
    /// Callers of the process may bring it.
    pub accepted: bool,
    /// When one last did, in milliseconds of Unix time; `None`: not since the process started.
    pub last_used_ms: Option<i64>,
}

impl KeyReport {
    pub(super) fn new(fingerprint: String, signs: bool, accepted: bool, last_used_ms: Option<i64>) -> Self {
        Self { fingerprint, signs, accepted, last_used_ms }
    }
}

/// The answer of `/api/keys`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeysReported {
    /// The keys of the process, in the order of its config.
    pub keys: Vec<KeyReport>,
}

#[derive(Serialize)]
struct CatalogNode<'a> {
    service: &'a str,
    node: String,
    state: NodeState,
    meta: &'a crate::registry::NodeMeta,
}

/// What everyone may read: health and metrics.
pub(super) fn open(config: &mut web::ServiceConfig) {
    config
        .route("/healthz", web::get().to(healthz))
        .route("/readyz", web::get().to(readyz))
        .route("/metrics", web::get().to(metrics));
}

/// The JSON of the admin port, `/api` and below, for an `App` that [`Admin::serve`] made.
pub fn api(config: &mut web::ServiceConfig) {
    config
        .route("/api", web::get().to(index))
        .route("/api/nodes", web::get().to(nodes))
        .route("/api/cluster", web::get().to(cluster))
        .route("/api/keys", web::get().to(keys))
        .route("/api/routes", web::get().to(routes_in_force));
}

/// What the admin port has, as text.
pub async fn index() -> HttpResponse {
    text(
        "goms admin port: /healthz /readyz /metrics /api/nodes /api/cluster /api/keys /api/routes /api/balance\n"
            .to_owned(),
    )
}

async fn healthz() -> HttpResponse {
    text("ok\n".to_owned())
}

async fn readyz(admin: web::Data<Admin>) -> HttpResponse {
    let answer = match admin.trouble() {
        None => return text("ready\n".to_owned()),
        Some(reason) if reason.is_empty() => "not ready\n".to_owned(),
        Some(reason) => format!("not ready: {reason}\n"),
    };
    HttpResponse::ServiceUnavailable().content_type(ContentType::plaintext()).body(answer)
}

/// In OpenMetrics for who names it, as Prometheus does.
async fn metrics(admin: web::Data<Admin>, request: HttpRequest) -> HttpResponse {
    let accepts =
        |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("application/openmetrics-text"));
    let (form, text) = if request.headers().get_all(ACCEPT).any(accepts) {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", admin.inner.metrics.render_open_metrics())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", admin.inner.metrics.render())
    };
    HttpResponse::Ok().content_type(form).insert_header((VARY, "accept")).body(text)
}

async fn nodes(admin: web::Data<Admin>) -> HttpResponse {
    HttpResponse::Ok().json(Reported { nodes: admin.nodes().iter().map(report).collect() })
}

async fn keys(admin: web::Data<Admin>) -> HttpResponse {
    HttpResponse::Ok().json(KeysReported { keys: admin.keys() })
}

async fn cluster(admin: web::Data<Admin>) -> HttpResponse {
    let catalog = admin.inner.catalog.borrow().clone();
    match catalog {
        Some(catalog) => HttpResponse::Ok().json(catalog.all().map(|node| shown(node)).collect::<Vec<_>>()),
        None => HttpResponse::ServiceUnavailable().body("the registry is not known yet\n"),
    }
}

async fn routes_in_force(admin: web::Data<Admin>) -> HttpResponse {
    match admin.inner.routes.get() {
        Some(tell) => HttpResponse::Ok().json(tell()),
        None => HttpResponse::NotFound().body("this process runs no gateway\n"),
    }
}

pub(super) fn report(node: &OwnNode) -> NodeReport {
    NodeReport {
        service: node.id.service.clone(),
        node: node.id.to_string(),
        version: node.meta.version.clone(),
        started_ms: node.meta.started_ms,
        in_flight: node.load.as_ref().map(Load::in_flight),
        answered: node.load.as_ref().map(Load::answered),
    }
}

fn shown(node: &Node) -> CatalogNode<'_> {
    CatalogNode { service: &node.id.service, node: node.id.to_string(), state: node.state, meta: &node.meta }
}

fn text(body: String) -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::plaintext()).body(body)
}

//! What clients can ask for, of all services in one document, and the pages that read it.
//!
//! ```text
//! GET /openapi            the operations, with a search; ?op=NAME one of them
//! GET /openapi.json       the document itself, OpenAPI 3.1; /openapi.yaml the same
//! ```
//!
//! Four sources, in this order: `served` documents of services whose nodes name one (`openapi` in their metadata), methods
//! by RPC from the registry and reflection, requests in traces (`learnt`), and then each route of the config that nobody said
//! more of. What belongs to a path of a service stands at the path by which a route leads there, or else under
//! `/api/SERVICE/…` as `x-goms-routed: false`. Nothing here is on a request's way, and nobody is asked unless somebody reads.

mod clean;
mod configured;
pub(super) mod document;
mod import;
mod learnt;
mod methods;
mod page;
pub(super) mod schema;
mod served;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::header::{CONTENT_DISPOSITION, ContentType};
use actix_web::{HttpResponse, web};
use futures_util::{StreamExt, future, stream};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::timeout_at;

use self::configured::Anchor;
use self::document::Document;
use super::page::encoded;
use super::send::GATEWAY;
use super::{Dashboard, Method};
use crate::causes::chain;
use crate::reading::Shown;

/// How long a document is shown again before it is made anew.
const KEPT: Duration = Duration::from_secs(3);
/// Who takes longer than this is not asked again for a while, so that a page waits for slow services only now and then.
const SLOW: Duration = Duration::from_millis(700);
const SLOW_KEPT: Duration = Duration::from_secs(30);
/// Services that are asked at once, and how long all of them may take.
const AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(6);
/// Bytes of all documents of services.
const MOST_BYTES: usize = 16 << 20;

/// The document that was made last, and what slow services told.
#[derive(Default)]
pub(super) struct Kept {
    last: Mutex<Option<(Instant, Arc<Document>)>>,
    documents: Slow<Result<served::Fetched, String>>,
    methods: Slow<Vec<Method>>,
}

/// What services told that took their time, by name.
struct Slow<T>(std::sync::Mutex<HashMap<String, (Instant, T)>>);

impl<T> Default for Slow<T> {
    fn default() -> Self {
        Self(std::sync::Mutex::default())
    }
}

impl<T: Clone> Slow<T> {
    /// What a service told not long ago; or else what it tells now.
    async fn or_ask(&self, service: &str, asked: impl Future<Output = T>) -> T {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known().retain(|_, (told, _)| told.elapsed() < SLOW_KEPT);
        if let Some((_, told)) = known().get(service) {
            return told.clone();
        }
        let began = Instant::now();
        let told = asked.await;
        if began.elapsed() > SLOW {
            known().insert(service.to_owned(), (Instant::now(), told.clone()));
        }
        told
    }
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/openapi", web::get().to(page::show))
        .route("/openapi.json", web::get().to(json))
        .route("/openapi.yaml", web::get().to(yaml));
}

async fn json(dashboard: web::Data<Dashboard>) -> HttpResponse {
    let document = current(&dashboard).await.to_json(&gateways(&dashboard));
    HttpResponse::Ok().json(document)
}

async fn yaml(dashboard: web::Data<Dashboard>) -> HttpResponse {
    let document = current(&dashboard).await.to_json(&gateways(&dashboard));
    match serde_yaml::to_string(&document) {
        Ok(text) => HttpResponse::Ok()
            .content_type("application/yaml")
            .insert_header((CONTENT_DISPOSITION, "attachment; filename=\"openapi.yaml\""))
            .body(text),
        Err(error) => HttpResponse::InternalServerError()
            .content_type(ContentType::plaintext())
            .body(format!("this document cannot be written as YAML, /openapi.json can: {error}\n")),
    }
}

/// Where gateways take HTTP.
fn gateways(dashboard: &Dashboard) -> Vec<String> {
    let targets = super::send::targets(dashboard, GATEWAY);
    targets.into_iter().take(20).map(|target| format!("http://{}", target.address)).collect()
}

/// The document as it is now, or was some seconds ago. Who comes while it is made waits for it.
pub(super) async fn current(dashboard: &Dashboard) -> Arc<Document> {
    let mut last = dashboard.inner.openapi.last.lock().await;
    if let Some((_, document)) = last.as_ref().filter(|(made, _)| made.elapsed() < KEPT) {
        return document.clone();
    }
    let document = Arc::new(make(dashboard).await);
    *last = Some((Instant::now(), document.clone()));
    document
}

async fn make(dashboard: &Dashboard) -> Document {
    let has_gateway = dashboard.inner.gateway.get().is_some();
    let anchors = if has_gateway { configured::anchors(&dashboard.settings()) } else { Vec::new() };
    let tellers = served::tellers(dashboard);
    let documents = tellers.iter().map(|(service, _, path)| (service.clone(), path.clone())).collect();
    let (told, methods, seen) = future::join3(told(dashboard, tellers), asked(dashboard), seen(dashboard)).await;
    let mut document = Document::default();
    for told in told {
        match told.document {
            Ok(found) => served::merge(&mut document, &told.service, &found, &anchors),
            Err(why) => document.problems.push((told.service, why)),
        }
    }
    for (service, methods) in methods {
        methods::merge(&mut document, &service, &methods, &anchors);
    }
    match seen {
        Ok(events) => learnt::merge(&mut document, &events, &anchors, &documents),
        Err(why) => document.problems.push(("traces".to_owned(), why)),
    }
    for anchor in &anchors {
        anchor.add_to(&mut document);
    }
    document.settle();
    document
}

/// Where clients ask for a service's path, and the route that leads there; without one the place that it has in the document.
fn place<'a>(anchors: &'a [Anchor], service: &str, method: &str, own: &str) -> (String, Option<&'a Anchor>) {
    let found = anchors.iter().find_map(|anchor| Some((anchor.leads(service, method, own)?, Some(anchor))));
    found.unwrap_or_else(|| (format!("/api/{}{own}", encoded(service)), None))
}

/// What services say of themselves; of who does not answer before all must have, that.
async fn told(dashboard: &Dashboard, tellers: Vec<served::Teller>) -> Vec<served::Told> {
    let until = tokio::time::Instant::now() + PATIENCE;
    let asked = stream::iter(tellers).map(|teller| async move {
        let service = teller.0.clone();
        let asked = async {
            let late = || Err(format!("did not answer within the {PATIENCE:?} that all services have"));
            timeout_at(until, served::ask(dashboard, teller)).await.unwrap_or_else(|_| late())
        };
        let document = dashboard.inner.openapi.documents.or_ask(&service, asked).await;
        (service, document)
    });
    let mut left = MOST_BYTES;
    let within = asked.buffered(AT_ONCE).map(|(service, document)| {
        let document = document.and_then(|fetched| within(fetched, &mut left));
        served::Told { service, document }
    });
    within.collect().await
}

/// A document for which there is room; what is too long is not kept while others are awaited.
fn within((document, bytes): served::Fetched, left: &mut usize) -> Result<Value, String> {
    *left = left.checked_sub(bytes).ok_or("the documents of services are too long in all, so its own is left out")?;
    Ok(document)
}

/// The methods by RPC of every service that has some.
async fn asked(dashboard: &Dashboard) -> Vec<(String, Vec<Method>)> {
    let Some(gateway) = dashboard.inner.gateway.get() else { return Vec::new() };
    let catalog = dashboard.inner.catalog.borrow().clone();
    let takes_rpc = |nodes: &[Arc<crate::registry::Node>]| {
        nodes.iter().any(|node| !node.meta.rpc_services.is_empty() || !node.meta.endpoints.is_empty())
    };
    let services = catalog.iter().flat_map(|catalog| catalog.services());
    let services: Vec<String> =
        services.filter(|(_, nodes)| takes_rpc(nodes)).map(|(name, _)| name.to_owned()).collect();
    let until = tokio::time::Instant::now() + PATIENCE;
    let asked = stream::iter(services).map(|service| async move {
        let asked = timeout_at(until, (gateway.rpc.methods)(service.clone()));
        let asked = async { asked.await.unwrap_or_default() };
        let methods = dashboard.inner.openapi.methods.or_ask(&service, asked).await;
        (service, methods)
    });
    asked.buffered(AT_ONCE).collect().await
}

/// The newest requests of the traces.
async fn seen(dashboard: &Dashboard) -> Result<Vec<Shown>, String> {
    let store = dashboard.store().ok_or("this process is just starting")?;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    match tokio::time::timeout(PATIENCE, learnt::read(&**store, now_ms)).await {
        Ok(read) => read.map_err(|error| chain(&error).to_string()),
        Err(_) => Err(format!("the trace store did not answer within {PATIENCE:?}")),
    }
}

/// Services of the document, in order.
pub(super) fn services(document: &Document) -> BTreeSet<&str> {
    document.operations().map(|operation| operation.service.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_so_much_room_in_all() {
        let mut left = 10;
        let mut take = |bytes| within((Value::Null, bytes), &mut left).is_ok();
        assert_eq!([take(6), take(5), take(4), take(1), take(0)], [true, false, true, false, true]);
    }

    #[tokio::test]
    async fn who_is_slow_is_not_asked_again_at_once() {
        let slow = Slow::default();
        let after = |wait, told| async move {
            tokio::time::sleep(wait).await;
            told
        };
        assert_eq!(slow.or_ask("quick", after(Duration::ZERO, 1)).await, 1);
        assert_eq!(slow.or_ask("quick", after(Duration::ZERO, 2)).await, 2);
        assert_eq!(slow.or_ask("mute", after(SLOW + Duration::from_millis(5), 1)).await, 1);
        assert_eq!(slow.or_ask("mute", async { unreachable!("it was asked again") }).await, 1);
        assert_eq!(slow.or_ask("quick", after(Duration::ZERO, 3)).await, 3);
    }
}

//! Jaeger's query API over our store, so that Grafana's Jaeger data source and Jaeger's own page read it.
//!
//! ```text
//! GET /api/services                          names of services that answered something in the last days
//! GET /api/services/{service}/operations     names; and /api/operations?service=…  {name, spanKind}
//! GET /api/traces?service=&operation=&start=&end=&minDuration=&maxDuration=&tags=&limit=
//! GET /api/traces/{id}                       404 where there is none
//! GET /api/dependencies?endTs=&lookback=     who called whom, how often
//! → {"data":…,"total":n,"limit":n,"offset":0,"errors":null | [{"code","msg"}]}
//! ```
//! `start` and `end` are microseconds, `endTs` and `lookback` milliseconds of Unix time; `tags` a JSON object of strings.
//! <https://www.jaegertracing.io/docs/latest/apis/>

mod asked;

use std::collections::{BTreeSet, HashSet};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use self::asked::{Asked, Dependencies};
use super::{Dashboard, value_of};
use crate::causes::chain;
use crate::reading::export::{jaeger_trace, operation};
use crate::reading::{Most, Shown, find, oldest};
use crate::store::{GroupBy, Query, StatsQuery, StoreError, TraceStore};
use crate::trace::event::now_ms;

/// Services that were quiet for longer are not named.
const SERVICES_MS: i64 = 7 * 86_400_000;
/// Newest events of a service that its operations are read from: the store counts no operations.
const OPERATIONS_OF: usize = 2_000;
/// Events of a page of candidates, and pages, in a search that not all of them pass.
const PAGE: usize = 500;
const PAGES: usize = 20;
/// Of one trace. An event with short bodies has one or two KiB.
const OF_TRACE: Most = Most { events: 4_000, bytes: 16 << 20 };
const OF_TRACE_IN_LIST: Most = Most { events: 1_000, bytes: 4 << 20 };
/// Of all traces of a list, before it is cut: the 200 that can be asked for with 80 events each. The answer that is made of them
/// takes several times as much memory.
const OF_LIST: usize = 32 << 20;
/// Traces that are read at once; each may have a page in memory.
const AT_ONCE: usize = 4;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/api/services", web::get().to(services))
        .route("/api/services/{service}/operations", web::get().to(operation_names))
        .route("/api/operations", web::get().to(operations))
        .route("/api/traces", web::get().to(traces))
        .route("/api/traces/{id}", web::get().to(one))
        .route("/api/dependencies", web::get().to(dependencies));
}

/// Why there is no answer.
pub(super) enum Refusal {
    Starting,
    Store(StoreError),
    Asked(String),
    Unknown,
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The list that an answer holds.
type Answer = Result<Vec<Value>, Refusal>;

fn answered(answer: Answer) -> HttpResponse {
    listed(answer.map(|list| (list, None)))
}

/// The same, with what is to be said of the list: Jaeger, too, answers with both where a part is missing.
fn listed(answer: Result<(Vec<Value>, Option<String>), Refusal>) -> HttpResponse {
    let (status, words) = match answer {
        Ok((list, missing)) => {
            let total = list.len();
            let errors = missing.map(|words| json!([{"code": StatusCode::PARTIAL_CONTENT.as_u16(), "msg": words}]));
            return HttpResponse::Ok()
                .json(json!({"data": list, "total": total, "limit": 0, "offset": 0, "errors": errors}));
        }
        Err(Refusal::Starting) => (StatusCode::SERVICE_UNAVAILABLE, "the process has just started".to_owned()),
        Err(Refusal::Store(StoreError::Query(reason)) | Refusal::Asked(reason)) => (StatusCode::BAD_REQUEST, reason),
        Err(Refusal::Store(error)) => (StatusCode::SERVICE_UNAVAILABLE, chain(&error)),
        Err(Refusal::Unknown) => (StatusCode::NOT_FOUND, "trace not found".to_owned()),
    };
    let errors = json!([{"code": status.as_u16(), "msg": words}]);
    HttpResponse::build(status).json(json!({"data": null, "total": 0, "limit": 0, "offset": 0, "errors": errors}))
}

fn store(dashboard: &Dashboard) -> Result<&dyn TraceStore, Refusal> {
    dashboard.store().map(|store| &**store).ok_or(Refusal::Starting)
}

async fn services(dashboard: web::Data<Dashboard>) -> HttpResponse {
    answered(service_names(&dashboard).await)
}

async fn service_names(dashboard: &Dashboard) -> Answer {
    let filter = Query { since_ms: Some(now_ms() - SERVICES_MS), ..Query::default() };
    let stats = store(dashboard)?.stats(&StatsQuery { filter, ..StatsQuery::default() }).await?;
    let names: BTreeSet<String> = stats.groups.into_iter().map(|group| group.service).collect();
    Ok(names.into_iter().map(Value::from).collect())
}

async fn operation_names(service: web::Path<String>, dashboard: web::Data<Dashboard>) -> HttpResponse {
    let found = operations_of(&dashboard, &service).await;
    answered(found.map(|names| names.into_iter().map(|(name, _)| Value::from(name)).collect()))
}

async fn operations(request: HttpRequest, dashboard: web::Data<Dashboard>) -> HttpResponse {
    let Some(service) = value_of(request.query_string(), "service") else {
        return answered(Err(Refusal::Asked("parameter `service` is missing".to_owned())));
    };
    let found = operations_of(&dashboard, &service).await;
    let shown = |(name, kind)| json!({"name": name, "spanKind": kind});
    answered(found.map(|names| names.into_iter().map(shown).collect()))
}

async fn operations_of(dashboard: &Dashboard, service: &str) -> Result<BTreeSet<(String, String)>, Refusal> {
    let mut query = Query {
        service: Some(service.to_owned()),
        min_duration_ns: Some(0),
        since_ms: Some(now_ms() - SERVICES_MS),
        limit: PAGE,
        ..Query::default()
    };
    let kind = |shown: &Shown| crate::reading::export::tag(shown, "span.kind").unwrap_or_default();
    let (store, mut names) = (store(dashboard)?, BTreeSet::new());
    for _ in 0..OPERATIONS_OF / PAGE {
        let page = store.query(&query).await?;
        let shown = page.events.iter().map(|event| Shown::read(event));
        names.extend(shown.map(|shown| (operation(&shown), kind(&shown))));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    Ok(names)
}

async fn traces(request: HttpRequest, dashboard: web::Data<Dashboard>) -> HttpResponse {
    listed(search(&dashboard, request.query_string()).await)
}

async fn search(dashboard: &Dashboard, query_string: &str) -> Result<(Vec<Value>, Option<String>), Refusal> {
    let store = store(dashboard)?;
    let asked = Asked::read(query_string, now_ms()).map_err(Refusal::Asked)?;
    let ids = if asked.trace_ids.is_empty() { matching(store, &asked).await? } else { asked.trace_ids };
    read(store, ids, OF_LIST).await
}

/// The traces of these ids, until their events have so many bytes; and what is said if some are missing.
async fn read(
    store: &dyn TraceStore,
    ids: Vec<String>,
    most_bytes: usize,
) -> Result<(Vec<Value>, Option<String>), Refusal> {
    let (asked, mut bytes, mut traces) = (ids.len(), 0, Vec::new());
    let reads = ids.into_iter().map(|id| async move {
        let query = Query { trace_id: Some(id), ..Query::default() };
        let found = oldest(store, query, OF_TRACE_IN_LIST).await?;
        let events: Vec<Shown> = found.events.into_iter().map(|(shown, _)| shown).collect();
        let mut trace = jaeger_trace(&events);
        if let Some(trace) = trace.as_mut().filter(|_| found.is_cut) {
            trace["warnings"] = json!(["it has more events; open it by its id"]);
        }
        Ok::<_, StoreError>((trace, found.bytes))
    });
    let mut reads = stream::iter(reads).buffered(AT_ONCE);
    let mut done = 0;
    while let Some(found) = reads.next().await {
        let (trace, of_trace) = found?;
        (done, bytes) = (done + 1, bytes + of_trace);
        traces.extend(trace);
        if bytes >= most_bytes && done < asked {
            let words = format!(
                "only {done} of {asked} traces, as these have {} MiB; ask for fewer, or for a shorter time",
                bytes >> 20
            );
            return Ok((traces, Some(words)));
        }
    }
    Ok((traces, None))
}

/// Ids of the newest traces with an event that passes.
async fn matching(store: &dyn TraceStore, asked: &Asked) -> Result<Vec<String>, StoreError> {
    let mut query = Query { limit: PAGE, ..asked.query.clone() };
    let (mut ids, mut known) = (Vec::new(), HashSet::new());
    for _ in 0..PAGES {
        let page = store.query(&query).await?;
        for shown in page.events.iter().map(|event| Shown::read(event)) {
            if asked.passes(&shown) && !shown.trace_id.is_empty() && known.insert(shown.trace_id.clone()) {
                ids.push(shown.trace_id);
                if ids.len() == asked.limit {
                    return Ok(ids);
                }
            }
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    Ok(ids)
}

async fn one(id: web::Path<String>, dashboard: web::Data<Dashboard>) -> HttpResponse {
    answered(trace(&dashboard, &id).await)
}

async fn trace(dashboard: &Dashboard, id: &str) -> Answer {
    // Jaeger's clients leave zeros in front out
    let is_short = id.len() < 32 && !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = if is_short { format!("{id:0>32}") } else { id.to_owned() };
    let found = find(store(dashboard)?, &id, OF_TRACE).await?;
    let events: Vec<Shown> = found.events.into_iter().map(|(shown, _)| shown).collect();
    Ok(vec![jaeger_trace(&events).ok_or(Refusal::Unknown)?])
}

async fn dependencies(request: HttpRequest, dashboard: web::Data<Dashboard>) -> HttpResponse {
    answered(links(&dashboard, request.query_string()).await)
}

async fn links(dashboard: &Dashboard, query_string: &str) -> Answer {
    let Dependencies { since_ms, until_ms } = Dependencies::read(query_string, now_ms()).map_err(Refusal::Asked)?;
    let filter = Query { since_ms: Some(since_ms), until_ms: Some(until_ms), ..Query::default() };
    let query = StatsQuery { filter, by: GroupBy::Edge, bucket_ms: None };
    let stats = store(dashboard)?.stats(&query).await?;
    let link = |group: crate::store::Group| {
        let caller = group.caller?;
        Some(json!({"parent": caller, "child": group.service, "callCount": group.total.count}))
    };
    Ok(stats.groups.into_iter().filter_map(link).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Memory;

    #[tokio::test]
    async fn a_list_that_is_cut_says_so() {
        let event = |number: usize| {
            json!({"eventId": format!("{number:05}"), "requestId": format!("{number}"), "traceId": format!("{:032x}", number / 10 + 1),
                   "spanId": format!("{:016x}", number + 1), "event": "service.end", "serviceName": "user", "timeMs": number,
                   "durationNs": 5, "request": {"method": "GET", "url": "/a", "body": "b".repeat(1_000)}})
        };
        let store = Memory::of((0..100).map(event));
        let ids = || (1..=10).map(|id| format!("{id:032x}")).collect::<Vec<_>>();
        let (all, missing) = read(&store, ids(), 1 << 20).await.ok().expect("read");
        assert_eq!((all.len(), missing), (10, None));
        let (few, missing) = read(&store, ids(), 30_000).await.ok().expect("read");
        assert!(missing.as_deref().is_some_and(|words| words.starts_with("only 3 of 10 traces")), "{missing:?}");
        assert_eq!((few.len(), &few[2]["traceID"]), (3, &json!(format!("{:032x}", 3))));
        let answer = listed(Ok((few, missing)));
        assert_eq!(answer.status(), StatusCode::OK);
        let body = actix_web::body::to_bytes(answer.into_body()).await.expect("a body");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((body["errors"][0]["code"].as_u64(), body["total"].as_u64()), (Some(206), Some(3)));
    }
}

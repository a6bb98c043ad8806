//! The stores of traces: one suite for all, and what each has for itself.

mod conformance;
mod counting;
mod elasticsearch;
mod elasticsearch_access;
mod elasticsearch_days;
mod elasticsearch_nodes;
mod elasticsearch_reads;
mod embedded;
mod killed;
mod remote;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use goms::store::{Document, Fields, Outcome, Page, Query, TraceStore};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

/// An event as its fields and its body; [`Sample::document`] makes the originals' JSON of it.
#[derive(Clone, Debug)]
pub struct Sample {
    pub id: Uuid,
    pub fields: Fields,
    pub body: Value,
}

impl Sample {
    pub fn new(event: &str, time_ms: i64) -> Self {
        let id = Uuid::new_v4();
        Self {
            id,
            fields: Fields {
                request_id: Uuid::new_v4().to_string(),
                event: event.to_owned(),
                service: if event.starts_with("request") { "gateway" } else { "user" }.to_owned(),
                node: "127.0.0.1:8180:8080".to_owned(),
                url: "/api/user/login".to_owned(),
                status: None,
                duration_ns: None,
                time_ms,
                trace_id: id.simple().to_string(),
                action: "user/login".to_owned(),
                caller: if event.starts_with("request") { "" } else { "gateway" }.to_owned(),
            },
            body: json!({}),
        }
    }

    pub fn end(mut self, status: u16, duration_ns: u64) -> Self {
        self.fields.status = Some(status);
        self.fields.duration_ns = Some(duration_ns);
        self
    }

    pub fn body(mut self, body: Value) -> Self {
        self.body = body;
        self
    }

    pub fn json(&self) -> Value {
        let fields = &self.fields;
        let (rpc, http) = fields.node.rsplit_once(':').expect("a node");
        json!({
            "requestId": fields.request_id,
            "request": {
                "method": "POST", "url": fields.url, "urlParam": "?a=1&b=3", "clientIp": "127.0.0.1",
                "headers": {"Accept": "*/*", "User-Agent": "curl/7.88.1"}, "body": self.body,
            },
            "event": fields.event, "time": "2026-11-21 07:56:07", "serviceName": fields.service,
            "serviceId": format!("goms_{}_{rpc}_127.0.0.1:{http}", fields.service), "projectName": "goms",
            "trace": fields.duration_ns.map(|ns| json!({"timing": format!("{ns}ns")})),
            "eventId": self.id, "traceId": fields.trace_id, "spanId": "b7ad6b7169203331", "parentId": null,
            "status": fields.status, "node": fields.node, "durationNs": fields.duration_ns, "timeMs": fields.time_ms,
            "action": fields.action, "caller": if fields.caller.is_empty() { Value::Null } else { json!(fields.caller) },
        })
    }

    pub fn document(&self) -> Document {
        self.with_json(&self.json().to_string())
    }

    pub fn with_json(&self, json: &str) -> Document {
        let json = RawValue::from_string(json.to_owned()).expect("valid JSON");
        Document { id: self.id.to_string(), json, fields: self.fields.clone() }
    }
}

/// Everything, newest first.
pub fn all() -> Query {
    Query { limit: 1000, ..Query::default() }
}

/// The ids of a page's events, in order.
pub fn ids(page: &Page) -> Vec<String> {
    let parsed = page.events.iter().map(|event| serde_json::from_str(event.get()).expect("stored JSON"));
    parsed.map(|event: Value| event["eventId"].as_str().expect("an eventId").to_owned()).collect()
}

/// Writes and expects all to be stored.
pub async fn put(store: &dyn TraceStore, samples: &[Sample]) {
    let batch: Vec<Document> = samples.iter().map(Sample::document).collect();
    let outcomes = store.write(&batch).await.expect("written");
    assert_eq!(outcomes, vec![Outcome::Stored; batch.len()]);
}

/// A folder under the system's temporary one, removed at the end.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> Self {
        Self(std::env::temp_dir().join(crate::support::servers::unique("goms-store-")))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Asks every 10 ms until the answer is good, for 20 s.
pub async fn until(what: &str, store: &dyn TraceStore, query: &Query, good: impl Fn(&Page) -> bool) -> Page {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let page = store.query(query).await.expect("an answer");
        if good(&page) {
            return page;
        }
        assert!(Instant::now() < deadline, "{what}: total is {}", page.total);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

//! What requests in traces tell of services that say nothing themselves: paths with ids folded, methods, statuses, and the
//! fields that bodies had. Nobody promises any of it, and each says how often and when it was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::configured::Anchor;
use super::document::{Document, METHODS, Operation, Source, takes};
use super::place;
use super::served::has_body;
use crate::reading::Shown;
use crate::store::{Query, StoreError, TraceStore};

/// Events that are read, the newest: so many at once, in all, and bytes of them.
const PAGE: usize = 250;
const MOST_EVENTS: usize = 1_000;
const MOST_BYTES: usize = 8 << 20;
/// How far back.
const BACK: Duration = Duration::from_secs(24 * 3_600);
/// Different paths of a service; more are no paths but data that was not known as such.
const MOST_PATHS: usize = 60;
/// Fields of an object, how deep they are followed, and letters of their names.
const MOST_FIELDS: usize = 40;
const DEEPEST: usize = 5;
const LONGEST_NAME: usize = 80;

/// What was seen of one method of one path.
#[derive(Debug, Default)]
struct Seen {
    count: u64,
    first_ms: i64,
    last_ms: i64,
    statuses: BTreeMap<u16, u64>,
    query: BTreeSet<String>,
    body: Kinds,
}

/// What kinds of JSON values stood in one place.
#[derive(Debug, Default, PartialEq)]
struct Kinds {
    names: BTreeSet<&'static str>,
    fields: BTreeMap<String, Kinds>,
    items: Option<Box<Kinds>>,
}

impl Kinds {
    fn add(&mut self, value: &Value, depth: usize) {
        self.names.insert(match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        });
        if depth >= DEEPEST {
            return;
        }
        match value {
            Value::Array(items) => {
                let kinds = self.items.get_or_insert_default();
                items.iter().take(MOST_FIELDS).for_each(|item| kinds.add(item, depth + 1));
            }
            Value::Object(fields) => {
                for (name, value) in fields.iter().filter(|(name, _)| name.len() <= LONGEST_NAME) {
                    if self.fields.len() < MOST_FIELDS || self.fields.contains_key(name) {
                        self.fields.entry(name.clone()).or_default().add(value, depth + 1);
                    }
                }
            }
            _ => {}
        }
    }

    fn schema(&self) -> Value {
        let mut schema = Map::new();
        let names: Vec<&str> = self.names.iter().copied().collect();
        match names.as_slice() {
            [] => {}
            [one] => drop(schema.insert("type".to_owned(), (*one).into())),
            many => drop(schema.insert("type".to_owned(), json!(many))),
        }
        if !self.fields.is_empty() {
            let fields: Map<String, Value> =
                self.fields.iter().map(|(name, kinds)| (name.clone(), kinds.schema())).collect();
            schema.insert("properties".to_owned(), fields.into());
        }
        if let Some(items) = &self.items {
            schema.insert("items".to_owned(), items.schema());
        }
        Value::Object(schema)
    }
}

/// The newest requests that services answered.
///
/// # Errors
/// Those of the store.
pub async fn read(store: &dyn TraceStore, now_ms: i64) -> Result<Vec<Shown>, StoreError> {
    let back_ms = i64::try_from(BACK.as_millis()).unwrap_or(i64::MAX);
    let mut query = Query {
        event: Some("service.end".to_owned()),
        since_ms: Some(now_ms - back_ms),
        limit: PAGE,
        ..Query::default()
    };
    let (mut seen, mut bytes) = (Vec::new(), 0);
    loop {
        let page = store.query(&query).await?;
        bytes += page.events.iter().map(|event| event.get().len()).sum::<usize>();
        seen.extend(page.events.iter().map(|event| Shown::read(event)));
        query.after = page.next;
        if query.after.is_none() || seen.len() >= MOST_EVENTS || bytes >= MOST_BYTES {
            return Ok(seen);
        }
    }
}

/// Puts into the document what these requests tell.
pub fn merge(document: &mut Document, events: &[Shown], anchors: &[Anchor], except: &BTreeSet<(String, String)>) {
    let mut all: BTreeMap<(String, String, String), Seen> = BTreeMap::new();
    let mut paths: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for event in events {
        let (service, method) = (&event.service_name, event.request.method.to_ascii_lowercase());
        let path = event.request.url.split('?').next().unwrap_or_default();
        let is_known_kind = METHODS.contains(&method.as_str()) && path.starts_with('/') && path.len() <= 300;
        // a method by RPC says more of itself, and what nobody found is no operation
        let is_of_rpc = document.of_service(service).any(|one| one.rpc.as_deref() == Some(path));
        let is_missing = matches!(event.status, Some(404 | 405) | None);
        let is_document = except.contains(&(service.clone(), path.to_owned()));
        if service.is_empty() || !is_known_kind || is_of_rpc || is_missing || is_document {
            continue;
        }
        let known = document.of_service(service).find(|one| one.method == method && takes(&one.own_path, path));
        let path = known.map_or_else(|| folded(path), |one| one.own_path.clone());
        let of_service = paths.entry(service.clone()).or_default();
        if of_service.len() >= MOST_PATHS && !of_service.contains(&path) {
            continue;
        }
        of_service.insert(path.clone());
        note(all.entry((service.clone(), method, path)).or_default(), event);
    }
    for ((service, method, own), seen) in &all {
        add(document, (service, method, own), seen, anchors);
    }
}

fn note(seen: &mut Seen, event: &Shown) {
    seen.first_ms = if seen.count == 0 { event.time_ms } else { seen.first_ms.min(event.time_ms) };
    seen.last_ms = seen.last_ms.max(event.time_ms);
    seen.count += 1;
    if let Some(status) = event.status {
        *seen.statuses.entry(status).or_default() += 1;
    }
    let query = event.request.url_param.trim_start_matches('?');
    for (name, _) in url::form_urlencoded::parse(query.as_bytes()).take(MOST_FIELDS) {
        if !name.is_empty() && name.len() <= LONGEST_NAME && seen.query.len() < MOST_FIELDS {
            seen.query.insert(name.into_owned());
        }
    }
    let body = event.request.body.as_deref().and_then(|body| crate::json::value::<Value>(body.get().as_bytes()).ok());
    if let Some(body) = body.filter(|body| *body != json!({}) && !body.is_null()) {
        seen.body.add(&body, 0);
    }
}

fn add(document: &mut Document, (service, method, own): (&str, &str, &str), seen: &Seen, anchors: &[Anchor]) {
    let (path, anchor) = place(anchors, service, method, own);
    let is_taken = anchor.is_none() && anchors.iter().any(|other| other.address() == path);
    if is_taken && document.at(&path, method).is_none() {
        return; // another path has its place
    }
    let is_described = document.at(&path, method).is_some_and(|known| has_body(known));
    let mut operation = Operation::new(service, method, &path, Source::Learnt);
    operation.own_path = own.to_owned();
    if let Some(anchor) = anchor {
        operation.is_routed = true;
        operation.sources.insert(Source::Config);
        operation.detail = anchor.detail().clone();
    }
    let time = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH).to_string();
    let learnt = json!({"count": seen.count, "firstSeen": time(seen.first_ms), "lastSeen": time(seen.last_ms)});
    operation.detail.insert("x-goms-learnt".to_owned(), learnt);
    let mut parameters = operation.detail.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
    let names: Vec<String> = parameters.iter().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect();
    for name in seen.query.iter().filter(|name| !names.contains(name)) {
        parameters.push(json!({"name": name, "in": "query", "schema": {}, "description": "seen in traces"}));
    }
    if !parameters.is_empty() {
        operation.detail.insert("parameters".to_owned(), parameters.into());
    }
    if !is_described && !seen.body.names.is_empty() && !matches!(method, "get" | "head") {
        let body = json!({"description": "fields that were seen in traces", "content": {"application/json": {"schema": seen.body.schema()}}});
        operation.detail.insert("requestBody".to_owned(), body);
    }
    let answers: Map<String, Value> = seen
        .statuses
        .iter()
        .filter(|(status, _)| (100..600).contains(*status))
        .map(|(status, count)| (status.to_string(), json!({"description": format!("seen {count} times in traces")})))
        .collect();
    operation.detail.insert("responses".to_owned(), answers.into());
    document.add(operation);
}

/// A path with what looks like an id as `{id}`; a brace that a client sent is no name.
fn folded(path: &str) -> String {
    let mut number = 0;
    let parts = path.split('/').map(|part| {
        if !is_id(part) {
            return part.replace('{', "%7B").replace('}', "%7D");
        }
        number += 1;
        if number == 1 { "{id}".to_owned() } else { format!("{{id{number}}}") }
    });
    parts.collect::<Vec<_>>().join("/")
}

/// Numbers, UUIDs, hashes, and long words with digits.
fn is_id(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let is_hex = part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    !part.is_empty()
        && (digits == part.len() || (is_hex && part.len() >= 12 && digits > 0) || (part.len() >= 20 && digits > 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    fn event(method: &str, url: &str, status: u16, body: &Value) -> Shown {
        let json = json!({"serviceName": "shop", "event": "service.end", "status": status, "timeMs": 1_000 + i64::from(status),
                          "request": {"method": method, "url": url, "urlParam": "?q=1&<b>=2", "body": body}});
        Shown::read(&RawValue::from_string(json.to_string()).expect("JSON"))
    }

    #[test]
    fn ids_are_folded() {
        for (path, wanted) in [
            ("/items/7", "/items/{id}"),
            ("/items/7/parts/0af76519-16cd-43dd-8448-eb211c80319c", "/items/{id}/parts/{id2}"),
            ("/commit/0af7651916cd43dd", "/commit/{id}"),
            ("/added/facade", "/added/facade"),
            ("/v2/login", "/v2/login"),
            ("/a/{x}", "/a/%7Bx%7D"),
            ("/", "/"),
        ] {
            assert_eq!(folded(path), wanted);
        }
    }

    #[test]
    fn requests_tell_methods_statuses_and_fields() {
        let events = [
            event("POST", "/items/7", 200, &json!({"name": "a", "sizes": [1, 2.5], "to": {"street": null}})),
            event("POST", "/items/8", 500, &json!({"name": 7})),
            event("GET", "/none", 404, &Value::Null),
            event("BREW", "/pot", 200, &Value::Null),
        ];
        let mut document = Document::default();
        merge(&mut document, &events, &[], &BTreeSet::new());
        assert_eq!(document.operations().count(), 1);
        let one = document.operation("post /api/shop/items/{id}").expect("it");
        assert_eq!(one.sources, BTreeSet::from([Source::Learnt]));
        assert_eq!(one.detail["x-goms-learnt"]["count"], 2);
        assert_eq!(one.detail["x-goms-learnt"]["firstSeen"], "1970-01-01T00:00:01.2Z");
        let (_, schema) = one.body_in(&document).expect("a body");
        assert_eq!(schema["properties"]["name"]["type"], json!(["integer", "string"]));
        assert_eq!(schema["properties"]["sizes"]["items"]["type"], json!(["integer", "number"]));
        assert_eq!(schema["properties"]["to"]["properties"]["street"]["type"], "null");
        assert!(one.detail["responses"].get("200").is_some() && one.detail["responses"].get("500").is_some());
        assert_eq!(one.detail["parameters"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn paths_that_never_end_are_bounded() {
        let events: Vec<Shown> = (0..200)
            .map(|at: u32| event("GET", &format!("/{}", "x".repeat(at as usize + 1)), 200, &Value::Null))
            .collect();
        let mut document = Document::default();
        merge(&mut document, &events, &[], &BTreeSet::new());
        assert_eq!(document.operations().count(), MOST_PATHS);
    }
}

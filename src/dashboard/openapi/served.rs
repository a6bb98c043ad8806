//! What services say themselves: documents of their own, asked only of those whose nodes name one in the registry.
//!
//! A document is somebody else's: it is read within bounds, taken apart, and what is not of OpenAPI is left out.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::clean;
use super::configured::Anchor;
use super::document::{Document, METHODS, Operation, Source, content};
use super::import::Import;
use super::place;
use crate::dashboard::Dashboard;
use crate::dashboard::page::cut;
use crate::dashboard::send::fetch;
use crate::json;
use crate::registry::{Node, NodeState};

/// How long a service may take to tell.
const PATIENCE: Duration = Duration::from_secs(3);
/// Operations that are taken over of one service.
const MOST_OPERATIONS: usize = 500;
/// Letters of a path, and of a text.
const LONGEST_PATH: usize = 300;
const LONGEST_TEXT: usize = 4_000;

/// A service, the node that is asked, and the path of the document.
pub type Teller = (String, Arc<Node>, String);

/// A document as it came, with how many bytes it had.
pub type Fetched = (Value, usize);

/// A document that a service told.
pub struct Told {
    pub service: String,
    /// What it holds; or why it is not here.
    pub document: Result<Value, String>,
}

/// Services whose nodes name a document, with the node that is asked: the one that started last, which knows the newest.
pub fn tellers(dashboard: &Dashboard) -> Vec<Teller> {
    let catalog = dashboard.inner.catalog.borrow().clone();
    let newest = |nodes: &[Arc<Node>]| {
        let tells = nodes.iter().filter(|node| node.state != NodeState::Stale && node.meta.openapi().is_some());
        tells.max_by_key(|node| node.meta.started_ms).cloned()
    };
    let services = catalog.iter().flat_map(|catalog| catalog.services());
    let found = services.filter_map(|(name, nodes)| {
        let node = newest(nodes)?;
        let path = node.meta.openapi()?.to_owned();
        Some((name.to_owned(), node, path))
    });
    found.collect()
}

/// Asks one.
///
/// # Errors
/// Why its document is not here.
pub async fn ask(dashboard: &Dashboard, (_, node, path): Teller) -> Result<Fetched, String> {
    let read = fetch(dashboard, &node, &path, PATIENCE).await;
    read.and_then(|bytes| Ok((parse(&bytes)?, bytes.len()))).map_err(|why| format!("its document `{path}`: {why}"))
}

fn parse(bytes: &[u8]) -> Result<Value, String> {
    let document: Value = json::value(bytes).map_err(|error| format!("cannot be read as JSON: {error}"))?;
    match document.get("openapi").and_then(Value::as_str) {
        Some(version) if version.starts_with("3.0") || version.starts_with("3.1") => Ok(document),
        Some(version) => Err(format!("is of OpenAPI `{}`; 3.0 and 3.1 can be read", cut(version, 20))),
        None => Err("has no `openapi: 3.1.0`".to_owned()),
    }
}

/// Puts a service's document into the merged one.
pub fn merge(document: &mut Document, service: &str, told: &Value, anchors: &[Anchor]) {
    let is_old = told["openapi"].as_str().is_some_and(|version| version.starts_with("3.0"));
    let components = &told["components"];
    let import = Import::new(service, is_old, components);
    for (kind, mut values) in import.components(components) {
        values = values.into_iter().filter_map(|(name, value)| Some((name, component(&kind, &value)?))).collect();
        document.components.entry(kind).or_default().extend(values);
    }
    let mut taken = 0;
    let paths = told["paths"].as_object();
    for (path, item) in paths.into_iter().flatten() {
        if !is_path(path) {
            document.problems.push((service.to_owned(), format!("`{}` is no path of a service", cut(path, 60))));
            continue;
        }
        for method in METHODS {
            let Some(found) = item.get(method).and_then(Value::as_object) else { continue };
            taken += 1;
            if taken > MOST_OPERATIONS {
                let why = format!("of more than {MOST_OPERATIONS} operations the rest is left out");
                document.problems.push((service.to_owned(), why));
                return;
            }
            let detail = detail(found, item.get("parameters"), &import);
            add(document, (service, method, path), detail, anchors);
        }
    }
}

fn add(
    document: &mut Document,
    (service, method, own): (&str, &str, &str),
    detail: Map<String, Value>,
    anchors: &[Anchor],
) {
    let (path, anchor) = place(anchors, service, method, own);
    let is_taken = anchor.is_none() && anchors.iter().any(|other| other.address() == path);
    if is_taken {
        let why = format!("no route leads to its `{}`, and its place is that of a route to another path", cut(own, 60));
        return document.problems.push((service.to_owned(), why));
    }
    let mut operation = Operation::new(service, method, &path, Source::Served);
    (operation.own_path, operation.detail) = (own.to_owned(), detail);
    if let Some(anchor) = anchor {
        operation.is_routed = true;
        operation.sources.insert(Source::Config);
        for (key, value) in anchor.detail() {
            match (key.as_str(), operation.detail.get_mut(key)) {
                ("parameters", Some(Value::Array(known))) => {
                    known.extend(value.as_array().into_iter().flatten().cloned())
                }
                (_, Some(_)) => {}
                (_, None) => drop(operation.detail.insert(key.clone(), value.clone())),
            }
        }
    }
    document.add(operation);
}

/// Whether a service may have this path: whole, without steps up and what no path holds.
fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= LONGEST_PATH
        && !path.contains("//")
        && path.split('/').all(|part| !matches!(part, "." | ".."))
        && path.chars().all(|letter| letter.is_ascii_graphic() && !"?#\\\"<>^`|".contains(letter))
}

/// What is taken over of an operation.
fn detail(found: &Map<String, Value>, shared: Option<&Value>, import: &Import) -> Map<String, Value> {
    let mut detail = Map::new();
    for key in ["summary", "description"] {
        if let Some(text) = found.get(key).and_then(Value::as_str) {
            detail.insert(key.to_owned(), cut(text, LONGEST_TEXT).into());
        }
    }
    if found.get("deprecated") == Some(&Value::Bool(true)) {
        detail.insert("deprecated".to_owned(), true.into());
    }
    let of = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut parameters: Vec<Value> = of(found.get("parameters")).into_iter().chain(of(shared)).collect();
    parameters.iter_mut().for_each(|parameter| import.mend(parameter));
    let parameters: Vec<Value> = parameters.iter().filter_map(clean::parameter).collect();
    if !parameters.is_empty() {
        detail.insert("parameters".to_owned(), parameters.into());
    }
    if let Some(mut body) = found.get("requestBody").cloned() {
        import.mend(&mut body);
        detail.extend(clean::body(&body).map(|body| ("requestBody".to_owned(), body)));
    }
    let mut responses = Map::new();
    for (status, response) in found.get("responses").and_then(Value::as_object).into_iter().flatten() {
        let mut response = response.clone();
        import.mend(&mut response);
        responses.extend(clean::response(&response).filter(|_| is_status(status)).map(|one| (status.clone(), one)));
    }
    if !responses.is_empty() {
        detail.insert("responses".to_owned(), responses.into());
    }
    detail
}

/// `200`, `2XX`, `default`.
fn is_status(status: &str) -> bool {
    let bytes = status.as_bytes();
    status == "default"
        || (bytes.len() == 3
            && (b'1'..=b'5').contains(&bytes[0])
            && (&bytes[1..] == b"XX" || bytes[1..].iter().all(u8::is_ascii_digit)))
}

/// A component as it may be.
fn component(kind: &str, value: &Value) -> Option<Value> {
    match kind {
        "schemas" => Some(clean::schema(value)),
        "parameters" => clean::parameter(value),
        "requestBodies" => clean::body(value),
        "responses" => clean::response(value),
        "headers" => clean::header(value),
        _ => None,
    }
}

/// Whether an operation's body is described.
pub fn has_body(operation: &Operation) -> bool {
    operation.detail.get("requestBody").is_some_and(|body| body.get("$ref").is_some() || content(body).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(told: &Value) -> Document {
        let mut document = Document::default();
        merge(&mut document, "shop", told, &[]);
        document
    }

    #[test]
    fn what_is_no_document_is_told() {
        for (bytes, why) in [
            (&b"<html>"[..], "cannot be read as JSON"),
            (b"[]", "has no `openapi: 3.1.0`"),
            (br#"{"swagger":"2.0"}"#, "has no `openapi: 3.1.0`"),
            (br#"{"openapi":"4.0.0"}"#, "is of OpenAPI `4.0.0`"),
        ] {
            let said = parse(bytes).expect_err("no document");
            assert!(said.contains(why), "{said}");
        }
        let deep = format!("{{\"openapi\":\"3.1.0\",\"paths\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(parse(deep.as_bytes()).expect_err("too deep").contains("recursion limit"));
    }

    #[test]
    fn a_service_claims_only_paths_of_its_own() {
        let document = merged(&json!({"openapi": "3.1.0", "servers": [{"url": "http://evil"}], "paths": {
            "/items": {"get": {"summary": "<b>all</b>"}},
            "/../other/x": {"get": {}}, "//evil/x": {"get": {}}, "/a b": {"get": {}}, "x": {"get": {}}, "/q?a": {"get": {}},
        }}));
        let paths: Vec<&str> = document.operations().map(|operation| operation.path.as_str()).collect();
        assert_eq!(paths, ["/api/shop/items"]);
        assert_eq!(document.problems.len(), 5, "{:?}", document.problems);
    }

    #[test]
    fn what_is_malformed_is_left_out_or_mended() {
        let document = merged(&json!({"openapi": "3.1.0", "components": [], "paths": {"/a/{id}": {
            "parameters": [{"name": "id", "in": "path"}, {"name": 7}, "x"],
            "get": {"summary": 7, "requestBody": "x", "responses": {"200": {}, "2XX": {"content": 7}, "abc": {}, "99": {}}},
            "post": {"requestBody": {"content": {"application/json": {"schema": 7}, "text/plain": {}}}},
            "put": "x",
        }}}));
        let get = document.operation("get /api/shop/a/{id}").expect("one");
        assert_eq!(get.detail["parameters"], json!([{"name": "id", "in": "path", "schema": {}, "required": true}]));
        assert_eq!(get.detail["responses"], json!({"200": {"description": ""}, "2XX": {"description": ""}}));
        assert!(!get.detail.contains_key("requestBody") && !get.detail.contains_key("summary"));
        let post = document.operation("post /api/shop/a/{id}").expect("one");
        assert_eq!(
            post.detail["requestBody"],
            json!({"content": {"application/json": {"schema": {}}, "text/plain": {}}})
        );
        assert_eq!(document.operations().count(), 2);
    }

    #[test]
    fn a_huge_document_is_cut() {
        let paths: Map<String, Value> = (0..1_000).map(|at| (format!("/p{at}"), json!({"get": {}}))).collect();
        let document = merged(&json!({"openapi": "3.1.0", "paths": paths}));
        assert_eq!(document.operations().count(), MOST_OPERATIONS);
        assert!(document.problems[0].1.contains("the rest is left out"), "{:?}", document.problems);
    }
}

//! The merged document: what is known of every operation, and that as OpenAPI 3.1
//! (<https://spec.openapis.org/oas/v3.1.0>).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Map, Value, json};

/// Operations of a document; of more the rest is left out, and said so.
pub const MOST_OPERATIONS: usize = 2_000;

/// Where an operation is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The gateway's config has a route for it.
    Config,
    /// The service says so itself: by a document of its own, or of its methods by RPC.
    Served,
    /// Requests were seen in traces; nobody says that it is meant so.
    Learnt,
}

impl Source {
    /// In one word, as `x-goms-source` has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Served => "served",
            Self::Learnt => "learnt",
        }
    }
}

/// The method of an operation that takes every one.
pub const ANY: &str = "any";

/// What stands in OpenAPI as a key of a path.
pub const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// One thing that a client can ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Who answers.
    pub service: String,
    /// A key of OpenAPI, or [`ANY`].
    pub method: String,
    /// As clients ask the gateway: `/api/user/login`, `/shop/{id}`.
    pub path: String,
    /// The path that the service itself has.
    pub own_path: String,
    /// Where it is known from.
    pub sources: BTreeSet<Source>,
    /// Whether a route of the gateway leads there.
    pub is_routed: bool,
    /// The method by RPC, as a path: `/greeter.Say/Hello`.
    pub rpc: Option<String>,
    /// What OpenAPI says of it: `summary`, `parameters`, `requestBody`, `responses` …
    pub detail: Map<String, Value>,
}

impl Operation {
    /// One of which nothing more is known.
    pub fn new(service: &str, method: &str, path: &str, source: Source) -> Self {
        Self {
            service: service.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            own_path: path.to_owned(),
            sources: BTreeSet::from([source]),
            is_routed: false,
            rpc: None,
            detail: Map::new(),
        }
    }

    /// A text of its detail; empty where there is none.
    pub fn text(&self, key: &str) -> &str {
        self.detail.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// The media type of its body, and its schema.
    pub fn body_in<'a>(&'a self, document: &'a Document) -> Option<(&'a str, &'a Value)> {
        content(document.resolve(self.detail.get("requestBody")?))
    }

    /// Its name for links: `post /api/user/login`.
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// The JSON content of a body, or else its first, with its schema.
pub fn content(body: &Value) -> Option<(&str, &Value)> {
    let content = body.get("content")?.as_object()?;
    let json = content.iter().find(|(kind, _)| kind.contains("json"));
    let (kind, found) = json.or_else(|| content.iter().next())?;
    Some((kind, found.get("schema")?))
}

/// All that is known.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// By path (names in braces do not count) and method.
    operations: BTreeMap<(String, String), Operation>,
    /// Components by kind (`schemas`, `parameters` …) and name.
    pub components: BTreeMap<String, BTreeMap<String, Value>>,
    /// Of which service something is not here, and why.
    pub problems: Vec<(String, String)>,
    /// Whether there were more operations than [`MOST_OPERATIONS`].
    pub is_cut: bool,
}

impl Document {
    /// In the order of their paths.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.values()
    }

    /// One by its name.
    pub fn operation(&self, name: &str) -> Option<&Operation> {
        self.operations.values().find(|operation| operation.name() == name)
    }

    /// That of a path and method, however its path names its parts.
    pub fn at(&mut self, path: &str, method: &str) -> Option<&mut Operation> {
        self.operations.get_mut(&(shape(path), method.to_owned()))
    }

    /// Those of a service.
    pub fn of_service<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a Operation> {
        self.operations.values().filter(move |operation| operation.service == service)
    }

    /// Adds one; to one that is there already only what that lacks.
    pub fn add(&mut self, operation: Operation) {
        let key = (shape(&operation.path), operation.method.clone());
        if let Some(known) = self.operations.get_mut(&key) {
            known.sources.extend(operation.sources);
            known.is_routed |= operation.is_routed;
            known.rpc = known.rpc.take().or(operation.rpc);
            for (key, value) in operation.detail {
                known.detail.entry(key).or_insert(value);
            }
        } else if self.operations.len() < MOST_OPERATIONS {
            self.operations.insert(key, operation);
        } else {
            self.is_cut = true;
        }
    }

    /// Leaves out references to what is not here after all.
    pub fn settle(&mut self) {
        let known: HashSet<String> = self
            .components
            .iter()
            .flat_map(|(kind, of)| of.keys().map(move |name| format!("#/components/{kind}/{name}")))
            .collect();
        for value in self.components.values_mut().flat_map(BTreeMap::values_mut) {
            forget_unknown(value, &known);
        }
        for value in self.operations.values_mut().flat_map(|operation| operation.detail.values_mut()) {
            forget_unknown(value, &known);
        }
    }

    /// What a schema says, where it names one of the components.
    pub fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let named = value.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("#/components/"));
        let found = named.and_then(|named| {
            let (kind, name) = named.split_once('/')?;
            self.components.get(kind)?.get(name)
        });
        found.unwrap_or(value)
    }

    /// The whole as OpenAPI has it; `gateways` are addresses (`http://…`) at which it is served.
    pub fn to_json(&self, gateways: &[String]) -> Value {
        let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        let mut ids = HashSet::new();
        for operation in self.operations.values() {
            let is_any = operation.method == ANY;
            let method = if is_any { "post" } else { &operation.method };
            let path = paths.entry(&operation.path).or_default();
            path.entry(method).or_insert_with(|| of_operation(operation, is_any, &mut ids));
        }
        let services: BTreeSet<&str> = self.operations.values().map(|operation| operation.service.as_str()).collect();
        let tags: Vec<Value> = services.iter().map(|name| json!({"name": name})).collect();
        let servers: Vec<Value> = gateways.iter().map(|url| json!({"url": url})).collect();
        let problems: Vec<Value> =
            self.problems.iter().map(|(service, why)| json!({"service": service, "problem": why})).collect();
        let mut document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "The services of this cluster",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Merged by goms. `x-goms-source` tells where an operation is known from: `config` (a route of the \
                                gateway), `served` (the service says so itself), `learnt` (seen in traces, which nobody promises).",
            },
            "paths": paths,
            "tags": tags,
            "components": self.components,
            "x-goms-problems": problems,
        });
        if self.is_cut {
            document["x-goms-cut"] = json!(format!("of more than {MOST_OPERATIONS} operations the rest is left out"));
        }
        if !servers.is_empty() {
            document["servers"] = Value::Array(servers);
        }
        document
    }
}

fn forget_unknown(value: &mut Value, known: &HashSet<String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| forget_unknown(item, known)),
        Value::Object(object) => {
            let is_unknown =
                |to: &Value| to.as_str().is_some_and(|to| to.starts_with("#/components/") && !known.contains(to));
            if object.get("$ref").is_some_and(is_unknown) {
                object.remove("$ref");
            }
            object.values_mut().for_each(|value| forget_unknown(value, known));
        }
        _ => {}
    }
}

fn of_operation(operation: &Operation, is_any: bool, ids: &mut HashSet<String>) -> Value {
    let mut detail = operation.detail.clone();
    detail.insert("tags".to_owned(), json!([operation.service]));
    let word: String = format!("{}{}", operation.method, operation.path);
    let word: String = word.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
    let mut id = word.clone();
    for number in 2.. {
        if ids.insert(id.clone()) {
            break;
        }
        id = format!("{word}_{number}");
    }
    detail.insert("operationId".to_owned(), id.into());
    let answers = detail.get("responses").and_then(Value::as_object);
    if answers.is_none_or(Map::is_empty) {
        detail.insert("responses".to_owned(), json!({"default": {"description": "not described"}}));
    }
    let words: Vec<&str> = operation.sources.iter().map(|source| source.word()).collect();
    detail.insert("x-goms-source".to_owned(), json!(words));
    detail.insert("x-goms-routed".to_owned(), operation.is_routed.into());
    if operation.own_path != operation.path {
        detail.insert("x-goms-service-path".to_owned(), operation.own_path.clone().into());
    }
    if is_any {
        detail.insert("x-goms-any-method".to_owned(), true.into());
    }
    if let Some(rpc) = &operation.rpc {
        detail.insert("x-goms-rpc".to_owned(), rpc.clone().into());
    }
    detail.insert("parameters".to_owned(), settled(&operation.path, detail.get("parameters")));
    Value::Object(detail)
}

/// The parameters with one for each name in the path, and none of the path that it does not name.
fn settled(path: &str, parameters: Option<&Value>) -> Value {
    let names: Vec<&str> = names(path).collect();
    let mut settled: Vec<Value> = Vec::new();
    let mut known: HashSet<(String, String)> = HashSet::new();
    for parameter in parameters.and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| parameter.get(key).and_then(Value::as_str).unwrap_or_default();
        let is_kept = text("in") != "path" || names.contains(&text("name"));
        if is_kept
            && (parameter.get("$ref").is_some() || known.insert((text("in").to_owned(), text("name").to_owned())))
        {
            settled.push(parameter.clone());
        }
    }
    for name in names {
        if known.insert(("path".to_owned(), name.to_owned())) {
            settled.push(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
        }
    }
    Value::Array(settled)
}

/// The names in braces of a path.
pub fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// A path without the names in its braces.
pub fn shape(path: &str) -> String {
    let is_named = |part: &str| part.starts_with('{') && part.ends_with('}');
    path.split('/').map(|part| if is_named(part) { "{}" } else { part }).collect::<Vec<_>>().join("/")
}

/// Whether a template (`/items/{id}`) takes a path.
pub fn takes(template: &str, path: &str) -> bool {
    let (mut parts, mut asked) = (template.split('/'), path.split('/'));
    loop {
        match (parts.next(), asked.next()) {
            (None, None) => return true,
            (Some(part), Some(asked)) if part == asked || (part.starts_with('{') && !asked.is_empty()) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_one_operation_are_joined() {
        let mut document = Document::default();
        let mut first = Operation::new("user", "get", "/api/user/{id}", Source::Config);
        first.detail.insert("summary".into(), "one".into());
        document.add(first);
        let mut second = Operation::new("user", "get", "/api/user/{name}", Source::Learnt);
        second.detail.insert("summary".into(), "two".into());
        second.detail.insert("description".into(), "more".into());
        document.add(second);
        let json = document.to_json(&["http://127.0.0.1:8080".into()]);
        let found = &json["paths"]["/api/user/{id}"]["get"];
        assert_eq!(found["x-goms-source"], json!(["config", "learnt"]));
        assert_eq!((found["summary"].as_str(), found["description"].as_str()), (Some("one"), Some("more")));
        assert_eq!(found["parameters"][0]["name"], "id");
        assert_eq!(json["servers"][0]["url"], "http://127.0.0.1:8080");
        assert_eq!(json["paths"].as_object().map(Map::len), Some(1));
    }

    #[test]
    fn ids_are_unique_and_a_document_is_bounded() {
        let mut document = Document::default();
        for number in 0..MOST_OPERATIONS + 5 {
            document.add(Operation::new("a", "get", &format!("/{}", "-".repeat(number)), Source::Learnt));
        }
        let json = document.to_json(&[]);
        let paths = json["paths"].as_object().expect("paths");
        let ids: HashSet<&str> = paths.values().filter_map(|path| path["get"]["operationId"].as_str()).collect();
        assert_eq!((paths.len(), ids.len(), json["x-goms-cut"].is_string()), (MOST_OPERATIONS, MOST_OPERATIONS, true));
    }

    #[test]
    fn templates_take_paths() {
        for (template, path, is_taken) in [
            ("/a/{id}", "/a/7", true),
            ("/a/{id}", "/a/", false),
            ("/a/{id}", "/a/7/b", false),
            ("/a", "/a", true),
            ("/a", "/b", false),
        ] {
            assert_eq!(takes(template, path), is_taken, "{template} {path}");
        }
        assert_eq!(shape("/a/{id}/b"), "/a/{}/b");
    }
}

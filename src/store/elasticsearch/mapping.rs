//! How an event lies in Elasticsearch, and under which names its fields are found.
//!
//! An index that goms makes has this mapping: exact fields are keywords, a client's headers and body are one
//! `flattened` field each (so no client adds fields), the rest is kept and not indexed. For full text each document
//! carries its words in [`WORDS`], which is taken off again when it is read.
//!
//! An index that the original nodes made has what Elasticsearch guessed: `text` with a `.keyword` beside it. It is used
//! as it is, with the fields that it lacks added.

use serde_json::{Map, Value, json};

/// The words of the document, which only goms's own indices have.
pub(super) const WORDS: &str = "gomsWords";

/// When a document without a usable time arrived, in milliseconds of Unix time, which only the index `…-undated` has: it
/// is kept as long as others from then on.
pub(super) const ARRIVED: &str = "gomsArrived";
/// What a span of another program has beside the fields of every event.
const SPAN: &str = "span";

/// What a client's headers and body are mapped to, tried in turn: OpenSearch, Elasticsearch, and any server else. (No
/// server has both of the first two, so their order costs one of them one refused request when it makes the index.)
pub(super) const OPEN_FIELDS: [OpenField; 3] = [OpenField::FlatObject, OpenField::Flattened, OpenField::Kept];

/// Characters of a keyword that are indexed; Lucene refuses a document with a term over 32,766 bytes (3 a character).
const KEYWORD_CHARS: u32 = 8191;

/// How a field of unknown content is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenField {
    /// Elasticsearch 7.3 and later, not in its Apache-licensed build.
    Flattened,
    /// OpenSearch 2.7 and later.
    FlatObject,
    /// Kept, found through its words only.
    Kept,
}

impl OpenField {
    fn mapping(self) -> Value {
        match self {
            // what parses here is never deeper than 128; the default of 20 would refuse some of it
            Self::Flattened => json!({"type": "flattened", "depth_limit": 128, "ignore_above": 4096}),
            Self::FlatObject => json!({"type": "flat_object"}),
            Self::Kept => json!({"type": "object", "enabled": false}),
        }
    }
}

/// Counts up with every change to [`template`], so that those of an older goms are replaced.
const TEMPLATE_VERSION: u64 = 3;

/// The index template for the indices of days behind the alias `index`, and for the one of no day.
pub(super) fn template(index: &str, open: OpenField) -> Value {
    json!({
        // no more than goms makes: `index-*` may be another's
        "index_patterns": [format!("{index}-2*.*.*"), undated(index)],
        // over templates of 0, below what a user sets on purpose; a longer name is the more exact one, and the server
        // wants different numbers where patterns overlap (`logs` and `logs-2`)
        "priority": 100 + index.len(),
        "version": TEMPLATE_VERSION,
        "_meta": {"made_by": "goms"},
        // a server alone stays green
        "template": {
            "settings": {"auto_expand_replicas": "0-1"},
            "mappings": mappings(open),
            "aliases": {index: {}},
        },
    })
}

/// The index for events whose time is absurd.
pub(super) fn undated(index: &str) -> String {
    format!("{index}-undated")
}

/// What is to be done with a template that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is from an older goms.
    Replace,
    /// It is as it should be, or from a newer goms.
    Keep,
    /// A user made it or made it theirs; whether it gives indices the alias.
    Foreign { alias: bool },
}

/// Looks at a server's template for `index`.
pub(super) fn found(index: &str, template: &Value) -> Found {
    let version = template["version"].as_u64();
    // the first goms wrote neither version nor `_meta`
    let first = version.is_none()
        && template.get("_meta").is_none()
        && template["index_patterns"] == json!([format!("{index}*")])
        && field(&template["template"]["mappings"], WORDS).is_some();
    if first || (template["_meta"]["made_by"] == "goms" && version.is_some_and(|version| version < TEMPLATE_VERSION)) {
        Found::Replace
    } else if template["_meta"]["made_by"] == "goms" {
        Found::Keep
    } else {
        Found::Foreign { alias: template["template"]["aliases"].get(index).is_some() }
    }
}

fn mappings(open: OpenField) -> Value {
    let mut properties = exact_properties();
    properties.insert("projectName".to_owned(), keyword());
    properties.insert("serviceId".to_owned(), keyword());
    properties
        .insert("time".to_owned(), json!({"type": "date", "format": "yyyy-MM-dd HH:mm:ss", "ignore_malformed": true}));
    properties.insert(ARRIVED.to_owned(), epoch_millis());
    properties.insert("trace".to_owned(), OpenField::Kept.mapping());
    // of other programs' spans: what they say of themselves is as open as a client's headers
    properties.insert(
        SPAN.to_owned(),
        json!({"dynamic": false, "properties": {
            "kind": keyword(), "attributes": open.mapping(), "resource": open.mapping(),
        }}),
    );
    properties.insert(
        WORDS.to_owned(),
        json!({"type": "text", "analyzer": "whitespace", "norms": false, "index_options": "docs"}),
    );
    properties.insert(
        "request".to_owned(),
        json!({"dynamic": false, "properties": {
            "method": keyword(), "url": keyword(), "urlParam": keyword(), "clientIp": keyword(),
            "headers": open.mapping(), "body": open.mapping(),
        }}),
    );
    json!({"dynamic": false, "properties": properties})
}

fn keyword() -> Value {
    json!({"type": "keyword", "ignore_above": KEYWORD_CHARS})
}

/// What queries need beside `request.url`, and the name of a span.
fn exact_properties() -> Map<String, Value> {
    let mut properties = Map::new();
    let names = [
        "requestId",
        "event",
        "serviceName",
        "eventId",
        "traceId",
        "spanId",
        "parentId",
        "node",
        "action",
        "caller",
        "name",
    ];
    for name in names {
        properties.insert(name.to_owned(), keyword());
    }
    properties.insert("status".to_owned(), json!({"type": "integer"}));
    properties.insert("durationNs".to_owned(), json!({"type": "long"}));
    properties.insert("timeMs".to_owned(), epoch_millis());
    properties
}

fn epoch_millis() -> Value {
    json!({"type": "date", "format": "epoch_millis"})
}

/// What an existing mapping lacks, as the body of a mapping update; `None` when it lacks nothing.
pub(super) fn missing(mappings: &Value, is_undated: bool) -> Option<Value> {
    let there = &mappings["properties"];
    let mut properties = exact_properties();
    if is_undated {
        properties.insert(ARRIVED.to_owned(), epoch_millis());
    }
    // an index that maps what it does not know would have a field for each attribute there is
    properties.insert(SPAN.to_owned(), OpenField::Kept.mapping());
    properties.retain(|name, _| there.get(name).is_none());
    if field(mappings, "request.url").is_none() {
        properties.insert("request".to_owned(), json!({"properties": {"url": keyword()}}));
    }
    (!properties.is_empty()).then(|| json!({"properties": properties}))
}

/// The names under which values are found in one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub request_id: String,
    pub event: String,
    pub service: String,
    pub node: String,
    pub url: String,
    pub trace_id: String,
    pub action: String,
    pub caller: String,
    /// Orders events of equal sort keys.
    pub tie: String,
    /// Whether documents carry [`WORDS`].
    pub words: bool,
}

impl Names {
    /// Looks them up in an index's mapping.
    pub fn of(mappings: &Value) -> Self {
        let words = field(mappings, WORDS).is_some();
        Self {
            request_id: exact(mappings, "requestId"),
            event: exact(mappings, "event"),
            service: exact(mappings, "serviceName"),
            node: exact(mappings, "node"),
            url: exact(mappings, "request.url"),
            trace_id: exact(mappings, "traceId"),
            action: exact(mappings, "action"),
            caller: exact(mappings, "caller"),
            // what the original consumer wrote has no `eventId`
            tie: if words { exact(mappings, "eventId") } else { "_id".to_owned() },
            words,
        }
    }

    /// Those of an index that goms makes.
    pub fn own() -> Self {
        Self::of(&mappings(OpenField::Kept))
    }
}

fn field<'m>(mappings: &'m Value, path: &str) -> Option<&'m Value> {
    path.split('.').try_fold(mappings, |at, name| at.get("properties")?.get(name))
}

/// `path`, or the keyword beside it where it is a text.
fn exact(mappings: &Value, path: &str) -> String {
    let beside = field(mappings, path).filter(|field| field["type"] == "text").and_then(|field| {
        let (name, _) = field.get("fields")?.as_object()?.iter().find(|(_, field)| field["type"] == "keyword")?;
        Some(format!("{path}.{name}"))
    });
    beside.unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessed_mappings_are_found_by_their_keywords() {
        let text = json!({"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}});
        let mappings = json!({"properties": {
            "requestId": text, "event": text, "node": {"type": "keyword"},
            "request": {"properties": {"url": text}},
        }});
        let names = Names::of(&mappings);
        assert_eq!(names.request_id, "requestId.keyword");
        assert_eq!(names.url, "request.url.keyword");
        assert_eq!(names.node, "node");
        assert_eq!((names.tie.as_str(), names.words), ("_id", false));
        let missing = missing(&mappings, false).expect("it lacks some");
        assert!(missing["properties"]["timeMs"].is_object());
        assert_eq!(missing["properties"]["span"], json!({"type": "object", "enabled": false}));
        assert!(missing["properties"].get("requestId").is_none());
        assert!(missing["properties"].get("request").is_none());
    }

    #[test]
    fn only_an_older_template_of_ours_is_replaced() {
        let own = template("logs", OpenField::Kept);
        assert_eq!(found("logs", &own), Found::Keep);
        let with = |name: &str, value: Value| {
            let mut template = own.clone();
            template[name] = value;
            template
        };
        assert_eq!(found("logs", &with("version", json!(1))), Found::Replace);
        assert_eq!(found("logs", &with("version", json!(99))), Found::Keep);
        assert_eq!(found("logs", &with("_meta", json!({"made_by": "me"}))), Found::Foreign { alias: true });
        let mut first = with("index_patterns", json!(["logs*"]));
        for name in ["version", "_meta"] {
            first.as_object_mut().expect("an object").remove(name);
        }
        assert_eq!(found("logs", &first), Found::Replace);
        assert_eq!(found("logs", &json!({"index_patterns": ["logs*"]})), Found::Foreign { alias: false });
    }

    #[test]
    fn own_mapping_lacks_nothing() {
        assert_eq!(missing(&mappings(OpenField::Flattened), true), None);
        assert!(missing(&json!({}), true).expect("it lacks all")["properties"][ARRIVED].is_object());
        let names = Names::own();
        assert_eq!((names.request_id.as_str(), names.tie.as_str(), names.words), ("requestId", "eventId", true));
    }
}

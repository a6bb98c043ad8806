//! The JSON Schema of a config file, found by asking the decoder: it is given small files, and tells what it looks for in them.
//!
//! ```text
//! {}                        → the file is a mapping with these keys
//! {"limits": {}}            → `limits` is a mapping with these keys     (or was looked at as a list, or a single value)
//! {"limits": {"inFlight": 7}} → `limits.inFlight` takes a number
//! ```
//! So a key that the decoder knows stands in the schema, and none besides.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Config;
use super::decode::{Decoder, Field};
use super::{Fault, yaml};

/// What the decoder looked for at a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The keys of a mapping.
    pub(super) keys: Option<BTreeSet<String>>,
    /// A mapping whose keys are the user's.
    pub(super) names: bool,
    /// A list.
    pub(super) list: bool,
    /// A single value.
    pub(super) value: bool,
}

/// What was looked for, by place.
pub(super) type Record = BTreeMap<String, Seen>;

/// Deeper than any key.
const DEEPEST: usize = 12;
/// A name that is good for a service, an action, a header and a variable.
const NAME: &str = "n";
/// A word that is none.
const NO_WORD: &str = "zqzqzq";
/// What else must stand in a mapping of this name before the decoder goes on to its keys; in a route one or the other.
const BESIDES: [(&str, &[&str]); 5] = [
    ("routes[0]", &["match: {path: /x}, service: s", "match: {path: /x}"]),
    ("jwt", &["jwks: 'https://localhost/keys'", ""]),
    ("cors", &["origins: '*'"]),
    ("rateLimit", &["rate: 1/s"]),
    ("health", &["path: /x"]),
];

#[derive(Clone)]
enum Step {
    Key(String),
    Item,
}

impl Config {
    /// The JSON Schema (draft 2020-12) of a config file.
    #[must_use]
    pub fn schema() -> Value {
        let mut schema = shape(&mut Vec::new());
        if let Some(root) = schema.as_object_mut() {
            root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
            root.insert("title".to_owned(), json!("Config of goms"));
        }
        schema
    }
}

/// What may stand at a place.
fn shape(at: &mut Vec<Step>) -> Value {
    let path = path_of(at);
    let mut choices: Vec<Value> = Vec::new();
    let as_mapping = probe(at, "{}", &path).0;
    if at.len() < DEEPEST {
        choices.extend(mapping(at, &as_mapping));
        let as_list = probe(at, "[]", &path).0;
        if as_list.list {
            at.push(Step::Item);
            let items = shape(at);
            at.pop();
            choices.push(json!({"type": "array", "items": items}));
        }
    }
    choices.extend(single(at, &path));
    match choices.len() {
        0 => json!({}),
        1 => choices.remove(0),
        _ => json!({"anyOf": choices}),
    }
}

fn mapping(at: &mut Vec<Step>, seen: &Seen) -> Option<Value> {
    let mut inner = |key: &str| {
        at.push(Step::Key(key.to_owned()));
        let shape = shape(at);
        at.pop();
        shape
    };
    if seen.names {
        return Some(json!({"type": "object", "additionalProperties": inner(NAME)}));
    }
    let keys = seen.keys.as_ref()?;
    let properties: Map<String, Value> = keys.iter().map(|key| (key.clone(), inner(key))).collect();
    Some(json!({"type": "object", "properties": properties, "additionalProperties": false}))
}

/// The kinds of single values that are taken.
fn single(at: &[Step], path: &str) -> Option<Value> {
    let try_value = |text: &str| {
        let (seen, faults) = probe(at, text, path);
        (seen.value, faults.into_iter().find(|fault| fault.path == path).map(|fault| fault.message))
    };
    let (is_read, fault) = try_value(NO_WORD);
    if !is_read {
        return None;
    }
    let takes = |text: &str| try_value(text) == (true, None);
    let is_boolean = takes("true") && takes("false");
    if let Some(words) = fault.as_deref().and_then(words) {
        // YAML takes a word like `308` for a number
        let numbers = words.iter().filter_map(|word| word.parse::<u64>().ok().map(Value::from));
        let words: Vec<Value> = words.iter().map(|word| Value::from(*word)).chain(numbers).collect();
        let words = json!({"enum": words});
        return Some(if is_boolean { json!({"anyOf": [words, {"type": "boolean"}]}) } else { words });
    }
    let is_text = fault.is_none();
    let is_number = ["7", "0.5", "200", "503", "1048576", "100000000"].iter().any(|number| takes(number));
    let has_units = ["7s", "7KiB", "100MiB", "7%", "off", "none", "7/s", "connect"].iter().any(|text| takes(text));
    Some(match (is_boolean, is_number, is_text || has_units) {
        (true, false, false) => json!({"type": "boolean"}),
        (false, true, false) => json!({"type": "number"}),
        (false, true, true) => json!({"type": ["number", "string"]}),
        (true, _, _) => json!({"type": ["boolean", "number", "string"]}),
        (false, false, _) => json!({"type": "string"}),
    })
}

/// The words of ``unknown word `x`; known: `a`, `b` ``.
fn words(message: &str) -> Option<Vec<&str>> {
    let (_, known) = message.split_once("; known: ")?;
    Some(known.split('`').skip(1).step_by(2).collect())
}

/// What the decoder looks for at a place where `leaf` stands, and what it finds wrong.
fn probe(at: &[Step], leaf: &str, path: &str) -> (Seen, Vec<Fault>) {
    let first = probe_beside(at, leaf, path, 0);
    if first.0 == Seen::default() { probe_beside(at, leaf, path, 1) } else { first }
}

fn probe_beside(at: &[Step], leaf: &str, path: &str, choice: usize) -> (Seen, Vec<Fault>) {
    let text = document(at, leaf, choice);
    let Ok(root) = yaml::parse(&text) else { return (Seen::default(), Vec::new()) };
    let mut decoder = Decoder::new("schema");
    decoder.record = Some(Record::new());
    // what it makes of the file is of no interest
    drop(decoder.file(&Field::root(&root)));
    let seen = decoder.record.and_then(|mut record| record.remove(path)).unwrap_or_default();
    (seen, decoder.faults)
}

/// A file with nothing but `leaf` at a place, and what must stand beside it.
fn document(at: &[Step], leaf: &str, choice: usize) -> String {
    let mut text = leaf.to_owned();
    for (depth, step) in at.iter().enumerate().rev() {
        text = match step {
            Step::Item => format!("[{text}]"),
            Step::Key(key) => {
                let besides = besides(&path_of(&at[..depth]), choice);
                let others =
                    besides.split(", ").filter(|other| !other.is_empty() && other.split(':').next() != Some(key));
                let others: String = others.map(|other| format!(", {other}")).collect();
                format!("{{\"{key}\": {text}{others}}}")
            }
        };
    }
    text
}

/// What must stand in a mapping at a place.
fn besides(path: &str, choice: usize) -> &'static str {
    let last = path.rsplit('.').next().unwrap_or_default();
    let is_it = |name: &str| last == name || last.strip_suffix("[0]") == Some(name);
    let Some((_, choices)) = BESIDES.iter().find(|(name, _)| is_it(name)) else { return "" };
    choices.get(choice).or(choices.last()).copied().unwrap_or_default()
}

/// The place as the decoder calls it.
fn path_of(at: &[Step]) -> String {
    let mut path = String::new();
    for step in at {
        match step {
            Step::Item => path.push_str("[0]"),
            Step::Key(key) if path.is_empty() => path.push_str(key),
            Step::Key(key) => {
                path.push('.');
                path.push_str(key);
            }
        }
    }
    path
}

//! The JSON Schema of the file: what stands in config.yml is good by it, and what the decoder refuses is not.

use goms::config::Config;
use serde_json::Value;

use super::{ours, uncommented};

/// What is wrong with a value by a schema, of the words that ours uses.
fn faults(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(choices) = schema["anyOf"].as_array() {
        let each = choices.iter().map(|choice| {
            let mut found = Vec::new();
            faults(choice, value, path, &mut found);
            found
        });
        // the choice that fits best tells what is wrong
        found.extend(each.min_by_key(Vec::len).unwrap_or_default());
        return;
    }
    if let Some(words) = schema["enum"].as_array() {
        if !words.contains(value) {
            found.push(format!("{path}: {value} is none of {words:?}"));
        }
        return;
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => {
            found.push(format!("{path}: the schema does not say what stands here"));
            return;
        }
    };
    let kind = match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "boolean",
        Value::Null => return, // as if it were not there
    };
    if !kinds.contains(&kind) {
        found.push(format!("{path}: {value} is none of {kinds:?}"));
        return;
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        faults(&schema["items"], item, &format!("{path}[{index}]"), found);
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        match (schema["properties"].get(key), &schema["additionalProperties"]) {
            (Some(property), _) => faults(property, inner, &path, found),
            (None, Value::Object(_)) => faults(&schema["additionalProperties"], inner, &path, found),
            (None, _) => found.push(format!("{path}: unknown key")),
        }
    }
}

fn of(schema: &Value, text: &str) -> Vec<String> {
    let value: Value = serde_yaml::from_str(text).expect("YAML");
    let mut found = Vec::new();
    faults(schema, &value, "", &mut found);
    found
}

#[test]
fn every_key_of_our_files_is_in_the_schema() {
    let schema = Config::schema();
    let text = std::fs::read_to_string(ours("config.yml")).expect("config.yml");
    assert_eq!(of(&schema, &uncommented(&text)), Vec::<String>::new());
    assert_eq!(of(&schema, &text), Vec::<String>::new());
    for entry in std::fs::read_dir(ours("")).expect("config/") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("text");
        assert_eq!(of(&schema, &text), Vec::<String>::new());
    }
}

#[test]
fn every_key_that_the_decoder_knows_says_what_it_takes() {
    fn walk(schema: &Value, path: &str, untold: &mut Vec<String>, keys: &mut usize) {
        *keys += 1;
        if schema.as_object().is_none_or(serde_json::Map::is_empty) {
            untold.push(path.to_owned());
        }
        for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
            walk(inner, &format!("{path}.{key}"), untold, keys);
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(key).filter(|inner| !inner.is_boolean()) {
                walk(inner, &format!("{path}.*"), untold, keys);
            }
        }
        for inner in schema["anyOf"].as_array().into_iter().flatten() {
            walk(inner, path, untold, keys);
        }
    }
    let (mut untold, mut keys) = (Vec::new(), 0);
    walk(&Config::schema(), "", &mut untold, &mut keys);
    assert_eq!(untold, Vec::<String>::new());
    assert!(keys > 300, "{keys}");
}

#[test]
fn what_the_decoder_refuses_the_schema_refuses() {
    let schema = Config::schema();
    for (text, fault) in [
        ("callServiceKye: a", ".callServiceKye: unknown key"),
        ("services: { user: { login: { path: /a, retyr: {} } } }", ".services.user.login.retyr: unknown key"),
        ("registry: { kind: { a: 1 } }", ".registry.kind: {\"a\":1} is none of"),
        ("limits: 5", ": 5 is none of [\"object\"]"),
        ("log: { level: loud }", ".log.level: \"loud\" is none of"),
        ("traces: { sample: lots }", ".traces.sample: \"lots\" is none of [\"number\"]"),
        (
            "upstreams: { user: { preferZone: maybe } }",
            ".upstreams.user.preferZone: \"maybe\" is none of [\"boolean\"]",
        ),
        ("up: { services: { shop: { instances: many } } }", ".up.services.shop.instances: \"many\" is none of"),
    ] {
        let found = of(&schema, text);
        assert!(found.len() == 1 && found[0].contains(fault), "{fault} in {found:?}");
    }
}

//! Parts of somebody else's document as OpenAPI 3.1 lets them be: what it has no word for and what is of another type is left
//! out, so that the merged document can be read by any tool.

use serde_json::{Map, Value, json};

/// Places of a parameter.
const PLACES: [&str; 4] = ["path", "query", "header", "cookie"];
/// Types of JSON Schema.
const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "string", "integer"];

/// A parameter; `None`: it is none.
pub fn parameter(value: &Value) -> Option<Value> {
    if let Some(named) = reference(value) {
        return Some(named);
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (name, place) = (text("name")?, text("in").filter(|place| PLACES.contains(place))?);
    let mut one = kept(value, &["description"], &["required", "deprecated", "explode"]);
    one.insert("name".to_owned(), name.into());
    one.insert("in".to_owned(), place.into());
    if place == "path" {
        one.insert("required".to_owned(), true.into());
    }
    described(value, &mut one);
    Some(Value::Object(one))
}

/// A header of an answer.
pub fn header(value: &Value) -> Option<Value> {
    if let Some(named) = reference(value) {
        return Some(named);
    }
    let mut one = value.is_object().then(|| kept(value, &["description"], &["required", "deprecated"]))?;
    described(value, &mut one);
    Some(Value::Object(one))
}

/// Puts the one schema, or else the one content, of a parameter or header where it belongs.
fn described(value: &Value, one: &mut Map<String, Value>) {
    match (value.get("schema"), value.get("content").and_then(content)) {
        (Some(found), _) => drop(one.insert("schema".to_owned(), schema(found))),
        (None, Some(Value::Object(kinds))) if kinds.len() == 1 => drop(one.insert("content".to_owned(), kinds.into())),
        (None, _) => drop(one.insert("schema".to_owned(), json!({}))),
    }
}

/// What a request brings.
pub fn body(value: &Value) -> Option<Value> {
    if let Some(named) = reference(value) {
        return Some(named);
    }
    let mut one = kept(value, &["description"], &["required"]);
    one.insert("content".to_owned(), content(value.get("content")?)?);
    Some(Value::Object(one))
}

/// What is answered.
pub fn response(value: &Value) -> Option<Value> {
    if let Some(named) = reference(value) {
        return Some(named);
    }
    let mut one = value.is_object().then(|| kept(value, &["description"], &[]))?;
    one.entry("description").or_insert_with(|| "".into());
    if let Some(content) = value.get("content").and_then(content) {
        one.insert("content".to_owned(), content);
    }
    if let Some(headers) = value.get("headers").and_then(Value::as_object) {
        let headers: Map<String, Value> =
            headers.iter().filter_map(|(name, one)| Some((name.clone(), header(one)?))).collect();
        one.insert("headers".to_owned(), headers.into());
    }
    Some(Value::Object(one))
}

/// Media types with their schemas.
fn content(value: &Value) -> Option<Value> {
    let kinds = value.as_object()?.iter().filter(|(_, of)| of.is_object()).map(|(kind, of)| {
        let mut one = Map::new();
        if let Some(found) = of.get("schema") {
            one.insert("schema".to_owned(), schema(found));
        }
        if let Some(example) = of.get("example") {
            one.insert("example".to_owned(), example.clone());
        }
        (kind.clone(), Value::Object(one))
    });
    Some(Value::Object(kinds.collect()))
}

/// A schema; of what is none, one that says nothing.
pub fn schema(value: &Value) -> Value {
    match value {
        Value::Bool(_) => value.clone(),
        Value::Object(object) => {
            let words = object.iter().filter_map(|(key, value)| Some((key.clone(), keyword(key, value)?)));
            Value::Object(words.collect())
        }
        _ => json!({}),
    }
}

/// A keyword's value, if it is one of these: among those left out are the ones that move what references mean (`$id`, `$anchor`).
fn keyword(key: &str, value: &Value) -> Option<Value> {
    let schemas = |of: &Map<String, Value>| of.iter().map(|(name, one)| (name.clone(), schema(one))).collect();
    match key {
        "$ref" | "title" | "description" | "format" | "pattern" | "contentEncoding" | "contentMediaType" => {
            value.is_string().then(|| value.clone())
        }
        "type" => {
            let is_type = |one: &Value| one.as_str().is_some_and(|one| TYPES.contains(&one));
            let are_types = value.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(is_type));
            (is_type(value) || are_types).then(|| value.clone())
        }
        "required" => value.as_array().filter(|all| all.iter().all(Value::is_string)).map(|_| value.clone()),
        "enum" | "examples" => value.as_array().filter(|all| !all.is_empty()).map(|_| value.clone()),
        "default" | "const" | "example" => Some(value.clone()),
        "properties" | "patternProperties" | "$defs" | "dependentSchemas" => {
            value.as_object().map(|of| Value::Object(schemas(of)))
        }
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => {
            let all = value.as_array().filter(|all| !all.is_empty())?;
            Some(all.iter().map(schema).collect())
        }
        "items"
        | "additionalProperties"
        | "not"
        | "contains"
        | "propertyNames"
        | "if"
        | "then"
        | "else"
        | "unevaluatedProperties"
        | "unevaluatedItems" => (value.is_object() || value.is_boolean()).then(|| schema(value)),
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.is_number().then(|| value.clone()),
        "multipleOf" => value.as_f64().filter(|of| *of > 0.0).map(|_| value.clone()),
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
            value.is_u64().then(|| value.clone())
        }
        "uniqueItems" | "readOnly" | "writeOnly" | "deprecated" => value.is_boolean().then(|| value.clone()),
        "discriminator" => {
            let name = value.get("propertyName")?.as_str()?;
            let mapping = value.get("mapping").and_then(Value::as_object).cloned().unwrap_or_default();
            let mapping: Map<String, Value> = mapping.into_iter().filter(|(_, to)| to.is_string()).collect();
            Some(json!({"propertyName": name, "mapping": mapping}))
        }
        _ => None,
    }
}

/// Those of these texts and flags that are there.
fn kept(value: &Value, texts: &[&str], flags: &[&str]) -> Map<String, Value> {
    let texts = texts.iter().filter_map(|key| Some((*key, value.get(*key)?))).filter(|(_, of)| of.is_string());
    let flags = flags.iter().filter_map(|key| Some((*key, value.get(*key)?))).filter(|(_, of)| of.is_boolean());
    texts.chain(flags).map(|(key, of)| (key.to_owned(), of.clone())).collect()
}

fn reference(value: &Value) -> Option<Value> {
    let named = value.get("$ref")?.as_str()?;
    Some(json!({"$ref": named}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_another_type_are_left_out() {
        let odd = json!({"type": ["string", 7], "required": true, "properties": {"a": 7, "type": {"type": "string", "$id": "x"}},
            "items": [], "allOf": [], "oneOf": [{"$ref": 7, "minimum": "1"}], "enum": {}, "default": {"$ref": 7}, "$anchor": "x",
            "discriminator": {"mapping": 7}, "minLength": -1, "x-own": 1});
        let wanted =
            json!({"properties": {"a": {}, "type": {"type": "string"}}, "oneOf": [{}], "default": {"$ref": 7}});
        assert_eq!(schema(&odd), wanted);
        assert_eq!((schema(&json!(7)), schema(&json!(false))), (json!({}), json!(false)));
    }

    #[test]
    fn parameters_are_whole() {
        assert_eq!(parameter(&json!({"name": 7, "in": "query"})), None);
        assert_eq!(parameter(&json!({"name": "a", "in": "body"})), None);
        assert_eq!(parameter(&json!("x")), None);
        let of_path = json!({"name": "a", "in": "path", "required": false, "style": "x"});
        assert_eq!(parameter(&of_path), Some(json!({"name": "a", "in": "path", "required": true, "schema": {}})));
        assert_eq!(parameter(&json!({"$ref": "#/a", "name": 7})), Some(json!({"$ref": "#/a"})));
    }
}

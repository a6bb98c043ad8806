//! Schemas for people: as a list of fields, and as an example to begin with.

use maud::{Markup, html};
use serde_json::{Map, Value, json};

use super::document::Document;
use crate::dashboard::page::{cut, told};

/// Fields and schemas of a page, and how deep they are followed. A schema may name itself.
const MOST_FIELDS: usize = 300;
const DEEPEST: usize = 8;
/// Of an example.
const MOST_OF_EXAMPLE: usize = 200;
/// Letters of an enum's or example's value.
const LONGEST: usize = 60;

/// Fields, and schemas within schemas, that may still be shown.
pub struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(MOST_FIELDS)
    }
}

/// What a schema says, with all below it.
pub fn shown(document: &Document, schema: &Value, room: &mut Room) -> Markup {
    inside(document, schema, room, &mut Vec::new())
}

/// A schema within another, which takes room as a field does.
fn level<'a>(document: &'a Document, schema: &'a Value, room: &mut Room, above: &mut Vec<&'a str>) -> Markup {
    if room.0 == 0 {
        return html! {};
    }
    room.0 -= 1;
    inside(document, schema, room, above)
}

fn inside<'a>(document: &'a Document, schema: &'a Value, room: &mut Room, above: &mut Vec<&'a str>) -> Markup {
    let named = schema.get("$ref").and_then(Value::as_str);
    if above.len() >= DEEPEST || named.is_some_and(|named| above.contains(&named)) {
        return html! {};
    }
    above.push(named.unwrap_or_default());
    let schema = document.resolve(schema);
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let fields = schema.get("properties").and_then(Value::as_object);
    let choices = ["oneOf", "anyOf", "allOf"].iter().filter_map(|key| Some((*key, schema.get(*key)?.as_array()?)));
    let markup = html! {
        @if let Some(fields) = fields.filter(|fields| !fields.is_empty()) {
            ul.fields {
                @for (name, field) in fields {
                    @if room.0 > 0 {
                        (field_of(document, (name, field, required.contains(&name.as_str())), room, above))
                    }
                }
                @if room.0 == 0 { li.soft { "and more, which the document itself has" } }
            }
        }
        @if let Some(items) = schema.get("items") { (level(document, items, room, above)) }
        @if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) { (level(document, values, room, above)) }
        @for (key, of) in choices {
            @for (at, choice) in of.iter().take(10).enumerate() {
                @if room.0 > 0 {
                    @if key != "allOf" { p.soft { @if at > 0 { "or " } (kind(choice)) } }
                    (level(document, choice, room, above))
                }
            }
        }
    };
    above.pop();
    markup
}

fn field_of<'a>(
    document: &'a Document,
    (name, field, is_required): (&str, &'a Value, bool),
    room: &mut Room,
    above: &mut Vec<&'a str>,
) -> Markup {
    room.0 = room.0.saturating_sub(1);
    let resolved = document.resolve(field);
    let words =
        [field, resolved].iter().find_map(|of| of.get("description").and_then(Value::as_str)).unwrap_or_default();
    html! {
        li {
            code { (told(name)) } " " span.kind { (kind(field)) }
            @if is_required { " " span.badge.accent { "required" } }
            @if !words.is_empty() { " " span.soft { (told(words)) } }
            @if let Some(values) = resolved.get("enum").and_then(Value::as_array) {
                " " span.soft { @for value in values.iter().take(20) { span.badge { (plain(value)) } " " } @if values.len() > 20 { "…" } }
            }
            (inside(document, field, room, above))
        }
    }
}

/// A schema's type in words: `string (date-time)`, `array of user.Pet`, `integer or null`.
pub fn kind(schema: &Value) -> String {
    of_kind(schema, 0)
}

fn of_kind(schema: &Value, depth: usize) -> String {
    if let Some(named) = schema.get("$ref").and_then(Value::as_str) {
        return cut(named.rsplit('/').next().unwrap_or(named), LONGEST).to_owned();
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if depth < 3 && types.contains(&"array") {
        return match schema.get("items") {
            Some(items) => format!("array of {}", of_kind(items, depth + 1)),
            None => "array".to_owned(),
        };
    }
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object())
        && depth < 3
    {
        return format!("object, each of {}", of_kind(values, depth + 1));
    }
    let format = schema.get("format").or_else(|| schema.get("contentEncoding")).and_then(Value::as_str);
    let word = match types.as_slice() {
        [] if schema.get("properties").is_some() => "object".to_owned(),
        [] if schema.get("enum").is_some() => "one of".to_owned(),
        [] if schema.get("const").is_some() => format!("always {}", plain(&schema["const"])),
        [] if ["oneOf", "anyOf", "allOf"].iter().any(|key| schema.get(*key).is_some()) => "a choice".to_owned(),
        [] => "anything".to_owned(),
        many => cut(&many.join(" or "), LONGEST).to_owned(),
    };
    format.map_or(word.clone(), |format| format!("{word} ({})", cut(format, LONGEST)))
}

fn plain(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    cut(&text, LONGEST).to_owned()
}

/// A value that fits a schema, to begin with: of what names itself one, and of fields those of which there is something to say.
pub fn example(document: &Document, schema: &Value) -> Value {
    Examples { document, left: MOST_OF_EXAMPLE, above: Vec::new() }.of(schema)
}

struct Examples<'a> {
    document: &'a Document,
    left: usize,
    above: Vec<&'a str>,
}

impl<'a> Examples<'a> {
    fn of(&mut self, schema: &'a Value) -> Value {
        let named = schema.get("$ref").and_then(Value::as_str);
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || self.above.len() > DEEPEST || named.is_some_and(|named| self.above.contains(&named)) {
            return Value::Null;
        }
        self.above.push(named.unwrap_or_default());
        let example = self.inside(self.document.resolve(schema));
        self.above.pop();
        example
    }

    fn inside(&mut self, schema: &'a Value) -> Value {
        let first = |key: &str| schema.get(key).and_then(Value::as_array).and_then(|all| all.first());
        let given = ["example", "default", "const"].iter().find_map(|key| schema.get(*key));
        if let Some(given) = given.or_else(|| first("examples")).or_else(|| first("enum")) {
            return given.clone();
        }
        if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
            let mut whole = Map::new();
            for part in parts {
                if let Value::Object(fields) = self.of(part) {
                    whole.extend(fields);
                }
            }
            return Value::Object(whole);
        }
        if let Some(choice) = first("oneOf").or_else(|| first("anyOf")) {
            return self.of(choice);
        }
        let word = match schema.get("type") {
            Some(Value::String(one)) => one.as_str(),
            Some(Value::Array(many)) => {
                many.iter().filter_map(Value::as_str).find(|one| *one != "null").unwrap_or("null")
            }
            _ if schema.get("properties").is_some() => "object",
            _ => "",
        };
        match word {
            "object" => {
                let fields = schema.get("properties").and_then(Value::as_object);
                let fields = fields.into_iter().flatten().map(|(name, field)| (name.clone(), self.of(field)));
                Value::Object(fields.filter(|(_, value)| !value.is_null()).collect())
            }
            "array" => {
                let item = schema.get("items").map(|items| self.of(items)).filter(|item| !item.is_null());
                Value::Array(item.into_iter().collect())
            }
            "string" => json!(match schema.get("format").and_then(Value::as_str) {
                Some("date-time") => "2026-01-01T00:00:00Z",
                Some("int64" | "uint64") => "0",
                _ => "",
            }),
            "integer" | "number" => json!(0),
            "boolean" => json!(false),
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Document {
        let mut document = Document::default();
        let tree = json!({"type": "object", "required": ["n"], "properties": {
            "n": {"type": "integer", "description": "<b>"}, "left": {"$ref": "#/components/schemas/Tree"},
            "all": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}, "kind": {"enum": ["a", "<i>"]}}});
        document.components.entry("schemas".into()).or_default().insert("Tree".into(), tree);
        let own = json!({"$ref": "#/components/schemas/Loop"});
        document.components.entry("schemas".into()).or_default().insert("Loop".into(), own);
        document
    }

    #[test]
    fn a_schema_that_names_itself_ends() {
        let document = tree();
        let named = json!({"$ref": "#/components/schemas/Tree"});
        let text = shown(&document, &named, &mut Room::default()).into_string();
        assert_eq!(text.matches("<ul").count(), 1, "{text}");
        assert!(
            text.contains("array of Tree")
                && text.contains("required")
                && !text.contains("<b>")
                && !text.contains("<i>")
        );
        let example = example(&document, &named);
        assert_eq!((&example["n"], &example["kind"]), (&json!(0), &json!("a")));
        assert_eq!(example, json!({"n": 0, "kind": "a", "all": []}));
        let own = json!({"$ref": "#/components/schemas/Loop"});
        assert_eq!(super::example(&document, &own), Value::Null);
        assert_eq!(shown(&document, &own, &mut Room::default()).into_string(), "");
    }

    #[test]
    fn a_page_has_so_many_fields() {
        let fields: Map<String, Value> = (0..5_000).map(|at| (format!("f{at}"), json!({"type": "string"}))).collect();
        let document = Document::default();
        let text = shown(&document, &json!({"properties": fields}), &mut Room::default()).into_string();
        assert_eq!(text.matches("<li>").count(), MOST_FIELDS);
        assert!(text.contains("and more") && text.len() < 60_000, "{}", text.len());
    }

    #[test]
    fn schemas_that_name_many_others_end() {
        let mut document = Document::default();
        let all: Vec<Value> = (0..10).map(|at| json!({"$ref": format!("#/components/schemas/S{}", at % 8)})).collect();
        for at in 0..8 {
            let one = json!({"oneOf": all, "anyOf": all, "allOf": all, "items": all[0], "additionalProperties": all[1],
                "properties": {"a": all[2], "b": all[3]}});
            document.components.entry("schemas".into()).or_default().insert(format!("S{at}"), one);
        }
        let mut room = Room::default();
        let text = shown(&document, &all[0], &mut room).into_string();
        assert_eq!(room.0, 0);
        let nodes = text.matches("<li").count() + text.matches("<p").count();
        assert!((MOST_FIELDS / 2..=2 * MOST_FIELDS).contains(&nodes), "{nodes}");
    }

    #[test]
    fn types_are_words() {
        for (schema, wanted) in [
            (json!({"type": "string", "format": "date-time"}), "string (date-time)"),
            (json!({"type": ["integer", "null"]}), "integer or null"),
            (json!({"type": "object", "additionalProperties": {"type": "string"}}), "object, each of string"),
            (json!({}), "anything"),
            (json!({"const": 7}), "always 7"),
        ] {
            assert_eq!(kind(&schema), wanted);
        }
    }
}

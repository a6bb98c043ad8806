//! A form of a schema: a field for each value of a message, filled from its JSON, and back.
//!
//! The JSON is what counts. A field that somebody changed is written into it; what has no field (and what a schema does not
//! name) stays in it as it is.

use maud::{Markup, html};
use serde_json::{Map, Value};

use crate::dashboard::openapi::document::Document;
use crate::dashboard::openapi::schema::{example, kind};
use crate::dashboard::page::{cut, told};

/// Fields of a form, and how deep messages have fields of their own; below that they are JSON.
const MOST_FIELDS: usize = 150;
const DEEPEST: usize = 4;
/// Items of a list that have fields.
const MOST_ITEMS: usize = 20;
/// Words to choose from.
const MOST_WORDS: usize = 200;

/// What the names of fields begin with; a pointer (RFC 6901) follows.
pub const PREFIX: &str = "f:";

/// A part of the form.
#[derive(Debug, PartialEq)]
enum Part {
    Leaf(Leaf),
    Group { name: String, parts: Vec<Part> },
    List { name: String, pointer: String, items: Vec<Vec<Part>> },
}

/// One field.
#[derive(Debug, PartialEq)]
struct Leaf {
    name: String,
    pointer: String,
    /// Its type for people.
    told: String,
    input: Input,
    text: String,
}

/// How a value is written.
#[derive(Clone, Debug, PartialEq)]
enum Input {
    Text,
    Number,
    Flag,
    Words(Vec<String>),
    /// One value a line; of these.
    Lines(Box<Input>),
    Json,
}

/// A schema's form with the values of some JSON.
pub struct Form {
    parts: Vec<Part>,
    value: Value,
}

impl Form {
    /// Of an object's schema; `None`: it has no fields. Text that is no JSON object fills nothing.
    pub fn of(document: &Document, schema: &Value, body: &str) -> Option<Self> {
        let value =
            crate::json::value(body.as_bytes()).ok().filter(Value::is_object).unwrap_or_else(|| Map::new().into());
        let mut walk = Walk { document, left: MOST_FIELDS, above: Vec::new() };
        let parts = walk.object(schema, &value, "");
        (!parts.is_empty()).then_some(Self { parts, value })
    }

    /// The JSON with what these fields (by pointer) changed in it; `None`: nothing.
    ///
    /// # Errors
    /// Which field holds what it may not.
    pub fn changed(&self, fields: &[(String, String)]) -> Result<Option<Value>, String> {
        let mut leaves = Vec::new();
        collect(&self.parts, &mut leaves);
        let mut value = self.value.clone();
        let mut is_changed = false;
        for leaf in leaves {
            let text =
                fields.iter().find(|(pointer, _)| *pointer == leaf.pointer).map(|(_, text)| text.replace("\r\n", "\n"));
            let Some(text) = text.filter(|text| *text != leaf.text) else { continue };
            let read = leaf.input.read(&text).map_err(|why| format!("`{}` {why}", cut(&leaf.name, 60)))?;
            set(&mut value, &leaf.pointer, read);
            is_changed = true;
        }
        Ok(is_changed.then_some(value))
    }

    /// The form's fields.
    pub fn markup(&self) -> Markup {
        html! { fieldset.fields-form { legend { "Fields" } (parts(&self.parts)) } }
    }
}

/// Adds an item to a list of the JSON, or takes its last one away.
pub fn resize(document: &Document, schema: &Value, value: &mut Value, pointer: &str, is_more: bool) {
    let item = at(document, schema, pointer).and_then(|list| document.resolve(list).get("items")).cloned();
    if is_more && value.pointer(pointer).is_none() {
        set(value, pointer, Some(Value::Array(Vec::new())));
    }
    let Some(list) = value.pointer_mut(pointer).and_then(Value::as_array_mut) else { return };
    if !is_more {
        list.pop();
    } else if list.len() < MOST_ITEMS {
        list.push(item.map(|item| example(document, &item)).unwrap_or_default());
    }
}

/// The schema of what a pointer leads to.
fn at<'a>(document: &'a Document, schema: &'a Value, pointer: &str) -> Option<&'a Value> {
    pointer.split('/').skip(1).try_fold(schema, |schema, part| {
        let schema = document.resolve(schema);
        let name = part.replace("~1", "/").replace("~0", "~");
        schema.get("properties").and_then(|fields| fields.get(&name)).or_else(|| schema.get("items"))
    })
}

/// Puts a value where a pointer leads, with the objects on its way; `None` takes it out.
fn set(value: &mut Value, pointer: &str, to: Option<Value>) {
    let Some((before, last)) = pointer.rsplit_once('/') else { return };
    if value.pointer(before).is_none() {
        if to.is_none() {
            return;
        }
        set(value, before, Some(Map::new().into()));
    }
    let name = last.replace("~1", "/").replace("~0", "~");
    match (value.pointer_mut(before), to) {
        (Some(Value::Object(fields)), Some(to)) => drop(fields.insert(name, to)),
        (Some(Value::Object(fields)), None) => drop(fields.remove(&name)),
        (Some(Value::Array(items)), to) => {
            if let Some(item) = name.parse().ok().and_then(|at: usize| items.get_mut(at)) {
                *item = to.unwrap_or_default();
            }
        }
        _ => {}
    }
}

fn collect<'a>(parts: &'a [Part], leaves: &mut Vec<&'a Leaf>) {
    for part in parts {
        match part {
            Part::Leaf(leaf) => leaves.push(leaf),
            Part::Group { parts, .. } => collect(parts, leaves),
            Part::List { items, .. } => items.iter().for_each(|item| collect(item, leaves)),
        }
    }
}

struct Walk<'a> {
    document: &'a Document,
    left: usize,
    above: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    fn object(&mut self, schema: &'a Value, value: &Value, pointer: &str) -> Vec<Part> {
        let named = schema.get("$ref").and_then(Value::as_str);
        self.above.extend(named);
        let fields = self.document.resolve(schema).get("properties").and_then(Value::as_object);
        let parts = fields.into_iter().flatten().filter_map(|(name, field)| {
            let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            self.part(name, field, value.get(name), pointer)
        });
        let parts = parts.collect();
        if named.is_some() {
            self.above.pop();
        }
        parts
    }

    fn part(&mut self, name: &str, field: &'a Value, value: Option<&Value>, pointer: String) -> Option<Part> {
        self.left = self.left.checked_sub(1)?;
        let schema = self.document.resolve(field);
        let is_again =
            |of: &Value| of.get("$ref").and_then(Value::as_str).is_some_and(|named| self.above.contains(&named));
        let is_deep = pointer.matches('/').count() > DEEPEST;
        let name = name.to_owned();
        let has_fields = |of: &Value| {
            self.document
                .resolve(of)
                .get("properties")
                .is_some_and(|all| all.as_object().is_some_and(|all| !all.is_empty()))
        };
        if type_of(schema) == "object" && has_fields(schema) && !is_again(field) && !is_deep {
            let parts = self.object(field, value.unwrap_or(&Value::Null), &pointer);
            return Some(Part::Group { name, parts });
        }
        if let Some(item) = schema.get("items").filter(|item| has_fields(item) && !is_again(item) && !is_deep) {
            let values = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let values = values.iter().take(MOST_ITEMS).enumerate();
            let items = values.map(|(at, value)| self.object(item, value, &format!("{pointer}/{at}"))).collect();
            return Some(Part::List { name, pointer, items });
        }
        let input = Input::of(self.document, schema);
        let text = value.map(|value| input.write(value)).unwrap_or_default();
        Some(Part::Leaf(Leaf { name, pointer, told: kind(field), input, text }))
    }
}

fn type_of(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(one)) => one,
        Some(Value::Array(many)) => {
            many.iter().filter_map(Value::as_str).find(|one| *one != "null").unwrap_or_default()
        }
        _ if schema.get("properties").is_some() => "object",
        _ => "",
    }
}

impl Input {
    fn of(document: &Document, schema: &Value) -> Self {
        let words = schema.get("enum").and_then(Value::as_array);
        if let Some(words) = words {
            let words: Option<Vec<String>> =
                words.iter().take(MOST_WORDS).map(|word| word.as_str().map(str::to_owned)).collect();
            return words.map_or(Self::Json, Self::Words);
        }
        match type_of(schema) {
            "string" => Self::Text,
            "integer" | "number" => Self::Number,
            "boolean" => Self::Flag,
            "array" => match schema.get("items").map(|items| Self::of(document, document.resolve(items))) {
                Some(item @ (Self::Text | Self::Number | Self::Words(_))) => Self::Lines(Box::new(item)),
                _ => Self::Json,
            },
            _ => Self::Json,
        }
    }

    /// A value as its field has it.
    fn write(&self, value: &Value) -> String {
        match (self, value) {
            (Self::Text | Self::Words(_), Value::String(text)) => text.clone(),
            (Self::Lines(item), Value::Array(values)) => {
                values.iter().map(|value| item.write(value)).collect::<Vec<_>>().join("\n")
            }
            _ => value.to_string(),
        }
    }

    /// A field's text as a value; an empty one is none.
    fn read(&self, text: &str) -> Result<Option<Value>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let json = |text: &str, is: fn(&Value) -> bool, wanted: &str| match crate::json::value::<Value>(
            text.trim().as_bytes(),
        ) {
            Ok(value) if is(&value) => Ok(Some(value)),
            _ => Err(format!("must be {wanted}, got `{}`", cut(text, 60))),
        };
        match self {
            Self::Text | Self::Words(_) => Ok(Some(text.into())),
            Self::Number => json(text, Value::is_number, "a number"),
            Self::Flag => json(text, Value::is_boolean, "true or false"),
            Self::Json => json(text, |_| true, "JSON"),
            Self::Lines(item) => {
                let values = text.lines().map(|line| item.read(line).map(Option::unwrap_or_default));
                values.collect::<Result<Vec<_>, _>>().map(|values| Some(values.into()))
            }
        }
    }
}

fn parts(all: &[Part]) -> Markup {
    html! {
        @for part in all {
            @match part {
                Part::Leaf(leaf) => (field(leaf)),
                Part::Group { name, parts: inner } => fieldset { legend { (told(name)) } (parts(inner)) },
                Part::List { name, pointer, items } => fieldset {
                    legend { (told(name)) " " small { (items.len()) } }
                    @for (at, item) in items.iter().enumerate() { fieldset { legend { (told(name)) " " (at + 1) } (parts(item)) } }
                    div.filters {
                        button name="do" value={ "more:" (pointer) } { "Add to " (cut(name, 40)) }
                        @if !items.is_empty() { button name="do" value={ "less:" (pointer) } { "Remove the last of " (cut(name, 40)) } }
                    }
                },
            }
        }
    }
}

fn field(leaf: &Leaf) -> Markup {
    let (id, name) = (format!("field-{}", leaf.pointer), format!("{PREFIX}{}", leaf.pointer));
    html! {
        div.field {
            label for=(id) { (told(&leaf.name)) " " span.kind { (leaf.told) @if matches!(leaf.input, Input::Lines(_)) { ", one a line" } } }
            @match &leaf.input {
                Input::Text => input id=(id) name=(name) value=(leaf.text) autocomplete="off" spellcheck="false";,
                Input::Number => input id=(id) name=(name) value=(leaf.text) inputmode="decimal" autocomplete="off";,
                Input::Flag => (choice(&id, &name, &leaf.text, &["true".to_owned(), "false".to_owned()])),
                Input::Words(words) => (choice(&id, &name, &leaf.text, words)),
                Input::Lines(_) | Input::Json => textarea id=(id) name=(name) rows="2" spellcheck="false" { (leaf.text) },
            }
        }
    }
}

fn choice(id: &str, name: &str, text: &str, words: &[String]) -> Markup {
    let is_other = !text.is_empty() && !words.iter().any(|word| word == text);
    html! {
        select id=(id) name=(name) {
            option value="" { "–" }
            @for word in words { option value=(word) selected[word == text] { (cut(word, 80)) } }
            @if is_other { option value=(text) selected { (cut(text, 80)) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Document {
        let mut document = Document::default();
        let schemas = document.components.entry("schemas".into()).or_default();
        schemas.insert(
            "Item".into(),
            json!({"type": "object", "properties": {"sku": {"type": "string"}, "count": {"type": "integer"},
            "inside": {"type": "array", "items": {"$ref": "#/components/schemas/Item"}}}}),
        );
        schemas.insert("Order".into(), json!({"type": "object", "properties": {
            "who": {"type": "string"}, "size": {"type": "string", "enum": ["S", "<b>"]}, "gift": {"type": "boolean"},
            "items": {"type": "array", "items": {"$ref": "#/components/schemas/Item"}},
            "tags": {"type": "array", "items": {"type": "string"}}, "to": {"type": "object", "properties": {"a/b": {"type": "number"}}},
            "more": {"type": "object", "additionalProperties": {"type": "string"}}}}));
        document
    }

    fn order() -> Value {
        json!({"$ref": "#/components/schemas/Order"})
    }

    fn fields(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(pointer, text)| ((*pointer).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn fields_are_written_into_the_json_and_the_rest_stays() {
        let document = document();
        let body = json!({"who": "ann", "unknown": [1.50], "items": [{"sku": "x"}]}).to_string();
        let form = Form::of(&document, &order(), &body).expect("a form");
        assert_eq!(form.changed(&fields(&[("/who", "ann"), ("/gift", "")])), Ok(None), "nothing is changed");
        let given = fields(&[
            ("/who", ""),
            ("/gift", "true"),
            ("/items/0/count", "3"),
            ("/tags", "a\r\nb"),
            ("/to/a~1b", "1.5"),
            ("/more", "{\"k\":\"v\"}"),
            ("/size", "S"),
            ("/nothing", "x"),
        ]);
        let changed = form.changed(&given).expect("good").expect("changed");
        assert_eq!(
            changed,
            json!({"unknown": [1.50], "items": [{"sku": "x", "count": 3}], "gift": true, "tags": ["a", "b"],
            "to": {"a/b": 1.5}, "more": {"k": "v"}, "size": "S"})
        );
        let wrong = form.changed(&fields(&[("/items/0/count", "three")])).expect_err("no number");
        assert_eq!(wrong, "`count` must be a number, got `three`");
    }

    #[test]
    fn lists_grow_and_shrink() {
        let document = document();
        let mut value = json!({});
        resize(&document, &order(), &mut value, "/items", true);

        assert_eq!(value["items"][0]["sku"], "");
        let form = Form::of(&document, &order(), &value.to_string()).expect("a form");
        let markup = form.markup().into_string();
        assert!(
            markup.contains("f:/items/0/sku") && markup.contains("less:/items") && !markup.contains("<b>"),
            "{markup}"
        );
        resize(&document, &order(), &mut value, "/items", false);
        assert_eq!(value["items"], json!([]));
        resize(&document, &order(), &mut value, "/who/x", true);
    }

    #[test]
    fn a_message_in_itself_is_json_below() {
        let document = document();
        let form = Form::of(&document, &order(), r#"{"items":[{"inside":[{"sku":"y"}]}]}"#).expect("a form");
        let markup = form.markup().into_string();
        assert!(markup.contains("f:/items/0/inside\"") && !markup.contains("f:/items/0/inside/0"), "{markup}");
        assert!(Form::of(&document, &json!({"type": "string"}), "").is_none());
    }
}

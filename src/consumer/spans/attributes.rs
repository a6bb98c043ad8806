//! What a span or its process says of itself, by key. Conventions name the same thing anew every few years, so a value is
//! looked up under all of its names, the newest first (<https://opentelemetry.io/docs/specs/semconv/>).

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::trace::{CALL_KEY_HEADER, REDACTED, REDACTED_HEADERS};

/// Where the conventions put request headers.
pub(super) const HEADER: &str = "http.request.header.";

/// Of a key: those of the conventions are below 60; Elasticsearch refuses a document with one over some 30,000.
const MAX_KEY_CHARS: usize = 256;

/// Attributes by key; of a key that comes twice the last one.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes(Map<String, Value>);

impl Attributes {
    /// Adds one, its key cut and without the characters that Elasticsearch refuses. Headers that goms never shows of its
    /// own requests it does not show here.
    pub fn insert(&mut self, key: &str, value: Value) {
        let is_secret = key.strip_prefix(HEADER).is_some_and(|name| {
            let name = name.replace('_', "-").to_ascii_lowercase();
            name == CALL_KEY_HEADER || REDACTED_HEADERS.contains(&name.as_str())
        });
        self.0.insert(sound_key(key), if is_secret { Value::from(REDACTED) } else { value });
    }

    /// All of them, if there are any.
    pub fn some(&self) -> Option<&Map<String, Value>> {
        Some(&self.0).filter(|map| !map.is_empty())
    }

    /// The first of these that is there and not empty, as text; of a list its first element.
    pub fn text(&self, keys: &[&str]) -> Option<Cow<'_, str>> {
        keys.iter().find_map(|key| as_text(self.0.get(*key)?))
    }

    /// The first of these that is an HTTP status.
    pub fn status(&self, keys: &[&str]) -> Option<u16> {
        let status = |key: &&str| as_text(self.0.get(*key)?)?.parse().ok().filter(|code| (100..600).contains(code));
        keys.iter().find_map(status)
    }

    /// Those whose key begins so, with the rest of their key.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        self.0.iter().filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, as_text(value)?)))
    }
}

/// A key that every store takes.
pub(super) fn sound_key(key: &str) -> String {
    let key: String = key.chars().filter(|letter| !letter.is_control()).take(MAX_KEY_CHARS).collect();
    if key.is_empty() { "_".to_owned() } else { key }
}

fn as_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text.as_str())).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(is) => Some(Cow::Borrowed(if *is { "true" } else { "false" })),
        Value::Array(list) => as_text(list.first()?),
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_name_that_says_something_counts() {
        let mut attributes = Attributes::default();
        for (key, value) in [
            ("empty", json!("")),
            ("old", json!("o")),
            ("list", json!(["first", "second"])),
            ("code", json!(0)),
            ("text.code", json!("404")),
            ("head.a", json!("1")),
            ("", json!(true)),
            ("null\u{0}byte", json!(1)),
        ] {
            attributes.insert(key, value);
        }
        assert_eq!(attributes.text(&["absent", "empty", "old", "list"]).as_deref(), Some("o"));
        assert_eq!(attributes.text(&["list"]).as_deref(), Some("first"));
        assert_eq!(attributes.text(&["absent"]), None);
        assert_eq!(attributes.status(&["code", "text.code"]), Some(404));
        assert_eq!(attributes.below("head.").collect::<Vec<_>>(), [("a", "1".into())]);
        assert!(attributes.0.contains_key("_") && attributes.0.contains_key("nullbyte"));
        assert_eq!(sound_key(&"x".repeat(1000)).len(), MAX_KEY_CHARS);
    }

    #[test]
    fn credentials_do_not_show() {
        let mut attributes = Attributes::default();
        for name in ["authorization", "Call_Service_Key", "set-cookie", "x-tenant"] {
            attributes.insert(&format!("{HEADER}{name}"), json!(["s3cret"]));
        }
        let shown: Vec<_> = attributes.below(HEADER).filter(|(_, value)| *value == "s3cret").collect();
        assert_eq!(shown, [("x-tenant", "s3cret".into())]);
    }
}

//! Writing: documents to the lines of a bulk request, and what became of each.

use std::collections::HashMap;

use ::elasticsearch::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::{Document, Outcome, text};
use super::access::is_denied;
use super::mapping::{ARRIVED, WORDS};

/// How much of a client's headers and body is sent as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Open {
    /// Objects; anything else becomes `{"value":…}`, since Elasticsearch wants one type a field.
    Objects,
    /// Nothing: `{"value":"…"}` holds it as a text, or as the pieces of one. Elasticsearch refuses some JSON that is sound,
    /// as a key that comes twice, or a key with a zero byte; OpenSearch's `flat_object` also long values and keys.
    Nothing,
}

/// Bytes of a piece of text: a term of Lucene has at most 32,766, with the path to it before it.
const PIECE_BYTES: usize = 30_000;

/// The two lines of a document for this index. With `words` it carries them in a field of that name, and before it when
/// it arrived where that is given.
pub(super) fn lines(document: &Document, index: &str, words: bool, arrived_ms: Option<i64>, open: Open) -> String {
    let action = serde_json::json!({"index": {"_index": index, "_id": document.id}});
    // line breaks stand only between the tokens of a JSON text, never in its strings
    let mut source = wrapped(document.json.get(), open).replace(['\n', '\r'], " ");
    if words {
        let found = text::words_of_json(document.json.get());
        source.truncate(source.trim_end().len().saturating_sub(1)); // the last brace
        let comma = if source.trim_end().ends_with('{') { "" } else { "," };
        let arrived = arrived_ms.map_or_else(String::new, |ms| format!("\"{ARRIVED}\":{ms},"));
        source = format!("{source}{comma}{arrived}\"{WORDS}\":\"{found}\"}}");
    }
    format!("{action}\n{source}\n")
}

/// The event as it came: [`lines`] backwards.
pub(super) fn without_words(source: Box<RawValue>) -> Box<RawValue> {
    let json = source.get();
    let marker = format!("\"{WORDS}\":\"");
    let Some(at) = json.rfind(&marker) else { return source };
    let is_last = json[at + marker.len()..].strip_suffix("\"}").is_some_and(|words| !words.contains('"'));
    if !is_last {
        return source;
    }
    let before = without_arrival(&json[..at]);
    let before = before.strip_suffix(',').unwrap_or(before);
    RawValue::from_string(format!("{before}}}")).unwrap_or(source)
}

/// Without `"gomsArrived":1,` at its end.
fn without_arrival(json: &str) -> &str {
    let Some((before, ms)) = json.rsplit_once(&format!("\"{ARRIVED}\":")) else { return json };
    let is_last = ms.strip_suffix(',').is_some_and(|ms| !ms.is_empty() && ms.bytes().all(|byte| byte.is_ascii_digit()));
    if is_last { before } else { json }
}

fn wrapped(json: &str, open: Open) -> String {
    #[derive(Deserialize)]
    struct Event<'j> {
        #[serde(borrow)]
        request: Option<&'j RawValue>,
        #[serde(borrow)]
        span: Option<&'j RawValue>,
    }
    #[derive(Default, Deserialize)]
    struct Span<'j> {
        #[serde(borrow)]
        attributes: Option<&'j RawValue>,
        #[serde(borrow)]
        resource: Option<&'j RawValue>,
    }
    #[derive(Default, Deserialize)]
    struct Request<'j> {
        #[serde(borrow)]
        headers: Option<&'j RawValue>,
        #[serde(borrow)]
        body: Option<&'j RawValue>,
    }
    let Ok(Event { request, span }) = serde_json::from_str(json) else { return json.to_owned() };
    let Request { headers, body } =
        request.and_then(|request| serde_json::from_str(request.get()).ok()).unwrap_or_default();
    let mut open_values = vec![headers, body];
    match span {
        Some(object) if object.get().starts_with('{') => {
            let Span { attributes, resource } = serde_json::from_str(object.get()).unwrap_or_default();
            open_values.extend([attributes, resource]);
        }
        other => open_values.push(other), // none of a program that goms takes spans of
    }
    let mut values: Vec<&str> = open_values.into_iter().flatten().map(RawValue::get).collect();
    values.retain(|value| open == Open::Nothing || !value.starts_with('{'));
    values.sort_by_key(|value| value.as_ptr());
    let mut made = String::with_capacity(json.len() + 32);
    let mut done = 0;
    for value in values {
        // a part of `json`, so this is its place there
        let start = value.as_ptr() as usize - json.as_ptr() as usize;
        made.push_str(&json[done..start]);
        made.push_str("{\"value\":");
        match open {
            Open::Objects => made.push_str(value),
            Open::Nothing => made.push_str(&in_pieces(value).to_string()),
        }
        made.push('}');
        done = start + value.len();
    }
    made.push_str(&json[done..]);
    made
}

/// A text as JSON, where it is long as an array of its pieces.
fn in_pieces(text: &str) -> Value {
    if text.len() <= PIECE_BYTES {
        return Value::from(text);
    }
    let (mut pieces, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let mut end = rest.len().min(PIECE_BYTES);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, behind) = rest.split_at(end);
        pieces.push(piece);
        rest = behind;
    }
    Value::from(pieces)
}

/// The answer to a bulk request.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    /// One a document, in order, each under the name of its action.
    pub items: Vec<HashMap<String, Item>>,
}

/// What became of one document.
#[derive(Debug, Deserialize)]
pub(super) struct Item {
    status: u16,
    #[serde(default)]
    error: Value,
}

impl Item {
    /// Whether we may not write there.
    pub fn is_denied(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| is_denied(status, Some(&self.error)))
    }

    /// Why it was not stored.
    pub fn reason(&self) -> String {
        reason(&self.error)
    }

    /// Whose fault it is: the document's, or the server's for now.
    pub fn outcome(&self) -> Outcome {
        match self.status {
            200..=299 => Outcome::Stored,
            400 | 413 if !is_for_now(&self.error) => Outcome::Refused(reason(&self.error)),
            status => Outcome::Later(format!("{status} {}", reason(&self.error))),
        }
    }
}

/// Whether a 400 says nothing about the document.
pub(super) fn is_for_now(error: &Value) -> bool {
    let kinds = [
        "validation_exception",
        "index_closed_exception",
        "cluster_block_exception",
        // an index took the alias's name after the indices were looked at
        "invalid_alias_name_exception",
    ];
    // of `illegal_argument_exception`, which can be about a document, too
    let reasons = ["no write index is defined", "explicit index in bulk is not allowed"];
    let reason = error["reason"].as_str().unwrap_or_default();
    kinds.iter().any(|kind| error["type"] == *kind) || reasons.iter().any(|part| reason.contains(part))
}

/// `type: reason: inner reason` of an error that the server reports.
pub(super) fn reason(error: &Value) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let mut at = error;
    if let Some(text) = error.as_str() {
        return text.to_owned();
    }
    parts.extend(at["type"].as_str());
    // the chain is short; the bound is for an answer that is not from Elasticsearch
    for _ in 0..5 {
        parts.extend(at["reason"].as_str());
        at = &at["caused_by"];
    }
    // a search says there what its shards found
    parts.extend(error["root_cause"][0]["reason"].as_str().filter(|cause| !parts.contains(cause)));
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Fields;

    fn document(json: &str) -> Document {
        let json = RawValue::from_string(json.to_owned()).expect("valid");
        Document { id: "7".to_owned(), json, fields: Fields::default() }
    }

    #[test]
    fn words_come_and_go() {
        for json in [r#"{"a":"x \"gomsWords\":\"y","n":1.10}"#, "{}", r#"{ "request":{"body":{"a":1e400}} }"#] {
            for arrived in [None, Some(1_795_000_000_000)] {
                let lines = lines(&document(json), "i", true, arrived, Open::Objects);
                let source = lines.lines().nth(1).expect("two lines");
                assert_eq!(source.contains(",\"gomsArrived\":1795000000000,"), arrived.is_some() && json != "{}");
                let source = RawValue::from_string(source.to_owned()).expect("still JSON");
                let back = without_words(source);
                assert_eq!(back.get().replace(' ', ""), json.replace(' ', ""));
            }
        }
    }

    #[test]
    fn a_body_that_is_no_object_is_wrapped() {
        for (body, sent) in [
            ("[1,\n2]", r#"{"value":[1, 2]}"#),
            ("\"a\"", r#"{"value":"a"}"#),
            ("12345678901234567890", r#"{"value":12345678901234567890}"#),
            ("{}", "{}"),
            ("null", "null"),
        ] {
            let document = document(&format!(r#"{{"request":{{"headers":{{}},"body":{body}}}}}"#));
            let lines = lines(&document, "i", false, None, Open::Objects);
            let expected = format!(
                "{{\"index\":{{\"_id\":\"7\",\"_index\":\"i\"}}}}\n{{\"request\":{{\"headers\":{{}},\"body\":{sent}}}}}\n"
            );
            assert_eq!(lines, expected);
        }
    }

    #[test]
    fn all_of_it_can_be_a_text() {
        let document = document(r#"{"request":{"body":{"a":"1","a":2},"headers":{}}}"#);
        let expected = r#"{"request":{"body":{"value":"{\"a\":\"1\",\"a\":2}"},"headers":{"value":"{}"}}}"#;
        assert_eq!(lines(&document, "i", false, None, Open::Nothing).lines().nth(1), Some(expected));
        let span = self::document(r#"{"span":{"kind":"client","attributes":{"a":1},"resource":{"b":2}}}"#);
        let expected =
            r#"{"span":{"kind":"client","attributes":{"value":"{\"a\":1}"},"resource":{"value":"{\"b\":2}"}}}"#;
        assert_eq!(lines(&span, "i", false, None, Open::Nothing).lines().nth(1), Some(expected));
        let odd = lines(&self::document(r#"{"span":7}"#), "i", false, None, Open::Objects);
        assert_eq!(odd.lines().nth(1), Some(r#"{"span":{"value":7}}"#));
        let long = "€".repeat(20_001);
        let pieces = in_pieces(&long);
        let pieces: Vec<&str> = pieces.as_array().expect("pieces").iter().filter_map(Value::as_str).collect();
        assert_eq!((pieces.len(), pieces.concat()), (3, long));
    }

    #[test]
    fn each_status_has_its_outcome() {
        let outcome = |json: &str| serde_json::from_str::<Item>(json).expect("an item").outcome();
        assert_eq!(outcome(r#"{"status":201}"#), Outcome::Stored);
        assert_eq!(
            outcome(r#"{"status":400,"error":{"type":"mapper","reason":"bad","caused_by":{"reason":"why"}}}"#),
            Outcome::Refused("mapper: bad: why".to_owned())
        );
        for status in [401, 403, 404, 409, 429, 500, 503] {
            assert!(matches!(outcome(&format!(r#"{{"status":{status}}}"#)), Outcome::Later(_)), "{status}");
        }
    }
}

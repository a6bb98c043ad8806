//! Writing: documents to the lines of bulk requests, in one buffer without a copy between.

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::Document;
use super::super::text::WordsOfJson;
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

/// The lines of documents on their way, and where those of each end.
#[derive(Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    ends: Vec<usize>,
    words: WordsOfJson,
}

/// The lines of some documents, as a body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bulk {
    bytes: Bytes,
    ends: Vec<usize>,
}

impl Lines {
    /// Room for documents with so many bytes of JSON.
    pub fn with_room_for(bytes: usize) -> Self {
        // words are about half as much again
        Self { buffer: Vec::with_capacity(bytes / 2 * 3), ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Adds the two lines of a document for this index. With `words` it carries them in a field of that name, and before
    /// it when it arrived where that is given.
    pub fn push(&mut self, document: &Document, index: &str, words: bool, arrived_ms: Option<i64>, open: Open) {
        let out = &mut self.buffer;
        out.extend_from_slice(b"{\"index\":{\"_index\":\"");
        out.extend_from_slice(index.as_bytes()); // a name of an index needs no escapes
        out.extend_from_slice(b"\",\"_id\":");
        push_text(out, &document.id);
        out.extend_from_slice(b"}}\n");
        push_source(out, document.json.get(), open);
        if words {
            while out.last().is_some_and(u8::is_ascii_whitespace) {
                out.pop();
            }
            out.pop(); // the last brace
            while out.last().is_some_and(u8::is_ascii_whitespace) {
                out.pop();
            }
            if out.last() != Some(&b'{') {
                out.push(b',');
            }
            if let Some(ms) = arrived_ms {
                push_quoted(out, ARRIVED);
                out.push(b':');
                out.extend_from_slice(ms.to_string().as_bytes());
                out.push(b',');
            }
            push_quoted(out, WORDS);
            out.push(b':');
            // words hold letters and digits only
            push_quoted(out, self.words.of(document.json.get()));
            out.push(b'}');
        }
        out.push(b'\n');
        self.ends.push(out.len());
    }

    /// What was added since the last time.
    pub fn take(&mut self) -> Bulk {
        Bulk { bytes: std::mem::take(&mut self.buffer).into(), ends: std::mem::take(&mut self.ends) }
    }
}

impl Bulk {
    /// How many documents.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Their lines; shared, not copied.
    pub fn body(&self) -> Bytes {
        self.bytes.clone()
    }

    /// The same in two halves; of at least two documents.
    pub fn halves(&self) -> (Self, Self) {
        let middle = self.ends.len() / 2;
        let (first, second) = self.ends.split_at(middle);
        let cut = first.last().copied().unwrap_or_default();
        let second = second.iter().map(|end| end - cut).collect();
        (
            Self { bytes: self.bytes.slice(..cut), ends: first.to_vec() },
            Self { bytes: self.bytes.slice(cut..), ends: second },
        )
    }
}

fn push_quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// A text as JSON.
fn push_text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
        push_quoted(out, text);
    } else {
        out.extend_from_slice(Value::from(text).to_string().as_bytes());
    }
}

/// Without line breaks: they stand only between the tokens of a JSON text, never in its strings.
fn push_on_one_line(out: &mut Vec<u8>, json: &str) {
    let from = out.len();
    out.extend_from_slice(json.as_bytes());
    if memchr::memchr2(b'\n', b'\r', json.as_bytes()).is_some() {
        for byte in &mut out[from..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
}

fn push_source(out: &mut Vec<u8>, json: &str, open: Open) {
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
    if open == Open::Objects && has_objects(json) {
        return push_on_one_line(out, json);
    }
    let Ok(Event { request, span }) = serde_json::from_str(json) else { return push_on_one_line(out, json) };
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
    let mut done = 0;
    for value in values {
        // a part of `json`, so this is its place there
        let start = value.as_ptr() as usize - json.as_ptr() as usize;
        push_on_one_line(out, &json[done..start]);
        out.extend_from_slice(b"{\"value\":");
        match open {
            Open::Objects => push_on_one_line(out, value),
            Open::Nothing => out.extend_from_slice(in_pieces(value).to_string().as_bytes()),
        }
        out.push(b'}');
        done = start + value.len();
    }
    push_on_one_line(out, &json[done..]);
}

/// Whether headers and body surely are objects or nothing, told without parsing: an event as goms and the originals write
/// it has each key once in this form, outside of what a client sent. Where that is wrong the server refuses the event,
/// and it goes again with [`Open::Nothing`].
fn has_objects(json: &str) -> bool {
    let is_object = |key: &str| {
        let mut places = memmem::find_iter(json.as_bytes(), key).peekable();
        places.peek().is_some()
            && places.all(|at| {
                let value = &json.as_bytes()[at + key.len()..];
                value.starts_with(b"{") || value.starts_with(b"null")
            })
    };
    is_object("\"headers\":") && is_object("\"body\":")
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

/// The event as it came: [`Lines::push`] backwards.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Fields;

    fn document(json: &str) -> Document {
        let json = RawValue::from_string(json.to_owned()).expect("valid");
        Document { id: "7".to_owned(), json, fields: Fields::default() }
    }

    fn lines(document: &Document, words: bool, arrived_ms: Option<i64>, open: Open) -> String {
        let mut lines = Lines::default();
        lines.push(document, "i", words, arrived_ms, open);
        String::from_utf8(lines.take().body().to_vec()).expect("UTF-8")
    }

    fn source(document: &Document, open: Open) -> String {
        lines(document, false, None, open).lines().nth(1).expect("two lines").to_owned()
    }

    #[test]
    fn words_come_and_go() {
        for json in [
            r#"{"a":"x \"gomsWords\":\"y","n":1.10}"#,
            "{}",
            "{ }",
            "{\"a\":1\n}",
            r#"{ "request":{"body":{"a":1e400}} }"#,
        ] {
            for arrived in [None, Some(1_795_000_000_000)] {
                let lines = lines(&document(json), true, arrived, Open::Objects);
                let source = lines.lines().nth(1).expect("two lines");
                assert_eq!(source.contains("\"gomsArrived\":1795000000000,"), arrived.is_some());
                let source = RawValue::from_string(source.to_owned()).expect("still JSON");
                let back = without_words(source);
                assert_eq!(back.get().replace(' ', ""), json.replace([' ', '\n'], ""));
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
            ("{\"body\":[1]}", "{\"body\":[1]}"),
            ("null", "null"),
        ] {
            for (before, after) in [("", ""), ("\"body\": ", " ")] {
                let text = match before {
                    "" => format!(r#"{{"request":{{"headers":{{}},"body":{body}}}}}"#),
                    _ => format!(r#"{{"request":{{"headers":{{}},{before}{body}{after}}}}}"#),
                };
                let expected = text.replace(body, sent).replace('\n', " ");
                assert_eq!(source(&document(&text), Open::Objects), expected);
            }
        }
    }

    #[test]
    fn all_of_it_can_be_a_text() {
        let document = document(r#"{"request":{"body":{"a":"1","a":2},"headers":{}}}"#);
        let expected = r#"{"request":{"body":{"value":"{\"a\":\"1\",\"a\":2}"},"headers":{"value":"{}"}}}"#;
        assert_eq!(source(&document, Open::Nothing), expected);
        let span = self::document(r#"{"span":{"kind":"client","attributes":{"a":1},"resource":{"b":2}}}"#);
        let expected =
            r#"{"span":{"kind":"client","attributes":{"value":"{\"a\":1}"},"resource":{"value":"{\"b\":2}"}}}"#;
        assert_eq!(source(&span, Open::Nothing), expected);
        assert_eq!(source(&self::document(r#"{"span":7}"#), Open::Objects), r#"{"span":{"value":7}}"#);
        let long = "€".repeat(20_001);
        let pieces = in_pieces(&long);
        let pieces: Vec<&str> = pieces.as_array().expect("pieces").iter().filter_map(Value::as_str).collect();
        assert_eq!((pieces.len(), pieces.concat()), (3, long));
    }

    #[test]
    fn a_bulk_is_halved_between_documents() {
        let mut lines = Lines::default();
        let documents: Vec<Document> = (0..3).map(|at| document(&format!("{{\"n\":{at}}}"))).collect();
        for (number, document) in documents.iter().enumerate() {
            let document = Document { id: format!("a\"{number}"), ..document.clone() };
            lines.push(&document, "i", false, None, Open::Objects);
        }
        let line = |at: usize| format!("{{\"index\":{{\"_index\":\"i\",\"_id\":\"a\\\"{at}\"}}}}\n{{\"n\":{at}}}\n");
        let bulk = lines.take();
        assert!(lines.is_empty() && lines.bytes() == 0);
        let (first, second) = bulk.halves();
        assert_eq!((bulk.len(), first.len(), second.len()), (3, 1, 2));
        assert_eq!(first.body(), line(0));
        let (second, third) = second.halves();
        assert_eq!((second.body(), third.body()), (line(1).into(), line(2).into()));
    }
}

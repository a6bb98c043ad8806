//! A request's body: read within its limits, made JSON, and fitted to a handler's type.

use std::collections::HashMap;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::ServiceError;

/// Reads a whole body.
///
/// # Errors
/// 413 over `limit` bytes, 408 when it takes longer than `timeout`, 400 when the client breaks off.
pub(super) async fn read(
    headers: &HeaderMap,
    payload: &mut Payload,
    limit: usize,
    timeout: Duration,
) -> Result<Bytes, ServiceError> {
    if content_length(headers).is_some_and(|len| len > limit as u64) {
        discard(payload, limit).await;
        return Err(too_long(limit));
    }
    let all = async {
        let mut first: Option<Bytes> = None;
        let mut rest = BytesMut::new();
        let mut len = 0usize;
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|error| ServiceError::new(400, format!("cannot read the body: {error}")))?;
            len = len.saturating_add(chunk.len());
            if len > limit {
                discard(payload, limit).await;
                return Err(too_long(limit));
            }
            match &first {
                None => first = Some(chunk), // most bodies are one chunk, which needs no copy
                Some(head) => {
                    if rest.is_empty() {
                        rest.extend_from_slice(head);
                    }
                    rest.extend_from_slice(&chunk);
                }
            }
        }
        Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
    };
    match tokio::time::timeout(timeout, all).await {
        Ok(body) => body,
        Err(_) => Err(ServiceError::new(408, format!("the body did not arrive within {timeout:?}"))),
    }
}

/// How long a client may go on sending what nobody wants.
const DISCARD: Duration = Duration::from_secs(5);

/// Reads `limit` bytes at most of a body that was refused, so that a client that sends before it reads gets to see why.
pub(super) async fn discard(payload: &mut Payload, limit: usize) {
    let all = async {
        let mut len = 0usize;
        while let Some(Ok(chunk)) = payload.next().await {
            len = len.saturating_add(chunk.len());
            if len > limit {
                return;
            }
        }
    };
    if tokio::time::timeout(DISCARD, all).await.is_err() {
        log::debug!("a client sends a refused body slowly");
    }
}

/// The length that a request announces.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(super) fn too_long(limit: usize) -> ServiceError {
    ServiceError::new(413, format!("the body is longer than {limit} bytes; send less at once"))
}

/// A body as JSON: `{}` for none, an object of strings for a form (a repeated field is an array), JSON as it came.
///
/// # Errors
/// 400 with line and column when it is not JSON, 415 when it says that it is something else.
pub(super) fn to_json(headers: &HeaderMap, body: Bytes) -> Result<Bytes, ServiceError> {
    match Kind::of(headers) {
        _ if body.is_empty() => Ok(Bytes::from_static(b"{}")),
        Kind::Form => Ok(form_to_json(&body)),
        Kind::Json => {
            check(&body)?;
            Ok(body)
        }
        Kind::Unknown(name) => Err(ServiceError::new(
            415,
            format!("cannot read a body of type `{name}`; send application/json or application/x-www-form-urlencoded"),
        )),
    }
}

/// Whether a body says that it is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_TYPE) && matches!(Kind::of(headers), Kind::Json)
}

/// Whether these bytes are one JSON value.
pub(super) fn check(json: &[u8]) -> Result<(), ServiceError> {
    serde_json::from_slice::<&RawValue>(json)
        .map(|_| ())
        .map_err(|error| ServiceError::new(400, format!("the body is not JSON: {error}")))
}

enum Kind {
    Json,
    Form,
    Unknown(String),
}

impl Kind {
    fn of(headers: &HeaderMap) -> Self {
        let Some(name) = headers.get(CONTENT_TYPE) else { return Self::Json };
        let name = String::from_utf8_lossy(name.as_bytes());
        let name = name.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match name.as_str() {
            "" | "application/json" | "text/json" | "text/plain" => Self::Json,
            "application/x-www-form-urlencoded" => Self::Form,
            other if other.ends_with("+json") => Self::Json,
            _ => Self::Unknown(name),
        }
    }
}

/// `a=1&b=2&a=3` → `{"a":["1","3"],"b":"2"}`, in the order of first appearance.
fn form_to_json(form: &[u8]) -> Bytes {
    let mut order: Vec<String> = Vec::new();
    let mut fields: HashMap<String, Vec<String>> = HashMap::new();
    for (name, value) in url::form_urlencoded::parse(form) {
        let values = fields.entry(name.into_owned());
        if let std::collections::hash_map::Entry::Vacant(entry) = &values {
            order.push(entry.key().clone());
        }
        values.or_default().push(value.into_owned());
    }
    let mut json = String::with_capacity(form.len() + 16);
    json.push('{');
    for (index, name) in order.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        push_string(&mut json, name);
        json.push(':');
        match fields.get(name).map(Vec::as_slice) {
            Some([one]) => push_string(&mut json, one),
            many => {
                json.push('[');
                for (index, value) in many.into_iter().flatten().enumerate() {
                    if index > 0 {
                        json.push(',');
                    }
                    push_string(&mut json, value);
                }
                json.push(']');
            }
        }
    }
    json.push('}');
    Bytes::from(json)
}

fn push_string(json: &mut String, text: &str) {
    json.push_str(&serde_json::Value::from(text).to_string());
}

/// Fits JSON to a handler's type.
///
/// # Errors
/// 400 that names the field, what is wrong with it, and line and column.
pub(super) fn fit<B: DeserializeOwned>(json: &[u8]) -> Result<B, ServiceError> {
    crate::json::value(json).map_err(|error| {
        let path = path_at(json, error.line(), error.column());
        let place = if path.is_empty() { String::new() } else { format!(" at `{path}`") };
        ServiceError::new(400, format!("the body does not fit{place}: {error}"))
    })
}

/// The path (`items[2].name`) of the value that ends at this position of a JSON text (line and column from 1, columns in
/// bytes, as serde_json counts them); empty for the whole.
fn path_at(json: &[u8], line: usize, column: usize) -> String {
    let line_start: usize = json.split(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(|l| l.len() + 1).sum();
    let end = line_start.saturating_add(column).min(json.len());
    let mut stack: Vec<Place> = Vec::new();
    let mut at = 0;
    let mut text: Option<&[u8]> = None; // the string that was read last
    while at < end {
        match json[at] {
            b'"' => {
                let start = at + 1;
                at = start;
                while at < json.len() && json[at] != b'"' {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
                text = json.get(start..at);
            }
            b'{' => stack.push(Place::Object(None)),
            b'[' => stack.push(Place::Array(0)),
            b'}' | b']' => drop(stack.pop()),
            b':' => {
                if let Some(Place::Object(key)) = stack.last_mut() {
                    *key = text.map(|key| String::from_utf8_lossy(key).into_owned());
                }
            }
            b',' => match stack.last_mut() {
                Some(Place::Object(key)) => *key = None,
                Some(Place::Array(index)) => *index += 1,
                None => {}
            },
            _ => {}
        }
        at += 1;
    }
    let mut path = String::new();
    for place in stack {
        match place {
            Place::Object(Some(key)) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&key);
            }
            Place::Object(None) => {}
            Place::Array(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

enum Place {
    Object(Option<String>),
    Array(usize),
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Order {
        user: String,
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Item {
        count: u32,
    }

    fn fault(json: &str) -> String {
        fit::<Order>(json.as_bytes()).unwrap_err().message().to_owned()
    }

    #[test]
    fn a_body_that_does_not_fit_names_field_and_position() {
        assert_eq!(
            fault(r#"{"user":"a","items":[{"count":1},{"count":"x"}]}"#),
            r#"the body does not fit at `items[1].count`: invalid type: string "x", expected u32 at line 1 column 45"#
        );
        assert_eq!(fault(r#"{"user":"a"}"#), "the body does not fit: missing field `items` at line 1 column 12");
        assert_eq!(
            fault("{\n  \"user\": 7}"),
            "the body does not fit at `user`: invalid type: integer `7`, expected a string at line 2 column 11"
        );
        assert_eq!(
            fault(r#"{"user":"q\"{[","items":[{}]}"#),
            "the body does not fit at `items[0]`: missing field `count` at line 1 column 27"
        );
    }

    #[test]
    fn forms_become_objects_of_strings() {
        let json = |form: &str| String::from_utf8(form_to_json(form.as_bytes()).to_vec()).unwrap();
        assert_eq!(json("a=1&b=2&a=3"), r#"{"a":["1","3"],"b":"2"}"#);
        assert_eq!(json("name=%26+%2B%25%3B&empty=&flag"), r#"{"name":"& +%;","empty":"","flag":""}"#);
        assert_eq!(json("q=%22%5C%0A&%C3%A9=%C3%A9"), r#"{"q":"\"\\\n","é":"é"}"#);
    }

    #[test]
    fn the_path_of_any_position_is_found_without_panic() {
        let json = r#"{"a":[1,{"b":"\"x"}],"c":"\"#.as_bytes();
        for line in 0..4 {
            for column in 0..40 {
                assert!(path_at(json, line, column).len() < 20);
            }
        }
    }
}

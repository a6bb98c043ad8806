//! Go Micro's messages `go.api.Request` and `go.api.Response`: an HTTP request and its answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A name with its values.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pair {
    /// The name again.
    #[prost(string, tag = "1")]
    pub key: String,
    /// All of its values.
    #[prost(string, repeated, tag = "2")]
    pub values: Vec<String>,
}

/// A request.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Request {
    /// `GET`, `POST`, …
    #[prost(string, tag = "1")]
    pub method: String,
    /// Its path.
    #[prost(string, tag = "2")]
    pub path: String,
    /// Its header, names as `X-Request-Id`.
    #[prost(btree_map = "string, message", tag = "3")]
    pub header: BTreeMap<String, Pair>,
    /// Its query.
    #[prost(btree_map = "string, message", tag = "4")]
    pub get: BTreeMap<String, Pair>,
    /// Its form.
    #[prost(btree_map = "string, message", tag = "5")]
    pub post: BTreeMap<String, Pair>,
    /// Its body, where that is no form.
    #[prost(string, tag = "6")]
    pub body: String,
    /// Path and query.
    #[prost(string, tag = "7")]
    pub url: String,
}

/// An answer.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Response {
    /// Its status; 0 is 200.
    #[prost(int32, tag = "1")]
    pub status_code: i32,
    /// Its header.
    #[prost(btree_map = "string, message", tag = "2")]
    pub header: BTreeMap<String, Pair>,
    /// Its body.
    #[prost(string, tag = "3")]
    pub body: String,
}

/// A request that was published.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Event {
    /// What happened: what the path says after the topic.
    #[prost(string, tag = "1")]
    pub name: String,
    /// `<topic>-<name>-<uuid>`.
    #[prost(string, tag = "2")]
    pub id: String,
    /// When, in seconds of Unix time.
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
    /// The request's header.
    #[prost(btree_map = "string, message", tag = "4")]
    pub header: BTreeMap<String, Pair>,
    /// Its body; of a GET its query, as a JSON object of lists.
    #[prost(string, tag = "5")]
    pub data: String,
}

/// Adds a value to a name.
pub(super) fn add(to: &mut BTreeMap<String, Pair>, name: &str, value: String) {
    let pair = to.entry(name.to_owned()).or_insert_with(|| Pair { key: name.to_owned(), values: Vec::new() });
    pair.values.push(value);
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn the_numbers_of_the_fields_are_go_micros() {
        let mut request = Request { method: "GET".into(), body: "b".into(), url: "/u".into(), ..Request::default() };
        add(&mut request.get, "n", "1".into());
        add(&mut request.get, "n", "2".into());
        // 1: GET, 4: {1: n, 2: {1: n, 2: 1, 2: 2}}, 6: b, 7: /u
        let expected = b"\x0a\x03GET\x22\x0e\x0a\x01n\x12\x09\x0a\x01n\x12\x011\x12\x012\x32\x01b\x3a\x02/u";
        assert_eq!(request.encode_to_vec(), expected);
        let answer = Response::decode(&b"\x08\xc8\x01\x1a\x02ok"[..]).unwrap();
        assert_eq!((answer.status_code, answer.body.as_str()), (200, "ok"));
    }
}

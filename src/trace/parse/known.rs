//! The fields that are read of an event, and their values.

use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// What is read of an event. Each part may be missing or of another type, which then counts as missing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Known<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    pub request_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub request: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub event: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub time: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub service_name: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub service_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub trace: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub event_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub trace_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub status: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub node: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub duration_ns: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub time_ms: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub action: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub caller: Option<&'a RawValue>,
}

/// Tells `null` (a field that is there) from no field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The text of a field; `None` where it is no text.
pub(super) fn text(raw: Option<&RawValue>) -> Option<String> {
    let json = raw?.get();
    match json.strip_prefix('"').and_then(|json| json.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Some(plain.to_owned()),
        _ => serde_json::from_str(json).ok(),
    }
}

/// A field of another type.
pub(super) fn value<T: DeserializeOwned>(raw: Option<&RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

/// `url` of a request, or nothing. What comes behind it, as headers and body, is not read.
pub(super) fn url_of(request: Option<&RawValue>) -> String {
    struct Search(Option<String>);
    impl<'de> Visitor<'de> for &mut Search {
        type Value = ();
        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a request")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<&RawValue>()? {
                if key.get() == "\"url\"" {
                    self.0 = text(Some(map.next_value()?));
                    return Ok(()); // the reader complains of the rest, which was read as a part of the event already
                }
                map.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }
    let mut search = Search(None);
    if let Some(request) = request {
        serde_json::Deserializer::from_str(request.get()).deserialize_map(&mut search).ok();
    }
    search.0.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn texts_are_read_as_json_says() {
        for (json, expected) in [
            (r#""a b""#, Some("a b")),
            (r#""""#, Some("")),
            (r#""a\"b\u00e9\\""#, Some("a\"bé\\")),
            ("7", None),
            ("null", None),
            (r#"["a"]"#, None),
        ] {
            assert_eq!(text(Some(raw(json))).as_deref(), expected, "{json}");
        }
        assert_eq!(text(None), None);
    }

    #[test]
    fn a_url_is_found_wherever_it_stands() {
        for (json, url) in [
            (r#"{"method":"GET","url":"/a\/b","body":{"url":"/c"}}"#, "/a/b"),
            (r#"{"body":{"url":"/c"},"headers":{},"url":"/a"}"#, "/a"),
            (r#"{"body":{"url":"/c"},"n":1e400}"#, ""),
            (r#"{"url":7}"#, ""),
            ("[1]", ""),
            ("null", ""),
        ] {
            assert_eq!(url_of(Some(raw(json))), url, "{json}");
        }
        assert_eq!(url_of(None), "");
    }
}

//! Forms become JSON objects, and JSON objects become forms. A value never loses or gains a byte on the way.

use std::borrow::Cow;
use std::collections::HashMap;
use std::convert::Infallible;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::respond::Failure;

/// A form may have so many fields: one of two bytes in the body takes over a hundred in memory.
pub(super) const MAX_FIELDS: usize = 65_536;

/// A field of a form.
#[derive(Serialize)]
#[serde(untagged)]
enum Field<'a> {
    Text(Cow<'a, str>),
    #[serde(rename_all = "camelCase")]
    File {
        filename: String,
        content_type: String,
        size: usize,
    },
}

/// Fields in order of their first appearance; one that comes again becomes an array.
#[derive(Default)]
struct Fields<'a> {
    index: HashMap<Cow<'a, str>, usize>,
    count: usize,
    values: Vec<(Cow<'a, str>, Vec<Field<'a>>)>,
}

impl<'a> Fields<'a> {
    fn add(&mut self, name: Cow<'a, str>, field: Field<'a>) -> Result<(), Failure> {
        self.count += 1;
        if self.count > MAX_FIELDS {
            return Err(Failure::Fields { limit: MAX_FIELDS });
        }
        match self.index.get(&name) {
            Some(&known) => self.values[known].1.push(field),
            None => {
                self.index.insert(name.clone(), self.values.len());
                self.values.push((name, vec![field]));
            }
        }
        Ok(())
    }

    fn json(&self) -> Bytes {
        let map = self.values.iter().map(|(name, fields)| match fields.as_slice() {
            [one] => (name, One::Single(one)),
            many => (name, One::Many(many)),
        });
        let mut out = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut out);
        // writing strings and numbers into memory cannot fail
        match serde::Serializer::collect_map(&mut serializer, map) {
            Ok(()) => Bytes::from(out),
            Err(_) => Bytes::from_static(b"{}"),
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum One<'a> {
    Single(&'a Field<'a>),
    Many(&'a [Field<'a>]),
}

/// `a=1&a=2&b=x+y` → `{"a":["1","2"],"b":"x y"}`
///
/// # Errors
/// 413 when it has more than [`MAX_FIELDS`].
pub(super) fn urlencoded_to_json(body: &[u8]) -> Result<Bytes, Failure> {
    let mut fields = Fields::default();
    for (name, value) in url::form_urlencoded::parse(body) {
        fields.add(name, Field::Text(value))?;
    }
    Ok(fields.json())
}

/// Parts with a file name become `{"filename":…,"contentType":…,"size":…}`, others text.
///
/// # Errors
/// 400 when it is no proper multipart body, 413 when it has more than [`MAX_FIELDS`].
pub(super) async fn multipart_to_json(body: Bytes, content_type: &str) -> Result<Bytes, Failure> {
    let bad = |error: multer::Error| Failure::BadRequest(format!("the multipart body cannot be read: {error}"));
    let boundary = multer::parse_boundary(content_type).map_err(bad)?;
    let whole = futures_util::stream::once(std::future::ready(Ok::<_, Infallible>(body)));
    let mut parts = multer::Multipart::new(whole, boundary);
    let mut fields = Fields::default();
    while let Some(part) = parts.next_field().await.map_err(bad)? {
        let Some(name) = part.name().map(str::to_owned) else {
            return Err(Failure::BadRequest("a part of the multipart body has no name".to_owned()));
        };
        let filename = part.file_name().map(str::to_owned);
        let kind = part.content_type().map_or_else(|| "application/octet-stream".to_owned(), ToString::to_string);
        let content = part.bytes().await.map_err(bad)?;
        let field = match filename {
            Some(filename) => Field::File { filename, content_type: kind, size: content.len() },
            None => Field::Text(Cow::Owned(String::from_utf8_lossy(&content).into_owned())),
        };
        fields.add(Cow::Owned(name), field)?;
    }
    Ok(fields.json())
}

/// A JSON object as a properly escaped form: strings as they are, numbers and booleans as text, `null` empty, arrays as
/// repeated keys, objects as JSON text.
///
/// # Errors
/// 400 when it is no object.
pub(super) fn json_to_urlencoded(json: &[u8]) -> Result<Bytes, Failure> {
    let no_object = |_| Failure::BadRequest("this action's service takes a form: send a JSON object".to_owned());
    let mut reader = serde_json::Deserializer::from_slice(json);
    let pairs = reader.deserialize_map(Pairs).map_err(no_object)?;
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in &pairs {
        if value.get().starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(no_object)?;
            for item in items {
                form.append_pair(name, &text(item));
            }
        } else {
            form.append_pair(name, &text(value));
        }
    }
    Ok(Bytes::from(form.finish()))
}

fn text(value: &RawValue) -> Cow<'_, str> {
    match value.get() {
        "null" => Cow::Borrowed(""),
        string if string.starts_with('"') => {
            serde_json::from_str::<String>(string).map_or(Cow::Borrowed(string), Cow::Owned)
        }
        other => Cow::Borrowed(other),
    }
}

/// An object's members in their order, values as they were written.
struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defect_06_values_keep_every_byte() {
        let json = |form: &str| String::from_utf8(urlencoded_to_json(form.as_bytes()).unwrap().to_vec()).unwrap();
        assert_eq!(json("a=x%26y%2Bz%25%3B%3D&b=c;d+e"), r#"{"a":"x&y+z%;=","b":"c;d e"}"#);
        assert_eq!(json("a=1&b=2&a=3&c"), r#"{"a":["1","3"],"b":"2","c":""}"#);
        assert_eq!(json(""), "{}");
        assert_eq!(json("%zz=%ff"), "{\"%zz\":\"\u{fffd}\"}");
    }

    #[test]
    fn a_form_of_very_many_fields_is_refused() {
        let form = |count: usize| urlencoded_to_json("a&".repeat(count).as_bytes()).map_err(|error| error.status());
        assert!(form(MAX_FIELDS).is_ok());
        assert_eq!(form(MAX_FIELDS + 1).unwrap_err(), 413);
    }

    #[test]
    fn objects_become_forms() {
        let form =
            |json: &str| json_to_urlencoded(json.as_bytes()).map(|form| String::from_utf8(form.to_vec()).unwrap());
        assert_eq!(
            form(r#" {"a":"x&y+z%; é","n":12345678901234567890.10,"t":true,"o":null,"l":[1,"b"],"m":{"x":1}} "#)
                .unwrap(),
            "a=x%26y%2Bz%25%3B+%C3%A9&n=12345678901234567890.10&t=true&o=&l=1&l=b&m=%7B%22x%22%3A1%7D"
        );
        assert_eq!(form("[1]").unwrap_err().status(), 400);
        assert_eq!(form("{}").unwrap(), "");
    }
}

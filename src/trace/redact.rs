//! What events do not show: the values of some headers, query parameters and parts of JSON bodies.
//!
//! Names are compared without regard to case, since programs read them so (Go's JSON decoder, for one), and too much
//! hidden is better than too little.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What stands in place of a value.
pub const REDACTED: &str = "[redacted]";

/// What is hidden besides the call key, which always is.
#[derive(Clone, Debug, Default)]
pub struct Redact {
    /// Names of headers.
    pub headers: Vec<String>,
    /// Names of query parameters, decoded.
    pub query: Vec<String>,
    /// Places in JSON bodies.
    pub body: Vec<BodyPath>,
}

/// A place in a JSON body: `user.card.number`, `items[*].secret`, with `$.` in front or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Elements,
}

impl BodyPath {
    /// Reads a path.
    ///
    /// # Errors
    /// What is wrong with it, for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = match text.strip_prefix('$') {
            Some(rest) => rest.strip_prefix('.').or_else(|| rest.starts_with('[').then_some(rest)),
            None => Some(text),
        };
        let mut steps = Vec::new();
        for (index, part) in rest.unwrap_or_default().split('.').enumerate() {
            let (name, elements) = match part.find('[') {
                Some(at) => part.split_at(at),
                None => (part, ""),
            };
            let bad = |letter: char| "]*'\"".contains(letter) || letter.is_whitespace() || letter.is_control();
            // a list as the whole body begins with `[*]`
            let is_nameless_list = index == 0 && !elements.is_empty();
            if name.contains(bad) || (name.is_empty() && !is_nameless_list) || !elements.replace("[*]", "").is_empty() {
                return Err("is no path into a JSON body; write for example `password`, `user.card.number` or \
                            `items[*].secret` (keys with dots between, `[*]` for each element of a list)"
                    .to_owned());
            }
            steps.extend((!name.is_empty()).then(|| Step::Key(name.to_owned())));
            steps.extend((0..elements.len() / "[*]".len()).map(|_| Step::Elements));
        }
        Ok(Self(steps))
    }
}

impl fmt::Display for BodyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(name) if index == 0 => f.write_str(name)?,
                Step::Key(name) => write!(f, ".{name}")?,
                Step::Elements => f.write_str("[*]")?,
            }
        }
        Ok(())
    }
}

impl Redact {
    /// Whether a header's value is hidden.
    pub(super) fn hides_header(&self, name: &str) -> bool {
        is_call_key(name) || self.headers.iter().any(|secret| secret.eq_ignore_ascii_case(name))
    }

    /// A query without the values of hidden parameters; everything else stays as it was written.
    #[must_use]
    pub fn query<'a>(&self, query: &'a str) -> Cow<'a, str> {
        let hides = |part: &str| {
            part.split_once('=').is_some_and(|(name, _)| {
                let name = decoded(name);
                // `token[]` and `token[0]` are `token` to many programs
                let name = name.split('[').next().unwrap_or_default();
                is_call_key(name) || self.query.iter().any(|secret| secret.eq_ignore_ascii_case(name))
            })
        };
        if !query.split('&').any(hides) {
            return Cow::Borrowed(query);
        }
        let parts = query.split('&').map(|part| match part.split_once('=') {
            Some((name, _)) if hides(part) => format!("{name}={REDACTED}"),
            _ => part.to_owned(),
        });
        Cow::Owned(parts.collect::<Vec<_>>().join("&"))
    }

    /// A JSON body without what its paths name; the rest keeps its order, its duplicates and its digits. `None` for a
    /// body that cannot be read, and so must not be shown either. Nothing is read where no path is set.
    pub(super) fn body(&self, json: Bytes) -> Option<Bytes> {
        if self.body.is_empty() || json.is_empty() {
            return Some(json);
        }
        let paths: Vec<&[Step]> = self.body.iter().map(|path| &*path.0).collect();
        let mut out = Vec::with_capacity(json.len());
        let has_changed = walk(serde_json::from_slice(&json).ok()?, &paths, &mut out).ok()?;
        Some(if has_changed { out.into() } else { json })
    }
}

/// Appends a value without what the paths name, and tells whether it hid anything. As deep as the longest path at most.
fn walk(value: &RawValue, paths: &[&[Step]], out: &mut Vec<u8>) -> serde_json::Result<bool> {
    if paths.iter().any(|path| path.is_empty()) {
        out.push(b'"');
        out.extend_from_slice(REDACTED.as_bytes());
        out.push(b'"');
        return Ok(true);
    }
    let text = value.get();
    let mut has_changed = false;
    match text.as_bytes().first() {
        Some(b'{') if paths.iter().any(|path| matches!(path[0], Step::Key(_))) => {
            let entries: Entries<'_> = serde_json::from_str(text)?;
            out.push(b'{');
            for (index, (key, inner)) in entries.0.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(key.get().as_bytes());
                out.push(b':');
                // a key that is no text (half a surrogate pair) is none of ours
                let name: String = serde_json::from_str(key.get()).unwrap_or_default();
                let goes_on = |path: &&&[Step]| matches!(&path[0], Step::Key(key) if key.eq_ignore_ascii_case(&name));
                let below: Vec<&[Step]> = paths.iter().filter(goes_on).map(|path| &path[1..]).collect();
                has_changed |= walk(inner, &below, out)?;
            }
            out.push(b'}');
        }
        Some(b'[') if paths.iter().any(|path| path[0] == Step::Elements) => {
            let below: Vec<&[Step]> =
                paths.iter().filter(|path| path[0] == Step::Elements).map(|path| &path[1..]).collect();
            out.push(b'[');
            for (index, inner) in serde_json::from_str::<Vec<&RawValue>>(text)?.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                has_changed |= walk(inner, &below, out)?;
            }
            out.push(b']');
        }
        _ => out.extend_from_slice(text.as_bytes()),
    }
    Ok(has_changed)
}

/// An object's keys and values as they stand, duplicates included.
struct Entries<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Collect<'a> {
            type Value = Entries<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries<'a>, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect(PhantomData))
    }
}

/// `Call-Service-Key` in any spelling, also `call_service_key`, which CGI-like programs read as the same name.
fn is_call_key(name: &str) -> bool {
    let letters = |text: &'static str| text.bytes().filter(|byte| *byte != b'-');
    let own = name.bytes().filter(|byte| !b"-_".contains(byte)).map(|byte| byte.to_ascii_lowercase());
    own.eq(letters(super::CALL_KEY_HEADER))
}

/// A name in a query without its percent signs; what is no text afterwards is shown as near as can be.
fn decoded(name: &str) -> Cow<'_, str> {
    if !name.contains(['%', '+']) {
        return Cow::Borrowed(name);
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        let digit = |at: usize| tail.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        (rest, _) = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => (&tail[2..], bytes.push((high * 16 + low) as u8)),
            (b'+', _, _) => (tail, bytes.push(b' ')),
            _ => (tail, bytes.push(*first)),
        };
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(query: &[&str], body: &[&str]) -> Redact {
        Redact {
            headers: vec!["x-secret".into()],
            query: query.iter().map(ToString::to_string).collect(),
            body: body.iter().map(|path| BodyPath::parse(path).expect(path)).collect(),
        }
    }

    fn shown(body: &str, paths: &[&str]) -> Option<String> {
        let shown = rules(&[], paths).body(Bytes::from(body.to_owned()))?;
        Some(String::from_utf8(shown.to_vec()).expect("text"))
    }

    #[test]
    fn paths_hide_what_they_name_and_nothing_else() {
        const HIDDEN: &str = r#""[redacted]""#;
        for (paths, body, expected) in [
            (
                &["password"][..],
                r#"{"z":1.10,"password":"p","a":12345678901234567890}"#,
                r#"{"z":1.10,"password":#,"a":12345678901234567890}"#,
            ),
            (&["$.password"], r#"{"password":{"old":1,"new":[2]}}"#, r#"{"password":#}"#),
            (
                &["user.card.number"],
                r#"{"user":{"name":"n","card":{"number":4111,"cvc":1}}}"#,
                r#"{"user":{"name":"n","card":{"number":#,"cvc":1}}}"#,
            ),
            (
                &["items[*].secret"],
                r#"{"items":[{"secret":1},{"open":2},3,[],{"secret":null}]}"#,
                r#"{"items":[{"secret":#},{"open":2},3,[],{"secret":#}]}"#,
            ),
            (&["$[*].s", "[*][*].t"], r#"[{"s":1,"t":2},[{"s":3,"t":4}]]"#, r#"[{"s":#,"t":2},[{"s":3,"t":#}]]"#),
            (&["list[*]"], r#"{"list":[1,{"a":2}]}"#, r#"{"list":[#,#]}"#),
            (&["a", "a.b"], r#"{"a":{"b":1}}"#, r#"{"a":#}"#),
            (&["a.b", "a.c"], r#"{"a":{"b":1,"c":2,"d":3}}"#, r#"{"a":{"b":#,"c":#,"d":3}}"#),
            // a key that stands twice, one in other case, one with an escape
            (&["a"], r#"{"a":1,"b":2,"a":3,"A":4,"\u0061":5}"#, r#"{"a":#,"b":2,"a":#,"A":#,"\u0061":#}"#),
            (&["a"], r#"{"\ud800":1,"a":2,"":{}}"#, r#"{"\ud800":1,"a":#,"":{}}"#),
        ] {
            assert_eq!(shown(body, paths).as_deref(), Some(expected.replace('#', HIDDEN).as_str()), "{paths:?} {body}");
        }
    }

    #[test]
    fn a_body_without_any_of_it_stays_byte_for_byte() {
        for body in [
            "{ \"a\" : [ 1 ] }",
            "[]",
            "{}",
            "1.50",
            "\"password\"",
            "null",
            " [ {} ] ",
            "{\"x\":{\"password\":1}}",
            "",
        ] {
            assert_eq!(shown(body, &["password", "a.b", "x[*].y"]).as_deref(), Some(body));
        }
        assert_eq!(shown("{broken", &[]).as_deref(), Some("{broken"), "nothing is read");
        for broken in ["{broken", "{\"password\":1", "{\"password\":1} x", "\u{1}"] {
            assert_eq!(shown(broken, &["password"]), None, "what cannot be read cannot be shown");
        }
        let deep = "[".repeat(50_000) + &"]".repeat(50_000);
        assert_eq!(shown(&deep, &["a", "[*][*].a"]).map(|shown| shown.len()), Some(deep.len()));
    }

    #[test]
    fn paths_are_read_and_written_and_others_refused() {
        for (text, written) in [
            ("$.password", "password"),
            ("a.b-c.$ref", "a.b-c.$ref"),
            ("items[*].secret", "items[*].secret"),
            ("$[*][*].x[*]", "[*][*].x[*]"),
        ] {
            assert_eq!(BodyPath::parse(text).map(|path| path.to_string()), Ok(written.to_owned()));
        }
        for bad in [
            "", "$", "$.", "$a", ".a", "a.", "a..b", "$..a", "*", "a.*", "a[0]", "a[", "a[*", "a[*]b", "a.[*]",
            "['a']", "a b",
        ] {
            assert!(BodyPath::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn query_parameters_are_hidden_by_their_decoded_name() {
        let rules = rules(&["token", "a b"], &[]);
        for (query, expected) in [
            ("x=1&token=abc&y=%20", "x=1&token=[redacted]&y=%20"),
            ("Token=a=b&token=c&tokens=d", "Token=[redacted]&token=[redacted]&tokens=d"),
            ("%74oken=a&token[]=b&token%5B0%5D=c", "%74oken=[redacted]&token[]=[redacted]&token%5B0%5D=[redacted]"),
            ("a+b=1&a%20b=2&ab=3", "a+b=[redacted]&a%20b=[redacted]&ab=3"),
            (
                "Call-Service-Key=k&call_service_key=k&callServiceKey=k",
                "Call-Service-Key=[redacted]&call_service_key=[redacted]&callServiceKey=[redacted]",
            ),
            ("token&&=%&%zz=1&%ff=2", "token&&=%&%zz=1&%ff=2"),
            ("", ""),
        ] {
            assert_eq!(rules.query(query), expected);
        }
    }

    #[test]
    fn headers_are_hidden_in_any_case() {
        let rules = rules(&[], &[]);
        assert!(["X-Secret", "x-secret", "Call_Service-KEY"].iter().all(|name| rules.hides_header(name)));
        assert!(!rules.hides_header("X-Secrets"));
    }
}

//! JSON of outsiders, before it becomes a [`serde_json::Value`].
//!
//! With its feature `raw_value`, `Value` takes the one key `$serde_json::private::RawValue` for a word of serde_json's own:
//! it reads the string that stands there as JSON again, with a new limit of depth. Strings within strings so exhaust the
//! stack, which ends the process. No honest text has this key, so whoever sends it is refused.
//!
//! May import: nothing.

use memchr::memmem;
use serde::de::{DeserializeOwned, Error as _};

/// serde_json's word, and a part of it that no escape is needed for.
const WORD: &[u8] = b"$serde_json::private::RawValue";
const PART: &[u8] = b"RawValue";

/// Whether this text may be made a [`serde_json::Value`], or a type that holds one; nothing else of it is checked.
///
/// # Errors
/// It has a key that is a word of serde_json's own.
pub(crate) fn check(json: &[u8]) -> Result<(), serde_json::Error> {
    // a letter of it can only be written otherwise as `\u0024`
    let may_have = memmem::find(json, PART).is_some() || memmem::find(json, b"\\u").is_some();
    if may_have && has_word(json) {
        return Err(serde_json::Error::custom("the key `$serde_json::private::RawValue` cannot be taken; rename it"));
    }
    Ok(())
}

/// Reads a value, which may be or hold a [`serde_json::Value`].
///
/// # Errors
/// As [`check`], and those of [`serde_json::from_slice`].
pub(crate) fn value<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    check(json)?;
    serde_json::from_slice(json)
}

/// Whether a key is the word. It goes from string to string, however deep they stand; where the text is no JSON, a reader
/// comes no further than this does.
fn has_word(json: &[u8]) -> bool {
    let mut at = 0;
    while let Some(begin) = memchr::memchr(b'"', &json[at..]).map(|found| at + found) {
        let Some(end) = end_of_string(json, begin + 1) else { return false };
        let is_key = json[end..].iter().find(|byte| !b" \t\r\n".contains(byte)) == Some(&b':');
        if is_key && is_word(&json[begin..end]) {
            return true;
        }
        at = end;
    }
    false
}

/// The place behind the quote that ends a string.
fn end_of_string(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', json.get(at..)?)?;
        if json[at] == b'"' {
            return Some(at + 1);
        }
        at += 2; // whatever is escaped
    }
}

/// Whether a string with its quotes says the word.
fn is_word(string: &[u8]) -> bool {
    match memchr::memchr(b'\\', string) {
        None => &string[1..string.len() - 1] == WORD,
        // a letter is six bytes at most
        Some(_) if string.len() > WORD.len() * 6 + 2 => false,
        Some(_) => serde_json::from_slice::<String>(string).is_ok_and(|said| said.as_bytes() == WORD),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A text that a reader which takes the word follows for some 3,000 levels, though none is deeper than 128.
    pub(crate) fn hostile() -> String {
        let mut text = "1".to_owned();
        for _ in 0..24 {
            let inner = text.replace('\\', "\\u005c").replace('"', "\\u0022");
            text = format!("{}{{\"$serde_json::private::RawValue\":\"{inner}\"}}{}", "[".repeat(126), "]".repeat(126));
        }
        text
    }

    #[test]
    fn a_word_of_serde_json_is_refused() {
        let hostile = hostile();
        assert!(hostile.len() < 100_000, "{}", hostile.len());
        for text in [
            hostile.as_str(),
            r#"{"$serde_json::private::RawValue":"1"}"#,
            r#"{"a":[1,{"b":"\"","$serde_json::private::RawValue" :"1"}]}"#,
            r#"{"\u0024serde_json::private::RawValue":"1"}"#,
            r#"{"$serde_json::private::Raw\u0056alue"
               :"1"}"#,
            r#"["\\",{"$serde_json::private::RawValue":1}"#,
        ] {
            let error = value::<Value>(text.as_bytes()).expect_err("it is refused");
            assert!(error.to_string().contains("rename it"), "{error}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_read() {
        for text in [
            r#"{"a":"\u0024serde_json::private::RawValue","b\u0022:":"\\"}"#,
            r#"["RawValue",{"RawValue":"$serde_json::private::RawValue"},{"$serde_json::private::RawValue2":1}]"#,
            r#"{"a\\":"\"{\\\"$serde_json::private::RawValue\\\":\\\"1\\\"}"}"#,
            r#"{"":"\uD834\uDD1E","\u0000":{}}"#,
        ] {
            let plain: Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(value::<Value>(text.as_bytes()).expect("it is read"), plain);
        }
        assert_eq!(value::<Value>(br#"{"a":1}"#).expect("it is read"), json!({"a": 1}));
        let deep = format!("{}\"\\u0041\"{}", "[".repeat(5_000), "]".repeat(5_000));
        assert!(check(deep.as_bytes()).is_ok(), "depth is for the reader to judge");
    }

    #[test]
    fn no_text_makes_it_panic() {
        for text in ["\"", "\"\\", "\"\\\"", "\\u", "{\"\\u", "\"\\u0024\"", "\"RawValue\\", "\\u\"RawValue\":"] {
            assert!(check(text.as_bytes()).is_ok(), "{text}");
        }
    }
}

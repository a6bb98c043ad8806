//! The words of an event: what both stores index and look up for [`super::Query::text`], so that they agree.
//!
//! A word is a run of letters and digits, in lower case; each ideograph and each kana is a word of its own (such
//! text has no spaces). Everything else separates: text is words, not a query language. A word is cut at
//! [`MAX_WORD_BYTES`], in the index and in the query alike.

use std::borrow::Cow;
use std::collections::HashSet;

/// UUIDs have parts of at most 12 bytes, trace ids 32; longer runs are tokens and base64, which nobody types.
const MAX_WORD_BYTES: usize = 64;

/// Words of one event; a body is bounded by `traces.bodyBytes`, other programs' events by nothing.
const MAX_WORDS: usize = 65_536;

/// The different words of `text`, in order of appearance.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut found = Words::default();
    found.add(text);
    found.list
}

/// The different words in the string values (not the keys) of a JSON text, separated by spaces; numbers count where
/// they stand in `request` or `span.attributes`, as a user's own data does.
///
/// `json` must be valid JSON. It may be nested to any depth.
pub(super) fn words_of_json(json: &str) -> String {
    let mut found = Words::default();
    let mut scan = Scan { bytes: json.as_bytes(), at: 0 };
    let (mut depth, mut in_span, mut is_users) = (0_usize, false, false);
    while let Some(byte) = scan.next_token() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let token = scan.string(json);
                let is_key = scan.peek() == Some(b':');
                if !is_key {
                    found.add(&unescaped(token));
                } else if depth == 1 {
                    (is_users, in_span) = (token == "\"request\"", token == "\"span\"");
                } else if depth == 2 && in_span {
                    is_users = token == "\"attributes\"";
                }
            }
            b'0'..=b'9' | b'-' => {
                let number = scan.number(json);
                if is_users {
                    found.add(number);
                }
            }
            _ => {}
        }
        if found.list.len() >= MAX_WORDS {
            break;
        }
    }
    found.list.join(" ")
}

fn unescaped(token: &str) -> Cow<'_, str> {
    let inner = token.get(1..token.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    // A lone surrogate (`"\ud800"`) is JSON, but no text: its escapes are then read as words.
    serde_json::from_str::<String>(token).map_or(Cow::Borrowed(inner), Cow::Owned)
}

/// Goes over the tokens of a JSON text without recursion.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn next_token(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// The string whose opening quote was just read, with its quotes.
    fn string<'j>(&mut self, json: &'j str) -> &'j str {
        let start = self.at - 1;
        while let Some(byte) = self.bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'"' => break,
                _ => {}
            }
        }
        json.get(start..self.at.min(json.len())).unwrap_or_default()
    }

    fn number<'j>(&mut self, json: &'j str) -> &'j str {
        let start = self.at - 1;
        while self.bytes.get(self.at).is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)) {
            self.at += 1;
        }
        json.get(start..self.at).unwrap_or_default()
    }
}

#[derive(Default)]
struct Words {
    list: Vec<String>,
    seen: HashSet<String>,
}

impl Words {
    fn add(&mut self, text: &str) {
        let mut word = String::new();
        for letter in text.chars() {
            if !letter.is_alphanumeric() {
                self.end(&mut word);
            } else if stands_alone(letter) {
                self.end(&mut word);
                word.push(letter);
                self.end(&mut word);
            } else {
                for lower in letter.to_lowercase() {
                    // lower case may bring marks that are no letters: `İ` is `i` and a dot
                    if lower.is_alphanumeric() && word.len() + lower.len_utf8() <= MAX_WORD_BYTES {
                        word.push(lower);
                    }
                }
            }
        }
        self.end(&mut word);
    }

    fn end(&mut self, word: &mut String) {
        if !word.is_empty() && self.list.len() < MAX_WORDS && self.seen.insert(word.clone()) {
            self.list.push(word.clone());
        }
        word.clear();
    }
}

/// Han, Hiragana and Katakana (Unicode blocks).
fn stands_alone(letter: char) -> bool {
    matches!(u32::from(letter), 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_letters_and_digits() {
        assert_eq!(
            words("Héllo, WORLD! (a OR b*) 登录 hello héllo"),
            ["héllo", "world", "a", "or", "b", "登", "录", "hello"]
        );
        assert_eq!(words("\"{}[]?:*&&\\ \n"), Vec::<String>::new());
        assert_eq!(words(&"x".repeat(100))[0].len(), MAX_WORD_BYTES);
    }

    #[test]
    fn json_gives_its_values() {
        let json = r#"{"requestId":"ab-1","n":7,"request":{"key":"V\u00e4l \"ue\"","deep":[{"a":42,"b":[null,true,"end"]}],"body":{}},"time":9}"#;
        assert_eq!(words_of_json(json), "ab 1 väl ue 42 end");
        assert_eq!(
            words_of_json(
                r#"{"n":7,"span":{"startNs":1,"attributes":{"port":54,"a":["b",{"c":2}]},"events":[3,{"attributes":4}]},"m":8}"#
            ),
            "54 b 2"
        );
        assert_eq!(words_of_json(r#"{"a":"\ud800 x"}"#), "ud800 x");
        assert_eq!(words_of_json(r#"{"request" : {"a\"" : "b\\"} , "c":"d"}"#), "b d");
    }

    #[test]
    fn depth_does_not_matter() {
        let json = format!("{{\"a\":{}\"deep\"{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(words_of_json(&json), "deep");
    }
}

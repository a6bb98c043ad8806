//! The words of an event: what both stores index and look up for [`super::Query::text`], so that they agree. Only parts
//! of an event's own ids, and its time and duration, are words in Elasticsearch alone ([`words_besides_ids`]); a whole id
//! finds its events in both.
//!
//! A word is a run of letters and digits, in lower case; each ideograph and each kana is a word of its own (such
//! text has no spaces). Everything else separates: text is words, not a query language. A word is cut at
//! [`super::words::MAX_WORD_BYTES`], in the index and in the query alike.

use std::borrow::Cow;
use std::cell::Cell;

use super::words::{MAX_WORDS, Words};

/// The different words of `text`, in order of appearance.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut found = Words::default();
    found.add(text);
    found.list().map(str::to_owned).collect()
}

/// Finds the words of many events, in memory that it keeps.
#[derive(Default)]
pub(super) struct WordsOfJson(Words);

impl WordsOfJson {
    /// The different words in the string values (not the keys) of a JSON text, separated by spaces; numbers count where
    /// they stand in `request` or `span.attributes`, as a user's own data does.
    ///
    /// `json` must be valid JSON. It may be nested to any depth.
    pub(super) fn of(&mut self, json: &str) -> &str {
        self.0.clear();
        collect(json, |_| false, |_| false, &mut self.0);
        &self.0.text
    }
}

/// [`WordsOfJson::of`] without what is found in another way: the event's ids (also in the headers that carry them), its time and
/// its duration. Half of an event's words would be such, each in this one event only. `found` is any scratch space.
///
/// Besides, whether the event tells its `time`.
pub(super) fn words_besides_ids<'w>(
    json: &str,
    request_id: &str,
    trace_id: &str,
    found: &'w mut Words,
) -> (&'w str, bool) {
    found.clear();
    let carries_id = |value: &str| {
        (value == request_id && !request_id.is_empty())
            || trace_id_of(value).is_some_and(|(id, len)| len == value.len() && id == trace_id)
    };
    let has_time = Cell::new(false);
    let left_out =
        |key: &str| matches!(key, "requestId" | "eventId" | "traceId" | "spanId" | "parentId" | "time" | "trace");
    let noticed = |key: &str| {
        has_time.set(has_time.get() || key == "time");
        left_out(key)
    };
    collect(json, noticed, carries_id, found);
    (&found.text, has_time.get())
}

/// `left_out` says of a key of the event itself, and `skipped` of any string value, that its words do not count.
fn collect(json: &str, left_out: impl Fn(&str) -> bool, skipped: impl Fn(&str) -> bool, found: &mut Words) {
    let mut scan = Scan { bytes: json.as_bytes(), at: 0 };
    let (mut depth, mut in_span, mut is_users, mut outside) = (0_usize, false, false, false);
    while let Some(byte) = scan.next_token() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let token = scan.string(json);
                let inner = token.get(1..token.len().saturating_sub(1)).unwrap_or_default();
                let is_key = scan.peek() == Some(b':');
                if is_key {
                    if depth == 1 {
                        (is_users, in_span) = (inner == "request", inner == "span");
                        outside = left_out(inner);
                    } else if depth == 2 && in_span {
                        is_users = inner == "attributes";
                    }
                } else if !outside && !skipped(inner) {
                    found.add(&unescaped(token));
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
        if found.count() >= MAX_WORDS {
            break;
        }
    }
}

/// A part of a text that is looked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A word of the event.
    Word(String),
    /// What looks like a request or trace id: one of the event's ids, or these words.
    Id {
        /// As 32 hex digits.
        hex: String,
        /// Its words, for a body may hold an id too.
        words: Vec<String>,
    },
}

/// What a text asks for, ids recognised: a UUID, 32 hex digits or a `traceparent` that stand for themselves.
pub(super) fn wanted(text: &str) -> Vec<Wanted> {
    let mut found = Vec::new();
    let mut plain = Words::default();
    let mut from = 0;
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        let begins = !text[..at].chars().next_back().is_some_and(char::is_alphanumeric);
        if let Some((hex, len)) = id_of(rest).filter(|_| begins) {
            plain.add(&text[from..at]);
            found.push(Wanted::Id { hex, words: words(&rest[..len]) });
            at += len;
            from = at;
        } else {
            match rest.chars().next() {
                Some(letter) => at += letter.len_utf8(),
                None => break,
            }
        }
    }
    plain.add(&text[from..]);
    found.extend(plain.list().map(|word| Wanted::Word(word.to_owned())));
    found
}

/// The id at the start of a text, as 32 hex digits in lower case, and how many bytes it takes there.
fn id_of(text: &str) -> Option<(String, usize)> {
    let bytes = text.as_bytes();
    let ends = |len: usize| !text.get(len..).is_some_and(|rest| rest.chars().next().is_some_and(char::is_alphanumeric));
    if let Some((id, len)) = trace_id_of(text).filter(|(_, len)| ends(*len)) {
        return Some((id.to_ascii_lowercase(), len));
    }
    if bytes.len() >= 32 && bytes[..32].iter().all(u8::is_ascii_hexdigit) && ends(32) {
        return Some((text[..32].to_ascii_lowercase(), 32));
    }
    let uuid = text.get(..36).filter(|_| ends(36))?;
    let parts = uuid.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    parts.then(|| (uuid.replace('-', "").to_ascii_lowercase(), 36))
}

/// The trace id of a `traceparent` at the start of a text, and the bytes of that header.
fn trace_id_of(text: &str) -> Option<(&str, usize)> {
    const BYTES: usize = 55; // 00-…32…-…16…-01
    let header = text.get(..BYTES)?;
    let sound = header.bytes().enumerate().all(|(at, byte)| match at {
        2 | 35 | 52 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    sound.then(|| (&header[3..35], BYTES))
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

#[cfg(test)]
mod tests {
    use super::super::words::MAX_WORD_BYTES;
    use super::*;

    fn words_of_json(json: &str) -> String {
        WordsOfJson::default().of(json).to_owned()
    }

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
    fn ids_times_and_durations_are_left_out() {
        let (id, hex) = ("cdb08456-d8a7-4d53-93c2-a5e3f01f56d6", "cdb08456d8a74d5393c2a5e3f01f56d6");
        let json = format!(
            r#"{{"requestId":"{id}","request":{{"headers":{{"X-Request-Id":"{id}","Traceparent":"00-{hex}-b7ad6b7169203331-01","Other":"00-{id}"}},"body":{{"time":"noon","eventId":"x1"}}}},"event":"request.end","time":"2026-11-21","trace":{{"timing":"1.5ms"}},"eventId":"e","traceId":"{hex}","spanId":"s","parentId":"p","caller":"order"}}"#
        );
        assert_eq!(
            words_besides_ids(&json, id, hex, &mut Words::default()),
            ("00 cdb08456 d8a7 4d53 93c2 a5e3f01f56d6 noon x1 request end order", true)
        );
        let json = r#"{"event":"e","request":{"body":{"time":"noon"}}}"#;
        assert_eq!(words_besides_ids(json, "", "", &mut Words::default()), ("e noon", false));
    }

    #[test]
    fn ids_are_recognised() {
        let (id, hex) = ("cdb08456-d8a7-4d53-93c2-a5e3f01f56d6", "cdb08456d8a74d5393c2a5e3f01f56d6");
        let ids = |text: &str| {
            let all = wanted(text).into_iter();
            all.map(|one| match one {
                Wanted::Id { hex, words } => format!("{hex} {}", words.len()),
                Wanted::Word(word) => word,
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(ids(id), [format!("{hex} 5")]);
        assert_eq!(ids(&format!("ä {}, ö", id.to_uppercase())), [format!("{hex} 5"), "ä".into(), "ö".into()]);
        assert_eq!(ids(&format!("id={hex}")), [format!("{hex} 1"), "id".into()]);
        assert_eq!(ids(&format!("00-{hex}-b7ad6b7169203331-01")), [format!("{hex} 4")]);
        assert_eq!(ids(&format!("x{hex}")), [format!("x{hex}")]);
        assert_eq!(ids(&format!("{hex}0")), [format!("{hex}0")]);
        assert_eq!(ids(""), Vec::<String>::new());
        assert_eq!(ids("déjà vu"), ["déjà", "vu"]);
    }

    #[test]
    fn many_words_are_each_kept_once() {
        let text: String = (0..10_000).chain(0..10_000).map(|at| format!("w{at} ")).collect();
        assert_eq!(words(&text).len(), 10_000);
        let too_many: String = (0..70_000).map(|at| format!("w{at} ")).collect();
        assert_eq!(words(&too_many).len(), MAX_WORDS);
    }

    #[test]
    fn depth_does_not_matter() {
        let json = format!("{{\"a\":{}\"deep\"{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(words_of_json(&json), "deep");
    }
}

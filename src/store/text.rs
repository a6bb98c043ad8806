//! The words of an event: what both stores index and look up for [`super::Query::text`], so that they agree.
//!
//! A word is a run of letters and digits, in lower case; each ideograph and each kana is a word of its own (such
//! text has no spaces). Everything else separates: text is words, not a query language. A word is cut at
//! [`MAX_WORD_BYTES`], in the index and in the query alike.

use std::borrow::Cow;

/// UUIDs have parts of at most 12 bytes, trace ids 32; longer runs are tokens and base64, which nobody types.
const MAX_WORD_BYTES: usize = 64;

/// Words of one event; a body is bounded by `traces.bodyBytes`, other programs' events by nothing.
const MAX_WORDS: usize = 65_536;

/// The different words of `text`, in order of appearance.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut found = Words::default();
    found.add(text);
    found.text().split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// As [`WordsOfJson::of`], for one text.
pub(super) fn words_of_json(json: &str) -> String {
    WordsOfJson::default().of(json).to_owned()
}

/// Finds the words of many events, in memory that it keeps.
#[derive(Default)]
pub(super) struct WordsOfJson(Words);

impl WordsOfJson {
    /// The different words in the string values (not the keys) of a JSON text, separated by spaces; numbers count where
    /// they stand in `request`, as a user's own data does.
    ///
    /// `json` must be valid JSON. It may be nested to any depth.
    pub(super) fn of(&mut self, json: &str) -> &str {
        let found = &mut self.0;
        found.clear();
        let mut scan = Scan { bytes: json.as_bytes(), at: 0 };
        let (mut depth, mut in_request) = (0_usize, false);
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
                        in_request = token == "\"request\"";
                    }
                }
                b'0'..=b'9' | b'-' => {
                    let number = scan.number(json);
                    if in_request {
                        found.add(number);
                    }
                }
                _ => {}
            }
            if found.places.len() >= MAX_WORDS {
                break;
            }
        }
        found.text()
    }
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

/// Different words, one after another.
///
/// A set of texts of its own: an event has some sixty words, and one allocation each, twice, was most of what an event
/// cost its writer.
struct Words {
    /// Each with a space behind it; behind the last of them the beginning of the next one.
    text: String,
    /// From where to where each goes.
    places: Vec<(u32, u32)>,
    /// Hash table with open addressing: 0 is free, else a place's number and 1. At most half of it is in use.
    table: Vec<u32>,
    /// Of this process, so that nobody can choose words that collide.
    seed: u64,
}

/// Twice the words of an event.
const FIRST_TABLE: usize = 256;

impl Default for Words {
    fn default() -> Self {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8) | 1;
        Self { text: String::new(), places: Vec::new(), table: vec![0; FIRST_TABLE], seed }
    }
}

impl Words {
    fn clear(&mut self) {
        self.text.clear();
        self.places.clear();
        self.table.truncate(FIRST_TABLE); // a large one was for one event
        self.table.fill(0);
    }

    fn text(&self) -> &str {
        self.text.trim_end_matches(' ')
    }

    fn add(&mut self, text: &str) {
        let mut start = self.text.len();
        for letter in text.chars() {
            if letter.is_ascii_alphanumeric() {
                if self.text.len() - start < MAX_WORD_BYTES {
                    self.text.push(letter.to_ascii_lowercase());
                }
            } else if !letter.is_alphanumeric() {
                start = self.end(start);
            } else if stands_alone(letter) {
                start = self.end(start);
                self.text.push(letter);
                start = self.end(start);
            } else {
                for lower in letter.to_lowercase() {
                    // lower case may bring marks that are no letters: `İ` is `i` and a dot
                    if lower.is_alphanumeric() && self.text.len() - start + lower.len_utf8() <= MAX_WORD_BYTES {
                        self.text.push(lower);
                    }
                }
            }
        }
        self.end(start);
    }

    /// Keeps the word that begins at `start` and goes to the end, if it is a new one; where the next one begins.
    fn end(&mut self, start: usize) -> usize {
        let end = self.text.len();
        if start == end {
            return start;
        }
        if self.places.len() >= MAX_WORDS || !self.is_new(start, end) {
            self.text.truncate(start);
            return start;
        }
        self.text.push(' ');
        end + 1
    }

    fn is_new(&mut self, start: usize, end: usize) -> bool {
        let (Ok(from), Ok(to)) = (u32::try_from(start), u32::try_from(end)) else { return false }; // 4 GiB of words
        let bytes = self.text.as_bytes();
        let word = &bytes[start..end];
        let mask = self.table.len() - 1;
        let mut slot = self.hash(word) as usize & mask;
        while let Some(place) = self.table[slot].checked_sub(1) {
            let (known, behind) = self.places[place as usize];
            if bytes[known as usize..behind as usize] == *word {
                return false;
            }
            slot = (slot + 1) & mask;
        }
        self.places.push((from, to));
        self.table[slot] = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        if self.places.len() * 2 > self.table.len() {
            self.grow();
        }
        true
    }

    fn grow(&mut self) {
        let mut table = vec![0; self.table.len() * 2];
        let mask = table.len() - 1;
        for (number, (start, end)) in (1..).zip(&self.places) {
            let word = &self.text.as_bytes()[*start as usize..*end as usize];
            let mut slot = self.hash(word) as usize & mask;
            while table[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            table[slot] = number;
        }
        self.table = table;
    }

    /// Multiplies eight bytes at a time into 128 bits and folds them, as wyhash does (<https://github.com/wangyi-fudan/wyhash>).
    fn hash(&self, word: &[u8]) -> u64 {
        let mut hash = self.seed ^ word.len() as u64;
        for chunk in word.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            let product = u128::from(hash ^ u64::from_le_bytes(bytes)) * u128::from(self.seed.rotate_left(32) | 1);
            hash = (product as u64) ^ ((product >> 64) as u64);
        }
        hash
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
        assert_eq!(words_of_json(r#"{"a":"\ud800 x"}"#), "ud800 x");
        assert_eq!(words_of_json(r#"{"request" : {"a\"" : "b\\"} , "c":"d"}"#), "b d");
    }

    #[test]
    fn many_words_are_kept_once_each() {
        let text: String = (0..3000).map(|at| format!("W{} ", at % 1500)).collect();
        let expected: Vec<String> = (0..1500).map(|at| format!("w{at}")).collect();
        assert_eq!(words(&text), expected);
        let mut found = WordsOfJson::default();
        for (json, expected) in
            [(format!("[\"{text}\"]"), expected.join(" ")), ("[\"a B a\"]".to_owned(), "a b".to_owned())]
        {
            assert_eq!(found.of(&json), expected);
        }
        let most: String = (0..=MAX_WORDS).map(|at| format!("{at} ")).collect();
        assert_eq!(words(&most).len(), MAX_WORDS);
    }

    #[test]
    fn depth_does_not_matter() {
        let json = format!("{{\"a\":{}\"deep\"{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(words_of_json(&json), "deep");
    }
}

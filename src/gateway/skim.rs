//! Reads JSON over, in one pass and without keeping anything: whether it is an object, and which members it has.
//!
//! Each JSON answer takes this way, and serde's readers, made to build values, need four times as many instructions for it.
//! What this does not understand at once (keys with escapes, deep nesting) it leaves to them.

/// How deep values may stand in each other; serde_json takes 128.
const DEPTH: u32 = 64;

/// Most keys end within so many bytes.
const SHORT: usize = 16;

/// What an object has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    pub count: usize,
    pub has_status: bool,
}

/// The members of a JSON object (RFC 8259) with nothing but white space around it. `None`: it is something else, or what
/// needs a slower look.
pub(super) fn members(text: &[u8]) -> Option<Members> {
    let mut reader = Reader { left: text };
    let mut members = Members::default();
    reader.space();
    reader.take(b'{')?;
    reader.space();
    if reader.take(b'}').is_none() {
        loop {
            members.count += 1;
            members.has_status |= reader.key()? == b"status";
            reader.member_value(1)?;
            if reader.is_last(b'}')? {
                break;
            }
        }
    }
    reader.space();
    reader.left.is_empty().then_some(members)
}

/// Bytes of a string that are no character of it: its end, an escape, and what must be escaped.
static ENDS: [bool; 256] = {
    let mut ends = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        ends[byte] = true;
        byte += 1;
    }
    ends[b'"' as usize] = true;
    ends[b'\\' as usize] = true;
    ends
};

struct Reader<'t> {
    left: &'t [u8],
}

impl<'t> Reader<'t> {
    fn space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.left {
            self.left = rest;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        let (first, rest) = self.left.split_first()?;
        (*first == byte).then(|| self.left = rest)
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.left = self.left.strip_prefix(word)?;
        Some(())
    }

    /// A string's characters up to the next byte that is none, which is taken.
    fn characters(&mut self) -> Option<(&'t [u8], u8)> {
        // a short one is looked at byte by byte; of a long one 32 bytes at once are, twice
        let near = self.left.get(..SHORT).unwrap_or(self.left).iter().position(|&byte| ENDS[usize::from(byte)]);
        let end = match near {
            Some(end) => end,
            None => {
                let end = memchr::memchr2(b'"', b'\\', self.left)?;
                let has_control = self.left[..end].iter().fold(false, |has, &byte| has | (byte < 0x20));
                (!has_control).then_some(end)?
            }
        };
        let (characters, rest) = self.left.split_at(end);
        self.left = &rest[1..];
        Some((characters, rest[0]))
    }

    /// A key without escapes, which is text.
    fn key(&mut self) -> Option<&'t [u8]> {
        self.take(b'"')?;
        let (key, end) = self.characters()?;
        (end == b'"' && (key.is_ascii() || std::str::from_utf8(key).is_ok())).then_some(key)
    }

    /// The rest of a string behind its first quote.
    fn string(&mut self) -> Option<()> {
        loop {
            match self.characters()?.1 {
                b'"' => return Some(()),
                b'\\' => {
                    let (escape, rest) = self.left.split_first()?;
                    self.left = rest;
                    match escape {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        _ => return None, // `\u` has rules of its own
                    }
                }
                _ => return None,
            }
        }
    }

    /// What stands behind a key.
    fn member_value(&mut self, depth: u32) -> Option<()> {
        self.space();
        self.take(b':')?;
        self.space();
        self.value(depth)
    }

    /// Whether `end` follows a value, and not a comma with another.
    fn is_last(&mut self, end: u8) -> Option<bool> {
        if let [b',', rest @ ..] = self.left
            && rest.first().is_some_and(|next| *next > b' ')
        {
            self.left = rest; // so it mostly is
            return Some(false);
        }
        self.space();
        if self.take(end).is_some() {
            return Some(true);
        }
        self.take(b',')?;
        self.space();
        Some(false)
    }

    fn value(&mut self, depth: u32) -> Option<()> {
        let (first, rest) = self.left.split_first()?;
        match first {
            b'"' => {
                self.left = rest;
                self.string()
            }
            b'{' if depth < DEPTH => {
                self.left = rest;
                self.space();
                if self.take(b'}').is_some() {
                    return Some(());
                }
                loop {
                    self.take(b'"')?;
                    self.string()?;
                    self.member_value(depth + 1)?;
                    if self.is_last(b'}')? {
                        return Some(());
                    }
                }
            }
            b'[' if depth < DEPTH => {
                self.left = rest;
                self.space();
                if self.take(b']').is_some() {
                    return Some(());
                }
                loop {
                    self.value(depth + 1)?;
                    if self.is_last(b']')? {
                        return Some(());
                    }
                }
            }
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            b'-' | b'0'..=b'9' => self.number(),
            _ => None,
        }
    }

    fn digits(&mut self) -> usize {
        let count = self.left.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(self.left.len());
        self.left = &self.left[count..];
        count
    }

    fn number(&mut self) -> Option<()> {
        if let [b'-', rest @ ..] = self.left {
            self.left = rest;
        }
        let starts_with_zero = self.left.first() == Some(&b'0');
        let whole = self.digits();
        if whole == 0 || (starts_with_zero && whole > 1) {
            return None;
        }
        if !matches!(self.left.first(), Some(b'.' | b'e' | b'E')) {
            return Some(());
        }
        if self.take(b'.').is_some() && self.digits() == 0 {
            return None;
        }
        if let [b'e' | b'E', rest @ ..] = self.left {
            self.left = rest;
            if let [b'+' | b'-', rest @ ..] = self.left {
                self.left = rest;
            }
            if self.digits() == 0 {
                return None;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_counted() {
        let found = |count, has_status| Some(Members { count, has_status });
        for (text, expected) in [
            ("{}", found(0, false)),
            (" {\n} ", found(0, false)),
            (r#"{"a":1,"status":{"status":2}}"#, found(2, true)),
            (r#"{"a":{"status":[{},[],"x\n",-0.5e+7,true,false,null]}}"#, found(1, false)),
            (r#"{"status" : "x" , "b" : [ 1 , 2 ] }"#, found(2, true)),
            (r#"{"st\u0061tus":1}"#, None),
            (r#"{"a":"\u0061"}"#, None),
        ] {
            assert_eq!(members(text.as_bytes()), expected, "{text}");
        }
        let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(members(deep(63).as_bytes()), found(1, false));
        assert_eq!(members(deep(64).as_bytes()), None, "left to serde_json");
    }

    /// Whatever it accepts, serde_json accepts too, with as many members. The texts are made of good ones by changes at random.
    #[test]
    fn nothing_passes_that_is_no_json() {
        let good = [
            r#"{"a":1,"status":true,"c":[1,2.5,-3e-7,{"d":"x\"y\\z"}],"e":null}"#,
            r#"{ "name" : "goms" , "numbers" : [0, 10, -0] , "o" : {} , "l" : [ ] }"#,
            "{\"ü\":\"größe\\n\",\"t\":false}",
        ];
        let bytes = b"{}[]\",:\\0123456789-+.eE tfnu\n\x00\x1f\xff\xc3";
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        let (mut taken, mut left) = (0, 0);
        for round in 0..60_000 {
            let mut text = good[round % good.len()].as_bytes().to_vec();
            for _ in 0..next(4) {
                let at = next(text.len());
                match next(3) {
                    0 => drop(text.remove(at)),
                    1 => text.insert(at, bytes[next(bytes.len())]),
                    _ => text[at] = bytes[next(bytes.len())],
                }
            }
            let known = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
            match members(&text) {
                Some(found) => {
                    assert!(known, "{:?}", String::from_utf8_lossy(&text));
                    let slow = super::super::answer::slow_members(&text);
                    assert_eq!(slow, Some(found), "{:?}", String::from_utf8_lossy(&text));
                    taken += 1;
                }
                None if known => left += 1,
                None => {}
            }
        }
        assert!(taken > 10_000 && left < 1_000, "{taken} read, {left} left to serde_json");
    }
}

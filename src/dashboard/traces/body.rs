//! JSON bodies as people read them: a value a line, indented, cut where they are long.
//!
//! Characters that turn the direction of what follows them are written as their escapes, so that a body reads as it is.

/// Lays out a JSON text without changing its values: numbers keep their digits, strings their escapes. Stops at `most`
/// bytes; then the second is `true`.
pub fn pretty(json: &str, most: usize) -> (String, bool) {
    let mut out = String::with_capacity(json.len().min(most) + 64);
    let mut depth = 0_usize;
    let mut rest = json;
    while let Some(first) = rest.chars().next() {
        if out.len() >= most {
            return (out, true);
        }
        let length = match first {
            '"' => string(rest),
            _ if first.is_ascii_whitespace() => {
                rest = &rest[1..];
                continue;
            }
            _ => first.len_utf8(),
        };
        let (token, tail) = rest.split_at(length);
        rest = tail;
        match first {
            '{' | '[' => {
                out.push(first);
                let next = rest.trim_start();
                if next.starts_with(['}', ']']) {
                    out.push_str(&next[..1]);
                    rest = &next[1..];
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(first);
            }
            ',' => {
                out.push(',');
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ if out.len() + token.len() > most => {
                let room = most - out.len();
                push(&mut out, &token[..end_of(token, room)]);
                return (out, true);
            }
            _ => push(&mut out, token),
        }
    }
    (out, false)
}

/// Appends a token, the marks of direction (Unicode's Bidi_Control) as escapes of JSON.
fn push(out: &mut String, token: &str) {
    let turns = |letter: char| matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !token.contains(turns) {
        return out.push_str(token);
    }
    for letter in token.chars() {
        if turns(letter) { out.push_str(&format!("\\u{:04x}", u32::from(letter))) } else { out.push(letter) }
    }
}

/// Deeper is indented no further: a body of 10,000 brackets would be 100 MB of blanks.
const DEEPEST: usize = 24;

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    out.push_str(&"  ".repeat(depth.min(DEEPEST)));
}

/// Bytes of the string that a text begins with, its quotes included.
fn string(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The last boundary of a letter that is no further.
fn end_of(text: &str, most: usize) -> usize {
    (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_digits_and_escapes() {
        let (text, cut) = pretty(r#"{"a":1.10, "b":[{},[ ],"x\"{,}é"],"c":{"d":null}}"#, 1_000);
        let wanted = "{\n  \"a\": 1.10,\n  \"b\": [\n    {},\n    [],\n    \"x\\\"{,}é\"\n  ],\n  \"c\": {\n    \"d\": null\n  }\n}";
        assert_eq!((text.as_str(), cut), (wanted, false));
    }

    #[test]
    fn nothing_turns_the_direction_of_what_follows() {
        assert_eq!(pretty("\"a\u{202e}b\u{2066}\"", 100).0, "\"a\\u202eb\\u2066\"");
    }

    #[test]
    fn long_ones_are_cut_between_letters() {
        let long = format!("[\"{}\"]", "é".repeat(600_000));
        let (text, cut) = pretty(&long, 1_000);
        assert!(cut && text.len() <= 1_000 && text.ends_with('é'));
        let deep = "[".repeat(100_000);
        let (text, cut) = pretty(&deep, 4_000);
        assert!(cut && text.len() < 4_100, "{}", text.len());
        assert_eq!(pretty("\"open", 100).0, "\"open");
    }
}

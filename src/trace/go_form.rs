//! How Go writes what a trace event holds: durations, local time, strings.

use std::cell::RefCell;

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

/// Appends nanoseconds as Go's `Duration.String`: `0s`, `208.885µs` (U+00B5), `17.9651ms`, `1m1.5s`. Without `format!`: it
/// is written for every second event.
pub(super) fn push_duration(out: &mut Vec<u8>, ns: u64) {
    const MICRO: u64 = 1_000;
    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1_000_000_000;
    match ns {
        0 => out.extend_from_slice(b"0s"),
        1..MICRO => {
            push_digits(out, ns);
            out.extend_from_slice(b"ns");
        }
        MICRO..MILLI => {
            push_with_fraction(out, ns, MICRO);
            out.extend_from_slice("\u{b5}s".as_bytes());
        }
        MILLI..SECOND => {
            push_with_fraction(out, ns, MILLI);
            out.extend_from_slice(b"ms");
        }
        _ => {
            let (hours, minutes) = (ns / (3600 * SECOND), ns / (60 * SECOND) % 60);
            if hours > 0 {
                push_digits(out, hours);
                out.push(b'h');
            }
            if hours > 0 || minutes > 0 {
                push_digits(out, minutes);
                out.push(b'm');
            }
            push_with_fraction(out, ns % (60 * SECOND), SECOND);
            out.push(b's');
        }
    }
}

/// `value / unit` with decimals, without zeros at the end; `unit` is a power of ten.
fn push_with_fraction(out: &mut Vec<u8>, value: u64, unit: u64) {
    push_digits(out, value / unit);
    let (mut rest, mut place) = (value % unit, unit / 10);
    if rest > 0 {
        out.push(b'.');
    }
    while rest > 0 {
        out.push(b'0' + (rest / place) as u8);
        (rest, place) = (rest % place, place / 10);
    }
}

/// Decimal digits, without the machinery of `format!`.
pub(super) fn push_digits(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [b'0'; 20]; // u64::MAX has as many
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] += (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Reads what [`push_duration`] writes, in nanoseconds; `None` for anything else.
pub(super) fn parse_duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: f64 = 0.0;
    let mut whole_ns: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_len = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|letter: char| letter.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_len);
        let scale: u64 = match unit {
            "ns" => 1,
            "\u{b5}s" | "\u{3bc}s" | "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        whole_ns = whole_ns.checked_add(whole.parse::<u64>().ok()?.checked_mul(scale)?)?;
        if !fraction.is_empty() {
            total += format!("0.{fraction}").parse::<f64>().ok()? * scale as f64;
        }
        rest = after;
    }
    whole_ns.checked_add(total.round() as u64)
}

/// `2026-11-21 07:53:51` in this machine's time zone, as the originals write it.
pub(super) fn local_time_text(time_ms: i64) -> String {
    let stamp = Timestamp::from_millisecond(time_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    stamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

thread_local! {
    /// The second written last and its text: events come many a second, and the calendar costs more than the rest of one.
    static LAST_SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// Appends [`local_time_text`].
pub(super) fn push_local_time(out: &mut Vec<u8>, time_ms: i64) {
    LAST_SECOND.with_borrow_mut(|(second, text)| {
        if *second != time_ms.div_euclid(1000) || text.is_empty() {
            (*second, *text) = (time_ms.div_euclid(1000), local_time_text(time_ms));
        }
        out.extend_from_slice(text.as_bytes());
    });
}

/// Reads what [`local_time_text`] writes, in milliseconds of Unix time, with this machine's time zone.
pub(super) fn parse_local_time(text: &str) -> Option<i64> {
    let local: civil::DateTime = civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?;
    Some(local.to_zoned(TimeZone::system()).ok()?.timestamp().as_millisecond())
}

/// Bytes that a string cannot hold as they are, or may begin what it cannot (U+2028 and U+2029: e2 80 a8, e2 80 a9).
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        special[byte] = true;
        byte += 1;
    }
    let (others, mut index) = (*b"\"\\&<>\xe2", 0);
    while index < others.len() {
        special[others[index] as usize] = true;
        index += 1;
    }
    special
};

/// A JSON string with quotes, escaped as Go does: also `&`, `<`, `>`, U+2028 and U+2029.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    // most texts need nothing: one look, then one copy
    while let Some(at) = first_special(rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let taken = push_escaped(out, rest);
        rest = &rest[taken..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn first_special(text: &[u8]) -> Option<usize> {
    let find = |bytes: &[u8]| bytes.iter().position(|byte| SPECIAL[usize::from(*byte)]);
    let (words, tail) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        // it may see one where there is none
        if may_hold_special(u64::from_le_bytes(*word))
            && let Some(at) = find(word)
        {
            return Some(8 * index + at);
        }
    }
    find(tail).map(|at| 8 * words.len() + at)
}

/// Whether one of eight bytes is special; never no where one is. After "Bit Twiddling Hacks" by S. E. Anderson
/// (<https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord>).
fn may_hold_special(word: u64) -> bool {
    const LOW: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    let below = |word: u64, limit: u64| word.wrapping_sub(LOW * limit) & !word & HIGH;
    let equal = |byte: u8| below(word ^ (LOW * u64::from(byte)), 1);
    let found = below(word, 0x20) | equal(b'"') | equal(b'\\') | equal(b'&') | equal(b'<') | equal(b'>') | equal(0xe2);
    found != 0
}

/// Appends what stands for the first of the bytes, or for the first three; says how many.
fn push_escaped(out: &mut Vec<u8>, text: &[u8]) -> usize {
    let escaped: &[u8] = match *text {
        [b'"', ..] => b"\\\"",
        [b'\\', ..] => b"\\\\",
        [b'\n', ..] => b"\\n",
        [b'\r', ..] => b"\\r",
        [b'\t', ..] => b"\\t",
        [b'&', ..] => b"\\u0026",
        [b'<', ..] => b"\\u003c",
        [b'>', ..] => b"\\u003e",
        [0xe2, 0x80, 0xa8, ..] => {
            out.extend_from_slice(b"\\u2028");
            return 3;
        }
        [0xe2, 0x80, 0xa9, ..] => {
            out.extend_from_slice(b"\\u2029");
            return 3;
        }
        [byte @ 0..0x20, ..] => {
            &[b'\\', b'u', b'0', b'0', b'0' + byte / 16, b"0123456789abcdef"[usize::from(byte % 16)]]
        }
        [byte, ..] => &[byte],
        [] => return 0,
    };
    out.extend_from_slice(escaped);
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Go itself.
    const DURATIONS: [(u64, &str); 16] = [
        (0, "0s"),
        (1, "1ns"),
        (999, "999ns"),
        (1_000, "1µs"),
        (1_500, "1.5µs"),
        (208_885, "208.885µs"),
        (999_999, "999.999µs"),
        (1_000_000, "1ms"),
        (1_566_533, "1.566533ms"),
        (17_965_100, "17.9651ms"),
        (999_999_999, "999.999999ms"),
        (1_000_000_000, "1s"),
        (1_500_000_000, "1.5s"),
        (30_308_364_903, "30.308364903s"),
        (61_500_000_000, "1m1.5s"),
        (3_600_000_000_000, "1h0m0s"),
    ];

    fn duration_text(ns: u64) -> String {
        let mut out = Vec::new();
        push_duration(&mut out, ns);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn durations_are_written_and_read_as_go_does() {
        for (ns, text) in DURATIONS {
            assert_eq!(duration_text(ns), text);
            assert_eq!(parse_duration(text), Some(ns), "{text}");
        }
        assert_eq!(duration_text(60_000_000_000), "1m0s");
        for bad in ["", "1", "ms", "1.2.3s", "-1s", "1x", "99999999999999h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn local_time_survives_the_round_trip() {
        let text = local_time_text(1_795_247_767_999);
        assert_eq!(text.len(), 19, "{text}");
        assert_eq!(parse_local_time(&text), Some(1_795_247_767_000));
        assert_eq!(parse_local_time("yesterday"), None);
    }

    #[test]
    fn the_time_of_each_second_is_its_own() {
        for time_ms in [1_795_247_767_999, 1_795_247_767_000, 1_795_247_768_000, -1, 0, 1_795_247_767_001] {
            let mut out = Vec::new();
            push_local_time(&mut out, time_ms);
            assert_eq!(String::from_utf8(out).unwrap(), local_time_text(time_ms));
        }
    }

    #[test]
    fn what_is_special_is_found_at_every_place() {
        for special in (0..=255u8).filter(|byte| SPECIAL[usize::from(*byte)]) {
            for filler in [b' ', b'!', b'#', b'a', 0x7f, 0x80, 0xe1, 0xe3, 0xff] {
                for length in 0..20 {
                    let mut text = vec![filler; length];
                    assert_eq!(first_special(&text), None);
                    for at in 0..length {
                        text[at] = special;
                        assert_eq!(first_special(&text), Some(at), "{special:#x} in {filler:#x}");
                        text[at] = filler;
                    }
                }
            }
        }
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut out = Vec::new();
        push_string(&mut out, "a&b<\"\\\n\u{1}ä\u{2028}");
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\\u0026b\\u003c\\\"\\\\\\n\\u0001ä\\u2028\"");
        let mut out = Vec::new();
        push_string(&mut out, "\u{2027}>\r\t\u{1f}\u{2029}\u{2013} plain \u{7f}");
        assert_eq!(String::from_utf8(out).unwrap(), "\"\u{2027}\\u003e\\r\\t\\u001f\\u2029\u{2013} plain \u{7f}\"");
    }
}

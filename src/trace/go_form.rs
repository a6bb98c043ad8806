//! How Go writes what a trace event holds: durations, local time, strings.

use std::cell::RefCell;

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

/// Nanoseconds as Go's `Duration.String`: `0s`, `208.885µs` (U+00B5), `17.9651ms`, `1m1.5s`.
pub(super) fn duration_text(ns: u64) -> String {
    const MICRO: u64 = 1_000;
    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1_000_000_000;
    match ns {
        0 => "0s".to_owned(),
        1..MICRO => format!("{ns}ns"),
        MICRO..MILLI => with_fraction(ns, MICRO, 3) + "\u{b5}s",
        MILLI..SECOND => with_fraction(ns, MILLI, 6) + "ms",
        _ => {
            let (hours, minutes) = (ns / (3600 * SECOND), ns / (60 * SECOND) % 60);
            let seconds = with_fraction(ns % (60 * SECOND), SECOND, 9);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, _) => format!("{minutes}m{seconds}s"),
                _ => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `value / unit` with up to `digits` decimals, without zeros at the end.
fn with_fraction(value: u64, unit: u64, digits: usize) -> String {
    let (whole, fraction) = (value / unit, value % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    format!("{whole}.{fraction:0digits$}").trim_end_matches('0').to_owned()
}

/// Reads what [`duration_text`] writes, in nanoseconds; `None` for anything else.
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

/// A JSON string with quotes, escaped as Go does: also `&`, `<`, `>`, U+2028 and U+2029.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut plain_from = 0;
    for (index, &byte) in text.as_bytes().iter().enumerate() {
        // U+2028 and U+2029 are the only ones of more than a byte: e2 80 a8, e2 80 a9
        let escaped: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            b'&' => b"\\u0026",
            b'<' => b"\\u003c",
            b'>' => b"\\u003e",
            0..0x20 => &[b'\\', b'u', b'0', b'0', b'0' + byte / 16, b"0123456789abcdef"[usize::from(byte % 16)]],
            0xe2 if text[index..].starts_with('\u{2028}') => b"\\u2028",
            0xe2 if text[index..].starts_with('\u{2029}') => b"\\u2029",
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[plain_from..index]);
        out.extend_from_slice(escaped);
        plain_from = index + if byte == 0xe2 { 3 } else { 1 };
    }
    out.extend_from_slice(&text.as_bytes()[plain_from..]);
    out.push(b'"');
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
    fn strings_are_escaped_as_go_does() {
        let mut out = Vec::new();
        push_string(&mut out, "a&b<\"\\\n\u{1}ä\u{2028}");
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\\u0026b\\u003c\\\"\\\\\\n\\u0001ä\\u2028\"");
    }
}

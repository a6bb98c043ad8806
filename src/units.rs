//! Durations, sizes and times as people write them.
//!
//! May import: `figures` (what is printed is read again).

use std::fmt::Write as _;
use std::time::Duration;

/// Ten years: longer is a slip of the finger, and later sums stay far from overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Reads `30s`, `1m30s`, `500ms`, `7d` or plain seconds (`30`, `0.5`). Units: `us`, `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// What is wrong with it, fit to follow a colon.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no duration; write for example `30s`, `1m30s`, `500ms` or plain seconds");
    let trimmed = text.trim();
    let mut total = Duration::ZERO;
    let mut rest = trimmed;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "" if rest == trimmed => 1.0, // plain seconds stand alone
            _ => return Err(bad()),
        };
        let number: f64 = number.parse().map_err(|_| bad())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = tail;
    }
    if trimmed.is_empty() {
        return Err(bad());
    }
    if total > LONGEST {
        return Err(format!("`{text}` is over ten years"));
    }
    Ok(total)
}

/// As [`parse_duration`], but refuses nothing at all.
///
/// # Errors
/// What is wrong with it.
pub fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err(format!("must be greater than 0, got `{text}`")),
        duration => Ok(duration),
    }
}

/// Writes a duration so that [`parse_duration`] reads the same again: `1m30s`, `500ms`, `0s`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let micros = duration.subsec_micros();
    let mut text = String::new();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(micros / 1_000), "ms"),
        (u64::from(micros % 1_000), "us"),
    ];
    for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
        // writing into a String cannot fail
        write!(text, "{number}{unit}").unwrap_or_default();
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Reads a number of bytes: `1048576`, `64KiB`, `10MiB`, `1GiB` (1024s), or `10kB`, `10MB`, `1GB` (1000s).
///
/// # Errors
/// What is wrong with it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no size; write bytes, or for example `64KiB` or `10MiB`");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(factor).ok_or_else(bad)
}

/// Reads a moment for `--since` and `--until`: how long ago (`10m`), RFC 3339 (`2026-11-21T07:53:51Z`), or a local date
/// with or without a time (`2026-11-21`, `2026-11-21 07:53:51`). Returns milliseconds of Unix time.
///
/// # Errors
/// What is wrong with it.
pub fn parse_moment(text: &str, now: &jiff::Zoned) -> Result<i64, String> {
    let trimmed = text.trim();
    if let Ok(ago) = parse_duration(trimmed) {
        let ago = i64::try_from(ago.as_millis()).map_err(|error| error.to_string())?;
        return Ok(now.timestamp().as_millisecond() - ago);
    }
    if let Ok(moment) = trimmed.parse::<jiff::Timestamp>() {
        return Ok(moment.as_millisecond());
    }
    trimmed
        .parse::<jiff::civil::DateTime>()
        .and_then(|local| local.to_zoned(now.time_zone().clone()))
        .map(|moment| moment.timestamp().as_millisecond())
        .map_err(|_| {
            format!("`{text}` is no time; write how long ago (`10m`), a date (`2026-11-21 07:53`) or RFC 3339 (`2026-11-21T07:53:51Z`)")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let cases = [
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("30", 30_000),
            ("0.5", 500),
            ("1.5s", 1_500),
            ("7d", 604_800_000),
            ("0", 0),
            (" 2h ", 7_200_000),
        ];
        for (text, millis) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        let bad = [
            "",
            " ",
            "s",
            "-1",
            "1x",
            "1m30",
            "1 s",
            "1..5",
            "nan",
            "inf",
            "1e9",
            "99999999999999999999d",
            "1s-",
            "٣s",
        ];
        for text in bad {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
        assert_eq!(parse_positive_duration("0s"), Err("must be greater than 0, got `0s`".to_owned()));
    }

    #[test]
    fn durations_survive_writing() {
        for text in ["0s", "1d", "1m30s", "500ms", "1s25ms", "7d", "1us", "2h3m"] {
            let duration = parse_duration(text).expect(text);
            assert_eq!(format_duration(duration), text);
        }
    }

    #[test]
    fn sizes_are_read() {
        let cases = [("0", 0), ("10MiB", 10 << 20), ("64 KiB", 64 << 10), ("1g", 1 << 30), ("10kB", 10_000), ("7b", 7)];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "10 apples", "99999999999999999999", "99999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_read() {
        let now: jiff::Zoned = "2026-11-21T08:00:00+01:00[+01:00]".parse().expect("a time");
        let at = |text| parse_moment(text, &now).map(|ms| jiff::Timestamp::from_millisecond(ms).map(|t| t.to_string()));
        let cases = [
            ("10m", "2026-11-21T06:50:00Z"),
            ("2026-11-21T07:53:51Z", "2026-11-21T07:53:51Z"),
            ("2026-11-21", "2026-11-20T23:00:00Z"),
            ("2026-11-21 07:53:51", "2026-11-21T06:53:51Z"),
            ("2026-11-21T07:53", "2026-11-21T06:53:00Z"),
        ];
        for (text, moment) in cases {
            assert_eq!(at(text).expect(text).expect(text), moment);
        }
        assert!(at("yesterday").is_err());
    }
}

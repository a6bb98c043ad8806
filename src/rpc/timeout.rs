//! How long a caller waits: `grpc-timeout` (`100m`, `3S`: digits and a unit) and Go Micro's `timeout` (nanoseconds).

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::status::{Code, Status};

/// When a caller waits no longer.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Then.
    pub at: Instant,
    /// So long after its call.
    pub after: Duration,
}

impl End {
    /// So long from now.
    #[must_use]
    pub fn in_time(after: Duration) -> Self {
        Self { at: Instant::now() + after, after }
    }

    /// How long until then.
    #[must_use]
    pub fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// What the caller is told then.
    #[must_use]
    pub fn status(self) -> Status {
        let after = self.after;
        Status::new(Code::DeadlineExceeded, format!("no answer within the {after:?} that the caller waits"))
    }
}

/// Most digits of a `grpc-timeout`.
const DIGITS: usize = 8;
/// No caller waits for longer: a year, as good as for ever, and no sum of times overflows.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads a `grpc-timeout`; `None` where it is none.
#[must_use]
pub fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS {
        return None;
    }
    let count = number(digits)?;
    let time = match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    };
    Some(time.min(LONGEST))
}

/// Reads Go Micro's `timeout`; `None` where it is none.
#[must_use]
pub fn parse_go_micro(text: &[u8]) -> Option<Duration> {
    number(text).map(Duration::from_nanos).map(|time| time.min(LONGEST)).filter(|time| !time.is_zero())
}

/// Writes a `grpc-timeout`, in the finest unit that has room.
#[must_use]
pub fn format(time: Duration) -> String {
    let units = [(1_u128, 'n'), (1_000, 'u'), (1_000_000, 'm'), (1_000_000_000, 'S'), (60_000_000_000, 'M')];
    let most = 10_u128.pow(8);
    let nanos = time.min(LONGEST).as_nanos();
    // LONGEST is less than 10^8 minutes
    let (size, unit) = units.into_iter().find(|(size, _)| nanos / size < most).unwrap_or((60_000_000_000, 'M'));
    let mut text = String::with_capacity(DIGITS + 1);
    if write!(text, "{}{unit}", nanos / size).is_err() {
        text.clear(); // a String takes everything
    }
    text
}

fn number(digits: &[u8]) -> Option<u64> {
    // u64's own parser would take a leading `+`
    let all = digits.iter().all(u8::is_ascii_digit);
    all.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_and_written() {
        for (text, time) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("100m", Duration::from_millis(100)),
            ("99999999H", LONGEST),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(time), "{text}");
        }
        for bad in ["", "S", "1", "123456789m", "+1S", "-1S", "1s", "1.5S", "1 S"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        for nanos in [0, 1, 99_999_999, 100_000_000, 3_000_000_000, 86_400_000_000_000] {
            let time = Duration::from_nanos(nanos);
            let text = format(time);
            assert!(text.len() <= 9, "{text}");
            let back = parse(text.as_bytes()).unwrap();
            assert!(back <= time && time - back < Duration::from_secs(1), "{text}");
        }
        assert_eq!(format(Duration::from_secs(3)), "3000000u");
        assert_eq!(parse_go_micro(b"5000000000"), Some(Duration::from_secs(5)));
        for bad in ["", "0", "-1", "5s", "99999999999999999999"] {
            assert_eq!(parse_go_micro(bad.as_bytes()), None, "{bad}");
        }
    }
}

//! Numbers as people read them, in the terminal and in the dashboard alike.

/// `850ns`, `12.3µs`, `4.56ms`, `1.20s`.
#[must_use]
pub fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{:.1}µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2}ms", ns as f64 / 1e6),
        _ => format!("{:.2}s", ns as f64 / 1e9),
    }
}

/// `12,345`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Requests a second, with three digits that count.
#[must_use]
pub fn rate(count: u64, seconds: f64) -> String {
    let rate = if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    match rate {
        rate if rate >= 100.0 => format!("{rate:.0}"),
        rate if rate >= 1.0 => format!("{rate:.1}"),
        rate if rate > 0.0 => format!("{rate:.4}"),
        _ => "0".to_owned(),
    }
}

/// How often: `12/s`, `2.7/min`, `3/h`, whatever has a digit before the point; `0/s` for nothing.
#[must_use]
pub fn pace(count: u64, seconds: f64) -> String {
    let rate = if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let (amount, unit) = match rate {
        rate if rate >= 1.0 || rate <= 0.0 => (rate, "s"),
        rate if rate * 60.0 >= 1.0 => (rate * 60.0, "min"),
        rate => (rate * 3600.0, "h"),
    };
    let digits = usize::from(amount < 99.95 && amount.fract() > 0.0);
    format!("{amount:.digits$}/{unit}")
}

/// How many percent `part` is of `whole`; `0%` only where there is none of it.
#[must_use]
pub fn share(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        return "0%".to_owned();
    }
    let share = part as f64 * 100.0 / whole as f64;
    match share {
        share if share < 0.01 => "<0.01%".to_owned(),
        share if share < 1.0 => format!("{share:.2}%"),
        share => format!("{share:.1}%"),
    }
}

/// `3s`, `12m`, `5h 3m`, `2d 4h`: how long ago a moment (milliseconds of Unix time) was; `-` when it is unknown.
#[must_use]
pub fn age(since_ms: i64, now_ms: i64) -> String {
    if since_ms <= 0 {
        return "-".to_owned();
    }
    let seconds = (now_ms - since_ms).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// `512 B`, `16.0 KiB`, `1.2 GiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = count as f64 / 1024.0;
    if amount < 1.0 {
        return format!("{count} B");
    }
    for unit in &units[..3] {
        if amount < 1024.0 {
            return format!("{amount:.1} {unit}");
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} {}", units[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_durations_short() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([7, 1_500, 2_000_000, 61_500_000_000].map(duration), ["7ns", "1.5µs", "2.00ms", "61.50s"]);
        assert_eq!([0, 1023, 1536, 3 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]);
    }

    #[test]
    fn errors_that_happened_are_never_shown_as_none() {
        assert_eq!([share(1, 1_000_000), share(0, 0), share(1, 8)], ["<0.01%", "0%", "12.5%"]);
    }

    #[test]
    fn a_pace_has_a_digit_before_the_point() {
        assert_eq!(
            [0, 45, 900, 90, 1, 270_000].map(|count| pace(count, 900.0)),
            ["0/s", "3/min", "1/s", "6/min", "4/h", "300/s"]
        );
        assert_eq!([pace(1, 7.0), pace(5, 0.0), pace(37, 3.0)], ["8.6/min", "0/s", "12.3/s"]);
    }

    #[test]
    fn ages_keep_two_units() {
        let now_ms = 1_000_000_000;
        assert_eq!(age(0, now_ms), "-");
        assert_eq!(age(now_ms - 59_999, now_ms), "59s");
        assert_eq!(age(now_ms - 3_780_000, now_ms), "1h 3m");
        assert_eq!(age(now_ms - 187_200_000, now_ms), "2d 4h");
        assert_eq!(age(now_ms + 5_000, now_ms), "0s");
    }
}

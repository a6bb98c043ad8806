//! Words of a filter, as the command line and the dashboard take them.

/// Lowest and highest status, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange(pub u16, pub u16);

/// What an event may be called.
pub const EVENTS: [&str; 5] = ["request.start", "service.start", "service.end", "request.end", "span.end"];

/// Reads `500`, `5xx` or `200-299`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_status(text: &str) -> Result<StatusRange, String> {
    let bad = || format!("`{text}` is no HTTP status; write `500`, `5xx` or `200-299`");
    let code = |part: &str| match part.trim().parse::<u16>() {
        Ok(code @ 100..=599) => Ok(code),
        _ => Err(bad()),
    };
    let lower = text.to_ascii_lowercase();
    if let Some(class) = lower.strip_suffix("xx") {
        let low = code(&format!("{class}00"))?;
        return Ok(StatusRange(low, low + 99));
    }
    match text.split_once('-') {
        Some((low, high)) => match (code(low)?, code(high)?) {
            (low, high) if low <= high => Ok(StatusRange(low, high)),
            _ => Err(format!("`{text}` holds no status: the lower one goes first")),
        },
        None => code(text).map(|code| StatusRange(code, code)),
    }
}

/// As events spell it: 32 digits in lower case. A UUID is the same with hyphens.
///
/// # Errors
/// What is wrong with it.
pub fn parse_trace_id(text: &str) -> Result<String, String> {
    match uuid::Uuid::try_parse(text.trim()) {
        Ok(id) => Ok(id.simple().to_string()),
        Err(_) => Err(format!("`{text}` is no trace id, which has 32 hex digits")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_ranges() {
        let cases = [("500", (500, 500)), ("5xx", (500, 599)), ("4XX", (400, 499)), ("200-299", (200, 299))];
        for (text, (low, high)) in cases {
            assert_eq!(parse_status(text), Ok(StatusRange(low, high)), "{text}");
        }
        for text in ["", "xx", "5x", "99", "600", "6xx", "0xx", "300-200", "-", "a-b", "5000xx"] {
            assert!(parse_status(text).is_err(), "{text}");
        }
    }

    #[test]
    fn trace_ids_are_read_in_either_form() {
        let id = "cdb08456d8a74d5393c2a5e3f01f56d6";
        for text in [id, "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6", "CDB08456D8A74D5393C2A5E3F01F56D6"] {
            assert_eq!(parse_trace_id(text).as_deref(), Ok(id), "{text}");
        }
        for text in ["", "cdb08456", "xdb08456d8a74d5393c2a5e3f01f56d6"] {
            assert!(parse_trace_id(text).is_err(), "{text}");
        }
    }
}

//! Who called, in W3C `tracestate` (<https://www.w3.org/TR/trace-context/#tracestate-header>): each goms node that calls
//! another puts the member `goms=<its service>` first and keeps the members of other systems behind it.
//!
//! A gateway believes no client's member: it reads none, and replaces it.

/// The key of goms's member.
const KEY: &str = "goms";

/// Members of a `tracestate` (W3C section 3.3.1.1); past it the rightmost, the oldest, go.
const MAX_MEMBERS: usize = 32;

/// Characters of a key and of a value (W3C sections 3.3.1.3.1 and 3.3.1.3.2).
const MAX_CHARS: usize = 256;

/// The service that called, as the lines of a `tracestate` header tell; `None` if they do not.
#[must_use]
pub fn caller<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<&'a str> {
    members(lines).find_map(|(key, value)| (key == KEY).then_some(value))
}

/// The member that names `service`, for [`with_caller`]; `None` where the name cannot stand in a `tracestate`.
#[must_use]
pub fn member(service: &str) -> Option<String> {
    is_value(service).then(|| format!("{KEY}={service}"))
}

/// The `tracestate` for a callee: goms's own member, then those of other systems in the order of the lines that came.
/// What is no valid member is left out, as is a key's second one. Empty: there is nothing to say.
#[must_use]
pub fn with_caller<'a>(own: Option<&str>, lines: impl Iterator<Item = &'a [u8]>) -> String {
    let mut state = own.unwrap_or_default().to_owned();
    let mut seen = [KEY; MAX_MEMBERS];
    let mut count = usize::from(own.is_some());
    for (key, value) in members(lines) {
        if count >= MAX_MEMBERS {
            break;
        }
        if key == KEY || seen[..count].contains(&key) {
            continue;
        }
        seen[count] = key;
        count += 1;
        if !state.is_empty() {
            state.push(',');
        }
        state.push_str(key);
        state.push('=');
        state.push_str(value);
    }
    state
}

/// The valid members of all lines, which are one list (RFC 9110 section 5.3).
fn members<'a>(lines: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = (&'a str, &'a str)> {
    lines.filter_map(|line| std::str::from_utf8(line).ok()).flat_map(|line| line.split(',')).filter_map(|member| {
        let (key, value) = member.trim_matches([' ', '\t']).split_once('=')?;
        (is_key(key) && is_value(value)).then_some((key, value))
    })
}

/// `simple-key` or `tenant@system`: lower-case letters, digits, `_-*/`.
fn is_key(key: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    !key.is_empty()
        && key.len() <= MAX_CHARS
        && key.bytes().all(is_plain)
        && !key.starts_with(['_', '-', '*', '/', '@'])
}

/// Printable ASCII without `,` and `=`, not ending with a space.
fn is_value(value: &str) -> bool {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b',' && byte != b'=';
    !value.is_empty() && value.len() <= MAX_CHARS && value.bytes().all(is_plain) && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines<'a>(lines: &'a [&'a str]) -> impl Iterator<Item = &'a [u8]> {
        lines.iter().map(|line| line.as_bytes())
    }

    #[test]
    fn goms_stands_first_and_once_before_what_others_said() {
        let own = member("gateway");
        for (came, goes) in [
            (&[][..], "goms=gateway"),
            (&["a=b"], "goms=gateway,a=b"),
            (&["a=1, goms=evil ,b=2", "t@sys=3\t,goms=worse"], "goms=gateway,a=1,b=2,t@sys=3"),
            (&["a=1,a=2", "Upper=1,=x,novalue,c=,d=e=f,ä=ö", ",,"], "goms=gateway,a=1"),
        ] {
            assert_eq!(with_caller(own.as_deref(), lines(came)), goes, "{came:?}");
        }
        assert_eq!(with_caller(None, lines(&["goms=x,a=1"])), "a=1");
    }

    #[test]
    fn a_state_has_32_members_at_most_and_the_oldest_goes() {
        let many: Vec<String> = (0..40).map(|number| format!("k{number}=v")).collect();
        let many = many.join(",");
        let state = with_caller(Some("goms=gateway"), lines(&[&many]));
        assert_eq!(state.split(',').count(), 32);
        assert!(state.starts_with("goms=gateway,k0=v,") && state.ends_with(",k30=v"), "{state}");
        assert_eq!(with_caller(None, lines(&[&many])).split(',').count(), 32);
    }

    #[test]
    fn the_caller_is_read_from_any_line() {
        assert_eq!(caller(lines(&["a=b", "c=d, goms=order"])), Some("order"));
        for none in ["", "a=b", "goms=", "goms=a=b", "xgoms=a", "goms"] {
            assert_eq!(caller(lines(&[none])), None, "{none}");
        }
    }

    #[test]
    fn a_name_that_cannot_stand_there_is_left_out() {
        assert_eq!(member("user").as_deref(), Some("goms=user"));
        for bad in ["", "a,b", "a=b", "größe", "a ", "a\nb", &"x".repeat(257)] {
            assert_eq!(member(bad), None, "{bad}");
        }
    }
}

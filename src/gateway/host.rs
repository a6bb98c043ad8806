//! Patterns of hosts.

use std::cmp::Ordering;

/// Which hosts are meant: `shop.example.com`, or `*.example.com` for all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    /// In lower case, without the `*.`.
    name: String,
    below: bool,
}

impl HostPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        if name.contains(':') && !name.starts_with('[') {
            return Err(format!("must be a host without a port, got `{text}`"));
        }
        let is_good = |c: char| c.is_ascii_alphanumeric() || ".-_[]:".contains(c);
        if name.is_empty() || !name.chars().all(is_good) {
            return Err(format!("must be a host like `shop.example.com` or `*.example.com`, got `{text}`"));
        }
        Ok(Self { name: name.trim_end_matches('.').to_ascii_lowercase(), below })
    }

    /// Whether the `Host` of a request is meant, with or without a port.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        let host = without_port(host);
        if !self.below {
            return host.eq_ignore_ascii_case(&self.name);
        }
        let Some(label) = host.len().checked_sub(self.name.len() + 1).filter(|label| *label > 0) else { return false };
        host.is_char_boundary(label)
            && host.as_bytes()[label] == b'.'
            && host[label + 1..].eq_ignore_ascii_case(&self.name)
    }

    /// A name goes before all below one, a longer name before a shorter.
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        (self.below, other.name.len()).cmp(&(other.below, self.name.len()))
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

/// What may stand in a host's name.
static OF_NAME: [bool; 256] = {
    let mut known = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        known[byte] = (byte as u8).is_ascii_alphanumeric(); // one of ASCII
        byte += 1;
    }
    let others = b"-._~%!$&'()*+,;=";
    let mut place = 0;
    while place < others.len() {
        known[others[place] as usize] = true;
        place += 1;
    }
    known
};

/// Whether a `Host` field is a host with an optional port (RFC 9110 section 7.2), or empty (RFC 9112 section 3.2).
pub(super) fn is_valid(host: &str) -> bool {
    let host = host.as_bytes(); // a search for a character has more to set up than these few take
    let place_of = |sought: u8| host.iter().position(|&byte| byte == sought);
    let name_end = if host.starts_with(b"[") {
        place_of(b']').map_or(0, |end| end + 1)
    } else {
        place_of(b':').unwrap_or(host.len())
    };
    let (name, port) = host.split_at(name_end);
    // what RFC 3986 section 3.2.2 lets stand in a name; brackets and colons belong to an IPv6 address
    let of_name = |byte: u8| OF_NAME[usize::from(byte)];
    let of_address = |byte: u8| byte.is_ascii_hexdigit() || b":.[]%v".contains(&byte);
    let named = match name.strip_prefix(b"[") {
        Some(_) => name.iter().copied().all(of_address),
        None => name.iter().copied().all(of_name),
    };
    named && port.strip_prefix(b":").map_or(port.is_empty(), |port| port.iter().all(u8::is_ascii_digit))
}

/// The host of a `Host` field, without its port and final dot.
fn without_port(host: &str) -> &str {
    let end = if host.starts_with('[') {
        host.find(']').map_or(host.len(), |end| end + 1) // an IPv6 address has colons of its own
    } else {
        host.find(':').unwrap_or(host.len())
    };
    host[..end].trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_without_case_port_and_final_dot() {
        let matches = |pattern: &str, host: &str| HostPattern::parse(pattern).unwrap().matches(host);
        assert!(
            matches("Shop.example.com", "shop.EXAMPLE.com:8080") && matches("shop.example.com.", "shop.example.com")
        );
        assert!(!matches("shop.example.com", "ashop.example.com") && !matches("example.com", "shop.example.com"));
        assert!(matches("*.example.com", "a.example.com") && matches("*.example.com", "a.b.example.com."));
        assert!(!matches("*.example.com", "example.com") && !matches("*.example.com", ".example.com"));
        assert!(!matches("*.example.com", "aexample.com") && !matches("*.example.com", "äexample.com"));
        assert!(matches("[::1]", "[::1]:8080") && matches("127.0.0.1", "127.0.0.1:1"));
        for bad in ["", "*", "a b", "example.com:80", "*.", "a/b"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
        let sorted = |one: &str, two: &str| {
            HostPattern::parse(one).unwrap().precedence(&HostPattern::parse(two).unwrap()) == Ordering::Less
        };
        assert!(sorted("a.b", "*.aa.bb.cc") && sorted("*.b.c", "*.c"));
    }

    #[test]
    fn a_host_field_is_a_host_with_an_optional_port() {
        for good in ["", "x", "shop.example.com.", "x:80", "x:", "127.0.0.1:8080", "[::1]", "a_b"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["x/y", "a b", "x:80:90", "x:8a", "user@x", "[::1", "[::1]x", "x\ty", "x?", "x#", "ä"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}

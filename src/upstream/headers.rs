//! Which headers pass a proxy. Names and values are plain text and bytes, so that every HTTP version can use it.
//!
//! Hop-by-hop headers end at each hop (RFC 9110 section 7.6.1), those that `Connection` lists too. Headers by which goms
//! tells a service who asks are goms's alone: a client's are dropped, also spelt with `_` (`call_service_key`), which
//! CGI-like frameworks read as the same name.

/// Headers that concern one connection only, by the length of their names: each field of each message is looked for, and
/// most have none of the same length.
const fn hop_by_hop(length: usize) -> &'static [&'static str] {
    match length {
        2 => &["te"],
        7 => &["trailer", "upgrade"],
        10 => &["connection", "keep-alive"],
        16 => &["proxy-connection"],
        17 => &["transfer-encoding"],
        18 => &["proxy-authenticate"],
        19 => &["proxy-authorization"],
        _ => &[],
    }
}

/// Headers that goms itself sets on a call (framing, the key, the ids, who asked), by the length of their names.
const fn own(length: usize) -> &'static [&'static str] {
    match length {
        4 => &["host"],
        6 => &["expect"],
        9 => &["forwarded", "x-real-ip"],
        10 => &["tracestate"],
        11 => &["traceparent", "client-cert"],
        12 => &["x-request-id", FAULT],
        14 => &["content-length"],
        16 => &["call-service-key"],
        17 => &["client-cert-chain"],
        _ => &[],
    }
}

/// By which a gateway says that it made a fault on purpose: nobody else says so for it.
pub const FAULT: &str = "x-goms-fault";

/// What `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`, … begin with.
const FORWARDED_PREFIX: &str = "x-forwarded-";

/// Whether `name` concerns one connection only. `listed` are the values of the message's `Connection` headers.
#[must_use]
pub fn is_hop_by_hop<'a>(name: impl AsRef<[u8]>, listed: impl Iterator<Item = &'a [u8]>) -> bool {
    let name = name.as_ref();
    is_one_of(hop_by_hop(name.len()), name) || is_listed(name, listed)
}

/// Whether a header that a client sent goes on to the service.
#[must_use]
pub fn passes_down<'a>(name: impl AsRef<[u8]>, listed: impl Iterator<Item = &'a [u8]>) -> bool {
    let name = name.as_ref();
    !is_hop_by_hop(name, listed) && !is_one_of(own(name.len()), name) && !begins_forwarded(name)
}

/// Whether a header of a service's answer goes on to the client. Its length is goms's own business.
#[must_use]
pub fn passes_up<'a>(name: impl AsRef<[u8]>, listed: impl Iterator<Item = &'a [u8]>) -> bool {
    let name = name.as_ref();
    !is_hop_by_hop(name, listed) && ![FAULT, "content-length", "call-service-key"].iter().any(|own| same(own, name))
}

/// Whether `name` is the call key's name in another spelling (`call_service_key`), whose value must not show anywhere.
#[must_use]
pub fn is_call_key_alias(name: &str) -> bool {
    name.contains('_') && same(crate::trace::CALL_KEY_HEADER, name.as_bytes())
}

/// Whether an event of a gateway shows a field that a client sent: not the call key in another spelling, and not what only
/// the gateway says.
#[must_use]
pub fn is_shown(name: &str) -> bool {
    !is_call_key_alias(name) && !same(FAULT, name.as_bytes())
}

fn is_one_of(names: &[&str], name: &[u8]) -> bool {
    names.iter().any(|known| same(known, name))
}

fn begins_forwarded(name: &[u8]) -> bool {
    name.get(..FORWARDED_PREFIX.len()).is_some_and(|start| same(FORWARDED_PREFIX, start))
}

/// Whether a `Connection` header may list a name that does not stay on one connection anyway.
#[must_use]
pub fn lists_more(connection: &[u8]) -> bool {
    !connection.eq_ignore_ascii_case(b"keep-alive") && !connection.eq_ignore_ascii_case(b"close")
}

/// `Connection: close, X-Mine`.
fn is_listed<'a>(name: &[u8], mut listed: impl Iterator<Item = &'a [u8]>) -> bool {
    listed.any(|value| value.split(|&byte| byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(name)))
}

/// Whether `name` is `known` (in lower case) but for case, and for `_` and `-`, which are one.
#[must_use]
pub fn same(known: &str, name: &[u8]) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    known.len() == name.len()
        && known.bytes().zip(name.iter().copied()).all(|(known, byte)| plain(known) == plain(byte.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(name: &str) -> bool {
        passes_down(name, [b"close, X-Mine".as_slice()].into_iter())
    }

    #[test]
    fn every_name_stands_under_its_length() {
        for length in 0..40 {
            assert!(hop_by_hop(length).iter().chain(own(length)).all(|name| name.len() == length), "{length}");
        }
        let count =
            |names: fn(usize) -> &'static [&'static str]| (0..40).map(|length| names(length).len()).sum::<usize>();
        assert_eq!((count(hop_by_hop), count(own)), (9, 12));
    }

    #[test]
    fn what_concerns_one_hop_stays_there() {
        for name in ["Connection", "keep-alive", "TE", "Transfer-Encoding", "Upgrade", "x-mine", "Proxy-Authorization"]
        {
            assert!(!down(name), "{name}");
        }
        for name in ["accept", "Authorization", "x-mine-too", "content-type", "cookie"] {
            assert!(down(name), "{name}");
        }
        assert!(
            lists_more(b"close, x-mine")
                && lists_more(b"x-mine")
                && !lists_more(b"Keep-Alive")
                && !lists_more(b"close")
        );
    }

    #[test]
    fn defect_11_nobody_fakes_what_goms_says() {
        for name in [
            "Call-Service-Key",
            "call_service_key",
            "CALL_Service-KEY",
            "x_forwarded_for",
            "X-Forwarded-Port",
            "traceparent",
            "X-Goms-Fault",
        ] {
            assert!(!down(name), "{name}");
        }
        assert!(!passes_up("x-goms-fault", std::iter::empty()) && !is_shown("X_Goms_Fault") && is_shown("x-goms"));
        assert!(same("x_caller", b"X-Caller") && same("x-caller", b"x_CALLER") && !same("x_caller", b"xacaller"));
        assert!(!passes_up("call-service-key", std::iter::empty()));
        assert!(passes_up("x-request-count", std::iter::empty()));
    }
}

//! The PROXY header, by which a load balancer in front tells whose connection it passes on
//! (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>).
//!
//! ```text
//! v1: PROXY TCP4 192.0.2.1 192.0.2.7 56324 443\r\n          at most 107 bytes; or PROXY UNKNOWN …\r\n
//! v2: \r\n\r\n\0\r\nQUIT\n | version 2, command | family, protocol | length (2) | addresses, more of `length` bytes
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Section 2.1: the longest line with its end.
const LONGEST_LINE: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED: usize = 16;
/// Far over what addresses and the known additions take; the format could have 64 KiB.
const LONGEST_BODY: usize = 2048;

/// What bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// More bytes are needed.
    Partial,
    /// A header of so many bytes; the client, unless the proxy speaks for itself.
    Whole { length: usize, client: Option<SocketAddr> },
}

/// Reads the header with which `bytes` begin.
///
/// # Errors
/// Why they cannot begin with one.
pub(super) fn read(bytes: &[u8]) -> Result<Header, &'static str> {
    if begins(bytes, SIGNATURE) { version_2(bytes) } else { version_1(bytes) }
}

/// As far as there are bytes.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let common = bytes.len().min(with.len());
    bytes[..common] == with[..common]
}

fn version_1(bytes: &[u8]) -> Result<Header, &'static str> {
    if !begins(bytes, b"PROXY ") {
        return Err("the connection does not begin with a PROXY header");
    }
    let Some(end) = bytes.windows(2).take(LONGEST_LINE - 1).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= LONGEST_LINE { Err("the PROXY header has no end") } else { Ok(Header::Partial) };
    };
    let whole = |client| Ok(Header::Whole { length: end + 2, client });
    let bad = "the PROXY header is none of version 1";
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| bad)?;
    let words: Vec<&str> = line.split(' ').collect();
    let port = |text: &str| text.parse::<u16>().map_err(|_| bad);
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => whole(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, target, source_port, target_port] => {
            let ip = |text: &str| match (family, text.parse::<IpAddr>()) {
                ("TCP4", Ok(ip @ IpAddr::V4(_))) | ("TCP6", Ok(ip @ IpAddr::V6(_))) => Ok(ip),
                _ => Err(bad),
            };
            ip(target)?;
            port(target_port)?;
            whole(Some(SocketAddr::new(ip(source)?, port(source_port)?)))
        }
        _ => Err(bad),
    }
}

fn version_2(bytes: &[u8]) -> Result<Header, &'static str> {
    let Some(fixed) = bytes.first_chunk::<FIXED>() else { return Ok(Header::Partial) };
    let (version, command, family) = (fixed[12] >> 4, fixed[12] & 0xf, fixed[13]);
    let body = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if version != 2 || command > 1 {
        return Err("the PROXY header has a version or command that is unknown");
    }
    if body > LONGEST_BODY {
        return Err("the PROXY header is too long");
    }
    let length = FIXED + body;
    let Some(body) = bytes.get(FIXED..length) else { return Ok(Header::Partial) };
    let short = "the PROXY header has no room for its addresses";
    let client = match (command, family) {
        (0, _) => None, // LOCAL: a health check of the proxy itself
        (_, 0x11) => {
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *body.first_chunk::<12>().ok_or(short)?;
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
        }
        (_, 0x21) => {
            let addresses = body.first_chunk::<36>().ok_or(short)?;
            let ip: [u8; 16] = *addresses.first_chunk().ok_or(short)?;
            Some(SocketAddr::new(Ipv6Addr::from(ip).into(), u16::from_be_bytes([addresses[32], addresses[33]])))
        }
        _ => None, // unspecified, datagrams and Unix sockets tell no address that could be used
    };
    Ok(Header::Whole { length, client })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &length, body].concat()
    }

    fn client(bytes: &[u8]) -> Option<String> {
        match read(bytes) {
            Ok(Header::Whole { length, client }) => {
                assert_eq!(length, bytes.len());
                client.map(|client| client.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    fn samples() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let four = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let mut six = [0; 36];
        (six[15], six[32], six[33]) = (1, 0, 80);
        vec![
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n".to_vec(), Some("192.0.2.1:4660")),
            (b"PROXY TCP6 ::1 ::2 80 81\r\n".to_vec(), Some("[::1]:80")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN what ever it says\r\n".to_vec(), None),
            (v2(1, 0x11, &four), Some("192.0.2.1:4660")),
            (v2(1, 0x11, &[&four[..], b"\x03\0\x04abcd"].concat()), Some("192.0.2.1:4660")),
            (v2(1, 0x21, &six), Some("[::1]:80")),
            (v2(0, 0, &[]), None),
            (v2(0, 0x11, &four), None),
            (v2(1, 0x31, &[0; 216]), None),
        ]
    }

    #[test]
    fn both_versions_tell_the_client() {
        for (bytes, expected) in samples() {
            assert_eq!(client(&bytes).as_deref(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_part_is_a_part_and_what_follows_stays() {
        for (bytes, _) in samples() {
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end]), Ok(Header::Partial), "{end} of {bytes:?}");
            }
            let more = [&bytes[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert!(matches!(read(&more), Ok(Header::Whole { length, .. }) if length == bytes.len()), "{bytes:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 100]].concat();
        let wrong_version = [&SIGNATURE[..], &[0x31, 0x11, 0, 0]].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::2 1 2\r\n".to_vec(),
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n".to_vec(),
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n".to_vec(),
            b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n".to_vec(),
            b"PROXY \xff\r\n".to_vec(),
            long,
            wrong_version,
            v2(2, 0x11, &[0; 12]),
            v2(1, 0x11, &[0; 11]),
            v2(1, 0x21, &[0; 35]),
            v2(1, 0x11, &[0; 4000]),
        ] {
            assert!(read(&bytes).is_err(), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_wait_for_ever() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64; // xorshift64
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..20_000 {
            let samples = samples();
            let mut bytes = samples[next() as usize % samples.len()].0.clone();
            for _ in 0..=next() % 4 {
                let at = next() as usize % bytes.len();
                bytes[at] = next() as u8;
            }
            bytes.resize(FIXED + LONGEST_BODY, b'x');
            match read(&bytes) {
                Ok(Header::Partial) => panic!("as long as any, and not whole: {bytes:?}"),
                Ok(Header::Whole { length, .. }) => assert!(length <= bytes.len()),
                Err(_) => {}
            }
        }
    }
}

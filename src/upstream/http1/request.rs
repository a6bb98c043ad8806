//! The head of a request, written into one buffer.

use std::net::{IpAddr, SocketAddr};

use super::HttpError;
use crate::framing;
use crate::registry::Node;

/// A request's line and fields; how its body is framed is added when it is sent.
#[derive(Debug)]
pub struct RequestHead {
    bytes: Vec<u8>,
    is_head: bool,
    is_repeatable: bool,
}

/// Characters of a token (RFC 9110 section 5.6.2), such as methods and field names.
const fn is_token(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'z' | b'|' | b'~')
}

impl RequestHead {
    /// Begins a request for `path` (begins with `/`) and the raw `query` (empty for none) into an empty buffer.
    ///
    /// # Errors
    /// [`HttpError::Request`] when a part would break the line.
    pub fn new(mut buffer: Vec<u8>, method: &str, path: &str, query: &str) -> Result<Self, HttpError> {
        if method.is_empty() || !method.bytes().all(is_token) {
            return Err(HttpError::Request("its method is no token"));
        }
        if method == "CONNECT" {
            return Err(HttpError::Request("CONNECT asks for a tunnel, which is opened to no service"));
        }
        // without a way out, so that many bytes are looked at at once
        let breaks = |part: &str| part.bytes().fold(false, |is_bad, byte| is_bad | (byte <= b' ') | (byte == 0x7f));
        if !path.starts_with('/') || breaks(path) || breaks(query) {
            return Err(HttpError::Request("its path or query holds what must be percent-encoded"));
        }
        buffer.clear();
        for part in [method, " ", path, if query.is_empty() { "" } else { "?" }, query, " HTTP/1.1\r\n"] {
            buffer.extend_from_slice(part.as_bytes());
        }
        Ok(Self { bytes: buffer, is_head: method == "HEAD", is_repeatable: is_idempotent(method) })
    }

    /// Adds a field. Not for `content-length` and `transfer-encoding`, which the body brings.
    ///
    /// # Errors
    /// [`HttpError::Request`] when it would break the head.
    pub fn field(&mut self, name: &str, value: &[u8]) -> Result<(), HttpError> {
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(HttpError::Request("a field's name is no token"));
        }
        self.own(name, value)
    }

    /// Adds a field whose name is a token for certain: one of goms's own, or one that was parsed as such.
    ///
    /// # Errors
    /// [`HttpError::Request`] when its value would break the head.
    pub fn own(&mut self, name: &str, value: &[u8]) -> Result<(), HttpError> {
        // without a way out, so that many bytes are looked at at once
        if value.iter().fold(false, |is_bad, byte| is_bad | matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(HttpError::Request("a field's value holds a line break or a zero"));
        }
        self.plain(name, value);
        Ok(())
    }

    /// Adds a field whose value is written as it is displayed, such as an address.
    ///
    /// # Errors
    /// [`HttpError::Request`] when it would break the head.
    pub fn display(&mut self, name: &str, value: &dyn std::fmt::Display) -> Result<(), HttpError> {
        self.field(name, value.to_string().as_bytes())
    }

    /// Adds a field that is an address, without the formatting machinery, as each request has two.
    ///
    /// # Errors
    /// None that an address could cause.
    pub fn address(&mut self, name: &str, ip: IpAddr, port: Option<u16>) -> Result<(), HttpError> {
        let IpAddr::V4(v4) = ip else {
            return match port {
                Some(port) => self.display(name, &SocketAddr::new(ip, port)),
                None => self.display(name, &ip),
            };
        };
        let mut text = [0; "255.255.255.255:65535".len()];
        let mut end = 0;
        for octet in v4.octets() {
            // three digits and a dot, of which the next octet covers what is too much
            let (digits, count) = OCTETS[usize::from(octet)];
            text[end..end + 4].copy_from_slice(&digits);
            end += count;
        }
        end -= 1; // the last dot
        if let Some(port) = port {
            text[end] = b':';
            end += 1;
            let mut digits = [0; 20];
            let digits = framing::digits(port.into(), &mut digits);
            text[end..end + digits.len()].copy_from_slice(digits);
            end += digits.len();
        }
        self.plain(name, &text[..end]);
        Ok(())
    }

    /// Adds a field that cannot break the head: its name is a token, and its value was written by goms itself.
    pub fn plain(&mut self, name: &str, value: &[u8]) {
        self.bytes.reserve(name.len() + value.len() + 4);
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.bytes.extend_from_slice(part);
        }
    }

    /// Adds `Host`: of a server that the config names its name.
    ///
    /// # Errors
    /// [`HttpError::Request`] when it would break the head.
    pub fn host(&mut self, node: &Node) -> Result<(), HttpError> {
        match &node.origin {
            None => self.address("host", node.id.http.ip, node.id.http.port),
            Some(origin) => self.own("host", origin.authority().as_bytes()),
        }
    }

    /// Asks for the protocol of [`super::PROTOCOL`].
    ///
    /// # Errors
    /// None that these fields could cause.
    pub fn upgrade(&mut self) -> Result<(), HttpError> {
        self.own("connection", b"upgrade")?;
        self.own("upgrade", super::PROTOCOL)
    }

    /// Whether its answer has no body whatever it announces (RFC 9110 section 9.3.2).
    pub(super) fn is_head(&self) -> bool {
        self.is_head
    }

    /// Whether sending it twice does no harm (RFC 9110 section 9.2.2).
    pub(super) fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    /// The whole head, for a body without, of a known or of an unknown length.
    pub(super) fn finish(&self, mut buffer: Vec<u8>, length: Length) -> Vec<u8> {
        buffer.clear();
        buffer.extend_from_slice(&self.bytes);
        match length {
            Length::NoBody => {}
            Length::Known(bytes) => {
                buffer.extend_from_slice(b"content-length: ");
                buffer.extend_from_slice(framing::digits(bytes, &mut [0; 20]));
                buffer.extend_from_slice(b"\r\n");
            }
            Length::Unknown => buffer.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
        buffer.extend_from_slice(b"\r\n");
        buffer
    }

    /// Its buffer, for [`super::Pool::recycle`].
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

/// The digits of each octet and a dot, with how many bytes those are.
static OCTETS: [([u8; 4], usize); 256] = {
    let mut octets = [([b'.'; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let digits = if octet < 10 {
            1
        } else if octet < 100 {
            2
        } else {
            3
        };
        let (mut rest, mut place) = (octet, digits);
        while place > 0 {
            place -= 1;
            octets[octet].0[place] = b'0' + (rest % 10) as u8; // one digit
            rest /= 10;
        }
        octets[octet].1 = digits + 1;
        octet += 1;
    }
    octets
};

/// Whether sending a request twice does what sending it once does (RFC 9110 section 9.2.2).
#[must_use]
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE")
}

/// What is known of a body before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    NoBody,
    Known(u64),
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_a_line_and_fields() {
        let mut head = RequestHead::new(b"old".to_vec(), "POST", "/login", "a=1&b=%20").unwrap();
        head.field("host", b"127.0.0.1:80").unwrap();
        head.field("X-Name", "größe".as_bytes()).unwrap();
        for (length, end) in [
            (Length::NoBody, "\r\n"),
            (Length::Known(0), "content-length: 0\r\n\r\n"),
            (Length::Known(12), "content-length: 12\r\n\r\n"),
            (Length::Unknown, "transfer-encoding: chunked\r\n\r\n"),
        ] {
            let text = String::from_utf8(head.finish(Vec::new(), length)).unwrap();
            let start = "POST /login?a=1&b=%20 HTTP/1.1\r\nhost: 127.0.0.1:80\r\nX-Name: größe\r\n";
            assert_eq!(text, format!("{start}{end}"));
        }
    }

    #[test]
    fn an_address_is_written_as_it_is_displayed() {
        for (ip, port) in [
            ("0.0.0.0", None),
            ("127.0.0.1", Some(8080)),
            ("255.10.100.9", Some(65535)),
            ("1.2.3.4", Some(0)),
            ("10.0.0.7", Some(80)),
            ("::1", None),
            ("2001:db8::1", Some(443)),
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            let mut head = RequestHead::new(Vec::new(), "GET", "/", "").unwrap();
            head.address("host", ip, port).unwrap();
            let shown = port.map_or_else(|| ip.to_string(), |port| SocketAddr::new(ip, port).to_string());
            let text = String::from_utf8(head.finish(Vec::new(), Length::NoBody)).unwrap();
            assert_eq!(text, format!("GET / HTTP/1.1\r\nhost: {shown}\r\n\r\n"));
        }
    }

    #[test]
    fn nothing_can_break_out_of_its_place() {
        for (method, path, query) in [
            ("", "/", ""),
            ("GET /x", "/", ""),
            ("CONNECT", "/", ""),
            ("GET", "", ""),
            ("GET", "x", ""),
            ("GET", "/a b", ""),
            ("GET", "/a\r\n", ""),
            ("GET", "/", "a b"),
            ("GET", "/", "a\nb"),
        ] {
            assert!(RequestHead::new(Vec::new(), method, path, query).is_err(), "{method} {path} {query}");
        }
        let mut head = RequestHead::new(Vec::new(), "GET", "/", "").unwrap();
        for (name, value) in [("", "v"), ("a b", "v"), ("a:", "v"), ("a", "v\r\nb: c"), ("a", "v\n"), ("a", "\0")] {
            assert!(head.field(name, value.as_bytes()).is_err(), "{name}: {value}");
        }
        assert_eq!(head.finish(Vec::new(), Length::NoBody), b"GET / HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn only_idempotent_methods_are_repeatable() {
        let repeatable = |method| RequestHead::new(Vec::new(), method, "/", "").unwrap().is_repeatable();
        assert!(["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"].into_iter().all(repeatable));
        assert!(!["POST", "PATCH", "get"].into_iter().any(repeatable));
    }
}

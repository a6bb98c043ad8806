//! What a caller says on a connection of a stream: which connections are such ones, and their requests one by one.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_v1::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, sleep, timeout_at};

use super::stream::{Limits, StreamError};

/// Bytes of a head, and its fields.
const HEAD_BYTES: usize = 32 << 10;
const FIELDS: usize = 100;
/// What a connection begins with that may be a stream.
const FIRST: &[u8] = b"POST / HTTP/1.1\r\n";
/// A head that comes in parts is looked at again after so long; each time twice as long, up to the other.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
const LOOK_AGAIN_MOST: Duration = Duration::from_millis(64);

/// Whether a connection that was just accepted is a stream's. Reads nothing of it; waits for a head, `limit` at most.
pub(in crate::service) async fn is_one(socket: &TcpStream, limit: Duration) -> bool {
    let give_up = Instant::now() + limit;
    let mut seen = vec![0; 4 << 10];
    let mut wait = LOOK_AGAIN;
    loop {
        let Ok(Ok(length)) = timeout_at(give_up, socket.peek(&mut seen)).await else { return false };
        if let Some(found) = tells(&seen[..length], length == seen.len()) {
            return found;
        }
        sleep(wait).await;
        wait = (wait * 2).min(LOOK_AGAIN_MOST);
        if Instant::now() >= give_up {
            return false;
        }
    }
}

/// What the first bytes tell; `None`: nothing yet. `is_all`: more cannot be seen.
fn tells(seen: &[u8], is_all: bool) -> Option<bool> {
    let compared = seen.len().min(FIRST.len());
    if seen.is_empty() || seen[..compared] != FIRST[..compared] {
        return Some(false);
    }
    let end = seen.windows(4).position(|four| four == b"\r\n\r\n");
    let head = &seen[..end.unwrap_or(seen.len())];
    let names = head.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b':').next());
    let is_stream = names.into_iter().any(|name| name.eq_ignore_ascii_case(b"micro-stream"));
    (is_stream || end.is_some() || is_all).then_some(is_stream)
}

/// What a caller says, request by request.
pub(super) struct Asked {
    from: OwnedReadHalf,
    input: BytesMut,
    pub limits: Limits,
}

pub(super) struct Message {
    pub fields: HeaderMap,
    pub body: Bytes,
}

impl Asked {
    pub fn new(from: OwnedReadHalf, limits: Limits) -> Self {
        Self { from, input: BytesMut::new(), limits }
    }

    /// `None`: the caller closed its connection.
    ///
    /// # Cancel safety
    /// Dropped, it has taken nothing.
    pub async fn next(&mut self) -> Result<Option<Message>, StreamError> {
        let mut head_end = None;
        let (fields, start, length) = loop {
            if let Some(head) = head(&self.input, self.limits.bytes)? {
                break head;
            }
            if self.input.len() > HEAD_BYTES {
                return Err(StreamError::Request("its head is too long"));
            }
            let read = if self.input.is_empty() {
                self.from.read_buf(&mut self.input).await?
            } else {
                let limit = self.limits.head;
                let end = *head_end.get_or_insert_with(|| Instant::now() + limit);
                let read = timeout_at(end, self.from.read_buf(&mut self.input)).await;
                read.map_err(|_| StreamError::Slow(limit, "the head of a message"))??
            };
            match read {
                0 if self.input.is_empty() => return Ok(None),
                0 => return Err(StreamError::Closed),
                _ => {}
            }
        };
        let (limit, begun) = (self.limits.body, Instant::now());
        while self.input.len() < start + length {
            let read = timeout_at(begun + limit, self.from.read_buf(&mut self.input)).await;
            if read.map_err(|_| StreamError::Slow(limit, "the body of a message"))?? == 0 {
                return Err(StreamError::Closed);
            }
        }
        let mut whole = self.input.split_to(start + length);
        Ok(Some(Message { fields, body: whole.split_off(start).freeze() }))
    }
}

/// The fields of a request, where its body begins, and the length of that; `None`: more is to come.
fn head(input: &[u8], limit: usize) -> Result<Option<(HeaderMap, usize, usize)>, StreamError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let start = match parsed.parse(input) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(StreamError::Request("its head cannot be read")),
    };
    if (parsed.method, parsed.path) != (Some("POST"), Some("/")) {
        return Err(StreamError::Request("it is no POST /"));
    }
    let mut all = HeaderMap::new();
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else { return Err(StreamError::Request("a field cannot be read")) };
        all.append(name, value);
    }
    if all.contains_key("transfer-encoding") {
        return Err(StreamError::Request("its body has a transfer encoding"));
    }
    let mut lengths = all.get_all("content-length").iter();
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => Some(0),
        (Some(length), None) if length.as_bytes().iter().all(u8::is_ascii_digit) => {
            length.to_str().ok().and_then(|text| text.parse::<usize>().ok())
        }
        _ => None,
    };
    let length = length.filter(|length| *length <= limit).ok_or(StreamError::Request("its length is none"))?;
    Ok(Some((all, start, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_head_tells_a_stream() {
        let whole = b"POST / HTTP/1.1\r\nHost: a\r\nMicro-Stream: 0\r\n\r\n{}";
        for end in 1..36 {
            assert_eq!(tells(&whole[..end], false), None, "{end}");
        }
        assert_eq!(tells(whole, false), Some(true));
        let unary = b"POST / HTTP/1.1\r\nHost: a\r\n\r\nMicro-Stream: 0";
        assert_eq!(tells(unary, false), Some(false));
        assert_eq!(tells(&unary[..20], true), Some(false), "more cannot be seen");
        for other in [&b""[..], b"GET / HTTP/1.1\r\n", b"POST /a", b"PRI * HTTP/2.0\r\n"] {
            assert_eq!(tells(other, false), Some(false));
        }
    }

    #[test]
    fn a_request_is_a_head_and_so_many_bytes() {
        let whole = b"POST / HTTP/1.1\r\nMicro-Stream: 1\r\nContent-Length: 3\r\n\r\nabcPOST";
        let (fields, start, length) = head(whole, 3).unwrap().expect("complete");
        assert_eq!((&whole[start..start + length], fields.len()), (&b"abc"[..], 2));
        for end in 0..start {
            assert!(head(&whole[..end], 3).unwrap().is_none(), "{end}");
        }
        assert!(head(whole, 2).is_err(), "too long");
        for bad in [
            "GET / HTTP/1.1\r\n\r\n",
            "POST /a HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(head(bad.as_bytes(), 100).is_err(), "{bad}");
        }
    }
}

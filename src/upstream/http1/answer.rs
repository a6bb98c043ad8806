//! An answer: its head, read whole, and its body, read as it is asked for.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;

use super::connection::Connection;
use super::outgoing::Sending;
use super::tunnel::{Tunnel, Upgrade};
use super::{HttpError, Pool};
use crate::framing::{Decoder, Framing, Step, whole_number};
use crate::raw_fields::{RawFields, Span};

/// Fields of a head; nginx has no limit of its own here, actix-http 96.
const MAX_FIELDS: usize = 128;

/// A status and fields, as they came.
#[derive(Clone, Debug)]
pub struct AnswerHead {
    status: u16,
    fields: RawFields,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    head: &'a AnswerHead,
    span: Span,
}

impl<'a> Field<'a> {
    /// Its name, a token, as it came.
    #[must_use]
    pub fn name(&self) -> &'a str {
        // the parser lets only tokens pass, which are ASCII
        std::str::from_utf8(self.name_bytes()).unwrap_or_default()
    }

    /// The same as bytes, which costs nothing.
    #[must_use]
    pub fn name_bytes(&self) -> &'a [u8] {
        self.head.fields.bytes(self.span.name)
    }

    /// Its value, without white space around it.
    #[must_use]
    pub fn value(&self) -> &'a [u8] {
        self.head.fields.bytes(self.span.value)
    }

    /// The value as a buffer that shares the head's memory.
    #[must_use]
    pub fn shared_value(&self) -> Bytes {
        self.head.fields.shared(self.span.value)
    }
}

/// What a head says of the connection and the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    pub framing: Framing,
    /// The connection may carry another exchange.
    pub is_kept: bool,
}

impl AnswerHead {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// All fields in their order.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields.spans().iter().map(|&span| Field { head: self, span })
    }

    /// The values of all fields of this name (lower case).
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields()
            .filter(move |field| field.name_bytes().eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value())
    }

    /// What `Content-Length` says, also of an answer without a body such as a HEAD's.
    #[must_use]
    pub fn announced_length(&self) -> Option<u64> {
        self.values("content-length").next().and_then(whole_number)
    }

    /// Bytes of the whole head.
    pub(super) fn len(&self) -> usize {
        self.fields.raw().len()
    }

    /// The fields without what else is known of the head.
    #[must_use]
    pub fn into_fields(self) -> RawFields {
        self.fields
    }

    /// Takes a head from the front of `input`; `None` while it is not complete.
    ///
    /// # Errors
    /// [`HttpError::Malformed`].
    pub(super) fn take(input: &mut BytesMut, is_head: bool) -> Result<Option<(Self, Manner)>, HttpError> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let found =
            httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, input, &mut fields);
        let length = match found {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(HttpError::Malformed("its head has too many fields")),
            Err(httparse::Error::Version) => return Err(HttpError::Malformed("it does not begin with HTTP/1")),
            Err(_) => return Err(HttpError::Malformed("its head cannot be read")),
        };
        let (status, version) = (parsed.code.unwrap_or(0), parsed.version.unwrap_or(0));
        let base = input.as_ptr() as usize;
        let span = |part: &[u8]| {
            let start = (part.as_ptr() as usize - base) as u32; // a head is shorter than 4 GiB
            (start, start + part.len() as u32)
        };
        let spans =
            parsed.headers.iter().map(|field| Span { name: span(field.name.as_bytes()), value: span(field.value) });
        let spans = spans.collect();
        let manner = manner(parsed.headers, status, version, is_head).map_err(HttpError::Malformed)?;
        let fields = RawFields::new(input.split_to(length).freeze(), spans);
        Ok(Some((Self { status, fields }, manner)))
    }
}

/// RFC 9112 section 6.3, without its leniency: two ways to end a body are none.
fn manner(fields: &[httparse::Header<'_>], status: u16, version: u8, is_head: bool) -> Result<Manner, &'static str> {
    if !(100..600).contains(&status) {
        return Err("its status is none of HTTP's");
    }
    let (mut length, mut is_chunked, mut closes, mut keeps) = (None, false, false, false);
    for field in fields {
        if field.name.eq_ignore_ascii_case("content-length") {
            let bytes = whole_number(field.value).ok_or("its content-length is no number")?;
            if length.replace(bytes).is_some_and(|before| before != bytes) {
                return Err("its content-lengths differ");
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if is_chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err("its transfer-encoding is not just chunked");
            }
            is_chunked = true;
        } else if field.name.eq_ignore_ascii_case("connection") {
            for word in field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                closes |= word.eq_ignore_ascii_case(b"close");
                keeps |= word.eq_ignore_ascii_case(b"keep-alive");
            }
        }
    }
    if is_chunked && (length.is_some() || version == 0) {
        return Err("its body is chunked and has another length too");
    }
    let framing = match (is_chunked, length) {
        _ if is_head || status < 200 || status == 204 || status == 304 => Framing::NoBody,
        (true, _) => Framing::Chunked,
        (false, Some(bytes)) => Framing::Length(bytes),
        (false, None) => Framing::Close,
    };
    let is_kept = !closes && (version == 1 || keeps) && framing != Framing::Close;
    Ok(Manner { framing, is_kept })
}

/// An answer's body. Dropped before its end, it takes the connection with it.
#[derive(Debug)]
pub struct Body {
    decoder: Decoder,
    /// `None` once it went back to the pool, or failed.
    connection: Option<Connection>,
    /// What is still to be sent of the request, for an answer that came early.
    sending: Option<Sending>,
    is_kept: bool,
    /// In place of a body, where the protocol changed.
    tunnel: Option<Box<Tunnel>>,
    pool: Rc<Pool>,
}

impl Body {
    pub(super) fn new(manner: Manner, connection: Connection, sending: Option<Sending>, pool: Rc<Pool>) -> Self {
        let decoder = Decoder::new(manner.framing);
        let connection = Some(connection);
        let mut body = Self { decoder, connection, sending, is_kept: manner.is_kept, tunnel: None, pool };
        body.release();
        body
    }

    pub(super) fn tunnel(connection: Connection, upgrade: Upgrade, pool: Rc<Pool>) -> Self {
        let (socket, input) = connection.into_tunnel();
        let tunnel = Some(Box::new(Tunnel::open(socket, input, upgrade)));
        let decoder = Decoder::new(Framing::Close);
        Self { decoder, connection: None, sending: None, is_kept: false, tunnel, pool }
    }

    /// The protocol changed: this is no body, but what the other side sends until it ends the connection.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.tunnel.is_some()
    }

    /// Its end is marked: a connection that ends early is told from a complete answer.
    #[must_use]
    pub fn is_delimited(&self) -> bool {
        !self.decoder.may_close() || self.decoder.is_end()
    }

    /// Bytes still to come, where the answer says how many.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        self.decoder.left()
    }

    /// Gives the connection back once nothing more is to come. One whose request was not sent to its end, or that brings
    /// more than it should, is closed instead.
    fn release(&mut self) {
        if self.decoder.is_end()
            && let Some(connection) = self.connection.take()
            && self.is_kept
            && self.sending.is_none()
        {
            self.pool.keep(connection);
        }
    }
}

impl Stream for Body {
    type Item = Result<Bytes, HttpError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Some(connection) = &mut this.connection else {
                return this.tunnel.as_mut().map_or(Poll::Ready(None), |tunnel| tunnel.poll_next(task));
            };
            match this.decoder.step(connection.input()) {
                Ok(Step::Part(part)) => {
                    this.release();
                    return Poll::Ready(Some(Ok(part)));
                }
                Ok(Step::End) => {
                    this.release();
                    return Poll::Ready(None);
                }
                Err(why) => {
                    this.connection = None;
                    return Poll::Ready(Some(Err(HttpError::Malformed(why))));
                }
                Ok(Step::More) => {}
            }
            if let Some(sending) = &mut this.sending
                && let Poll::Ready(sent) = sending.poll(connection, task)
            {
                // the answer counts, whether all was sent or not; but after a failure nothing else may follow
                this.is_kept &= sent.is_ok();
                this.sending = None;
            }
            let failed = match ready!(connection.poll_read(task)) {
                Ok(0) if this.decoder.may_close() => None,
                Ok(0) => Some(HttpError::Short),
                Ok(_) => continue,
                Err(error) => Some(HttpError::Read(error)),
            };
            this.connection = None;
            return Poll::Ready(failed.map(Err));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str, is_head: bool) -> Result<Option<(AnswerHead, Manner)>, HttpError> {
        AnswerHead::take(&mut BytesMut::from(text), is_head)
    }

    fn manner_of(text: &str) -> (Framing, bool) {
        let (_, manner) = head(&format!("HTTP/1.1 200 OK\r\n{text}\r\n"), false).unwrap().unwrap();
        (manner.framing, manner.is_kept)
    }

    #[test]
    fn a_head_is_a_status_and_fields_and_the_rest_stays() {
        let text = "HTTP/1.1 201 Created\r\nX-A:  b c \r\nx-a: \r\nContent-Length: 2\r\n\r\nok";
        for length in 0..text.len() - 2 {
            assert!(head(&text[..length], false).unwrap().is_none(), "{length}");
        }
        let mut input = BytesMut::from(text);
        let (head, manner) = AnswerHead::take(&mut input, false).unwrap().unwrap();
        assert_eq!((head.status(), manner.framing, &input[..]), (201, Framing::Length(2), &b"ok"[..]));
        let fields: Vec<_> = head.fields().map(|field| (field.name(), field.value())).collect();
        assert_eq!(fields, [("X-A", &b"b c"[..]), ("x-a", b""), ("Content-Length", b"2")]);
        assert_eq!(head.values("x-a").collect::<Vec<_>>(), [&b"b c"[..], b""]);
        assert_eq!(head.fields().next().unwrap().shared_value(), &b"b c"[..]);
    }

    #[test]
    fn framing_and_reuse_follow_the_fields() {
        for (fields, expected) in [
            ("", (Framing::Close, false)),
            ("Content-Length: 0\r\n", (Framing::Length(0), true)),
            ("content-length: 12\r\ncontent-length: 12\r\n", (Framing::Length(12), true)),
            ("Transfer-Encoding: Chunked\r\n", (Framing::Chunked, true)),
            ("Content-Length: 1\r\nConnection: x, Close\r\n", (Framing::Length(1), false)),
        ] {
            assert_eq!(manner_of(fields), expected, "{fields}");
        }
        for (text, is_head, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true, (Framing::NoBody, true)),
            ("HTTP/1.1 204 No Content\r\n\r\n", false, (Framing::NoBody, true)),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false, (Framing::NoBody, true)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n", false, (Framing::Length(9), false)),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 9\r\nConnection: keep-alive\r\n\r\n",
                false,
                (Framing::Length(9), true),
            ),
            ("HTTP/1.1 200\r\n\r\n", false, (Framing::Close, false)),
        ] {
            let (_, manner) = head(text, is_head).unwrap().unwrap();
            assert_eq!((manner.framing, manner.is_kept), expected, "{text}");
        }
    }

    #[test]
    fn what_is_ambiguous_or_no_http_is_refused() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1));
        for text in [
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 X\r\n\r\n",
            "HTTP/1.1 999 X\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\0\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            &many,
        ] {
            assert!(matches!(head(text, false), Err(HttpError::Malformed(_))), "{text}");
        }
    }
}

//! Streams of mucp, on connections of their own that a node's HTTP port tells by their first head:
//!
//! ```text
//! POST / HTTP/1.1  Micro-Stream: 0  {}                        opens it; the body says nothing
//! POST / HTTP/1.1  Micro-Stream: 0  {"name":"John"}           each message     200  Micro-Stream: 0  {"msg":"Hello John"}
//! POST / HTTP/1.1  Micro-Stream: 0  Micro-Error: EOS          the end          200  Micro-Stream: 0  Micro-Error: EOS
//! ```
//! Answers come when they like, and as many as there are. Such a connection is carried to the node's methods as HTTP/2 in
//! memory, so that guard, deadline, trace and errors are those of its RPC port.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use h2_v4::client::ResponseFuture;
use h2_v4::{Reason, SendStream};
use http_v1::header::{HeaderMap, HeaderName, HeaderValue};
use http_v1::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::rpc::port::{Answers, Call};
use crate::rpc::wire::{Messages, ReadError, send_part};
use crate::rpc::{Code, MethodName, Status, frame};

/// How much may wait between the two sides of the memory.
const BETWEEN: usize = 64 << 10;
/// Bytes of a head, and its fields.
const HEAD_BYTES: usize = 32 << 10;
const FIELDS: usize = 100;
/// What a connection begins with that may be a stream.
const FIRST: &[u8] = b"POST / HTTP/1.1\r\n";
/// A head that comes in parts is looked at again after so long; each time twice as long, up to the other.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
const LOOK_AGAIN_MOST: Duration = Duration::from_millis(64);
/// How long a caller may take to close its connection once it was told the end; what it sent meanwhile is read, since it
/// would not get the end otherwise.
const FAREWELL: Duration = Duration::from_secs(5);
/// What a stream's end is told by.
const END: &str = "EOS";
/// Fields that are the connection's, or mucp's own.
const NOT_PASSED: [&str; 17] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "micro-endpoint",
    "micro-error",
    "micro-id",
    "micro-method",
    "micro-service",
    "micro-stream",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Fields that answers have from their stream's first request.
const ECHOED: [&str; 5] = ["content-type", "micro-endpoint", "micro-method", "micro-service", "micro-stream"];

/// Why a stream ended badly.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    #[error("the caller closed its connection before the end")]
    Closed,
    #[error("the request is none of mucp: {0}")]
    Request(&'static str),
    #[error("it took longer than {0:?} for {1}")]
    Slow(Duration, &'static str),
    #[error("the caller gave up: {0}")]
    GivenUp(String),
    #[error("the call in memory failed")]
    Memory(#[from] h2_v4::Error),
    #[error("the answers cannot be read")]
    Answers(#[from] ReadError),
}

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

/// What a caller's message may use.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) struct Limits {
    /// Bytes of its body.
    pub bytes: usize,
    /// How long its head may take, from its first byte. Between messages a caller may be silent.
    pub head: Duration,
    /// How long its body may take after that.
    pub body: Duration,
}

/// Carries a stream to its end. `answers` are the node's methods.
pub(in crate::service) async fn carry<A: Answers>(socket: TcpStream, answers: &A, limits: Limits) {
    let peer = socket.peer_addr().ok();
    if let Err(error) = socket.set_nodelay(true) {
        log::debug!("cannot turn off Nagle's algorithm: {error}");
    }
    if let Err(error) = converse(socket, peer, answers, limits).await {
        log::debug!("a stream of mucp ended early client={peer:?} error=\"{error}\"");
    }
}

async fn converse<A: Answers>(
    socket: TcpStream,
    peer: Option<SocketAddr>,
    answers: &A,
    limits: Limits,
) -> Result<(), StreamError> {
    let (from, mut to) = socket.into_split();
    let mut asked = Asked { from, input: BytesMut::new(), limits };
    let first = asked.next().await?.ok_or(StreamError::Closed)?;
    let echo = echo(&first.fields);
    let request = match request(&first.fields) {
        Ok(request) => request,
        Err(status) => return end(asked, to, &echo, &HeaderMap::new(), &status).await,
    };
    let (near, far) = tokio::io::duplex(BETWEEN);
    let serving = serve(far, peer, answers);
    let talking = async {
        let (mut client, connection) = h2_v4::client::handshake(near).await?;
        let talk = async {
            let (response, stream) = client.send_request(request, false)?;
            let stream_id = first.fields.get("micro-stream");
            let (metadata, status) = exchange(&mut asked, &mut to, stream_id, &echo, response, stream).await?;
            Ok::<_, StreamError>((metadata, status))
        };
        tokio::select! {
            talked = talk => talked,
            broken = connection => Err(broken.err().map_or(StreamError::Closed, StreamError::Memory)),
        }
    };
    let (metadata, status) = tokio::select! {
        talked = talking => talked?,
        served = serving => return served,
    };
    end(asked, to, &echo, &metadata, &status).await
}

/// The side of the node's methods: takes one call.
async fn serve<A: Answers>(
    far: tokio::io::DuplexStream,
    peer: Option<SocketAddr>,
    answers: &A,
) -> Result<(), StreamError> {
    let mut connection = h2_v4::server::handshake(far).await?;
    let Some(call) = connection.accept().await else { return Ok(()) };
    let (request, respond) = call?;
    let mut answering = std::pin::pin!(answers.answer(Call { request, respond, peer, certificate: None }).fuse());
    loop {
        tokio::select! {
            () = &mut answering => {}
            // what is written goes out while this is polled
            next = connection.accept() => match next {
                Some(Ok((_, mut respond))) => respond.send_reset(Reason::REFUSED_STREAM),
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
        }
    }
}

/// Both directions, until the method is done: what it tells at the end.
async fn exchange(
    asked: &mut Asked,
    to: &mut OwnedWriteHalf,
    stream_id: Option<&HeaderValue>,
    echo: &[u8],
    response: ResponseFuture,
    mut stream: SendStream<Bytes>,
) -> Result<(HeaderMap, Status), StreamError> {
    let limit = asked.limits.bytes;
    let up = async {
        let mut is_open = true;
        loop {
            let Some(message) = asked.next().await? else {
                stream.send_reset(Reason::CANCEL);
                return Err::<(), _>(StreamError::Closed);
            };
            if message.fields.get("micro-stream") != stream_id {
                return Err(StreamError::Request("another stream on the same connection"));
            }
            let error = message.fields.get("micro-error").filter(|error| !error.is_empty());
            let ends = error.is_some_and(|error| error == END);
            if let Some(error) = error.filter(|_| !ends) {
                stream.send_reset(Reason::CANCEL);
                return Err(StreamError::GivenUp(String::from_utf8_lossy(error.as_bytes()).into_owned()));
            }
            if !is_open {
                continue; // it told the end before
            }
            if ends {
                is_open = false;
                stream.send_data(Bytes::new(), true)?;
            } else {
                send_part(&mut stream, frame::framed(&message.body), false).await?;
            }
        }
    };
    let down = async {
        let (head, body) = response.await?.into_parts();
        let metadata = metadata(&head.headers);
        let mut messages = Messages::new(body, limit);
        while let Some(message) = messages.next().await? {
            write(to, echo, &metadata, &message).await?;
        }
        let trailers = messages.trailers().await?.unwrap_or(head.headers);
        let status = Status::from_trailers(&trailers);
        Ok((metadata, status.unwrap_or_else(|| Status::new(Code::Internal, "the method ended without a status"))))
    };
    tokio::select! {
        // a caller that closed wants no more, but the method's own end goes first
        biased;
        told = down => told,
        failed = up => match failed { Err(error) => Err(error), Ok(()) => Err(StreamError::Closed) },
    }
}

/// Tells the end, and waits until the caller has it.
async fn end(
    mut asked: Asked,
    mut to: OwnedWriteHalf,
    echo: &[u8],
    metadata: &HeaderMap,
    status: &Status,
) -> Result<(), StreamError> {
    let error = if status.code == Code::Ok { END } else { status.message.as_str() };
    let mut fields = metadata.clone();
    // JSON has no control characters
    let error = HeaderValue::from_bytes(error.as_bytes()).unwrap_or(HeaderValue::from_static("the method failed"));
    fields.insert(HeaderName::from_static("micro-error"), error);
    write(&mut to, echo, &fields, b"").await?;
    to.shutdown().await?;
    let rest = async { while let Ok(Some(_)) = asked.next().await {} };
    drop(timeout(FAREWELL, rest).await); // who stays longer has been told
    Ok(())
}

/// The call in memory; `Err`: it cannot be one.
fn request(fields: &HeaderMap) -> Result<Request<()>, Status> {
    let bad = |message: &str| Status::new(Code::InvalidArgument, message).in_go_form("goms");
    let endpoint = fields.get("micro-endpoint").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = MethodName::parse(endpoint).map_err(|error| bad(&error.to_string()))?;
    let path = format!("/{}", name.endpoint().replace('.', "/"));
    let kind = fields.get("content-type").map(HeaderValue::as_bytes).unwrap_or_default();
    let codec = super::codec_of(kind).map_err(|status| status.in_go_form("goms"))?;
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = format!("http://memory{path}").parse().map_err(|_| bad("the method's name is none"))?;
    let passed = fields.iter().filter(|(name, _)| !NOT_PASSED.contains(&name.as_str()));
    for (name, value) in passed {
        request.headers_mut().append(name, value.clone());
    }
    let headers = request.headers_mut();
    headers.insert("content-type", codec.content_type());
    headers.insert("te", HeaderValue::from_static("trailers"));
    // so that errors have Go Micro's form
    headers.insert("x-content-type", HeaderValue::from_static("application/json"));
    Ok(request)
}

/// What the method tells beside its messages.
fn metadata(fields: &HeaderMap) -> HeaderMap {
    let mut metadata = fields.clone();
    for name in NOT_PASSED.iter().chain(&["grpc-status", "grpc-message", "grpc-status-details-bin"]) {
        metadata.remove(*name);
    }
    metadata
}

fn echo(fields: &HeaderMap) -> Vec<u8> {
    let mut echo = b"HTTP/1.1 200 OK\r\n".to_vec();
    for name in ECHOED {
        if let Some(value) = fields.get(name) {
            put(&mut echo, name, value.as_bytes());
        }
    }
    if let Some(id) = fields.get("micro-id").or(fields.get("micro-stream")) {
        put(&mut echo, "micro-id", id.as_bytes());
    }
    echo
}

fn put(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

async fn write(to: &mut OwnedWriteHalf, echo: &[u8], fields: &HeaderMap, body: &[u8]) -> std::io::Result<()> {
    let mut whole = Vec::with_capacity(echo.len() + body.len() + 128);
    whole.extend_from_slice(echo);
    for (name, value) in fields {
        put(&mut whole, name.as_str(), value.as_bytes());
    }
    put(&mut whole, "content-length", body.len().to_string().as_bytes());
    whole.extend_from_slice(b"\r\n");
    whole.extend_from_slice(body);
    to.write_all(&whole).await
}

/// What a caller says, request by request.
struct Asked {
    from: OwnedReadHalf,
    input: BytesMut,
    limits: Limits,
}

struct Message {
    fields: HeaderMap,
    body: Bytes,
}

impl Asked {
    /// `None`: the caller closed its connection.
    ///
    /// # Cancel safety
    /// Dropped, it has taken nothing.
    async fn next(&mut self) -> Result<Option<Message>, StreamError> {
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

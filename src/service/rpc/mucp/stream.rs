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

use bytes::Bytes;
use futures_util::FutureExt;
use h2_v4::client::ResponseFuture;
use h2_v4::{Reason, SendStream};
use http_v1::header::{HeaderMap, HeaderName, HeaderValue};
use http_v1::{Method, Request};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::timeout;

use super::asked::Asked;
pub(in crate::service) use super::asked::is_one;
use crate::rpc::port::{Answers, Call};
use crate::rpc::wire::{Messages, ReadError, send_part};
use crate::rpc::{Code, MethodName, Status, frame};

/// How much may wait between the two sides of the memory.
const BETWEEN: usize = 64 << 10;
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
pub(super) enum StreamError {
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
    let mut asked = Asked::new(from, limits);
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

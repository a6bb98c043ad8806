//! A node of mucp behind a gRPC of this process's own, so that streams to it are those of any other node:
//!
//! ```text
//! RpcSender, RpcReceiver ⇄ HTTP/2 in memory ⇄ bridge ⇄ HTTP/1.1, a connection a stream: ⇄ node
//!   POST  Micro-Stream: 1  {}                           opens it
//!   POST  Micro-Stream: 1  {"name":"John"}              each message      200  Micro-Stream: 1  {"msg":"Hello John"}
//!   POST  Micro-Stream: 1  Micro-Error: EOS             the end           200  Micro-Error: EOS
//! ```
//! A node whose method ended because of that end tells nothing; told the end once more, it closes the connection.
//!
//! Answers come when they like, and as many as there are: a stream is no HTTP but for its form. A method without streams
//! gets one message, without `Micro-Stream`, and gives one.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2_v4::server::SendResponse;
use h2_v4::{Reason, SendStream};
use http_v1::header::{HeaderMap, HeaderName, HeaderValue};
use http_v1::request::Parts;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::sleep;

use super::{ERROR, NO_METADATA, content_type, passes, status_of};
use crate::registry::Node;
use crate::rpc::wire::{Messages, ReadError, answer_head, refuse, send_part};
use crate::rpc::{Code, Codec, MethodName, Status, frame, timeout};
use crate::upstream::http1::{HttpError, RequestHead};

/// How much may wait between the two.
const BETWEEN: usize = 64 << 10;
/// No message is longer.
const MESSAGE_BYTES: usize = 64 << 20;
/// Bytes of an answer's head, and its fields.
const HEAD_BYTES: usize = 64 << 10;
const FIELDS: usize = 100;
/// A stream's end is told again after so long, then after twice as long, up to the second.
const FIRST_END: Duration = Duration::from_millis(10);
const MOST_END: Duration = Duration::from_secs(1);
/// What a stream's end is told by.
const END: &str = "EOS";
/// What is said otherwise over HTTP/1.1.
const NOT_SENT: [&str; 5] = ["content-type", "te", "grpc-timeout", "content-length", "host"];

/// Why a stream ended badly.
#[derive(Debug, thiserror::Error)]
enum BridgeError {
    #[error("the caller is gone")]
    Caller(#[from] h2_v4::Error),
    #[error("the caller's messages cannot be read")]
    Messages(#[from] ReadError),
    #[error("the node's connection failed")]
    Node(#[from] io::Error),
    #[error("the node's answer is no answer of mucp")]
    Answer,
    #[error("the call cannot be sent")]
    Request(#[from] HttpError),
}

/// Carries one call over the node's connection; what is returned speaks HTTP/2.
#[expect(clippy::disallowed_methods, reason = "it ends with its call, and no end of a process has to wait for it")]
pub(in crate::upstream) fn front(tcp: TcpStream, node: Arc<Node>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(BETWEEN);
    drop(tokio::task::spawn_local(async move {
        if let Err(error) = serve(far, tcp, &node).await {
            log::debug!("a call by mucp ended early node={} error=\"{error}\"", node.id);
        }
    }));
    near
}

async fn serve(far: DuplexStream, tcp: TcpStream, node: &Node) -> Result<(), BridgeError> {
    let mut connection = h2_v4::server::handshake(far).await?;
    let Some(call) = connection.accept().await else { return Ok(()) };
    let (request, respond) = call?;
    let (head, body) = request.into_parts();
    let messages = Messages::new(body, MESSAGE_BYTES);
    let carried = {
        let mut carrying = std::pin::pin!(carry(&head, messages, respond, tcp, node));
        loop {
            tokio::select! {
                carried = &mut carrying => break carried,
                // what is written goes out while this is polled
                next = connection.accept() => match next {
                    Some(Ok((_, mut respond))) => respond.send_reset(Reason::REFUSED_STREAM),
                    _ => return Ok(()), // the caller is gone
                },
            }
        }
    };
    connection.graceful_shutdown();
    while connection.accept().await.is_some() {}
    carried
}

async fn carry(
    head: &Parts,
    mut messages: Messages,
    respond: SendResponse<Bytes>,
    tcp: TcpStream,
    node: &Node,
) -> Result<(), BridgeError> {
    let codec = Codec::of_content_type(head.headers.get("content-type").map(HeaderValue::as_bytes));
    let codec = codec.unwrap_or(Codec::Json);
    let endpoint = MethodName::parse(head.uri.path()).map(|name| name.endpoint()).unwrap_or_default();
    let is_stream = node.meta.streams.contains(&endpoint);
    let (from, mut to) = tcp.into_split();
    let is_ended = Cell::new(false);
    let line = line(head, codec, &endpoint, is_stream, node)?;
    let up = async {
        if is_stream {
            let opening: &[u8] = if codec == Codec::Json { b"{}" } else { b"" };
            post(&mut to, &line, "", opening).await?;
        }
        while let Some(message) = messages.next().await? {
            post(&mut to, &line, "", &message).await?;
        }
        is_ended.set(true);
        if !is_stream {
            return Ok::<(), BridgeError>(());
        }
        let mut wait = FIRST_END;
        loop {
            post(&mut to, &line, "micro-error: EOS\r\n", b"").await?;
            sleep(wait).await;
            wait = (wait * 2).min(MOST_END);
        }
    };
    let mut answers = Answers { from, input: BytesMut::new(), is_ended: &is_ended };
    let down = Answering { respond, stream: None, codec };
    let mut down = std::pin::pin!(down.pass(&mut answers, is_stream));
    tokio::select! {
        passed = &mut down => return passed,
        sent = up => match sent {
            Ok(()) => {}
            // what the node said before it closed tells more
            Err(BridgeError::Node(error)) => log::debug!("a node of mucp takes no more node={} error=\"{error}\"", node.id),
            Err(error) => return Err(error),
        },
    }
    down.await
}

/// What all requests of a call begin with.
fn line(head: &Parts, codec: Codec, endpoint: &str, is_stream: bool, node: &Node) -> Result<Vec<u8>, HttpError> {
    let mut line = RequestHead::new(Vec::new(), "POST", "/", "")?;
    line.host(node)?;
    let may_go = |name: &HeaderName| !NOT_SENT.contains(&name.as_str()) && passes(name.as_str());
    for (name, value) in head.headers.iter().filter(|(name, _)| may_go(name)) {
        line.field(name.as_str(), value.as_bytes())?;
    }
    line.field("content-type", content_type(codec).as_bytes())?;
    line.field("micro-service", node.id.service.as_bytes())?;
    line.field("micro-endpoint", endpoint.as_bytes())?;
    line.field("micro-id", b"1")?;
    if is_stream {
        line.field("micro-stream", b"1")?;
    }
    if let Some(time) = head.headers.get("grpc-timeout").and_then(|value| timeout::parse(value.as_bytes())) {
        line.field("timeout", time.as_nanos().to_string().as_bytes())?;
    }
    Ok(line.into_buffer())
}

async fn post(to: &mut OwnedWriteHalf, line: &[u8], more: &str, body: &[u8]) -> io::Result<()> {
    let length = format!("{more}content-length: {}\r\n\r\n", body.len());
    let mut whole = Vec::with_capacity(line.len() + length.len() + body.len());
    for part in [line, length.as_bytes(), body] {
        whole.extend_from_slice(part);
    }
    to.write_all(&whole).await
}

/// What a node says, answer by answer.
struct Answers<'a> {
    from: OwnedReadHalf,
    input: BytesMut,
    /// Nothing more is sent to it.
    is_ended: &'a Cell<bool>,
}

struct NodeAnswer {
    fields: HeaderMap,
    body: Bytes,
}

impl Answers<'_> {
    /// `None`: the node closed its connection after it was told the end.
    async fn next(&mut self) -> Result<Option<NodeAnswer>, BridgeError> {
        let (fields, start, length) = loop {
            if let Some(head) = head(&self.input)? {
                break head;
            }
            if self.input.len() > HEAD_BYTES {
                return Err(BridgeError::Answer);
            }
            match self.from.read_buf(&mut self.input).await? {
                0 if self.input.is_empty() && self.is_ended.get() => return Ok(None),
                0 => return Err(BridgeError::Node(io::ErrorKind::UnexpectedEof.into())),
                _ => {}
            }
        };
        while self.input.len() < start + length {
            if self.from.read_buf(&mut self.input).await? == 0 {
                return Err(BridgeError::Node(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        let mut whole = self.input.split_to(start + length);
        Ok(Some(NodeAnswer { fields, body: whole.split_off(start).freeze() }))
    }
}

/// The fields of an answer, where its body begins, and the length of that; `None`: more is to come.
fn head(input: &[u8]) -> Result<Option<(HeaderMap, usize, usize)>, BridgeError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let start = match parsed.parse(input) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BridgeError::Answer),
    };
    let mut all = HeaderMap::new();
    for field in parsed.headers.iter() {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(field.name.as_bytes()), HeaderValue::from_bytes(field.value))
        {
            all.append(name, value);
        }
    }
    let length = all.get("content-length").map_or(Some(0), |value| value.to_str().ok()?.parse::<usize>().ok());
    match length.filter(|length| *length <= MESSAGE_BYTES) {
        Some(length) if !all.contains_key("transfer-encoding") => Ok(Some((all, start, length))),
        _ => Err(BridgeError::Answer),
    }
}

/// The caller's side of the answers.
struct Answering {
    respond: SendResponse<Bytes>,
    /// Once its head was sent.
    stream: Option<SendStream<Bytes>>,
    codec: Codec,
}

impl Answering {
    /// Passes all answers on, up to the end.
    async fn pass(mut self, answers: &mut Answers<'_>, is_stream: bool) -> Result<(), BridgeError> {
        loop {
            let answer = match answers.next().await {
                Ok(Some(answer)) => answer,
                Ok(None) if is_stream => return self.end(HeaderMap::new(), &Status::ok()),
                Ok(None) => {
                    return self.end(HeaderMap::new(), &Status::new(Code::Unavailable, "the node gave no answer"));
                }
                Err(error) => {
                    self.end(HeaderMap::new(), &Status::new(Code::Unavailable, error.to_string()))?;
                    return Err(error);
                }
            };
            if let Some(error) = answer.fields.get(ERROR).filter(|error| !error.is_empty()) {
                let status = if error == END { Status::ok() } else { status_of(error.as_bytes()) };
                return self.end(metadata(answer.fields), &status);
            }
            let stream = self.begun(answer.fields)?;
            send_part(stream, frame::framed(&answer.body), false).await?;
            if !is_stream {
                return self.end(HeaderMap::new(), &Status::ok());
            }
        }
    }

    fn begun(&mut self, fields: HeaderMap) -> Result<&mut SendStream<Bytes>, h2_v4::Error> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.respond.send_response(answer_head(self.codec.content_type(), metadata(fields)), false)?,
        };
        Ok(self.stream.insert(stream))
    }

    fn end(mut self, metadata: HeaderMap, status: &Status) -> Result<(), BridgeError> {
        match &mut self.stream {
            Some(stream) => stream.send_trailers(status.to_trailers())?,
            None => refuse(&mut self.respond, self.codec.content_type(), metadata, status)?,
        }
        Ok(())
    }
}

fn metadata(mut fields: HeaderMap) -> HeaderMap {
    for name in NO_METADATA.iter().chain(&NOT_SENT) {
        fields.remove(*name);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_head_and_so_many_bytes() {
        let whole = b"HTTP/1.1 200 OK\r\nMicro-Stream: 1\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1";
        let (fields, start, length) = head(whole).unwrap().expect("complete");
        assert_eq!((&whole[start..start + length], fields.len()), (&b"abc"[..], 2));
        for end in 0..start {
            assert!(head(&whole[..end]).unwrap().is_none(), "{end}");
        }
        for bad in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        ] {
            assert!(head(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}

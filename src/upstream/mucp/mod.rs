//! mucp, the RPC of Go Micro's v4 and v5, over HTTP/1.1:
//!
//! ```text
//! POST / HTTP/1.1                          HTTP/1.1 200 OK
//! Content-Type: application/json           Content-Type: application/json
//! Micro-Endpoint: Say.Hello
//! Timeout: 10000000000                     {"msg":"Hello John"}
//!
//! {"name":"John"}                          an error: `Micro-Error: {"id":…,"code":418,…}` and no body
//! ```
//! Protobuf messages go as they are, under `application/protobuf`. Streams go by a `bridge`.

pub(super) mod bridge;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_v1::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::call::target;
use super::http1::{AnswerHead, Body, HttpError, Outgoing, RequestHead, Times};
use super::rpc::{RpcError, RpcHead};
use super::{Policy, Upstream, headers};
use crate::registry::Node;
use crate::rpc::{Code, Codec, GoError, Status};
use crate::trace::CALL_KEY_HEADER;

/// What carries a failure.
const ERROR: &str = "micro-error";
/// What of an answer's head belongs to the connection, or is the request's own that nodes send back.
const NO_METADATA: [&str; 5] = ["connection", "content-length", "transfer-encoding", "micro-error", "call-service-key"];

/// What says which method is meant, and how: a caller's own would be read in the place of what is called.
const SAID: [&str; 10] = [
    "micro-endpoint",
    "micro-error",
    "micro-id",
    "micro-method",
    "micro-protocol",
    "micro-service",
    "micro-stream",
    "micro-target",
    "micro-topic",
    "timeout",
];

/// Whether a caller's metadata may go to a node of mucp under this name.
fn passes(name: &str) -> bool {
    let plain = name.strip_prefix("x-").unwrap_or(name);
    !SAID.iter().any(|said| headers::same(said, plain.as_bytes()))
}

/// A call as a node of mucp gets it.
pub(super) struct MucpCall<'a> {
    pub head: &'a RpcHead,
    pub codec: Codec,
    pub message: &'a Bytes,
    pub policy: &'a Policy,
    /// How long the answer may take.
    pub time: Duration,
    /// Bytes that it may have.
    pub limit: usize,
}

impl Upstream {
    /// One try on a node. The same as over gRPC: the message, what came with it, and nothing after it.
    pub(super) async fn mucp_once(
        &self,
        call: MucpCall<'_>,
        node: &Arc<Node>,
    ) -> Result<(Bytes, HeaderMap, HeaderMap), RpcError> {
        let failed = |source: HttpError| match source {
            HttpError::Deadline(after) => RpcError::Deadline { node: node.clone(), after },
            source => RpcError::Mucp { node: node.clone(), source },
        };
        let to = target(node, (None, None)).map_err(failed)?;
        let head = self.mucp_head(&call, node).map_err(failed)?;
        let times = Times { connect: call.policy.connect_timeout, head: call.time };
        let sent = self.pool.send(&to, &head, &Outgoing::Whole(call.message.clone()), times).await;
        self.pool.recycle(head.into_buffer());
        let answer = sent.map_err(failed)?;
        let http = answer.head.status();
        if let Some(error) = answer.head.values(ERROR).next() {
            let status = status_of(error);
            return Err(RpcError::Status { node: node.clone(), status });
        }
        if http != 200 {
            return Err(RpcError::NotRpc { node: node.clone(), http });
        }
        let metadata = metadata(&answer.head);
        let message = collect(answer.body, call.limit).await.map_err(failed)?;
        Ok((message, metadata, HeaderMap::new()))
    }

    fn mucp_head(&self, call: &MucpCall<'_>, node: &Node) -> Result<RequestHead, HttpError> {
        let mut head = RequestHead::new(self.pool.buffer(), "POST", "/", "")?;
        head.host(node)?;
        let may_go = |name: &HeaderName| {
            *name != CONTENT_TYPE && passes(name.as_str()) && (name != CALL_KEY_HEADER || node.knows_call_key())
        };
        for (name, value) in call.head.fields().iter().filter(|(name, _)| may_go(name)) {
            head.field(name.as_str(), value.as_bytes())?;
        }
        let content_type = content_type(call.codec);
        head.field("content-type", content_type.as_bytes())?;
        head.field("accept", content_type.as_bytes())?;
        head.field("micro-service", node.id.service.as_bytes())?;
        head.field("micro-endpoint", call.head.endpoint().as_bytes())?;
        head.field("micro-id", b"1")?;
        head.field("timeout", call.time.as_nanos().to_string().as_bytes())?;
        Ok(head)
    }
}

fn content_type(codec: Codec) -> &'static str {
    match codec {
        Codec::Json => "application/json",
        Codec::Proto => "application/protobuf",
    }
}

/// A failure as nodes write it: mostly JSON, text where something else than a handler failed.
fn status_of(error: &[u8]) -> Status {
    let message = String::from_utf8_lossy(error).into_owned();
    match GoError::parse(&message) {
        Some(error) => Status::new(error.http().map_or(Code::Unknown, Code::from_http), message),
        None => Status::new(Code::Unknown, message),
    }
}

fn metadata(head: &AnswerHead) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for field in head.fields().filter(|field| !NO_METADATA.iter().any(|known| field.name().eq_ignore_ascii_case(known)))
    {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(field.name_bytes()), HeaderValue::from_bytes(field.value()))
        {
            metadata.append(name, value);
        }
    }
    metadata
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, HttpError> {
    let mut all = BytesMut::new();
    while let Some(part) = poll_fn(|task| Pin::new(&mut body).poll_next(task)).await {
        let part = part?;
        if all.len() + part.len() > limit {
            return Err(HttpError::Malformed("it has more bytes than an answer may have"));
        }
        all.extend_from_slice(&part);
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_status_with_its_code() {
        let json = r#"{"id":"go.micro.srv.greeter","code":418,"detail":"no coffee","status":"I'm a teapot"}"#;
        let status = status_of(json.as_bytes());
        assert_eq!((status.to_http(), status.message.as_str()), (418, json));
        let status = status_of(b"unknown service");
        assert_eq!((status.code, status.message.as_str()), (Code::Unknown, "unknown service"));
    }
}

//! Calls by RPC: the same balancer, permits, deadlines and retries as over HTTP, on connections of HTTP/2 that many calls
//! share.
//!
//! `pool` holds the connections, `head` makes what a call begins with, `call` carries one that has one message each way, and
//! `open` begins a stream of any kind. Callers with JSON reach services that take protobuf only: `descriptors` knows their
//! messages, which `reflection` reads from a node.

mod call;
mod descriptor_file;
mod descriptors;
mod error;
mod head;
mod open;
mod pool;
mod reflection;

pub use descriptor_file::{DescriptorFile, DescriptorFileError, Stamp, stamp};
pub use descriptors::{Descriptors, Schemas, UnknownMessages};
pub use error::RpcError;
pub use head::RpcHead;
pub use open::{Opened, RpcReceiver, RpcSender, RpcStream};
pub(super) use pool::Pool;
pub use pool::{ConnectError, Lease};
pub use reflection::ReflectionError;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_v1::HeaderMap;

use super::{Forwarded, Tries};
use crate::registry::{Node, RpcProtocol};
use crate::rpc::Codec;
use crate::trace::context::TraceContext;

/// A call as it is to reach the service.
pub struct RpcRequest<'a> {
    /// `Say.Hello`, or in full `/greeter.Say/Hello`.
    pub method: &'a str,
    /// How its messages are written. Those in JSON are given to a service that takes protobuf only as protobuf, and its
    /// answers come back as JSON.
    pub codec: Codec,
    /// The caller's metadata, names in lower case; what may not pass is left out here. A line of `tracestate` continues the
    /// caller's trace.
    pub metadata: Vec<(&'a str, &'a [u8])>,
    /// Whose request it is: becomes `x-request-id` and `traceparent`.
    pub context: &'a TraceContext,
    /// What signs the call.
    pub call_key: Option<&'a str>,
    /// Who asked, for `x-forwarded-*` and the source-hash picker.
    pub forwarded: Option<Forwarded<'a>>,
    /// How long the caller still waits; `None`: only the policy bounds the call.
    pub timeout: Option<Duration>,
    /// Bytes that a message of the answer may have.
    pub answer_bytes: usize,
    /// Where each try is noted, if anywhere.
    pub tries: Option<&'a Tries>,
}

/// The answer of a call with one message each way.
#[derive(Debug)]
pub struct RpcAnswer {
    /// The message.
    pub message: Bytes,
    /// What came before it, and after it.
    pub metadata: HeaderMap,
    /// What came after it.
    pub trailers: HeaderMap,
    /// Who answered.
    pub node: Arc<Node>,
    /// Which try it was, from 1.
    pub attempt: u32,
}

/// How a node is called; by gRPC where it says nothing.
fn protocol_of(node: &Node) -> RpcProtocol {
    node.rpc_protocol().unwrap_or(RpcProtocol::Grpc)
}

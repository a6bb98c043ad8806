//! CALL IT: one function that calls a service: picks a node, sends, retries on the next one where that is safe.
//!
//! May import: `balance`, `registry`, `rpc`, `trace` (context, `tracestate` and the call key's name), `backoff`, `metrics`,
//! `causes`, `trust`, `timer`, `framing`, `shutdown`.
//!
//! [`Upstream::call`] is that function; one [`Upstream`] a worker, since it is bound to its thread. [`headers`] says
//! which headers may pass, `http1` is the client that carries it (a service's front uses it for the program behind it).

mod body;
mod call;
mod error;
pub mod headers;
mod health;
pub(crate) mod http1;
mod mucp;
mod rpc;
mod tls;

pub use body::{AnswerBody, BodyStream, Broken, RequestBody};
pub use call::{Forwarded, Tries, Try, Upstream, UpstreamRequest, UpstreamResponse};
pub use error::CallError;
pub use health::{HealthCheck, HealthChecks};
pub use http1::{AnswerHead, Field, HttpError, PROTOCOL};
pub use rpc::{
    ConnectError, DescriptorFile, DescriptorFileError, Descriptors, Lease, Opened, ReflectionError, RpcAnswer,
    RpcError, RpcHead, RpcReceiver, RpcRequest, RpcSender, RpcStream, Schemas, Stamp, UnknownMessages, stamp,
};
use tls::tls_of;
pub use tls::{ClientTls, ClientTlsFiles};

use std::sync::Arc;
use std::time::Duration;

use crate::rpc::Keepalive;

/// How a service (or one action of it) is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The deadline of each try, from the connection to the end of the answer's head. While a streamed body is being
    /// sent it counts from the last part of it.
    pub timeout: Duration,
    /// How long a new connection to a node may take.
    pub connect_timeout: Duration,
    /// How long an answer's body may stand still.
    pub stall_timeout: Duration,
    /// How long a connection may stand still whose protocol was changed to WebSocket.
    pub tunnel_timeout: Duration,
    /// The deadline of all tries together and of the answer's body; `None`: that of the tries alone.
    pub deadline: Option<Duration>,
    /// How often a request is tried in all, each time on the next node.
    pub attempts: u32,
    /// Also retry what may have been carried out (a POST that was sent).
    pub retry_non_idempotent: bool,
    /// Answers that are retried like failures; none by default.
    pub retry_status: Vec<u16>,
    /// How it is called by TLS; `None`: it is not. An [`Origin`](crate::registry::Origin) of `https` must have it.
    pub tls: Option<Arc<ClientTls>>,
    /// How nodes are called that say that they take TLS, where `tls` says nothing; other nodes are called plainly then.
    pub told_tls: Option<Arc<ClientTls>>,
    /// The first wait before a further try; doubled each time, with jitter.
    pub backoff: Duration,
    /// Where the messages are known from of a service that takes protobuf only, for callers by RPC with JSON.
    pub descriptors: Descriptors,
    /// How a node is noticed that is silently gone while it is called by RPC; `None`: by the kernel alone.
    pub keepalive: Option<Keepalive>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10), // the originals' 10 s a try and 3 tries
            // a node on the same network accepts in a millisecond; a second lost SYN is repeated after 3 s: this bears one
            connect_timeout: Duration::from_secs(2),
            stall_timeout: Duration::from_secs(60), // nginx's proxy_read_timeout
            tunnel_timeout: Duration::from_secs(3600), // long enough for who has little to say, and dead peers still go
            deadline: None,                         // a stream of events may last for ever
            attempts: 3,
            retry_non_idempotent: false,
            retry_status: Vec::new(),
            tls: None,
            told_tls: None,
            backoff: Duration::from_millis(25),
            descriptors: Descriptors::Auto,
            keepalive: Some(Keepalive::CLIENT),
        }
    }
}

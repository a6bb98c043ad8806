//! WHAT AN RPC IS: codes, messages, codecs, timeouts and names of gRPC and of Go Micro, and the port that takes calls.
//!
//! May import: `drain`, `listener` (TLS).
//!
//! The parts that only read and write (`status`, `frame`, `codec`, `timeout`, `metadata`, `method`) know no socket. [`port`]
//! serves a listening socket (HTTP/2 only) and hands each call to a [`port::Answers`], of which each worker thread has its
//! own; `foreign` lets requests pass that carry fields of another connection; [`wire`] sends and reads the parts of a call,
//! [`generated`] hands it to a service that tonic generated; [`schema`] reads and writes messages whose types are known at
//! run time only.

mod codec;
mod foreign;
pub mod frame;
pub mod generated;
pub mod keepalive;
pub mod metadata;
pub mod method;
pub mod port;
pub mod schema;
mod status;
pub mod timeout;
pub mod wire;

pub use codec::{Codec, CodecError};
pub use keepalive::Keepalive;
pub use method::MethodName;
pub use status::{Code, GoError, Status};

/// Bytes of a message that nobody set a limit for: gRPC's own 4 MiB.
pub const MESSAGE_BYTES: usize = 4 << 20;

//! A lean HTTP/1.1 client for the data path (RFC 9110, RFC 9112): what a proxy needs of one, and strict in what it takes.
//!
//! ```text
//! Pool::send: a kept connection that still stands, or a new one
//!   Exchange: writes RequestHead and body │ reads AnswerHead, while the body may still flow
//!     Answer: head, Body (decodes what its framing says, part by part) ─ at its end the connection goes back to the Pool
//! ```
//! A request that asks for another protocol, and gets it, leaves a tunnel in place of a body.
//!
//! One connection carries one exchange at a time, without pipelining. All of it is bound to its thread: a worker has its
//! own connections, and no lock or wake-up across threads stands between a request and its answer. Nothing is read from a
//! connection before somebody asks for the next part, so a slow client slows the service down and fills no memory.

mod answer;
mod connection;
mod error;
mod exchange;
mod outgoing;
mod pool;
mod request;
mod socket;
mod tunnel;

pub use answer::{AnswerHead, Body, Field};
pub use error::HttpError;
pub use exchange::{Answer, PROTOCOL};
pub use outgoing::{Outgoing, Parts, Shared};
pub use pool::{Pool, Secure, Target, Times};
pub use request::{RequestHead, is_idempotent};
pub use tunnel::Upgrade;

//! The gateway's RPC port: calls of gRPC of every kind, passed on as they come. Messages are not looked at.
//!
//! `find` says which service a call is for, `front` is a call's way, `pass` carries its two streams, `journal` notes it.

mod find;
mod front;
mod journal;
mod pass;

pub use front::serve_rpc;

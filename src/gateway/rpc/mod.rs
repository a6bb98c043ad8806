//! Calls by RPC. On the gateway's RPC port calls of gRPC of every kind are passed on as they come, messages are not looked at:
//! `find` says which service a call is for, `front` is a call's way, `pass` carries its two streams, `journal` notes it. On the
//! HTTP port an action may be a method: [`json`] makes a call of a request, `lines` and `websocket` carry streams; [`web`] takes
//! what browsers send of gRPC.

mod find;
mod front;
mod journal;
pub(super) mod json;
mod lines;
mod pass;
pub(super) mod web;
mod websocket;

pub(super) use find::{Directory, GOMS_SERVICE};
pub use front::serve_rpc;
pub(super) use lines::Parts as MessageParts;

//! Methods by RPC: the builder's side (`method`), what carries a call (`server`), services that tonic generated (`grpc`), and the RPC port of a service.

mod grpc;
mod method;
mod server;

pub(super) use method::Methods;
pub use server::serve_rpc;

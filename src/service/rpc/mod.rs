//! Methods by RPC: the builder's side (`method`), what carries a call (`server`), those with streams (`stream`), and the RPC port of a service.

mod method;
pub(super) mod mucp;
mod server;
mod stream;

pub(super) use method::Methods;
pub use method::ReflectionError;
pub use server::serve_rpc;
pub use stream::Requests;

pub(super) use mucp::stream as mucp_stream;
pub(super) use server::answers;

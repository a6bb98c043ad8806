//! Methods by RPC: the builder's side (`method`), how a call finds one (`methods`), what carries a call (`server`), those with streams (`stream`), and the RPC port of a service.

mod method;
mod methods;
pub(super) mod mucp;
mod server;
mod stream;

pub use method::ReflectionError;
pub(super) use methods::Methods;
pub use server::serve_rpc;
pub use stream::Requests;

pub(super) use mucp::stream as mucp_stream;
pub(super) use server::answers;

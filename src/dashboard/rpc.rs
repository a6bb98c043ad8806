//! Methods by RPC, as the pages see them: a gateway of this process knows how to ask nodes for them, and how to call them.

use std::pin::Pin;
use std::time::Duration;

use crate::rpc::schema::MessageSchemas;

/// What is ready later, on this thread.
pub type Local<T> = Pin<Box<dyn Future<Output = T>>>;

/// What a gateway of this process can do by RPC.
pub struct Rpc {
    /// The methods of a service, by its name.
    pub methods: Box<dyn Fn(String) -> Local<Vec<Method>> + Send + Sync>,
    /// Calls one; what went wrong is told in words.
    pub call: Box<dyn Fn(Asked) -> Local<Result<Told, String>> + Send + Sync>,
}

/// A method that nodes of a service answer.
#[derive(Clone, Debug)]
pub struct Method {
    /// `/greeter.Say/Hello`.
    pub path: String,
    /// `Say.Hello`.
    pub name: String,
    /// Whether the client sends a stream, and whether it gets one.
    pub streams: (bool, bool),
    /// Its messages; `None` where it takes JSON that nobody describes.
    pub messages: Option<MessageSchemas>,
}

/// A call.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Whose nodes.
    pub service: String,
    /// `/greeter.Say/Hello`.
    pub method: String,
    /// Metadata, by name in lower case.
    pub metadata: Vec<(String, String)>,
    /// One message in JSON, or several for a stream.
    pub messages: String,
    /// How long all of it may take.
    pub timeout: Duration,
    /// Bytes of all that is answered; the rest is not read.
    pub most_bytes: usize,
}

/// What became of a call.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Whether the method answered `OK`.
    pub is_ok: bool,
    /// `OK`, or the code and what was said: `NotFound: no such user`.
    pub status: String,
    /// The messages, in JSON.
    pub messages: Vec<String>,
    /// Whether there were more than are here.
    pub is_cut: bool,
    /// By what its trace is found.
    pub request_id: String,
    /// How long it took.
    pub took: Duration,
}

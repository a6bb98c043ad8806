//! The greeter of Go Micro's demos in Rust: a method whose messages are protobuf and JSON alike.
//!
//! ```sh
//! scripts/services up etcd
//! export GOMS_REGISTRY_ADDRESS=127.0.0.1:2379 GOMS_REGISTRY_FORMAT=go-micro
//! cargo run --example greeter                    # takes the flags of `goms service`
//! goms gateway --handler rpc --namespace go.micro.srv
//! curl 'http://127.0.0.1:8080/greeter/say/hello?name=John'        # {"msg":"Hello John"}
//! ```
//! Programs of Go Micro call it as `go.micro.srv.greeter`, `Say.Hello`. Its .proto would be:
//!
//! ```text
//! package greeter;
//! service Say { rpc Hello(Request) returns (Response); }
//! message Request { string name = 1; }
//! message Response { string msg = 1; }
//! ```

use goms::{Context, Service, ServiceError};
use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct Request {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct Response {
    #[prost(string, tag = "1")]
    msg: String,
}

async fn hello(_ctx: Context, request: Request) -> Result<Response, ServiceError> {
    if request.name.is_empty() {
        return Err(ServiceError::new(400, "`name` must not be empty"));
    }
    Ok(Response { msg: format!("Hello {}", request.name) })
}

fn main() -> std::process::ExitCode {
    Service::new("greeter").version("1.0").rpc_message("Say.Hello", hello).run()
}

//! A service with two routes; one calls another service of the cluster.
//!
//! ```sh
//! goms up                                        # in another terminal
//! cargo run --example hello                      # takes the flags of `goms service`
//! curl http://127.0.0.1:PORT/hello -d '{"name":"Ann"}' -H 'content-type: application/json'
//! ```

use goms::{Context, Service, ServiceError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Person {
    name: String,
}

#[derive(Serialize)]
struct Greeting {
    message: String,
}

async fn hello(ctx: Context, person: Person) -> Result<Greeting, ServiceError> {
    if person.name.is_empty() {
        return Err(ServiceError::new(422, "`name` must not be empty"));
    }
    Ok(Greeting { message: format!("hello {}, this is request {}", person.name, ctx.request_id()) })
}

/// Registers the person with service `user`, through the same registry, balancer, key and trace.
async fn register(ctx: Context, person: Value) -> Result<Value, ServiceError> {
    let answer: Value = ctx.call("user/register", &person).await?;
    Ok(json!({ "registered": answer["data"]["body"] }))
}

fn main() -> std::process::ExitCode {
    Service::new("hello").version("1.0").route("/hello", hello).route("/register", register).run()
}

//! The two tiers of the greeter of Go Micro's demos: `goms service greeter-api` takes HTTP requests as messages from a gateway
//! with `--handler api` and calls `goms service greeter`.

use serde::{Deserialize, Serialize};

use crate::gateway::micro::message::{Request, Response};
use crate::{Context, Service, ServiceError};

/// The name of the tier that greets.
pub const SERVICE: &str = "greeter";
/// The name of the tier that takes HTTP requests.
pub const API: &str = "greeter-api";

/// Whom to greet.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct Name {
    #[prost(string, tag = "1")]
    name: String,
}

/// The greeting.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct Greeting {
    #[prost(string, tag = "1")]
    msg: String,
}

/// What the API tier answers with.
#[derive(Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "String::is_empty")]
    api: String,
    message: String,
}

/// A tier by its name; `None`: the name is another's. `label` tells its nodes apart: `one` shows as `srv one`.
#[must_use]
pub fn tier(name: &str, label: Option<&str>) -> Option<Service> {
    let label = label.unwrap_or_default().to_owned();
    match name {
        SERVICE => Some(Service::new(SERVICE).rpc_message("Say.Hello", move |_: Context, asked: Name| {
            let mut msg = format!("Hello {}", asked.name);
            if !label.is_empty() {
                msg = format!("{msg} srv {label}");
            }
            async move { Ok(Greeting { msg }) }
        })),
        API => Some(Service::new(API).rpc_message("Say.Hello", move |ctx: Context, asked: Request| {
            let api = if label.is_empty() { String::new() } else { format!("api {label}") };
            hello(ctx, asked, api)
        })),
        _ => None,
    }
}

async fn hello(ctx: Context, asked: Request, api: String) -> Result<Response, ServiceError> {
    let name = asked.get.get("name").filter(|pair| !pair.values.is_empty());
    let name = name.ok_or_else(|| ServiceError::new(400, "name is missing"))?.values.join(" ");
    let greeting: Greeting = ctx.rpc(SERVICE, "Say.Hello", &Name { name }).await?;
    let answer = Answer { api, message: greeting.msg };
    // two strings always become JSON
    let body = serde_json::to_string(&answer).unwrap_or_default();
    Ok(Response { status_code: 200, body, ..Response::default() })
}

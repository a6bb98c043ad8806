//! The two tiers of the greeter of Go Micro's demos: `goms service greeter-api` takes HTTP requests as messages from a gateway
//! with `--handler api` and calls `goms service greeter`.

use std::sync::Arc;

use futures_util::{TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::gateway::micro::message::{Request, Response};
use crate::service::Requests;
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
    /// How often `Say.Stream` greets; not said: [`GREETINGS`] times.
    #[prost(uint32, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
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
        SERVICE => Some(srv(label)),
        API => Some(Service::new(API).rpc_message("Say.Hello", move |ctx: Context, asked: Request| {
            let api = if label.is_empty() { String::new() } else { format!("api {label}") };
            hello(ctx, asked, api)
        })),
        _ => None,
    }
}

/// How often `Say.Stream` greets who does not say how often.
const GREETINGS: u32 = 3;
/// And at most, so that one call does not keep a node busy for long: some seconds' worth.
const MOST_GREETINGS: u32 = 10_000_000;

/// `Say.Hello` greets once, `Say.Stream` `count` times, `Say.Chat` everybody who is named.
fn srv(label: String) -> Service {
    let label: Arc<str> = label.into();
    let greeter = move || {
        let label = label.clone();
        move |name: &str| match &*label {
            "" => format!("Hello {name}"),
            label => format!("Hello {name} srv {label}"),
        }
    };
    let (once, several, all) = (greeter(), greeter(), greeter());
    Service::new(SERVICE)
        .rpc_message("Say.Hello", move |_: Context, asked: Name| {
            let msg = once(&asked.name);
            async move { Ok(Greeting { msg }) }
        })
        .rpc_message_server_stream("Say.Stream", move |_: Context, asked: Name| {
            let greeting = several(&asked.name);
            let count = asked.count.unwrap_or(GREETINGS).min(MOST_GREETINGS);
            let each = (1..=count).map(move |nth| Ok(Greeting { msg: format!("{greeting} {nth}") }));
            async move { Ok(stream::iter(each)) }
        })
        .rpc_message_stream("Say.Chat", move |_: Context, asked: Requests<Name>| {
            let greet = all.clone();
            async move { Ok(asked.map_ok(move |asked| Greeting { msg: greet(&asked.name) })) }
        })
}

async fn hello(ctx: Context, asked: Request, api: String) -> Result<Response, ServiceError> {
    let name = asked.get.get("name").filter(|pair| !pair.values.is_empty());
    let name = name.ok_or_else(|| ServiceError::new(400, "name is missing"))?.values.join(" ");
    let greeting: Greeting = ctx.rpc(SERVICE, "Say.Hello", &Name { name, count: None }).await?;
    let answer = Answer { api, message: greeting.msg };
    // two strings always become JSON
    let body = serde_json::to_string(&answer).unwrap_or_default();
    Ok(Response { status_code: 200, body, ..Response::default() })
}

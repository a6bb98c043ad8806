//! The demo service of the originals: it answers with what it was asked. Uses nothing but the public API.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Context, Service, ServiceError};

/// A service that echoes at each of `paths`:
/// `{"code":0,"data":{"body":{…},"headers":{…},"method":"POST","urlParam":"?a=1&b=3"},"msg":"success"}`.
#[must_use]
pub fn echo_service<P: Into<String>>(name: &str, paths: impl IntoIterator<Item = P>) -> Service {
    paths
        .into_iter()
        .fold(Service::new(name).version(env!("CARGO_PKG_VERSION")), |service, path| service.route(path, echo))
}

#[derive(Serialize)]
struct Answer {
    code: u32,
    data: Echo,
    msg: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Echo {
    body: Box<RawValue>,
    headers: BTreeMap<String, String>,
    method: String,
    url_param: String,
}

async fn echo(ctx: Context, body: Box<RawValue>) -> Result<impl Serialize, ServiceError> {
    let data =
        Echo { body, headers: ctx.headers(), method: ctx.method().to_owned(), url_param: ctx.url_param().to_owned() };
    Ok(Answer { code: 0, data, msg: "success" })
}

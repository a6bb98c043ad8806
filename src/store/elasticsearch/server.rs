//! A cluster: requests to it, and what it says where it refuses them.

use ::elasticsearch::http::headers::{CONTENT_TYPE, HeaderMap, HeaderValue};
use ::elasticsearch::http::{Method, StatusCode};
use bytes::Bytes;
use serde_json::Value;

use super::super::StoreError;
use super::access::{is_denied, tls_hint};
use super::bulk;
use super::nodes::{Node, Nodes, is_gateway_failure};
use crate::causes::chain;

/// A cluster and the name that is used there.
pub(super) struct Server {
    pub nodes: Nodes,
    /// The alias of the daily indices, or the one index.
    pub index: String,
}

/// What the server answered instead of what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path} was answered with {status}: {reason}")]
struct Unexpected {
    method: &'static str,
    path: String,
    status: u16,
    reason: String,
}

impl Unexpected {
    fn new(method: &'static str, path: &str, reply: &Reply<'_>) -> Self {
        Self { method, path: path.to_owned(), status: reply.status.as_u16(), reason: reason(&reply.body) }
    }
}

/// What the server answered.
pub(super) struct Reply<'s> {
    pub status: StatusCode,
    pub body: Bytes,
    node: &'s Node,
}

impl Server {
    /// Sends a request that may be sent twice. An address that does not answer, or behind which a proxy finds nobody, is
    /// passed over and the request goes to the next one, each once. One that takes too long is not: it may be at work.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> Result<Reply<'_>, StoreError> {
        let several = self.nodes.are_several();
        let mut last = None;
        for node in self.nodes.in_turn() {
            if several && let Err(error) = node.answers().await {
                node.failed(&chain(&error));
                last = Some(Err(unreachable(node, error)));
                continue;
            }
            match exchange(node, method, path, parameters, body.clone()).await {
                Ok(reply) if several && is_gateway_failure(reply.status) && server_error(&reply.body).is_none() => {
                    node.failed(&format!("{} {}", reply.status.as_u16(), reason(&reply.body)));
                    last = Some(Ok(reply));
                }
                Ok(reply) => {
                    node.is_here();
                    return Ok(reply);
                }
                Err(error) => {
                    if several {
                        node.failed(&chain(&error));
                    }
                    let stuck = error.is_timeout();
                    last = Some(Err(unreachable(node, error)));
                    if stuck {
                        break;
                    }
                }
            }
        }
        last.unwrap_or_else(|| Err(self.failed("no address")))
    }

    pub(super) fn json<T: serde::de::DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        reply: &Reply<'_>,
    ) -> Result<T, StoreError> {
        if !reply.status.is_success() {
            return Err(self.unexpected(method, path, reply));
        }
        serde_json::from_slice(&reply.body).map_err(|error| self.failed(error))
    }

    pub(super) fn unexpected(&self, method: &'static str, path: &str, reply: &Reply<'_>) -> StoreError {
        let unexpected = Unexpected::new(method, path, reply);
        if is_denied(reply.status, server_error(&reply.body).as_ref()) {
            self.denied(reply, reply.status, unexpected)
        } else {
            StoreError::Unavailable { address: reply.node.address.clone(), source: unexpected.into() }
        }
    }

    /// The same of a write of which a part may pass.
    pub(super) fn rejected(&self, method: &'static str, path: &str, reply: &Reply<'_>) -> StoreError {
        let source = Unexpected::new(method, path, reply).into();
        StoreError::Rejected { address: reply.node.address.clone(), source }
    }

    /// That we may not do this, and what to set.
    pub(super) fn denied(
        &self,
        reply: &Reply<'_>,
        status: StatusCode,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StoreError {
        let hint = reply.node.access.hint(status, &self.index);
        StoreError::Setting { address: reply.node.address.clone(), hint, source: Some(source.into()) }
    }

    pub(super) fn failed(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::Unavailable { address: self.nodes.addresses(), source: source.into() }
    }
}

async fn exchange<'s>(
    node: &'s Node,
    method: Method,
    path: &str,
    parameters: &[(&str, &str)],
    body: Option<Bytes>,
) -> Result<Reply<'s>, ::elasticsearch::Error> {
    let mut headers = HeaderMap::new();
    let bulk = path.ends_with("/_bulk");
    let kind = if bulk { "application/x-ndjson" } else { "application/json" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let response = node.transport.send(method, path, headers, Some(parameters), body, None).await?;
    let status = response.status_code();
    let body = response.bytes().await?;
    Ok(Reply { status, body, node })
}

fn unreachable(node: &Node, error: ::elasticsearch::Error) -> StoreError {
    let address = node.address.clone();
    match tls_hint(&chain(&error)) {
        Some(hint) => StoreError::Setting { address, hint: hint.to_owned(), source: Some(error.into()) },
        None => StoreError::Unavailable { address, source: error.into() },
    }
}

/// The error that Elasticsearch itself reports; `None` where the answer is another's, as a proxy's page.
pub(super) fn server_error(body: &[u8]) -> Option<Value> {
    let mut answer: Value = serde_json::from_slice(body).ok()?;
    answer.get("status")?.as_u64()?;
    Some(answer.get_mut("error")?.take()).filter(|error| error.is_object() || error.is_string())
}

/// Why the server refused a request, from its JSON or else its text.
pub(super) fn reason(body: &[u8]) -> String {
    let from_json =
        serde_json::from_slice::<Value>(body).map(|answer| bulk::reason(&answer["error"])).unwrap_or_default();
    if from_json.is_empty() { String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned() } else { from_json }
}

//! One server: requests to it, and what it says where it refuses them.

use ::elasticsearch::http::headers::{CONTENT_TYPE, HeaderMap, HeaderValue};
use ::elasticsearch::http::transport::Transport;
use ::elasticsearch::http::{Method, StatusCode};
use bytes::Bytes;
use serde_json::Value;

use super::super::StoreError;
use super::bulk;

/// A server and the name that is used there.
pub(super) struct Server {
    pub transport: Transport,
    /// The URL without credentials, for messages.
    pub address: String,
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
    fn new(method: &'static str, path: &str, reply: &Reply) -> Self {
        Self { method, path: path.to_owned(), status: reply.status.as_u16(), reason: reason(&reply.body) }
    }
}

/// What the server answered.
pub(super) struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Server {
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> Result<Reply, StoreError> {
        let mut headers = HeaderMap::new();
        let bulk = path.ends_with("/_bulk");
        let kind = if bulk { "application/x-ndjson" } else { "application/json" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let response = self
            .transport
            .send(method, path, headers, Some(parameters), body, None)
            .await
            .map_err(|e| self.failed(e))?;
        let status = response.status_code();
        let body = response.bytes().await.map_err(|error| self.failed(error))?;
        Ok(Reply { status, body })
    }

    pub(super) fn json<T: serde::de::DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        reply: &Reply,
    ) -> Result<T, StoreError> {
        if !reply.status.is_success() {
            return Err(self.unexpected(method, path, reply));
        }
        serde_json::from_slice(&reply.body).map_err(|error| self.failed(error))
    }

    pub(super) fn unexpected(&self, method: &'static str, path: &str, reply: &Reply) -> StoreError {
        self.failed(Unexpected::new(method, path, reply))
    }

    /// The same of a write of which a part may pass.
    pub(super) fn rejected(&self, method: &'static str, path: &str, reply: &Reply) -> StoreError {
        let source = Unexpected::new(method, path, reply).into();
        StoreError::Rejected { address: self.address.clone(), source }
    }

    pub(super) fn failed(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::Unavailable { address: self.address.clone(), source: source.into() }
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

//! What goms asks of a Consul agent's HTTP API (v1, <https://developer.hashicorp.com/consul/api-docs>).

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::super::{RegistryError, http};
use super::ConsulSettings;

/// How long a request may take that waits for nothing: an agent that needs longer is frozen or has lost its servers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a blocking query waits for news. Consul adds up to a sixteenth; short, so that a dead connection is noticed.
const WAIT: Duration = Duration::from_secs(10);
const WAIT_TIMEOUT: Duration = Duration::from_secs(15);
/// Of what the agent says when it refuses, in errors.
const SAYS_CHARS: usize = 200;

/// Why the agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// No answer, or none that can be understood.
    #[error("no answer")]
    Link(#[source] reqwest::Error),
    /// It answered, and said no.
    #[error("{status}: {said}")]
    Refused { status: StatusCode, said: String },
    /// Its token, or the lack of one, is not enough.
    #[error("{0}; set `registry.token` to one that may write services and sessions, read nodes, and write keys")]
    Denied(String),
    /// It took what it was told, and did not show it in time.
    #[error("node was registered but is not shown")]
    Unseen,
}

impl ApiError {
    /// The agent cannot be reached, or has no servers: it may be back any moment.
    pub(super) fn is_away(&self) -> bool {
        match self {
            Self::Link(_) | Self::Unseen => true,
            Self::Refused { status, .. } => status.is_server_error(),
            Self::Denied(_) => false,
        }
    }

    /// The agent knows no such service or check: it lost what it was told.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Refused { status, said } if *status == StatusCode::NOT_FOUND || said.contains("Unknown check"))
    }
}

/// The client of one agent.
pub(super) struct Api {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

/// The answer of a blocking query.
pub(super) struct News<T> {
    pub(super) index: u64,
    pub(super) body: T,
}

/// A check, with what Consul tells of its service. <https://developer.hashicorp.com/consul/api-docs/health#list-checks-in-state>
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
pub(super) struct Check {
    pub(super) node: String,
    #[serde(rename = "CheckID")]
    pub(super) check_id: String,
    pub(super) status: String,
    pub(super) notes: String,
    #[serde(rename = "ServiceID")]
    pub(super) service_id: String,
    pub(super) create_index: u64,
}

/// A key of a node that someone took out of rotation.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pair {
    session: Option<String>,
}

#[derive(Deserialize)]
struct SessionId {
    #[serde(rename = "ID")]
    id: String,
}

/// A node as the agent is told of it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Registration {
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) name: String,
    pub(super) tags: Vec<String>,
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) meta: std::collections::BTreeMap<&'static str, String>,
    pub(super) weights: Weights,
    pub(super) check: CheckDefinition,
}

/// For who finds services by Consul's DNS.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Weights {
    pub(super) passing: u32,
    pub(super) warning: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CheckDefinition {
    #[serde(rename = "CheckID")]
    pub(super) check_id: String,
    pub(super) name: &'static str,
    /// The node's metadata as JSON: notes have no limit, as a service's metadata have.
    pub(super) notes: String,
    #[serde(rename = "TTL")]
    pub(super) ttl: String,
    pub(super) status: &'static str,
    pub(super) deregister_critical_service_after: &'static str,
}

impl Api {
    pub(super) fn new(settings: &ConsulSettings) -> Result<Self, RegistryError> {
        let bad = |setting: &'static str, reason: String| RegistryError::Setting { setting, reason };
        let text = settings.address.trim_end_matches('/');
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let base = Url::parse(&full).map_err(|error| bad("address", format!("`{text}`: {error}")))?;
        let http = http::client(settings.ca_file.as_deref())?;
        Ok(Self { http, base, token: settings.token.clone() })
    }

    /// Where the agent is, for log lines and errors.
    pub(super) fn address(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// Tells the agent of a node, in place of what it knew of it.
    pub(super) async fn register(&self, node: &Registration) -> Result<(), ApiError> {
        let request =
            self.request(Method::PUT, &["agent", "service", "register"]).query(&[("replace-existing-checks", "1")]);
        self.send(request.json(node)).await.map(drop)
    }

    pub(super) async fn deregister(&self, key: &str) -> Result<(), ApiError> {
        self.send(self.request(Method::PUT, &["agent", "service", "deregister", key])).await.map(drop)
    }

    /// Renews a node (`pass`), or says that it leaves (`warn`).
    pub(super) async fn tell(&self, how: &str, key: &str) -> Result<(), ApiError> {
        self.send(self.request(Method::PUT, &["agent", "check", how, &check_id(key)])).await.map(drop)
    }

    /// Every check of this namespace's nodes and of the machines under them; waits for news after `index`.
    pub(super) async fn checks(&self, namespace: &str, index: u64) -> Result<News<Vec<Check>>, ApiError> {
        let filter = format!("\"{namespace}\" in ServiceTags or ServiceID == \"\"");
        let request = self.request(Method::GET, &["health", "state", "any"]).query(&[("filter", filter.as_str())]);
        self.wait(request, index).await
    }

    /// The checks of one node of a service and of its machine.
    pub(super) async fn checks_of(&self, service: &str, key: &str) -> Result<Vec<Check>, ApiError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            checks: Vec<Check>,
        }
        let filter = format!("Service.ID == \"{key}\"");
        let request = self.request(Method::GET, &["health", "service", service]).query(&[("filter", filter.as_str())]);
        let entries: Vec<Entry> = decoded(self.send(request).await?).await?;
        Ok(entries.into_iter().flat_map(|entry| entry.checks).collect())
    }

    /// The keys of nodes out of rotation, without `prefix`; waits for news after `index`.
    pub(super) async fn marks(&self, prefix: &str, index: u64) -> Result<News<Vec<String>>, ApiError> {
        let parts: Vec<&str> = std::iter::once("kv").chain(prefix.split('/')).collect();
        let request = self.request(Method::GET, &parts).query(&[("keys", "")]);
        let news: News<Vec<String>> = self.wait(request, index).await?;
        let keys = news.body.iter().filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned).collect();
        Ok(News { index: news.index, body: keys })
    }

    /// Puts a key that goes when the node's check goes.
    pub(super) async fn mark(&self, prefix: &str, key: &str, machine: &str) -> Result<(), ApiError> {
        let session = json!({
            "Name": format!("drain {key}"), "Node": machine, "Behavior": "delete", "LockDelay": "0s",
            "NodeChecks": [], "ServiceChecks": [{ "ID": check_id(key) }],
        });
        let made = self.send(self.request(Method::PUT, &["session", "create"]).json(&session)).await?;
        let session: SessionId = decoded(made).await?;
        let request = self.key(Method::PUT, prefix, key).query(&[("acquire", session.id.as_str())]);
        let acquired = match self.send(request).await {
            Ok(answer) => decoded::<Value>(answer).await,
            Err(error) => Err(error),
        };
        if !matches!(acquired, Ok(Value::Bool(true))) {
            self.end_session(&session.id).await; // it is marked already, or cannot be
        }
        acquired.map(drop)
    }

    /// Removes that key.
    pub(super) async fn unmark(&self, prefix: &str, key: &str) -> Result<(), ApiError> {
        let pairs = match self.send(self.key(Method::GET, prefix, key)).await {
            Ok(answer) => decoded::<Vec<Pair>>(answer).await?,
            Err(error) if error.is_unknown() => return Ok(()),
            Err(error) => return Err(error),
        };
        self.send(self.key(Method::DELETE, prefix, key)).await?;
        for session in pairs.iter().filter_map(|pair| pair.session.as_deref()) {
            self.end_session(session).await;
        }
        Ok(())
    }

    async fn end_session(&self, id: &str) {
        if let Err(error) = self.send(self.request(Method::PUT, &["session", "destroy", id])).await {
            log::debug!("session {id} of consul stays until its node goes: {error}");
        }
    }

    fn key(&self, method: Method, prefix: &str, key: &str) -> reqwest::RequestBuilder {
        let parts: Vec<&str> =
            std::iter::once("kv").chain(prefix.trim_end_matches('/').split('/')).chain([key]).collect();
        self.request(method, &parts)
    }

    fn request(&self, method: Method, path: &[&str]) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().push("v1").extend(path);
        }
        let request = self.http.request(method, url).timeout(REQUEST_TIMEOUT);
        match &self.token {
            Some(token) => request.header("X-Consul-Token", token),
            None => request,
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ApiError> {
        let answer = request.send().await.map_err(ApiError::Link)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said: String = answer.text().await.map_err(ApiError::Link)?.trim().chars().take(SAYS_CHARS).collect();
        Err(match status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => ApiError::Denied(said),
            _ => ApiError::Refused { status, said },
        })
    }

    /// A blocking query. No such key is an answer too, and an empty one.
    async fn wait<T: DeserializeOwned + Default>(
        &self,
        request: reqwest::RequestBuilder,
        index: u64,
    ) -> Result<News<T>, ApiError> {
        let request = match index {
            0 => request,
            _ => request
                .query(&[("index", index.to_string()), ("wait", format!("{}s", WAIT.as_secs()))])
                .timeout(WAIT_TIMEOUT),
        };
        let answer = request.send().await.map_err(ApiError::Link)?;
        let told = answer.headers().get("X-Consul-Index").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        match (answer.status(), told) {
            (StatusCode::NOT_FOUND, Some(told)) => Ok(News { index: next_index(index, told), body: T::default() }),
            (status, Some(told)) if status.is_success() => {
                Ok(News { index: next_index(index, told), body: decoded(answer).await? })
            }
            (status, _) => {
                let said = answer.text().await.map_err(ApiError::Link)?.trim().chars().take(SAYS_CHARS).collect();
                match status {
                    StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Err(ApiError::Denied(said)),
                    _ => Err(ApiError::Refused { status, said }),
                }
            }
        }
    }
}

/// The check that goms renews for a node.
pub(super) fn check_id(key: &str) -> String {
    format!("service:{key}")
}

/// What to ask with next: an index that went back is from another life of the servers, so that everything is read anew,
/// and 0 would not block. <https://developer.hashicorp.com/consul/api-docs/features/blocking#implementation-details>
fn next_index(before: u64, told: u64) -> u64 {
    if told < before { 0 } else { told.max(1) }
}

async fn decoded<T: DeserializeOwned>(answer: reqwest::Response) -> Result<T, ApiError> {
    answer.json().await.map_err(ApiError::Link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_goes_back_begins_anew() {
        assert_eq!([next_index(0, 0), next_index(0, 7), next_index(7, 9), next_index(9, 9)], [1, 7, 9, 9]);
        assert_eq!(next_index(9, 3), 0);
    }
}

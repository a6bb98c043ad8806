//! What goms asks of Kubernetes' API: a list of EndpointSlices, and what becomes of them
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>).

use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::super::{RegistryError, http};
use super::KubernetesSettings;
use super::slice::{Metadata, Slice};

/// How long a list may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// Slices an answer: a large cluster's list comes in parts.
const PAGE: &str = "500";
/// How long the server follows changes before it ends the answer, in seconds, and how long goms waits for that: a server
/// that is silently gone is noticed then.
const WATCH_SECONDS: &str = "60";
const WATCH_TIMEOUT: Duration = Duration::from_secs(70);
/// Of an answer in all: 500 slices of 100 endpoints have 25 MB.
const MOST_BYTES: usize = 64 << 20;
/// Of all parts of a list.
const MOST_LIST_BYTES: usize = 4 * MOST_BYTES;
/// Of what the server says when it refuses, in errors.
const SAYS_CHARS: usize = 200;

/// Where a pod finds what lets it in.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Why the server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// No answer, or it broke off.
    #[error("no answer")]
    Link(#[source] reqwest::Error),
    /// An answer that cannot be understood.
    #[error("an answer that is none of Kubernetes' API")]
    Odd(#[from] serde_json::Error),
    /// It, or all parts of a list, is larger.
    #[error("an answer of more than {0} bytes; narrow `registry.selector`")]
    Size(usize),
    /// It answered, and said no.
    #[error("{status}: {said}")]
    Refused { status: StatusCode, said: String },
    /// The service account may not.
    #[error(
        "{0}; give its service account the right to list and watch endpointslices (scripts/kubernetes/registry.yaml has such a Role)"
    )]
    Denied(String),
    #[error("cannot read the token `{0}`")]
    Token(PathBuf, #[source] std::io::Error),
    /// What is known is too old to go on from: the list must be read again.
    #[error("the server has forgotten what changed since")]
    Expired,
}

impl ApiError {
    /// The server cannot be reached: it may be back any moment.
    pub(super) fn is_away(&self) -> bool {
        match self {
            Self::Link(_) => true,
            Self::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Odd(_) | Self::Size(_) | Self::Denied(_) | Self::Token(..) | Self::Expired => false,
        }
    }
}

/// What lets goms in.
enum Token {
    Given(String),
    /// Kubernetes writes another into it every hour.
    File(PathBuf),
}

/// The client of a cluster's API.
pub(super) struct Api {
    http: reqwest::Client,
    slices: Url,
    address: String,
    selector: String,
    token: Token,
}

/// All slices, and what they are to be followed from.
pub(super) struct List {
    pub(super) slices: Vec<Slice>,
    pub(super) version: String,
}

/// What became of a slice.
pub(super) enum Change {
    Put(Box<Slice>),
    Gone(String),
    /// Nothing: the version alone.
    None,
}

#[derive(Deserialize)]
struct Page {
    metadata: PageMeta,
    items: Option<Vec<Slice>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    more: Option<String>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: Metadata,
}

/// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>
#[derive(Default, Deserialize)]
#[serde(default)]
struct Failure {
    code: u16,
    message: String,
}

impl Api {
    pub(super) fn new(settings: &KubernetesSettings) -> Result<Self, RegistryError> {
        let bad = |reason: String| RegistryError::Setting { setting: "address", reason };
        let in_pod = |name: &str| PathBuf::from(ACCOUNT).join(name);
        let base = Url::parse(&settings.address).map_err(|error| bad(format!("`{}`: {error}", settings.address)))?;
        let ca_file = settings.ca_file.clone().or_else(|| Some(in_pod("ca.crt")).filter(|file| file.exists()));
        let mut slices = base.clone();
        slices.path_segments_mut().map_err(|()| bad(format!("`{base}` cannot be a server")))?.pop_if_empty().extend([
            "apis",
            "discovery.k8s.io",
            "v1",
            "namespaces",
            &settings.pods,
            "endpointslices",
        ]);
        Ok(Self {
            http: http::client(ca_file.as_deref())?,
            slices,
            address: base.as_str().trim_end_matches('/').to_owned(),
            selector: settings.selector.clone(),
            token: settings.token.clone().map_or_else(|| Token::File(in_pod("token")), Token::Given),
        })
    }

    /// Where it is, for log lines and errors.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// All slices there are.
    pub(super) async fn list(&self) -> Result<List, ApiError> {
        let mut all = Vec::new();
        let mut more = String::new();
        let mut bytes = 0;
        loop {
            let asked = [("limit", PAGE), ("continue", &more)];
            let answer = send(self.request(&asked).await?.timeout(LIST_TIMEOUT)).await?;
            let body = whole(answer).await?;
            bytes += body.len();
            if bytes > MOST_LIST_BYTES {
                return Err(ApiError::Size(MOST_LIST_BYTES));
            }
            let page: Page = serde_json::from_slice(&body)?;
            all.extend(page.items.unwrap_or_default());
            more = page.metadata.more.unwrap_or_default();
            if more.is_empty() {
                return Ok(List { slices: all, version: page.metadata.resource_version });
            }
        }
    }

    /// Follows what becomes of them from there on.
    pub(super) async fn watch(&self, version: &str) -> Result<Watch, ApiError> {
        let asked = [
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", WATCH_SECONDS),
            ("resourceVersion", version),
        ];
        let answer = send(self.request(&asked).await?.timeout(WATCH_TIMEOUT)).await?;
        Ok(Watch { answer, buffer: BytesMut::new() })
    }

    async fn request(&self, asked: &[(&str, &str)]) -> Result<RequestBuilder, ApiError> {
        let request =
            self.http.get(self.slices.clone()).query(&[("labelSelector", self.selector.as_str())]).query(asked);
        Ok(match &self.token {
            Token::Given(token) => request.bearer_auth(token),
            Token::File(file) => {
                let read = tokio::fs::read_to_string(file).await;
                request.bearer_auth(read.map_err(|error| ApiError::Token(file.clone(), error))?.trim())
            }
        })
    }
}

/// An answer that goes on: a line for each change.
pub(super) struct Watch {
    answer: Response,
    buffer: BytesMut,
}

impl Watch {
    /// The next change, and the version it makes; `None`: the server ended the answer after its time.
    ///
    /// # Cancel safety
    /// Safe in `select!`.
    pub(super) async fn next(&mut self) -> Result<Option<(Change, String)>, ApiError> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return change(&line).map(Some);
            }
            match self.answer.chunk().await {
                Ok(Some(chunk)) if self.buffer.len() + chunk.len() <= MOST_BYTES => {
                    self.buffer.extend_from_slice(&chunk)
                }
                Ok(Some(_)) => return Err(ApiError::Size(MOST_BYTES)),
                Ok(None) => return Ok(None),
                Err(error) => return Err(ApiError::Link(error)),
            }
        }
    }
}

fn change(line: &[u8]) -> Result<(Change, String), ApiError> {
    let event: Event<'_> = serde_json::from_slice(line)?;
    let text = event.object.get();
    match event.kind {
        "ADDED" | "MODIFIED" => {
            let slice: Slice = serde_json::from_str(text)?;
            let version = slice.metadata.resource_version.clone();
            Ok((Change::Put(Box::new(slice)), version))
        }
        "DELETED" => {
            let Bookmark { metadata } = serde_json::from_str(text)?;
            Ok((Change::Gone(metadata.name), metadata.resource_version))
        }
        "ERROR" => {
            let failure: Failure = serde_json::from_str(text)?;
            Err(refused(StatusCode::from_u16(failure.code).unwrap_or(StatusCode::BAD_GATEWAY), failure.message))
        }
        // BOOKMARK, and what later versions may tell
        _ => {
            let Bookmark { metadata } = serde_json::from_str(text)?;
            Ok((Change::None, metadata.resource_version))
        }
    }
}

fn refused(status: StatusCode, said: String) -> ApiError {
    match status {
        StatusCode::GONE => ApiError::Expired,
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => ApiError::Denied(said),
        _ => ApiError::Refused { status, said },
    }
}

async fn send(request: RequestBuilder) -> Result<Response, ApiError> {
    let answer = request.send().await.map_err(ApiError::Link)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = whole(answer).await?;
    let said = serde_json::from_slice::<Failure>(&body).map(|failure| failure.message);
    let said = said.unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned());
    Err(refused(status, said.trim().chars().take(SAYS_CHARS).collect()))
}

async fn whole(mut answer: Response) -> Result<BytesMut, ApiError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(ApiError::Link)? {
        if body.len() + chunk.len() > MOST_BYTES {
            return Err(ApiError::Size(MOST_BYTES));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

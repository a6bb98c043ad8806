//! WHERE IT IS KEPT: the store of trace events.
//!
//! May import: `trace::event` (the JSON), `backoff`, `metrics`, `shutdown`, `causes`, `call_key`.
//!
//! [`TraceStore`] is the trait; `embedded` (tantivy), `elasticsearch` and `remote` (another process's store, read
//! through the consumer's API) are its backends.

mod cursor;
mod elasticsearch;
mod embedded;
mod remote;
mod stats;
mod text;
mod words;

pub use elasticsearch::Elasticsearch;
pub use embedded::{Embedded, Retain};
pub use remote::{Remote, SEARCH_PATH, STATS_PATH};
pub use stats::{Bucket, FIRST_ERROR, Group, GroupBy, MAX_BUCKETS, MAX_GROUPS, Stats, StatsQuery, Summary};

pub use crate::trace::event::Fields;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prometheus::IntCounterVec;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

/// Events of one page at most: Elasticsearch's `index.max_result_window`. A higher [`Query::limit`] counts as this.
pub const MAX_LIMIT: usize = 10_000;

/// Elasticsearch's limit for `_id`.
const MAX_ID_BYTES: usize = 512;

/// An event on its way into a store: the JSON as it came, and what a store indexes of it.
#[derive(Clone, Debug)]
pub struct Document {
    /// `eventId`, or for a Go node's event a hash of its bytes as a UUID: written twice, it is stored once.
    pub id: String,
    /// The event's JSON, an object, with the fields after `trace` filled in for Go nodes' events.
    pub json: Box<RawValue>,
    /// What is searched for.
    pub fields: Fields,
}

/// What became of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on disk (or was already).
    Stored,
    /// It can never be stored as it is; the reason.
    Refused(String),
    /// Not now; try again later; the reason.
    Later(String),
}

/// Why a store could not be used at all.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Cannot be reached or is overloaded; the batch may be written again.
    #[error("trace store at `{address}` is unavailable")]
    Unavailable {
        /// Where.
        address: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answers and refuses this write as a whole; a part of it may pass.
    #[error("trace store at `{address}` refuses the whole write")]
    Rejected {
        /// Where.
        address: String,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Does not work as it is configured, as with a wrong password; a batch may be written again once it is mended.
    #[error("trace store at `{address}` cannot be used: {hint}")]
    Setting {
        /// Where.
        address: String,
        /// What is wrong, and the key to set.
        hint: String,
        /// What the server said.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Another process writes to this folder.
    #[error(
        "trace store in `{0}` is in use by another process; read it through that one, or give this one another `--data-dir`"
    )]
    InUse(PathBuf),
    /// The query makes no sense.
    #[error("cannot search: {0}")]
    Query(String),
}

/// What to look for; every part narrows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Query {
    /// Events of one request.
    pub request_id: Option<String>,
    /// Events of one trace: 32 hex digits. Differs from the request id only where a client brought a `traceparent`.
    pub trace_id: Option<String>,
    /// `serviceName`.
    pub service: Option<String>,
    /// `ip:rpc_ip:http`.
    pub node: Option<String>,
    /// `request.start`, …
    pub event: Option<String>,
    /// The path.
    pub url: Option<String>,
    /// `user/login`: what was asked of whom.
    pub action: Option<String>,
    /// Who called.
    pub caller: Option<String>,
    /// Lowest and highest status, both included (`5xx` is 500 to 599).
    pub status: Option<(u16, u16)>,
    /// Nanoseconds.
    pub min_duration_ns: Option<u64>,
    /// Not before, in milliseconds of Unix time.
    pub since_ms: Option<i64>,
    /// Before, in milliseconds of Unix time.
    pub until_ms: Option<i64>,
    /// Words that must all stand somewhere in the event.
    pub text: Option<String>,
    /// Which first.
    pub order: Order,
    /// At most so many events (at most 10,000).
    pub limit: usize,
    /// Where the last page ended ([`Page::next`]).
    pub after: Option<String>,
}

/// Which events come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Latest first.
    #[default]
    Newest,
    /// Earliest first.
    Oldest,
    /// Longest duration first.
    Slowest,
}

/// One page of what was found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Page {
    /// How many match in all.
    pub total: u64,
    /// The events' JSON.
    pub events: Vec<Box<RawValue>>,
    /// Give this as [`Query::after`] for the next page; `None` at the end.
    pub next: Option<String>,
}

/// A place that keeps events and finds them again.
#[async_trait]
pub trait TraceStore: Send + Sync + 'static {
    /// Keeps a batch durably: one outcome a document, in order. Writing the same id again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Setting`] when nothing is known of the batch; it may be written again.
    /// [`StoreError::Rejected`] when the store says that it takes no such batch; parts of it may be written.
    async fn write(&self, batch: &[Document]) -> Result<Vec<Outcome>, StoreError>;

    /// Finds events; filters first, then orders over the whole range, then cuts the page.
    ///
    /// # Errors
    /// [`StoreError::Query`] for a cursor that is none; [`StoreError::Unavailable`].
    async fn query(&self, query: &Query) -> Result<Page, StoreError>;

    /// Counts requests, errors and durations over the whole range.
    ///
    /// # Errors
    /// [`StoreError::Query`] for more than [`MAX_BUCKETS`]; [`StoreError::Unavailable`].
    async fn stats(&self, query: &StatsQuery) -> Result<Stats, StoreError>;
}

/// Where events are kept.
#[derive(Clone, Debug)]
pub enum Settings {
    /// In the data folder of the process that writes.
    Embedded {
        /// The folder.
        dir: PathBuf,
        /// Older events go; `None` keeps all.
        retain: Option<Duration>,
        /// Over so many bytes the oldest events go; `None` keeps all.
        retain_bytes: Option<u64>,
    },
    /// Elasticsearch or OpenSearch.
    Elasticsearch(ElasticsearchSettings),
}

/// How to reach Elasticsearch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElasticsearchSettings {
    /// `http://host:port`, at least one, used in turn; credentials may stand in it (`http://user:password@host:port`).
    pub urls: Vec<String>,
    /// Who we are at addresses that bring no credentials.
    pub login: Option<ElasticsearchLogin>,
    /// CA certificates (PEM file) that vouch for `https://` addresses, besides those that browsers trust.
    pub ca_file: Option<PathBuf>,
    /// The alias of an index a day, or the one index of that name: `trace_logs`.
    pub index: String,
    /// Indices of days before go; `None` keeps all.
    pub retain: Option<Duration>,
}

/// Who we are at Elasticsearch. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum ElasticsearchLogin {
    /// HTTP basic authentication.
    User {
        /// Its name.
        user: String,
        /// Its password.
        password: String,
    },
    /// An API key, as Elasticsearch encodes it or as `id:secret`.
    ApiKey(String),
}

impl fmt::Debug for ElasticsearchLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { user, .. } => f.debug_struct("User").field("user", user).finish_non_exhaustive(),
            Self::ApiKey(_) => f.write_str("ApiKey(..)"),
        }
    }
}

/// Opens the store for a process that writes. The embedded one is opened here and blocks for some milliseconds;
/// Elasticsearch is first spoken to by the first write or query, so it may still be away.
///
/// Must run in a tokio runtime. A background task lives until `shutdown` or until the store is dropped.
///
/// # Errors
/// [`StoreError::InUse`] when another process has the folder; [`StoreError::Unavailable`] when it cannot be opened;
/// [`StoreError::Setting`] when an address is none, or the CA's file cannot be used.
pub fn open(settings: &Settings, shutdown: &Shutdown, metrics: &Metrics) -> Result<Arc<dyn TraceStore>, StoreError> {
    Ok(match settings {
        Settings::Embedded { dir, retain, retain_bytes } => {
            let retain = Retain { age: *retain, bytes: *retain_bytes };
            Arc::new(Embedded::open(dir, retain, shutdown, metrics)?)
        }
        Settings::Elasticsearch(settings) => Arc::new(Elasticsearch::open(settings, shutdown, metrics)?),
    })
}

/// Why no store can keep this document, if so.
fn flaw(document: &Document) -> Option<String> {
    if document.id.is_empty() {
        Some("it has no id".to_owned())
    } else if document.id.len() > MAX_ID_BYTES {
        Some(format!("its id has {} bytes, more than {MAX_ID_BYTES}", document.id.len()))
    } else if !document.json.get().starts_with('{') {
        Some("it is no JSON object".to_owned())
    } else {
        None
    }
}

fn count(events: &IntCounterVec, outcomes: &[Outcome]) {
    for outcome in outcomes {
        let label = match outcome {
            Outcome::Stored => "stored",
            Outcome::Refused(_) => "refused",
            Outcome::Later(_) => "later",
        };
        events.with_label_values(&[label]).inc();
    }
}

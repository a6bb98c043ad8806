//! Elasticsearch or OpenSearch: bulk writes whose every document is answered for, and searches.
//!
//! Nothing is sent before the first write or query. The first write looks at the index: one that exists is used as it
//! is mapped; where there is none, each day gets its own (`index`). After a failure it looks again, for the server may
//! be another.

mod bulk;
mod index;
mod mapping;
mod retention;
mod search;
mod server;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use ::elasticsearch::auth::Credentials;
use ::elasticsearch::http::transport::{SingleNodeConnectionPool, TransportBuilder};
use ::elasticsearch::http::{Method, StatusCode};
use async_trait::async_trait;
use bytes::Bytes;
use prometheus::IntCounterVec;
use serde_json::Value;
use url::Url;

use super::{Document, ElasticsearchSettings, Outcome, Page, Query, Stats, StatsQuery, StoreError, TraceStore, flaw};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use bulk::Open;
use index::Known;
use retention::Retention;
use server::{Server, reason, server_error};

/// A bulk of some megabytes takes a busy server seconds; beyond this it is stuck.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of one bulk request, well below the server's `http.max_content_length` (100 MB). One larger document goes alone.
const MAX_BULK_BYTES: usize = 8 << 20;

/// A smaller document that is "too large" for a proxy says more about the proxy than about the document: 1 MiB is the
/// least that one allows where nobody told it otherwise (nginx), and what a node keeps of a body is far below it.
const LARGE_DOCUMENT_BYTES: usize = 1 << 20;

/// While an index of a day is made or deleted, its shard answers nothing and a search fails as a whole: for some tens of
/// milliseconds.
const SEARCH_RETRIES: usize = 5;
const SEARCH_RETRY_WAIT: Duration = Duration::from_millis(100);

/// Events in a server's indices.
pub struct Elasticsearch {
    server: Arc<Server>,
    /// What the indices look like; `None` until they were looked at, and again after a failure.
    known: Arc<tokio::sync::Mutex<Option<Arc<Known>>>>,
    /// Begins with the first write, for a process that only reads deletes nothing.
    retention: Option<Retention>,
    events: IntCounterVec,
}

impl Elasticsearch {
    /// Prepares the client; sends nothing. Where something is to be deleted, the first write begins a task that lives
    /// until `shutdown` or until this is dropped.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the URL or the name of the index is none.
    pub fn open(settings: &ElasticsearchSettings, shutdown: &Shutdown, metrics: &Metrics) -> Result<Self, StoreError> {
        let refuse = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Unavailable {
            address: "esAddr".to_owned(), // the URL may hold a password
            source,
        };
        let mut url = Url::parse(&settings.url).map_err(|error| refuse(error.into()))?;
        if url.set_username("").is_err() {
            return Err(refuse("it is no http URL".into()));
        }
        let given = Url::parse(&settings.url).map_err(|error| refuse(error.into()))?;
        url.set_password(None).map_err(|()| refuse("it is no http URL".into()))?;
        if !settings
            .index
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte))
            || !settings.index.starts_with(|first: char| first.is_ascii_alphanumeric())
        {
            return Err(refuse(format!("`{}` is no name of an index", settings.index).into()));
        }
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url.clone()))
            .timeout(REQUEST_TIMEOUT)
            // the address that was named is the one that is called
            .disable_proxy();
        if !given.username().is_empty() {
            let password = decoded(given.password().unwrap_or_default());
            builder = builder.auth(Credentials::Basic(decoded(given.username()), password));
        }
        let server = Server {
            transport: builder.build().map_err(|error| refuse(error.into()))?,
            address: url.as_str().trim_end_matches('/').to_owned(),
            index: settings.index.clone(),
        };
        Ok(Self {
            server: Arc::new(server),
            known: Arc::new(tokio::sync::Mutex::new(None)),
            retention: settings.retain.map(|retain| Retention::new(retain, shutdown)),
            events: metrics.counter("store_events_total", "Events written to the trace store", &["outcome"]),
        })
    }

    /// One bulk request; halved where the server finds it too large or cannot read it as a whole.
    async fn bulk(&self, lines: &[String], outcomes: &mut Vec<Outcome>) -> Result<(), StoreError> {
        let path = "/_bulk"; // each document names its index
        let mut todo = vec![lines];
        while let Some(part) = todo.pop() {
            let reply = self.server.send(Method::Post, path, &[], Some(part.concat().into())).await?;
            // a page of a proxy says nothing of the documents, except that they are too many at once
            let too_large = reply.status == StatusCode::PAYLOAD_TOO_LARGE;
            let error = server_error(&reply.body);
            if too_large || (reply.status == StatusCode::BAD_REQUEST && error.is_some()) {
                if part.len() == 1 {
                    let own = error.map_or(part[0].len() > LARGE_DOCUMENT_BYTES, |error| !bulk::is_for_now(&error));
                    let reason = format!("{} {}", reply.status.as_u16(), reason(&reply.body));
                    outcomes.push(if own { Outcome::Refused(reason) } else { Outcome::Later(reason) });
                } else {
                    let (first, second) = part.split_at(part.len() / 2);
                    todo.extend([second, first]);
                }
                continue;
            }
            // not Elasticsearch's own words: something between that does not like what is sent
            if matches!(reply.status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY) {
                return Err(self.server.rejected("POST", path, &reply));
            }
            let answer: bulk::Answer = self.server.json("POST", path, &reply)?;
            if answer.items.len() != part.len() {
                return Err(self.server.failed(format!(
                    "{} of {} documents answered for",
                    answer.items.len(),
                    part.len()
                )));
            }
            for item in &answer.items {
                let outcome = item.values().next().map(bulk::Item::outcome);
                outcomes.push(outcome.unwrap_or_else(|| Outcome::Later("no answer for this document".to_owned())));
            }
        }
        Ok(())
    }

    /// Sends these in bulks of bounded size; one outcome each, in order.
    async fn bulks(&self, documents: &[&Document], known: &Known, open: Open) -> Result<Vec<Outcome>, StoreError> {
        let mut outcomes = Vec::with_capacity(documents.len());
        let (mut lines, mut bytes) = (Vec::new(), 0);
        let now = jiff::Timestamp::now();
        for document in documents {
            let index = known.index_of(&self.server.index, document.fields.time_ms, now);
            let line = bulk::lines(document, &index, known.names.words, open);
            if !lines.is_empty() && bytes + line.len() > MAX_BULK_BYTES {
                self.bulk(&lines, &mut outcomes).await?;
                lines.clear();
                bytes = 0;
            }
            bytes += line.len();
            lines.push(line);
        }
        if !lines.is_empty() {
            self.bulk(&lines, &mut outcomes).await?;
        }
        Ok(outcomes)
    }

    async fn write_all(&self, batch: &[Document]) -> Result<Vec<Outcome>, StoreError> {
        let known = self.known(true).await?;
        if let Some(retention) = &self.retention {
            retention.begin(&self.server, &self.known);
        }
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(batch.len());
        outcomes.extend(batch.iter().map(|document| flaw(document).map_or(Outcome::Stored, Outcome::Refused)));
        let pick = |places: &[usize]| -> Vec<&Document> { places.iter().map(|at| &batch[*at]).collect() };

        let sound: Vec<usize> = (0..batch.len()).filter(|at| outcomes[*at] == Outcome::Stored).collect();
        let written = self.bulks(&pick(&sound), &known, Open::Objects).await?;
        let mut refused = Vec::new();
        for (at, outcome) in sound.into_iter().zip(written) {
            if matches!(outcome, Outcome::Refused(_)) {
                refused.push(at);
            }
            outcomes[at] = outcome;
        }
        // what a client sent must not keep its event out of the store
        let again = self.bulks(&pick(&refused), &known, Open::Nothing).await?;
        for (at, outcome) in refused.into_iter().zip(again) {
            // a second refusal is for something else: the first reason stays
            if !matches!(outcome, Outcome::Refused(_)) {
                outcomes[at] = outcome;
            }
        }
        Ok(outcomes)
    }

    async fn search<T: serde::de::DeserializeOwned>(&self, body: &Value) -> Result<T, StoreError> {
        let path = format!("/{}/_search", self.server.index);
        // an index that is not there yet is empty; a search that misses a part fails
        let parameters = [("ignore_unavailable", "true"), ("allow_partial_search_results", "false")];
        let body = Bytes::from(body.to_string());
        let mut reply = self.server.send(Method::Post, &path, &parameters, Some(body.clone())).await?;
        for _ in 0..SEARCH_RETRIES {
            if reply.status != StatusCode::SERVICE_UNAVAILABLE {
                break;
            }
            tokio::time::sleep(SEARCH_RETRY_WAIT).await;
            reply = self.server.send(Method::Post, &path, &parameters, Some(body.clone())).await?;
        }
        if reply.status == StatusCode::BAD_REQUEST && server_error(&reply.body).is_some() {
            return Err(StoreError::Query(reason(&reply.body)));
        }
        self.server.json("POST", &path, &reply)
    }
}

#[async_trait]
impl TraceStore for Elasticsearch {
    async fn write(&self, batch: &[Document]) -> Result<Vec<Outcome>, StoreError> {
        let result = self.write_all(batch).await;
        match &result {
            Ok(outcomes) => {
                super::count(&self.events, outcomes);
                // the indices may have been replaced
                let elsewhere = |outcome: &Outcome| matches!(outcome, Outcome::Later(why) if why.starts_with('4') && !why.starts_with("429"));
                if outcomes.iter().any(elsewhere) {
                    *self.known.lock().await = None;
                }
            }
            Err(_) => *self.known.lock().await = None,
        }
        result
    }

    async fn query(&self, query: &Query) -> Result<Page, StoreError> {
        let known = self.known(false).await?;
        Ok(search::page(self.search(&search::body(query, &known.names)?).await?, query))
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats, StoreError> {
        let known = self.known(false).await?;
        self.count(query, &known.names).await
    }
}

/// Undoes the percent-encoding of a URL's user or password.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match pair.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_used_and_not_shown() {
        assert_eq!(decoded("a%40b%3Ac%"), "a@b:c%");
        let url = "http://elastic:s%40cret@127.0.0.1:9200".to_owned();
        let settings = ElasticsearchSettings { url, index: "trace_logs".to_owned(), retain: None };
        let store = Elasticsearch::open(&settings, &Shutdown::new(), &Metrics::new()).expect("a good URL");
        assert_eq!(store.server.address, "http://127.0.0.1:9200");
        for (url, index) in [("nonsense", "a"), ("http://h:1", "a/b"), ("http://h:1", "A"), ("http://h:1", "")] {
            let settings = ElasticsearchSettings { url: url.to_owned(), index: index.to_owned(), retain: None };
            assert!(Elasticsearch::open(&settings, &Shutdown::new(), &Metrics::new()).is_err(), "{url} {index}");
        }
    }
}

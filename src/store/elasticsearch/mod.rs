//! Elasticsearch or OpenSearch: bulk writes whose every document is answered for, and searches.
//!
//! Nothing is sent before the first write or query. The first write looks at the index: one that exists is used as it
//! is mapped; where there is none, each day gets its own (`index`). After a failure it looks again, for the server may
//! be another.

mod access;
mod bulk;
mod index;
mod lines;
mod mapping;
mod nodes;
mod progress;
mod retention;
mod search;
mod server;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use ::elasticsearch::http::{Method, StatusCode};
use async_trait::async_trait;
use bytes::Bytes;
use prometheus::IntCounterVec;
use serde_json::Value;

use super::{Document, ElasticsearchSettings, Outcome, Page, Query, Stats, StatsQuery, StoreError, TraceStore, flaw};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use index::{Known, Place};
use lines::{Bulk, Lines, Open};
use nodes::{Nodes, setting};
use retention::Retention;
use server::{Server, reason, server_error};

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
    /// [`StoreError::Setting`] when an address or the name of the index is none, or the file of the CA cannot be used.
    pub fn open(settings: &ElasticsearchSettings, shutdown: &Shutdown, metrics: &Metrics) -> Result<Self, StoreError> {
        let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
        let index = &settings.index;
        if !index.bytes().all(sound) || !index.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return Err(setting("esIndex", format!("`{index}` is no name of an index")));
        }
        let server = Server { nodes: Nodes::new(settings)?, index: index.clone() };
        Ok(Self {
            server: Arc::new(server),
            known: Arc::new(tokio::sync::Mutex::new(None)),
            retention: settings.retain.map(|retain| Retention::new(retain, shutdown)),
            events: metrics.counter("store_events_total", "Events written to the trace store", &["outcome"]),
        })
    }

    /// One bulk request; halved where the server finds it too large or cannot read it as a whole.
    async fn bulk(&self, bulk: Bulk, outcomes: &mut Vec<Outcome>) -> Result<(), StoreError> {
        let path = "/_bulk"; // each document names its index
        let parameters = [("filter_path", bulk::ANSWER_FIELDS)];
        let mut todo = vec![bulk];
        while let Some(part) = todo.pop() {
            let reply = self.server.send(Method::Post, path, &parameters, Some(part.body())).await?;
            // a page of a proxy says nothing of the documents, except that they are too many at once
            let too_large = reply.status == StatusCode::PAYLOAD_TOO_LARGE;
            let error = if reply.status.is_success() { None } else { server_error(&reply.body) };
            if too_large || (reply.status == StatusCode::BAD_REQUEST && error.is_some()) {
                if part.len() == 1 {
                    let own = error.map_or(part.body().len() > LARGE_DOCUMENT_BYTES, |error| !bulk::is_for_now(&error));
                    let reason = format!("{} {}", reply.status.as_u16(), reason(&reply.body));
                    outcomes.push(if own { Outcome::Refused(reason) } else { Outcome::Later(reason) });
                } else {
                    let (first, second) = part.halves();
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
            if let Some(first) = answer.items.first().filter(|_| answer.items.iter().all(|item| item.0.is_denied())) {
                return Err(self.server.denied(&reply, StatusCode::FORBIDDEN, first.0.reason()));
            }
            outcomes.extend(answer.items.iter().map(|item| item.0.outcome()));
        }
        Ok(())
    }

    /// Sends these in bulks of bounded size; one outcome each, in order.
    async fn bulks(&self, documents: &[&Document], known: &Known, open: Open) -> Result<Vec<Outcome>, StoreError> {
        let mut outcomes = Vec::with_capacity(documents.len());
        let bytes: usize = documents.iter().map(|document| document.json.get().len()).sum();
        let mut lines = Lines::with_room_for(bytes.min(MAX_BULK_BYTES));
        let now_ms = jiff::Timestamp::now().as_millisecond();
        // most documents are of one day
        let (mut place, mut index) = (Place::One, self.server.index.clone());
        for document in documents {
            let own_place = known.place_of(document.fields.time_ms, now_ms);
            if own_place != place {
                (place, index) = (own_place, own_place.name(&self.server.index));
            }
            if !lines.is_empty() && lines.bytes() + document.json.get().len() > MAX_BULK_BYTES {
                self.bulk(lines.take(), &mut outcomes).await?;
            }
            let arrived = (place == Place::Undated).then_some(now_ms);
            lines.push(document, &index, known.names.words, arrived, open);
        }
        if !lines.is_empty() {
            self.bulk(lines.take(), &mut outcomes).await?;
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
            // the second from OpenSearch
            if !matches!(reply.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::NOT_FOUND) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let open = |url: &str, index: &str| {
            let settings = ElasticsearchSettings {
                urls: vec![url.to_owned()],
                index: index.to_owned(),
                ..ElasticsearchSettings::default()
            };
            Elasticsearch::open(&settings, &Shutdown::new(), &Metrics::new())
        };
        let store = open("http://elastic:s%40cret@127.0.0.1:9200", "trace_logs").expect("a good URL");
        assert_eq!(store.server.nodes.addresses(), "http://127.0.0.1:9200");
        for (url, index) in [("nonsense", "a"), ("http://h:1", "a/b"), ("http://h:1", "A"), ("http://h:1", "")] {
            assert!(matches!(open(url, index), Err(StoreError::Setting { .. })), "{url} {index}");
        }
    }
}

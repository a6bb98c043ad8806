//! Elasticsearch or OpenSearch: bulk writes whose every document is answered for, and searches.
//!
//! Nothing is sent before the first write or query. The first write looks at the index: one that exists is used as it
//! is mapped; a missing one is made, with a template. After a failure it looks again, for the server may be another.

mod bulk;
mod mapping;
mod search;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use ::elasticsearch::auth::Credentials;
use ::elasticsearch::http::headers::{CONTENT_TYPE, HeaderMap, HeaderValue};
use ::elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use ::elasticsearch::http::{Method, StatusCode};
use async_trait::async_trait;
use bytes::Bytes;
use prometheus::IntCounterVec;
use serde_json::Value;
use url::Url;

use super::{Document, ElasticsearchSettings, Outcome, Page, Query, Stats, StatsQuery, StoreError, TraceStore, flaw};
use crate::metrics::Metrics;
use bulk::Open;
use mapping::{Names, OPEN_FIELDS};

/// A bulk of some megabytes takes a busy server seconds; beyond this it is stuck.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of one bulk request, well below the server's `http.max_content_length` (100 MB). One larger document goes alone.
const MAX_BULK_BYTES: usize = 8 << 20;

/// A smaller document that is "too large" for a proxy says more about the proxy than about the document: 1 MiB is the
/// least that one allows where nobody told it otherwise (nginx), and what a node keeps of a body is far below it.
const LARGE_DOCUMENT_BYTES: usize = 1 << 20;

/// An index of a server.
pub struct Elasticsearch {
    transport: Transport,
    /// The URL without credentials, for messages.
    address: String,
    index: String,
    /// What the index looks like; `None` until it was looked at, and again after a failure.
    names: tokio::sync::Mutex<Option<Arc<Names>>>,
    events: IntCounterVec,
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

struct Reply {
    status: StatusCode,
    body: Bytes,
}

impl Elasticsearch {
    /// Prepares the client; sends nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the URL or the name of the index is none.
    pub fn open(settings: &ElasticsearchSettings, metrics: &Metrics) -> Result<Self, StoreError> {
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
        Ok(Self {
            transport: builder.build().map_err(|error| refuse(error.into()))?,
            address: url.as_str().trim_end_matches('/').to_owned(),
            index: settings.index.clone(),
            names: tokio::sync::Mutex::new(None),
            events: metrics.counter("store_events_total", "Events written to the trace store", &["outcome"]),
        })
    }

    /// Looks at the index, and makes it where it is missing and `make` says so.
    async fn names(&self, make: bool) -> Result<Arc<Names>, StoreError> {
        let mut known = self.names.lock().await;
        if let Some(names) = &*known {
            return Ok(Arc::clone(names));
        }
        let names = match self.mappings().await? {
            Some(mappings) => self.adopt(&mappings, make).await?,
            None if make => {
                self.create().await?;
                self.mappings().await?.map_or_else(Names::own, |mappings| Names::of(&mappings))
            }
            // it may be made, in either form, at any moment
            None => return Ok(Arc::new(Names::own())),
        };
        Ok(Arc::clone(known.insert(Arc::new(names))))
    }

    /// The mapping of the index (of an alias, that of its first index).
    async fn mappings(&self) -> Result<Option<Value>, StoreError> {
        let path = format!("/{}/_mapping", self.index);
        let reply = self.send(Method::Get, &path, &[], None).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer: Value = self.json("GET", &path, &reply)?;
        Ok(answer.as_object().and_then(|indices| indices.values().next()).map(|index| index["mappings"].clone()))
    }

    /// Uses an index that exists; a writer adds the fields that it lacks.
    async fn adopt(&self, mappings: &Value, make: bool) -> Result<Names, StoreError> {
        let Some(missing) = mapping::missing(mappings).filter(|_| make) else { return Ok(Names::of(mappings)) };
        let path = format!("/{}/_mapping", self.index);
        let reply = self.send(Method::Put, &path, &[], Some(missing.to_string().into())).await?;
        if !reply.status.is_success() {
            let reason = reason(&reply.body);
            log::warn!("fields of goms cannot be added to the mapping reason=\"{reason}\" index={}", self.index);
            return Ok(Names::of(mappings));
        }
        Ok(self.mappings().await?.map_or_else(|| Names::of(mappings), |mappings| Names::of(&mappings)))
    }

    async fn create(&self) -> Result<(), StoreError> {
        let path = format!("/_index_template/{}", self.index);
        let exists = self.send(Method::Get, &path, &[], None).await?.status.is_success();
        // one that is there may have been changed by its user
        if !exists {
            self.put_template(&path).await?;
        }
        let path = format!("/{}", self.index);
        let reply = self.send(Method::Put, &path, &[], None).await?;
        // another consumer may have been faster
        if !reply.status.is_success() && !reason(&reply.body).starts_with("resource_already_exists_exception") {
            return Err(self.unexpected("PUT", &path, &reply));
        }
        log::info!("index made index={} address={}", self.index, self.address);
        Ok(())
    }

    /// Tries the kinds of field for unknown content, since no server has all.
    async fn put_template(&self, path: &str) -> Result<(), StoreError> {
        let mut last = None;
        for open in OPEN_FIELDS {
            let template = mapping::template(&self.index, open).to_string();
            let reply = self.send(Method::Put, path, &[], Some(template.into())).await?;
            if reply.status.is_success() {
                log::debug!("index template made index={} open_fields={open:?}", self.index);
                return Ok(());
            }
            let unknown_type = reply.status == StatusCode::BAD_REQUEST;
            last = Some(self.unexpected("PUT", path, &reply));
            if !unknown_type {
                break;
            }
        }
        last.map_or(Ok(()), Err)
    }

    /// One bulk request; halved where the server finds it too large or cannot read it as a whole.
    async fn bulk(&self, lines: &[String], outcomes: &mut Vec<Outcome>) -> Result<(), StoreError> {
        let path = format!("/{}/_bulk", self.index);
        let mut todo = vec![lines];
        while let Some(part) = todo.pop() {
            let reply = self.send(Method::Post, &path, &[], Some(part.concat().into())).await?;
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
            let answer: bulk::Answer = self.json("POST", &path, &reply)?;
            if answer.items.len() != part.len() {
                return Err(self.failed(format!("{} of {} documents answered for", answer.items.len(), part.len())));
            }
            for item in &answer.items {
                let outcome = item.values().next().map(bulk::Item::outcome);
                outcomes.push(outcome.unwrap_or_else(|| Outcome::Later("no answer for this document".to_owned())));
            }
        }
        Ok(())
    }

    /// Sends these in bulks of bounded size; one outcome each, in order.
    async fn bulks(&self, documents: &[&Document], words: bool, open: Open) -> Result<Vec<Outcome>, StoreError> {
        let mut outcomes = Vec::with_capacity(documents.len());
        let (mut lines, mut bytes) = (Vec::new(), 0);
        for document in documents {
            let line = bulk::lines(document, words, open);
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
        let names = self.names(true).await?;
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(batch.len());
        outcomes.extend(batch.iter().map(|document| flaw(document).map_or(Outcome::Stored, Outcome::Refused)));
        let pick = |places: &[usize]| -> Vec<&Document> { places.iter().map(|at| &batch[*at]).collect() };

        let sound: Vec<usize> = (0..batch.len()).filter(|at| outcomes[*at] == Outcome::Stored).collect();
        let written = self.bulks(&pick(&sound), names.words, Open::Objects).await?;
        let mut refused = Vec::new();
        for (at, outcome) in sound.into_iter().zip(written) {
            if matches!(outcome, Outcome::Refused(_)) {
                refused.push(at);
            }
            outcomes[at] = outcome;
        }
        // what a client sent must not keep its event out of the store
        let again = self.bulks(&pick(&refused), names.words, Open::Nothing).await?;
        for (at, outcome) in refused.into_iter().zip(again) {
            // a second refusal is for something else: the first reason stays
            if !matches!(outcome, Outcome::Refused(_)) {
                outcomes[at] = outcome;
            }
        }
        Ok(outcomes)
    }

    async fn search<T: serde::de::DeserializeOwned>(&self, body: &Value) -> Result<T, StoreError> {
        let path = format!("/{}/_search", self.index);
        // an index that is not there yet is empty; a search that misses a part fails
        let parameters = [("ignore_unavailable", "true"), ("allow_partial_search_results", "false")];
        let reply = self.send(Method::Post, &path, &parameters, Some(body.to_string().into())).await?;
        if reply.status == StatusCode::BAD_REQUEST && server_error(&reply.body).is_some() {
            return Err(StoreError::Query(reason(&reply.body)));
        }
        self.json("POST", &path, &reply)
    }

    async fn send(
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

    fn json<T: serde::de::DeserializeOwned>(
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

    fn unexpected(&self, method: &'static str, path: &str, reply: &Reply) -> StoreError {
        let status = reply.status.as_u16();
        self.failed(Unexpected { method, path: path.to_owned(), status, reason: reason(&reply.body) })
    }

    fn failed(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::Unavailable { address: self.address.clone(), source: source.into() }
    }
}

#[async_trait]
impl TraceStore for Elasticsearch {
    async fn write(&self, batch: &[Document]) -> Result<Vec<Outcome>, StoreError> {
        let result = self.write_all(batch).await;
        match &result {
            Ok(outcomes) => super::count(&self.events, outcomes),
            Err(_) => *self.names.lock().await = None,
        }
        result
    }

    async fn query(&self, query: &Query) -> Result<Page, StoreError> {
        let names = self.names(false).await?;
        Ok(search::page(self.search(&search::body(query, &names)?).await?, query))
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats, StoreError> {
        let names = self.names(false).await?;
        self.count(query, &names).await
    }
}

/// The error that Elasticsearch itself reports; `None` where the answer is another's, as a proxy's page.
fn server_error(body: &[u8]) -> Option<Value> {
    let mut answer: Value = serde_json::from_slice(body).ok()?;
    answer.get("status")?.as_u64()?;
    Some(answer.get_mut("error")?.take()).filter(|error| error.is_object() || error.is_string())
}

/// Why the server refused a request, from its JSON or else its text.
fn reason(body: &[u8]) -> String {
    let from_json =
        serde_json::from_slice::<Value>(body).map(|answer| bulk::reason(&answer["error"])).unwrap_or_default();
    if from_json.is_empty() { String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned() } else { from_json }
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
        let settings = ElasticsearchSettings { url, index: "trace_logs".to_owned() };
        let store = Elasticsearch::open(&settings, &Metrics::new()).expect("a good URL");
        assert_eq!(store.address, "http://127.0.0.1:9200");
        for (url, index) in [("nonsense", "a"), ("http://h:1", "a/b"), ("http://h:1", "A"), ("http://h:1", "")] {
            let settings = ElasticsearchSettings { url: url.to_owned(), index: index.to_owned() };
            assert!(Elasticsearch::open(&settings, &Metrics::new()).is_err(), "{url} {index}");
        }
    }
}

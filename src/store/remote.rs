//! Another process's store, read through the API of a trace consumer: `POST /goms/traces/search`.
//!
//! The request's body is a [`Query`] in JSON, the answer a [`Page`]. `Call-Service-Key` guards it as it does a service.
//! awc's client is bound to one thread, so a task on the thread that opened the store sends the requests, and queries
//! from any thread reach it through a channel.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::{Document, Outcome, Page, Query, Stats, StatsQuery, StoreError, TraceStore};
use crate::shutdown::Shutdown;

/// Where a trace consumer answers queries, on its HTTP port.
pub const SEARCH_PATH: &str = "/goms/traces/search";

/// Queries that may wait for their turn to be sent.
const MAX_WAITING_QUERIES: usize = 16;

/// A page of 10,000 events of 16 KiB bodies.
const MAX_PAGE_BYTES: usize = 512 << 20;

/// One consumer's time to answer, before the next one is asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

type Found = Result<Page, StoreError>;

/// The trace consumers of a cluster, to read from.
pub struct Remote {
    queries: mpsc::Sender<(Query, oneshot::Sender<Found>)>,
    addresses: String,
}

impl Remote {
    /// Prepares to ask the consumers at `addresses` (`host:port` of their HTTP ports), each query the first that
    /// answers. Sends nothing yet. Must run in an `actix_web::rt::System` (or a `LocalSet`).
    #[must_use]
    pub fn open(addresses: Vec<String>, call_key: Option<String>, shutdown: &Shutdown) -> Self {
        let (queries, mut waiting) = mpsc::channel::<(Query, oneshot::Sender<Found>)>(MAX_WAITING_QUERIES);
        let shown = addresses.join(",");
        let consumers = std::rc::Rc::new((addresses, call_key));
        let ending = shutdown.clone();
        shutdown.spawn_local(async move {
            let client = awc::Client::builder().timeout(ANSWER_TIMEOUT).disable_redirects().finish();
            loop {
                let next = tokio::select! {
                    () = ending.begun() => return,
                    next = waiting.recv() => next,
                };
                let Some((query, reply)) = next else { return };
                let (client, consumers) = (client.clone(), std::rc::Rc::clone(&consumers));
                // each for itself: one that waits for a dead consumer does not hold up the others
                let stop = ending.clone();
                ending.spawn_local(async move {
                    tokio::select! {
                        () = stop.begun() => {} // the asker hears that by its channel
                        // an asker that left needs no answer
                        found = ask(&client, &consumers.0, consumers.1.as_deref(), &query) => drop(reply.send(found)),
                    }
                });
            }
        });
        Self { queries, addresses: shown }
    }

    fn ended(&self) -> StoreError {
        unavailable(&self.addresses, "this process is ending")
    }
}

#[async_trait]
impl TraceStore for Remote {
    /// Always [`StoreError::Query`]: events reach a consumer through the transport.
    async fn write(&self, _batch: &[Document]) -> Result<Vec<Outcome>, StoreError> {
        Err(StoreError::Query("the store of another process can only be read".to_owned()))
    }

    async fn query(&self, query: &Query) -> Found {
        let (reply, answer) = oneshot::channel();
        self.queries.send((query.clone(), reply)).await.map_err(|_| self.ended())?;
        answer.await.map_err(|_| self.ended())?
    }

    async fn stats(&self, _query: &StatsQuery) -> Result<Stats, StoreError> {
        Err(StoreError::Query("this store cannot count yet".to_owned()))
    }
}

/// Asks one consumer after another until one answers.
async fn ask(client: &awc::Client, addresses: &[String], call_key: Option<&str>, query: &Query) -> Found {
    let mut last = unavailable("the cluster", "no trace consumer is known; start one: `goms trace-consumer`");
    for address in addresses {
        match ask_one(client, address, call_key, query).await {
            Err(error @ StoreError::Unavailable { .. }) => {
                log::debug!("trace consumer does not answer a query address={address} error={error}");
                last = error;
            }
            answer => return answer,
        }
    }
    Err(last)
}

async fn ask_one(client: &awc::Client, address: &str, call_key: Option<&str>, query: &Query) -> Found {
    let mut request = client.post(format!("http://{address}{SEARCH_PATH}"));
    if let Some(key) = call_key {
        request = request.insert_header(("Call-Service-Key", key));
    }
    // awc's errors are not `Send`, so their text is kept
    let mut response = request.send_json(query).await.map_err(|error| unavailable(address, error.to_string()))?;
    let body = response.body().limit(MAX_PAGE_BYTES).await.map_err(|error| unavailable(address, error.to_string()))?;
    match response.status().as_u16() {
        200 => serde_json::from_slice(&body).map_err(|error| unavailable(address, error)),
        400 => Err(StoreError::Query(message(&body))),
        403 => Err(unavailable(address, "it refuses the call key; set its `callServiceKey` here too")),
        status => Err(unavailable(address, format!("it answered with {status}: {}", message(&body)))),
    }
}

/// `msg` of an answer in the originals' form, or else its text.
fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Failure {
        msg: String,
    }
    match serde_json::from_slice::<Failure>(body) {
        Ok(failure) => failure.msg,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
    }
}

fn unavailable(address: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Unavailable { address: address.to_owned(), source: source.into() }
}

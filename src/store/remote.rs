//! Another process's store, read through the API of a trace consumer.
//!
//! ```text
//! POST /goms/traces/search   Query      → Page
//! POST /goms/traces/stats    StatsQuery → Stats
//! ```
//! All of it is JSON. `Call-Service-Key` guards it as it does a service. awc's client is bound to one thread, so a task
//! on the thread that opened the store sends the requests, and questions from any thread reach it through a channel.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::{Document, Outcome, Page, Query, Stats, StatsQuery, StoreError, TraceStore};
use crate::call_key::SigningKey;
use crate::shutdown::Shutdown;

/// Where a trace consumer answers queries, on its HTTP port.
pub const SEARCH_PATH: &str = "/goms/traces/search";

/// Where it counts.
pub const STATS_PATH: &str = "/goms/traces/stats";

/// Questions that may wait for their turn to be sent.
const MAX_WAITING: usize = 16;

/// A page of 10,000 events of 16 KiB bodies.
const MAX_PAGE_BYTES: usize = 512 << 20;

/// One consumer's time to answer, before the next one is asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// What is sent to a consumer.
struct Question {
    path: &'static str,
    json: Vec<u8>,
}

/// The JSON of an answer.
type Answer = Result<Bytes, StoreError>;

/// The trace consumers of a cluster, to read from.
pub struct Remote {
    questions: mpsc::Sender<(Question, oneshot::Sender<Answer>)>,
    addresses: String,
}

impl Remote {
    /// Prepares to ask the consumers at `addresses` (`host:port` of their HTTP ports), each question the first
    /// that answers. Sends nothing yet. Must run in an `actix_web::rt::System` (or a `LocalSet`).
    #[must_use]
    pub fn open(addresses: Vec<String>, call_key: Option<String>, shutdown: &Shutdown) -> Self {
        let shown = addresses.join(",");
        Self {
            addresses: shown,
            ..Self::follow(move || addresses.clone(), SigningKey::new(call_key.as_ref()), shutdown)
        }
    }

    /// The same with the consumers that `addresses` names when a question is asked, as they come and go.
    #[must_use]
    pub fn follow(addresses: impl Fn() -> Vec<String> + 'static, call_key: SigningKey, shutdown: &Shutdown) -> Self {
        let (questions, mut waiting) = mpsc::channel::<(Question, oneshot::Sender<Answer>)>(MAX_WAITING);
        let ending = shutdown.clone();
        shutdown.spawn_local(async move {
            let client = awc::Client::builder().timeout(ANSWER_TIMEOUT).disable_redirects().finish();
            loop {
                let next = tokio::select! {
                    () = ending.begun() => return,
                    next = waiting.recv() => next,
                };
                let Some((question, reply)) = next else { return };
                let (client, consumers, call_key) = (client.clone(), addresses(), call_key.get());
                // each for itself: one that waits for a dead consumer does not hold up the others
                let stop = ending.clone();
                ending.spawn_local(async move {
                    tokio::select! {
                        () = stop.begun() => {} // the asker hears that by its channel
                        // an asker that left needs no answer
                        answer = ask(&client, &consumers, call_key.as_deref(), &question) => drop(reply.send(answer)),
                    }
                });
            }
        });
        Self { questions, addresses: "the cluster".to_owned() }
    }

    async fn answer<T: DeserializeOwned>(&self, path: &'static str, body: &impl Serialize) -> Result<T, StoreError> {
        let json = serde_json::to_vec(body).map_err(|error| unavailable(&self.addresses, error))?;
        let (reply, answer) = oneshot::channel();
        self.questions.send((Question { path, json }, reply)).await.map_err(|_| self.ended())?;
        let json = answer.await.map_err(|_| self.ended())??;
        serde_json::from_slice(&json).map_err(|error| unavailable(&self.addresses, error))
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

    async fn query(&self, query: &Query) -> Result<Page, StoreError> {
        self.answer(SEARCH_PATH, query).await
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats, StoreError> {
        self.answer(STATS_PATH, query).await
    }
}

/// Asks one consumer after another until one answers.
async fn ask(client: &awc::Client, addresses: &[String], call_key: Option<&str>, question: &Question) -> Answer {
    let mut last = unavailable("the cluster", "no trace consumer is known; start one: `goms trace-consumer`");
    for address in addresses {
        match ask_one(client, address, call_key, question).await {
            Err(error @ StoreError::Unavailable { .. }) => {
                log::debug!("trace consumer does not answer a question address={address} error={error}");
                last = error;
            }
            answer => return answer,
        }
    }
    Err(last)
}

async fn ask_one(client: &awc::Client, address: &str, call_key: Option<&str>, question: &Question) -> Answer {
    let mut request = client.post(format!("http://{address}{}", question.path)).content_type("application/json");
    if let Some(key) = call_key {
        request = request.insert_header(("Call-Service-Key", key));
    }
    // awc's errors are not `Send`, so their text is kept
    let sent = request.send_body(question.json.clone()).await;
    let mut response = sent.map_err(|error| unavailable(address, error.to_string()))?.timeout(ANSWER_TIMEOUT);
    let body = response.body().limit(MAX_PAGE_BYTES).await.map_err(|error| unavailable(address, error.to_string()))?;
    match response.status().as_u16() {
        200 => Ok(body),
        400 => Err(StoreError::Query(message(&body))),
        403 => Err(unavailable(address, "it refuses the call key; set its `callServiceKey` here too")),
        404 => Err(unavailable(
            address,
            format!(
                "it does not know `{}`, so it is of an older goms; start it again with this version",
                question.path
            ),
        )),
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

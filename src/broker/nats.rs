//! NATS with JetStream.
//!
//! ```text
//! stream    <namespace>-topics   subjects <namespace>.topics.>, on disk; a message goes once every consumer acknowledged it
//!           <namespace>-dead     subjects <namespace>.dead.>, for a week, with the header `goms-dead-reason`
//! consumer  of a group, durable; of one subscriber, gone when that was away for a minute
//! ```

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{Config as StreamConfig, RetentionPolicy};
use async_nats::jetstream::{self, AckKind};
use async_nats::{ConnectOptions, HeaderMap};
use async_trait::async_trait;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::message::check_name;
use super::{AWAY_LIMIT, Broker, BrokerError, Deliveries, Delivery, Message, PREFETCH, PUBLISH_LIMIT, Receipt};
use super::{Subscription, unique};
use crate::backoff::Backoff;
use crate::causes::chain;
use crate::shutdown::Shutdown;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(2);
/// One request to the server.
const STEP_LIMIT: Duration = Duration::from_secs(5);
/// How long a dead letter stays.
const DEAD_AGE: Duration = Duration::from_secs(7 * 86_400);
/// A pull that hears nothing for twice this is made anew.
const HEARTBEAT: Duration = Duration::from_secs(2);
const PULL_EXPIRES: Duration = Duration::from_secs(20);
/// Enough of a hash to tell consumers apart.
const HASH_BYTES: usize = 8;

/// A handle.
pub(super) struct Nats {
    context: jetstream::Context,
    namespace: Arc<str>,
    address: String,
    shutdown: Shutdown,
}

impl Nats {
    pub(super) async fn open(urls: &[String], namespace: &str, shutdown: &Shutdown) -> Result<Self, BrokerError> {
        let bad = |reason: String| BrokerError::Setting { setting: "address", reason };
        let mut servers = Vec::new();
        for url in urls {
            let server: async_nats::ServerAddr = url.parse().map_err(|error: std::io::Error| bad(error.to_string()))?;
            servers.push(server);
        }
        let address = servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect::<Vec<_>>();
        let options = ConnectOptions::new().name("goms").retry_on_initial_connect();
        let client = options.connect(&servers[..]).await.map_err(|error| bad(error.to_string()))?;
        // A `.` would be two levels.
        let namespace = namespace.replace('.', "-");
        let mut context = jetstream::new(client);
        context.set_timeout(STEP_LIMIT);
        Ok(Self { context, namespace: namespace.into(), address: address.join(","), shutdown: shutdown.clone() })
    }

    fn away(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BrokerError {
        BrokerError::Away { kind: "nats", address: self.address.clone(), source: source.into() }
    }

    /// Sees to a stream.
    async fn stream(&self, kind: &str) -> Result<jetstream::stream::Stream, BrokerError> {
        let dead = kind == "dead";
        let config = StreamConfig {
            name: format!("{}-{kind}", self.namespace),
            subjects: vec![format!("{}.{kind}.>", self.namespace)],
            retention: if dead { RetentionPolicy::Limits } else { RetentionPolicy::Interest },
            max_age: if dead { DEAD_AGE } else { Duration::ZERO },
            ..Default::default()
        };
        let made = timeout(STEP_LIMIT, self.context.get_or_create_stream(config)).await;
        made.map_err(|late| self.away(late))?.map_err(|error| self.away(error))
    }

    async fn send(&self, kind: &str, message: &Message, more: Option<(&str, &str)>) -> Result<(), BrokerError> {
        let subject = format!("{}.{kind}.{}", self.namespace, message.topic);
        let mut headers = HeaderMap::new();
        for (name, value) in message.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(more) {
            headers.append(name, value);
        }
        // The server drops what it has already: a try whose answer was lost.
        headers.insert("Nats-Msg-Id", unique());
        let give_up = Instant::now() + PUBLISH_LIMIT;
        let mut backoff = Backoff::seeded(RETRY_FIRST, RETRY_CAP);
        loop {
            let sent = async {
                let body = message.body.clone();
                let answer = self.context.publish_with_headers(subject.clone(), headers.clone(), body).await;
                answer.map_err(|error| self.away(error))?.await.map_err(|error| self.away(error)).map(drop)
            };
            let sent = timeout(STEP_LIMIT, sent).await.unwrap_or_else(|late| Err(self.away(late)));
            let Err(error) = sent else { return Ok(()) };
            let wait = backoff.next_wait();
            if self.shutdown.has_begun() || Instant::now() + wait > give_up {
                return Err(error);
            }
            log::debug!("publishing again in {wait:?}: {}", chain(&error));
            sleep(wait).await;
            // no stream takes it, where the server lost everything or nobody subscribed yet
            if let Err(error) = self.stream(kind).await {
                log::debug!("no stream of nats: {}", chain(&error));
            }
        }
    }
}

#[async_trait]
impl Broker for Nats {
    fn kind(&self) -> &'static str {
        "nats"
    }

    async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        message.check()?;
        self.send("topics", &message, None).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Deliveries, BrokerError> {
        check_name(&subscription.topic)?;
        subscription.group.as_deref().map_or(Ok(()), check_name)?;
        let (sender, gone, deliveries) = Deliveries::channel();
        let (told, up) = oneshot::channel();
        let hearing = Hearing {
            nats: Self {
                context: self.context.clone(),
                namespace: self.namespace.clone(),
                address: self.address.clone(),
                shutdown: self.shutdown.clone(),
            },
            name: match &subscription.group {
                Some(group) => durable(&subscription.topic, group),
                None => unique(),
            },
            subscription,
            sender,
        };
        let shutdown = self.shutdown.clone();
        self.shutdown.spawn(async move {
            tokio::select! {
                () = shutdown.begun() => {}
                () = gone.cancelled() => {}
                () = hearing.keep_up(told) => {}
            }
        });
        up.await.map_err(|_| self.away("the process ends"))?;
        Ok(deliveries)
    }

    async fn bury(&self, message: &Message, reason: &str) -> Result<(), BrokerError> {
        self.stream("dead").await?;
        self.send("dead", message, Some(("goms-dead-reason", reason))).await
    }
}

/// A consumer's name may hold no `.` and no `/`: what one can read of it, and what tells it apart.
fn durable(topic: &str, group: &str) -> String {
    let hash = Sha256::digest(format!("{topic}@{group}"));
    let hash: String = hash[..HASH_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{hash}", group.replace(['.', '/'], "-"))
}

/// One subscription.
struct Hearing {
    nats: Nats,
    name: String,
    subscription: Subscription,
    sender: mpsc::Sender<Delivery>,
}

struct Reply(jetstream::Message);

#[async_trait]
impl Receipt for Reply {
    async fn ack(&self) -> Result<(), BrokerError> {
        // with the server's answer: an acknowledgement that is lost with a connection would be a surprise
        let done = timeout(STEP_LIMIT, self.0.double_ack()).await;
        let away = |source: Box<dyn std::error::Error + Send + Sync>| BrokerError::Away {
            kind: "nats",
            address: String::new(),
            source,
        };
        done.map_err(|late| away(late.into()))?.map_err(away)
    }

    async fn working(&self) {
        if let Err(error) = self.0.ack_with(AckKind::Progress).await {
            log::debug!("nats is not told that a message is worked on: {error}");
        }
    }
}

impl Hearing {
    async fn keep_up(self, up: oneshot::Sender<()>) {
        let mut up = Some(up);
        let mut backoff = Backoff::seeded(RETRY_FIRST, RETRY_CAP);
        let mut said = false;
        let topic = &self.subscription.topic;
        loop {
            let ended = self.hear(|| {
                if std::mem::take(&mut said) {
                    log::info!("topic is heard again topic={topic} consumer={}", self.name);
                }
                backoff.reset();
                up.take().map(|up| up.send(()))
            });
            let Err(error) = ended.await else { return };
            if !std::mem::replace(&mut said, true) {
                log::warn!("topic is not heard, trying again topic={topic} error=\"{}\"", chain(&error));
            }
            sleep(backoff.next_wait()).await;
        }
    }

    /// One consumer's life. `Ok`: nobody hears any more.
    async fn hear<T>(&self, up: impl FnOnce() -> T) -> Result<(), BrokerError> {
        let away = |source: Box<dyn std::error::Error + Send + Sync>| self.nats.away(source);
        let stream = self.nats.stream("topics").await?;
        let grouped = self.subscription.group.is_some();
        let config = pull::Config {
            durable_name: Some(self.name.clone()),
            filter_subject: format!("{}.topics.{}", self.nats.namespace, self.subscription.topic),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Delivery::WORKING * 3,
            max_ack_pending: if grouped { 0 } else { i64::from(PREFETCH) },
            // a group that is known hears what is there for it; a new one what comes
            deliver_policy: DeliverPolicy::New,
            inactive_threshold: if grouped { Duration::ZERO } else { AWAY_LIMIT },
            ..Default::default()
        };
        let made = timeout(STEP_LIMIT, stream.get_or_create_consumer(&self.name, config)).await;
        let consumer = made.map_err(|late| away(late.into()))?.map_err(|error| away(error.into()))?;
        let mut arrivals = consumer
            .stream()
            .max_messages_per_batch(usize::from(PREFETCH))
            .expires(PULL_EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|error| away(error.into()))?;
        drop(up());
        while let Some(arrival) = arrivals.next().await {
            let arrival = arrival.map_err(|error| away(error.into()))?;
            let message = message(&arrival, &self.subscription.topic);
            if self.sender.send(Delivery::new(message, Reply(arrival))).await.is_err() {
                return Ok(());
            }
        }
        Err(away("the stream of messages ended".into()))
    }
}

fn message(arrival: &jetstream::Message, topic: &str) -> Message {
    let mut headers = Vec::new();
    for (name, values) in arrival.headers.iter().flat_map(HeaderMap::iter) {
        let name: &str = name.as_ref();
        if !name.starts_with("Nats-") {
            headers.extend(values.iter().map(|value| (name.to_ascii_lowercase(), value.as_str().to_owned())));
        }
    }
    Message { topic: topic.to_owned(), headers, body: arrival.payload.clone() }
}

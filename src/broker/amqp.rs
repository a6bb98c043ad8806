//! RabbitMQ (AMQP 0-9-1).
//!
//! ```text
//! exchange  goms.topics       topic, durable; the routing key is the topic
//! queue     goms.<topic>@<group>      durable; bound to its topic; members share it
//!           goms.<topic>@~<id>        of one subscriber; goes when that was away for a minute
//!           goms.<topic>@dead         dead letters, with the header `goms-dead-reason`
//! ```
//! Messages are persistent and confirmed. One connection publishes, each subscription has one of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use lapin::message::Delivery as Arrival;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, ExchangeKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::message::check_name;
use super::{AWAY_LIMIT, Broker, BrokerError, Deliveries, Delivery, Message, PREFETCH, PUBLISH_LIMIT, Receipt};
use super::{Subscription, unique};
use crate::backoff::Backoff;
use crate::causes::chain;
use crate::shutdown::Shutdown;
use crate::trace::AmqpSettings;
use crate::trace::transport::connection::{Broker as Way, BrokerError as LinkError, Link};

const PERSISTENT: u8 = 2;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(2);
/// Without an alarm a broker confirms within milliseconds, a busy disk within seconds.
const CONFIRM_LIMIT: Duration = Duration::from_secs(5);
/// Who may wait for a connection at once.
const MAX_ASKING: usize = 256;

type Ask = oneshot::Sender<Result<Arc<Open>, LinkError>>;

/// A handle.
pub(super) struct Amqp {
    way: Way,
    namespace: String,
    ask: mpsc::Sender<Ask>,
    shutdown: Shutdown,
}

/// An open connection and a channel of it.
struct Open {
    link: Link,
    channel: Channel,
}

impl Amqp {
    pub(super) fn open(urls: &[String], namespace: &str, shutdown: &Shutdown) -> Result<Self, BrokerError> {
        let settings = AmqpSettings {
            urls: urls.to_vec(),
            exchange: format!("{namespace}.topics"),
            queue: String::new(),
            routing_key: String::new(),
            durable: true,
        };
        let way = Way::new(&settings)
            .map_err(|error| BrokerError::Setting { setting: "address", reason: error.to_string() })?;
        let (ask, asked) = mpsc::channel(MAX_ASKING);
        shutdown.spawn(connect_for(way.clone(), asked, shutdown.clone()));
        Ok(Self { way, namespace: namespace.to_owned(), ask, shutdown: shutdown.clone() })
    }

    /// The connection that publishes.
    async fn line(&self) -> Result<Arc<Open>, BrokerError> {
        let (sender, line) = oneshot::channel();
        let ended = |_| away("", "the process ends".into());
        self.ask.send(sender).await.map_err(|_| away("", "the process ends".into()))?;
        line.await.map_err(ended)?.map_err(|error| away("", error.into()))
    }

    async fn send(&self, exchange: ShortString, key: &str, message: &Message) -> Result<(), BrokerError> {
        let give_up = Instant::now() + PUBLISH_LIMIT;
        let mut backoff = Backoff::seeded(RETRY_FIRST, RETRY_CAP);
        loop {
            let sent = async {
                let open = self.line().await?;
                let at = open.link.address().to_owned();
                match timeout(CONFIRM_LIMIT, publish(&open.channel, exchange.clone(), key, message)).await {
                    Ok(Ok(Confirmation::Ack(_))) => Ok(()),
                    Ok(Ok(_)) => Err(away(&at, "the message was refused".into())),
                    Ok(Err(error)) => Err(away(&at, open.link.error(error).into())),
                    Err(late) => Err(away(&at, late.into())),
                }
            };
            let Err(error) = sent.await else { return Ok(()) };
            let wait = backoff.next_wait();
            if self.shutdown.has_begun() || Instant::now() + wait > give_up {
                return Err(error);
            }
            log::debug!("publishing again in {wait:?}: {}", chain(&error));
            sleep(wait).await;
        }
    }

    fn queue(&self, topic: &str, who: &str) -> String {
        format!("{}.{topic}@{who}", self.namespace)
    }
}

fn away(address: &str, source: Box<dyn std::error::Error + Send + Sync>) -> BrokerError {
    BrokerError::Away { kind: "amqp", address: address.to_owned(), source }
}

/// Gives the connection to who asks, and makes one where there is none that stands. On its own task, so that the
/// connection lives as long as the process, whoever needed it first.
async fn connect_for(mut way: Way, mut asked: mpsc::Receiver<Ask>, shutdown: Shutdown) {
    let mut line: Option<Arc<Open>> = None;
    loop {
        let next = tokio::select! {
            () = shutdown.begun() => break,
            next = asked.recv() => next,
        };
        let Some(reply) = next else { break };
        if !line.as_ref().is_some_and(|open| open.link.is_connected() && open.channel.status().connected()) {
            line = match open(&mut way, "goms publisher").await {
                Ok(open) => Some(Arc::new(open)),
                Err(error) => {
                    drop(reply.send(Err(error))); // who asked may be gone
                    continue;
                }
            };
        }
        if let Some(open) = &line {
            drop(reply.send(Ok(open.clone())));
        }
    }
    if let Some(open) = line {
        open.link.close().await;
    }
}

/// Connects and sees to the exchange.
async fn open(way: &mut Way, name: &str) -> Result<Open, LinkError> {
    let link = way.connect(name).await?;
    let channel = link.channel().await?;
    link.step(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let declare = channel.exchange_declare(way.exchange.clone(), ExchangeKind::Topic, durable, FieldTable::default());
    link.step(declare).await?;
    Ok(Open { link, channel })
}

async fn publish(
    channel: &Channel,
    exchange: ShortString,
    key: &str,
    message: &Message,
) -> lapin::Result<Confirmation> {
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        headers.insert(name.as_str().into(), AMQPValue::LongString(value.as_str().into()));
    }
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
    let options = BasicPublishOptions::default();
    channel.basic_publish(exchange, key.into(), options, &message.body, properties).await?.await
}

#[async_trait]
impl Broker for Amqp {
    fn kind(&self) -> &'static str {
        "amqp"
    }

    async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        message.check()?;
        self.send(self.way.exchange.clone(), &message.topic, &message).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Deliveries, BrokerError> {
        check_name(&subscription.topic)?;
        subscription.group.as_deref().map_or(Ok(()), check_name)?;
        let (queue, keep) = match &subscription.group {
            Some(group) => (self.queue(&subscription.topic, group), true),
            None => (self.queue(&subscription.topic, &format!("~{}", unique())), false),
        };
        let (sender, gone, deliveries) = Deliveries::channel();
        let (told, up) = oneshot::channel();
        let hearing = Hearing { way: self.way.clone(), topic: subscription.topic, queue, keep, sender };
        let shutdown = self.shutdown.clone();
        self.shutdown.spawn(async move {
            tokio::select! {
                () = shutdown.begun() => {}
                () = gone.cancelled() => {}
                () = hearing.keep_up(told, &gone) => {}
            }
        });
        up.await.map_err(|_| away("", "the process ends".into()))?;
        Ok(deliveries)
    }

    async fn bury(&self, message: &Message, reason: &str) -> Result<(), BrokerError> {
        let queue = self.queue(&message.topic, "dead");
        let open = self.line().await?;
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        let declare = open.channel.queue_declare(queue.as_str().into(), durable, FieldTable::default());
        open.link.step(declare).await.map_err(|error| away(open.link.address(), error.into()))?;
        let mut letter = message.clone();
        letter.headers.push(("goms-dead-reason".to_owned(), reason.to_owned()));
        self.send(ShortString::default(), &queue, &letter).await
    }
}

/// One subscription.
struct Hearing {
    way: Way,
    topic: String,
    queue: String,
    /// The queue stays while nobody hears.
    keep: bool,
    sender: mpsc::Sender<Delivery>,
}

struct Tag(Arrival);

#[async_trait]
impl Receipt for Tag {
    async fn ack(&self) -> Result<(), BrokerError> {
        self.0.ack(BasicAckOptions::default()).await.map(drop).map_err(|error| away("", error.into()))
    }

    /// Dropped alone it would wait for the end of its connection, and stand in the way of others until then.
    async fn give_back(&self) {
        if let Err(error) = self.0.nack(BasicNackOptions { requeue: true, ..Default::default() }).await {
            log::debug!("a message was not given back, it comes again with the next connection: {error}");
        }
    }
}

impl Hearing {
    /// Connects again and again.
    async fn keep_up(mut self, up: oneshot::Sender<()>, gone: &CancellationToken) {
        let mut up = Some(up);
        let mut backoff = Backoff::seeded(RETRY_FIRST, RETRY_CAP);
        let mut said = false;
        while !gone.is_cancelled() {
            let ended = self.hear(|| {
                if std::mem::take(&mut said) {
                    log::info!("topic is heard again queue={}", self.queue);
                }
                backoff.reset();
                up.take().map(|up| up.send(()))
            });
            let error = match ended.await {
                Ok(()) => return,
                Err((way, error)) => {
                    self.way = way;
                    error
                }
            };
            let wait = if error.is_setting() { RETRY_CAP } else { backoff.next_wait() };
            if !std::mem::replace(&mut said, true) {
                log::warn!("topic is not heard, trying again queue={} error=\"{}\"", self.queue, chain(&error));
            }
            log::debug!("trying again in {wait:?} queue={} error=\"{}\"", self.queue, chain(&error));
            sleep(wait).await;
        }
    }

    /// One connection's life. `Ok`: nobody hears any more.
    async fn hear<T>(&self, up: impl FnOnce() -> T) -> Result<(), (Way, LinkError)> {
        let mut way = self.way.clone();
        match self.hear_by(&mut way, up).await {
            Ok(()) => Ok(()),
            Err(error) => Err((way, error)),
        }
    }

    async fn hear_by<T>(&self, way: &mut Way, up: impl FnOnce() -> T) -> Result<(), LinkError> {
        let Open { link, channel } = open(way, "goms subscriber").await?;
        let mut arguments = FieldTable::default();
        if !self.keep {
            let millis = i32::try_from(AWAY_LIMIT.as_millis()).unwrap_or(i32::MAX);
            arguments.insert("x-expires".into(), AMQPValue::LongInt(millis));
        }
        let name = || ShortString::from(self.queue.as_str());
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        link.step(channel.queue_declare(name(), durable, arguments)).await?;
        let (key, none) = (self.topic.as_str().into(), FieldTable::default());
        let bind = channel.queue_bind(name(), way.exchange.clone(), key, QueueBindOptions::default(), none);
        link.step(bind).await?;
        link.step(channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        let options = BasicConsumeOptions::default();
        let consume = channel.basic_consume(name(), ShortString::default(), options, FieldTable::default());
        let mut arrivals = link.step(consume).await?;
        drop(up());
        while let Some(arrival) = arrivals.next().await {
            let arrival = arrival.map_err(|error| link.error(error))?;
            let mut arrival = arrival;
            let body = std::mem::take(&mut arrival.data);
            let message = message(arrival.routing_key.as_str(), &arrival.properties, body);
            if self.sender.send(Delivery::new(message, Tag(arrival))).await.is_err() {
                link.close().await;
                return Ok(());
            }
        }
        Err(LinkError::Deleted(self.queue.clone()))
    }
}

fn message(topic: &str, properties: &BasicProperties, body: Vec<u8>) -> Message {
    let table = properties.headers().clone().unwrap_or_default();
    let headers = table.inner().iter().filter_map(|(name, value)| match value {
        AMQPValue::LongString(text) => Some((name.to_string(), String::from_utf8_lossy(text.as_bytes()).into_owned())),
        AMQPValue::ShortString(text) => Some((name.to_string(), text.to_string())),
        _ => None,
    });
    Message { topic: topic.to_owned(), headers: headers.collect(), body: Bytes::from(body) }
}

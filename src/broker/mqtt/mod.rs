//! MQTT 5, as Mosquitto speaks it.
//!
//! ```text
//! topic    <topic> as it is; dead letters at <topic>/dead, kept as the last one, with the header `goms-dead-reason`
//! group    $share/<group>/<topic>
//! headers  user properties
//! ```
//! Everything goes at QoS 1. A subscription is a session of its own that the broker keeps for a minute, so that what was
//! published while its connection was broken comes after it. Headers of HTTP fit as they are.
//!
//! A group that has no member keeps nothing, and Mosquitto keeps through a restart only what its `persistence` wrote: that
//! is the protocol's, and the server's.

mod hearing;
mod tls;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{Outgoing, Transport};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::message::check_name;
use super::{Broker, BrokerError, Deliveries, Leave, Message, PREFETCH, PUBLISH_LIMIT, Settings, Subscription, unique};
use crate::backoff::Backoff;
use crate::causes::chain;
use crate::shutdown::Shutdown;
use hearing::Hearing;
use tls::Carrier;

const DEFAULT_PORT: u16 = 1883;
const DEFAULT_TLS_PORT: u16 = 8883;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(2);
/// A broker on the same network confirms within milliseconds.
const CONFIRM_LIMIT: Duration = Duration::from_secs(5);
/// Pings; a dead connection is noticed within twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Messages that are published and not confirmed yet.
const MAX_UNCONFIRMED: u16 = 100;
/// A message with its headers.
const MOST_PACKET: u32 = 2 << 20;
/// Requests that wait for the connection's task.
const REQUESTS: usize = 256;
/// How long leaving may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// What one connection may bring unacknowledged, with what several broken ones before it brought: a connection that waits
/// for handlers would answer no pings.
const ARRIVALS: usize = 16 * PREFETCH as usize;

/// A handle.
pub(super) struct Mqtt {
    way: Way,
    publish: mpsc::Sender<Letter>,
    shutdown: Shutdown,
}

/// Where the broker is, and who we are there.
#[derive(Clone)]
struct Way {
    host: String,
    port: u16,
    login: Option<(String, String)>,
    namespace: String,
    /// By TLS.
    carrier: Option<Arc<Carrier>>,
}

/// A message to publish, and who waits for it.
struct Letter {
    publish: Publish,
    done: oneshot::Sender<Result<(), BrokerError>>,
}

impl Mqtt {
    pub(super) fn open(
        url: &str,
        ca_file: Option<&Path>,
        settings: &Settings,
        shutdown: &Shutdown,
    ) -> Result<Self, BrokerError> {
        let way = Way::read(url, ca_file, settings, shutdown)?;
        let (publish, letters) = mpsc::channel(REQUESTS);
        shutdown.spawn(publish_all(way.clone(), letters, shutdown.clone()));
        Ok(Self { way, publish, shutdown: shutdown.clone() })
    }

    async fn send(
        &self,
        topic: &str,
        retain: bool,
        message: &Message,
        more: Option<(&str, &str)>,
    ) -> Result<(), BrokerError> {
        let mut user_properties = message.headers.clone();
        user_properties.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let properties = PublishProperties { user_properties, ..Default::default() };
        let give_up = Instant::now() + PUBLISH_LIMIT;
        let mut backoff = Backoff::seeded(RETRY_FIRST, RETRY_CAP);
        loop {
            let body = message.body.clone();
            let mut publish = Publish::new(topic, QoS::AtLeastOnce, body, Some(properties.clone()));
            publish.retain = retain;
            let (done, told) = oneshot::channel();
            let sent = async {
                self.publish.send(Letter { publish, done }).await.map_err(|_| self.way.away("the process ends"))?;
                told.await.unwrap_or_else(|_| Err(self.way.away("the connection broke")))
            };
            let sent = timeout(CONFIRM_LIMIT, sent).await.unwrap_or_else(|late| Err(self.way.away(late)));
            let Err(error @ BrokerError::Away { .. }) = sent else { return sent };
            let wait = backoff.next_wait();
            if self.shutdown.has_begun() || Instant::now() + wait > give_up {
                return Err(error);
            }
            log::debug!("publishing again in {wait:?}: {}", chain(&error));
            sleep(wait).await;
        }
    }
}

impl Way {
    fn read(text: &str, ca_file: Option<&Path>, settings: &Settings, shutdown: &Shutdown) -> Result<Self, BrokerError> {
        let bad = |reason: &str| BrokerError::Setting { setting: "address", reason: reason.to_owned() };
        let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
        let is_tls = match url.scheme() {
            "mqtt" | "tcp" => false,
            "mqtts" | "ssl" => true,
            _ => return Err(bad("an address of MQTT begins with `mqtt://` or `mqtts://`")),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| bad("it has no host"))?;
        let login = (!url.username().is_empty()).then(|| {
            let part = |text: &str| match url::form_urlencoded::parse(text.replace('+', "%2B").as_bytes()).next() {
                Some((text, _)) => text.into_owned(),
                None => String::new(),
            };
            (part(url.username()), part(url.password().unwrap_or_default()))
        });
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = url.port().unwrap_or(if is_tls { DEFAULT_TLS_PORT } else { DEFAULT_PORT });
        let Settings { runtime_dir, namespace, .. } = settings;
        let carrier = if is_tls { Some(Carrier::open(&host, port, ca_file, runtime_dir, shutdown)?) } else { None };
        Ok(Self { host, port, login, namespace: namespace.clone(), carrier })
    }

    fn away(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BrokerError {
        BrokerError::Away { kind: "mqtt", address: format!("{}:{}", self.host, self.port), source: source.into() }
    }

    fn options(&self, id: &str) -> MqttOptions {
        let mut options = match &self.carrier {
            None => MqttOptions::new(id, &self.host, self.port),
            Some(carrier) => {
                let mut options = MqttOptions::new(id, carrier.file().to_string_lossy(), self.port);
                options.set_transport(Transport::Unix);
                options
            }
        };
        options.set_keep_alive(KEEP_ALIVE).set_connection_timeout(CONFIRM_LIMIT.as_secs());
        options.set_max_packet_size(Some(MOST_PACKET)).set_receive_maximum(Some(PREFETCH));
        options.set_outgoing_inflight_upper_limit(MAX_UNCONFIRMED);
        if let Some((user, password)) = &self.login {
            options.set_credentials(user, password);
        }
        options
    }
}

#[async_trait]
impl Broker for Mqtt {
    fn kind(&self) -> &'static str {
        "mqtt"
    }

    async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        message.check()?;
        self.send(&message.topic, false, &message, None).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Deliveries, BrokerError> {
        check_name(&subscription.topic)?;
        subscription.group.as_deref().map_or(Ok(()), check_name)?;
        let filter = match &subscription.group {
            // a `/` would end the group's name
            Some(group) => format!("$share/{}/{}", group.replace('/', "-"), subscription.topic),
            None => subscription.topic,
        };
        let (sender, arrivals) = mpsc::channel(ARRIVALS);
        let (gone, stop) = (CancellationToken::new(), CancellationToken::new());
        let leave = Leave::Tell(stop.clone());
        let deliveries = Deliveries { arrivals, leave, _end: gone.clone().drop_guard() };
        let (told, up) = oneshot::channel();
        let hearing = Hearing { way: self.way.clone(), filter, sender: Some(sender), stop };
        let shutdown = self.shutdown.clone();
        self.shutdown.spawn(async move {
            let left = async {
                gone.cancelled().await;
                sleep(LEAVE_LIMIT).await;
            };
            tokio::select! {
                () = shutdown.begun() => {}
                () = left => {}
                () = hearing.keep_up(told, &gone) => {}
            }
        });
        up.await.map_err(|_| self.way.away("the process ends"))?;
        Ok(deliveries)
    }

    async fn bury(&self, message: &Message, reason: &str) -> Result<(), BrokerError> {
        let topic = format!("{}/dead", message.topic);
        self.send(&topic, true, message, Some(("goms-dead-reason", reason))).await
    }
}

/// Moves a connection on a task of its own, since a poll must not be given up half way.
fn poll_all(mut events: EventLoop, shutdown: &Shutdown) -> mpsc::Receiver<Result<Event, ConnectionError>> {
    let (sender, receiver) = mpsc::channel(REQUESTS);
    let ending = shutdown.clone();
    shutdown.spawn(async move {
        loop {
            let event = tokio::select! {
                () = ending.begun() => return,
                () = sender.closed() => return,
                event = events.poll() => event,
            };
            let broken = event.is_err();
            if sender.send(event).await.is_err() || broken {
                return; // a new connection is a new loop: this one would forget what waits
            }
        }
    });
    receiver
}

/// Publishes what comes, connection after connection. Who waits when one breaks is told, and sends again.
async fn publish_all(way: Way, mut letters: mpsc::Receiver<Letter>, shutdown: Shutdown) {
    let mut backoff = Backoff::seeded(RETRY_FIRST, RETRY_CAP);
    loop {
        let first = tokio::select! {
            () = shutdown.begun() => return,
            letter = letters.recv() => letter,
        };
        let Some(first) = first else { return };
        let mut options = way.options(&format!("{}-pub-{}", way.namespace, unique()));
        options.set_clean_start(true);
        let (client, events) = AsyncClient::new(options, REQUESTS);
        let events = poll_all(events, &shutdown);
        let line = Line { client, events, waiting: VecDeque::new(), sent: HashMap::new(), failed: Vec::new() };
        let error = tokio::select! {
            () = shutdown.begun() => return,
            error = line.run(first, &mut letters, &mut backoff) => error,
        };
        log::debug!("connection to mqtt broke, who publishes connects again: {error}");
        sleep(backoff.next_wait()).await;
    }
}

type Waiter = oneshot::Sender<Result<(), BrokerError>>;

/// One connection that publishes.
struct Line {
    client: AsyncClient,
    events: mpsc::Receiver<Result<Event, ConnectionError>>,
    /// In the order in which they were handed over.
    waiting: VecDeque<Waiter>,
    /// By packet id.
    sent: HashMap<u16, Waiter>,
    failed: Vec<Waiter>,
}

impl Line {
    async fn run(mut self, first: Letter, letters: &mut mpsc::Receiver<Letter>, backoff: &mut Backoff) -> String {
        let mut next = Some(first);
        loop {
            if let Some(Letter { publish, done }) = next.take() {
                let (topic, properties) = (String::from_utf8_lossy(&publish.topic), publish.properties);
                let properties = properties.unwrap_or_default();
                let (retain, body) = (publish.retain, publish.payload);
                let handed =
                    self.client.publish_with_properties(topic, QoS::AtLeastOnce, retain, body, properties).await;
                match handed {
                    Ok(()) => self.waiting.push_back(done),
                    Err(error) => return error.to_string(),
                }
            }
            let room = self.waiting.len() + self.sent.len() < usize::from(MAX_UNCONFIRMED);
            tokio::select! {
                letter = letters.recv(), if room => match letter {
                    Some(letter) => next = Some(letter),
                    None => return "nobody publishes any more".to_owned(),
                },
                event = self.events.recv() => match event {
                    Some(Ok(event)) => self.hear(event, backoff),
                    Some(Err(error)) => return error.to_string(),
                    None => return "its task ended".to_owned(),
                }
            }
        }
    }

    fn hear(&mut self, event: Event, backoff: &mut Backoff) {
        match event {
            Event::Outgoing(Outgoing::Publish(id)) => {
                if let Some(waiter) = self.waiting.pop_front() {
                    self.failed.extend(self.sent.insert(id, waiter)); // an id that is used again was never confirmed
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                backoff.reset();
                let refused = match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
                    reason => Some(BrokerError::Setting {
                        setting: "address",
                        reason: format!("mqtt refuses the message ({reason:?}); may this user publish there?"),
                    }),
                };
                if let Some(waiter) = self.sent.remove(&ack.pkid) {
                    drop(waiter.send(refused.map_or(Ok(()), Err))); // who waited may be gone
                }
            }
            _ => {}
        }
    }
}

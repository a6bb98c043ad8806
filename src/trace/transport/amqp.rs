//! Events to RabbitMQ: persistent messages, published one after the other on one channel while others wait for their
//! confirmation; `mandatory`, so that a message that no queue takes comes back instead of vanishing.
//!
//! ```text
//! send ──► waiting (no connection yet) ──► published ──► answered: the oldest deliveries that are confirmed are told
//!                                              └──► one error: all that is not told has failed, a new connection follows
//! ```
//! A memory or disk alarm blocks the connection: what is in flight then waits until the alarm ends, and the spool keeps it
//! on disk. Confirmations that come late count, so nothing is sent twice for a slow broker.

mod window;

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};

use super::connection::{Broker, BrokerError, Link};
use super::{Away, CONSUMER_SERVICE, Limits};
use crate::causes::chain;
use crate::registry::CatalogWatch;
use crate::trace::batch::Batch;
use crate::trace::{AmqpSettings, Message, TraceError};
use window::{Failure, Window};

/// Without an alarm a broker confirms within milliseconds, a busy disk within seconds.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// How often what takes long is looked at, whether an alarm is the reason.
const ALARM_CHECK: Duration = Duration::from_millis(250);
/// Between tries when a person must correct a setting first.
const SETTING_RETRY: Duration = Duration::from_secs(5);
const PERSISTENT: u8 = 2;
/// A batch a delivery, so that each is confirmed on its own. 16 MB in flight last a broker that takes 300 MB/s for 50 ms,
/// which it may need to answer when both cores are busy; they are in memory twice, here and in lapin's queue.
const LIMITS: Limits = Limits { flights: 64, flight_batches: 1, flight_bytes: usize::MAX, bytes: 16 << 20 };

/// Publishes batches with confirmation; connects by itself.
pub(in crate::trace) struct Publisher {
    broker: Broker,
    message: Message,
    catalog: CatalogWatch,
    line: Line,
    /// Handed over while there was no connection.
    waiting: Vec<Vec<Batch>>,
    window: Window,
    /// When the broker was last seen to confirm or had nothing to, or the alarm last seen.
    answered_at: Instant,
    check_at: Instant,
    /// That an alarm blocks was said.
    told: bool,
    hinted: bool,
}

/// The way to the broker.
enum Line {
    Down,
    Connecting(LocalBoxFuture<'static, (Broker, Result<Open, BrokerError>)>),
    Up(Box<Open>),
}

struct Open {
    link: Link,
    channel: Rc<Channel>,
    /// Nobody reads the queue.
    unread: bool,
}

impl Open {
    fn is_connected(&self) -> bool {
        self.link.is_connected() && self.channel.status().connected()
    }
}

impl Publisher {
    pub fn new(settings: AmqpSettings, message: Message, catalog: CatalogWatch) -> Result<Self, TraceError> {
        let now = Instant::now();
        Ok(Self {
            broker: Broker::new(&settings)?,
            message,
            catalog,
            line: Line::Down,
            waiting: Vec::new(),
            window: Window::default(),
            answered_at: now,
            check_at: now,
            told: false,
            hinted: false,
        })
    }

    pub fn limits(&self) -> Limits {
        LIMITS
    }

    /// Takes a delivery behind those that are in flight.
    pub fn send(&mut self, batches: Vec<Batch>) {
        if self.window.is_empty() {
            self.answered_at = Instant::now();
            self.check_at = self.answered_at + ALARM_CHECK;
            if matches!(&self.line, Line::Up(open) if !open.is_connected()) {
                self.line = Line::Down; // it broke while nothing was to be sent
            }
        }
        match &self.line {
            Line::Up(open) => publish(&self.broker, self.message, &open.channel, &batches, &mut self.window),
            Line::Down | Line::Connecting(_) => self.waiting.push(batches),
        }
    }

    /// Waits until the oldest deliveries are confirmed and says how many. After an error nothing is in flight any more.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn progress(&mut self) -> Result<usize, Away> {
        loop {
            match &mut self.line {
                Line::Down => {
                    let mut broker = self.broker.clone();
                    self.line = Line::Connecting(Box::pin(async move {
                        let open = connect(&mut broker).await;
                        (broker, open)
                    }));
                }
                Line::Connecting(done) => {
                    let open = done.await;
                    self.connected(open)?;
                }
                Line::Up(open) => tokio::select! {
                    answers = self.window.answers() => match answers {
                        Ok(0) => self.answered_at = Instant::now(),
                        Ok(delivered) => {
                            self.answered_at = Instant::now();
                            if std::mem::take(&mut self.told) {
                                log::info!("rabbitmq takes messages again address={}", open.link.address());
                            }
                            return Ok(delivered);
                        }
                        Err(failure) => {
                            let away = self.explain(failure);
                            return Err(self.failed(away));
                        }
                    },
                    () = tokio::time::sleep_until(self.check_at.into()) => self.check()?,
                },
            }
        }
    }

    fn connected(&mut self, (broker, open): (Broker, Result<Open, BrokerError>)) -> Result<(), Away> {
        self.broker = broker;
        let open = open.map_err(|error| self.failed(away(error)))?;
        if open.unread {
            self.hint();
        }
        self.answered_at = Instant::now();
        self.check_at = self.answered_at + ALARM_CHECK;
        for batches in self.waiting.drain(..) {
            publish(&self.broker, self.message, &open.channel, &batches, &mut self.window);
        }
        self.line = Line::Up(Box::new(open));
        Ok(())
    }

    /// Nothing was confirmed for a while: an alarm is the reason, or the broker is given up.
    fn check(&mut self) -> Result<(), Away> {
        let Line::Up(open) = &self.line else { return Ok(()) };
        let now = Instant::now();
        self.check_at = now + ALARM_CHECK;
        if open.link.is_blocked() {
            self.answered_at = now;
            if !std::mem::replace(&mut self.told, true) {
                log::warn!(
                    "rabbitmq takes no messages (memory or disk alarm), trace events wait on disk address={}",
                    open.link.address()
                );
            }
        } else if now >= self.answered_at + CONFIRM_TIMEOUT {
            let away = Away::new(format!("rabbitmq at `{}` does not confirm", open.link.address()));
            return Err(self.failed(away));
        }
        Ok(())
    }

    fn explain(&self, failure: Failure) -> Away {
        match (failure, &self.line) {
            (Failure::Returned(reason), _) => Away::new(format!(
                "no queue takes messages for `{}`: {reason}; it is declared again",
                self.broker.routing_key
            )),
            (Failure::Refused, _) => Away::new("rabbitmq could not keep a message"),
            (Failure::Lost(error), Line::Up(open)) => away(open.link.error(error)),
            (Failure::Lost(error), _) => Away::new(chain(&error)),
        }
    }

    /// Forgets what is in flight. The connection ends by itself when it is dropped: what it has not sent yet it sends
    /// first, which harms nothing.
    fn failed(&mut self, away: Away) -> Away {
        self.line = Line::Down;
        self.waiting.clear();
        self.window = Window::default();
        self.told = false;
        away
    }

    fn hint(&mut self) {
        let known = self.catalog.borrow().as_ref().is_some_and(|nodes| !nodes.nodes(CONSUMER_SERVICE).is_empty());
        if !known && !std::mem::replace(&mut self.hinted, true) {
            log::info!(
                "nobody reads trace events yet, they wait in rabbitmq; start a consumer with `goms trace-consumer` queue={}",
                self.broker.queue
            );
        }
    }
}

async fn connect(broker: &mut Broker) -> Result<Open, BrokerError> {
    let link = broker.connect("goms traces").await?;
    let queue = broker.declare(&link).await?;
    let channel = link.channel().await?;
    link.step(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    log::debug!("publishing trace events address={} queue={}", link.address(), broker.queue);
    Ok(Open { link, channel: Rc::new(channel), unread: queue.consumers == Some(0) })
}

fn publish(broker: &Broker, message: Message, channel: &Rc<Channel>, batches: &[Batch], window: &mut Window) {
    let one = |body: Bytes, kind: &str| {
        let properties = BasicProperties::default().with_content_type(kind.into()).with_delivery_mode(PERSISTENT);
        confirmed(Rc::clone(channel), broker.exchange.clone(), broker.routing_key.clone(), body, properties)
    };
    match message {
        Message::Batch => window.push(batches.iter().map(|batch| one(batch.json.clone(), "application/json"))),
        Message::Single => {
            window.push(batches.iter().flat_map(Batch::singles).map(|event| one(event, "text/plain")));
        }
    }
}

async fn confirmed(
    channel: Rc<Channel>,
    exchange: lapin::types::ShortString,
    routing_key: lapin::types::ShortString,
    body: Bytes,
    properties: BasicProperties,
) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    channel.basic_publish(exchange, routing_key, options, &body, properties).await?.await
}

fn away(error: BrokerError) -> Away {
    let wait = if error.is_setting() { SETTING_RETRY } else { Duration::ZERO };
    Away { wait, ..Away::new(chain(&error)) }
}

//! What can never be stored goes to `<queue>.dead` with the header `reason`, confirmed by the broker before the message
//! that brought it is acknowledged. While that queue takes nothing (it is full, or may not be made), the message waits and
//! all others go on, so this has a channel of its own: what a broker refuses closes the channel.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Mutex;

use crate::causes::chain;
use crate::trace::transport::connection::{Broker, BrokerError, Link};

/// A message of the broker's largest size over a slow network.
const BURY_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two tries; a person must act.
const AGAIN: Duration = Duration::from_secs(5);
/// A line each would fill a disk where a wrong program writes to the queue.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// A header must fit into a frame (128 KiB); nobody reads a longer reason.
const MAX_REASON_BYTES: usize = 4 << 10;
const PERSISTENT: u8 = 2;

/// What cannot be stored, and why.
pub(super) type Letter = (Vec<u8>, String);

/// The way to the dead-letter queue over one connection.
pub(super) struct Letters<'a> {
    broker: &'a Broker,
    link: &'a Link,
    queue: &'a ShortString,
    /// Open once the queue is there.
    channel: Mutex<Option<Channel>>,
    /// Whether it was said that the queue takes nothing.
    told: AtomicBool,
    moved: std::sync::Mutex<Moved>,
}

/// What a log line tells.
#[derive(Default)]
struct Moved {
    told: Option<Instant>,
    /// Letters since then.
    count: usize,
}

impl<'a> Letters<'a> {
    pub fn new(broker: &'a Broker, link: &'a Link, queue: &'a ShortString) -> Self {
        Self {
            broker,
            link,
            queue,
            channel: Mutex::new(None),
            told: AtomicBool::new(false),
            moved: std::sync::Mutex::default(),
        }
    }

    /// Resolves once the broker has all of them on disk, or with an error when the connection ends.
    pub async fn bury(&self, letters: &[Letter]) -> Result<(), BrokerError> {
        let mut left: Vec<&Letter> = letters.iter().collect();
        while let Err(error) = self.try_to_bury(&mut left).await {
            if !self.link.is_connected() {
                return Err(error);
            }
            *self.channel.lock().await = None;
            if !self.told.swap(true, Ordering::Relaxed) {
                let reason = chain(&error);
                log::error!("cannot move trace events to queue={}, they wait unacknowledged: {reason}", self.queue);
            }
            tokio::time::sleep(AGAIN).await;
        }
        if self.told.swap(false, Ordering::Relaxed) {
            log::info!("trace events are moved again to queue={}", self.queue);
        }
        self.tell(letters);
        Ok(())
    }

    /// Logs what was moved since it last did.
    fn tell(&self, letters: &[Letter]) {
        let Some((_, reason)) = letters.first() else { return };
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.count += letters.len();
        if moved.told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            log::warn!("trace events moved to queue={} count={} reason={}", self.queue, moved.count, cut(reason));
            *moved = Moved { told: Some(Instant::now()), count: 0 };
        }
    }

    /// Takes out of `left` what the broker has.
    async fn try_to_bury(&self, left: &mut Vec<&Letter>) -> Result<(), BrokerError> {
        let channel = self.channel().await?;
        let mut confirms = Vec::with_capacity(left.len());
        for (body, reason) in left.iter() {
            confirms.push(self.bounded(self.publish(&channel, body, reason)).await?);
        }
        let answers = self.bounded(async { Ok(join_all(confirms).await) }).await?;
        let mut answers = answers.into_iter();
        let mut refused = Ok(());
        left.retain(|_| match answers.next() {
            Some(Ok(Confirmation::Ack(None))) => false,
            Some(Err(error)) => {
                refused = Err(self.link.error(error));
                true
            }
            _ => {
                refused = Err(self.link.error(std::io::Error::other("the queue does not take it").into()));
                true
            }
        });
        refused
    }

    async fn channel(&self) -> Result<Channel, BrokerError> {
        let mut open = self.channel.lock().await;
        if let Some(channel) = open.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        self.broker.declare_queue(self.link, self.queue).await?;
        let channel = self.link.channel().await?;
        self.link.step(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(open.insert(channel).clone())
    }

    async fn publish(&self, channel: &Channel, body: &[u8], reason: &str) -> lapin::Result<lapin::PublisherConfirm> {
        let mut headers = FieldTable::default();
        headers.insert("reason".into(), AMQPValue::LongString(cut(reason).into()));
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers);
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        channel.basic_publish("".into(), self.queue.clone(), options, body, properties).await
    }

    async fn bounded<T>(&self, step: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
        match tokio::time::timeout(BURY_TIMEOUT, step).await {
            Ok(done) => done.map_err(|error| self.link.error(error)),
            Err(_) => Err(BrokerError::Silent(self.link.address().to_owned())),
        }
    }
}

fn cut(reason: &str) -> &str {
    let mut ends = (0..=MAX_REASON_BYTES.min(reason.len())).rev();
    ends.find_map(|end| reason.get(..end)).unwrap_or_default()
}

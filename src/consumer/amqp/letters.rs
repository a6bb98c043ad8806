//! What can never be stored goes to `<queue>.dead` with the header `reason`, confirmed by the broker before the message
//! that brought it is acknowledged.

use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::OnceCell;

use crate::trace::transport::connection::{Broker, BrokerError, Link};

/// A message of the broker's largest size over a slow network.
const BURY_TIMEOUT: Duration = Duration::from_secs(60);
/// A header must fit into a frame (128 KiB); nobody reads a longer reason.
const MAX_REASON_BYTES: usize = 4 << 10;
const PERSISTENT: u8 = 2;

/// What cannot be stored, and why.
pub(super) type Letter = (Vec<u8>, String);

/// The way to the dead-letter queue over one channel.
pub(super) struct Letters<'a> {
    pub broker: &'a Broker,
    pub link: &'a Link,
    pub channel: &'a Channel,
    pub queue: &'a ShortString,
    pub declared: OnceCell<()>,
}

impl Letters<'_> {
    /// Resolves once the broker has all of them on disk.
    pub async fn bury(&self, letters: &[Letter]) -> Result<(), BrokerError> {
        let declare = || async { self.broker.declare_queue(self.link, self.queue).await.map(|_| ()) };
        self.declared.get_or_try_init(declare).await?;
        if let Some((_, reason)) = letters.first() {
            log::warn!("trace events moved to queue={} count={} reason={}", self.queue, letters.len(), cut(reason));
        }
        let mut confirms = Vec::with_capacity(letters.len());
        for (body, reason) in letters {
            confirms.push(self.bounded(self.publish(body, reason)).await?);
        }
        for answer in self.bounded(try_join_all(confirms)).await? {
            if answer != Confirmation::Ack(None) {
                return Err(self.link.error(std::io::Error::other("the dead-letter queue took a message not").into()));
            }
        }
        Ok(())
    }

    async fn publish(&self, body: &[u8], reason: &str) -> lapin::Result<lapin::PublisherConfirm> {
        let mut headers = FieldTable::default();
        headers.insert("reason".into(), AMQPValue::LongString(cut(reason).into()));
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers);
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        self.channel.basic_publish("".into(), self.queue.clone(), options, body, properties).await
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

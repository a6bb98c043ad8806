//! Events from RabbitMQ: taken with a prefetch, acknowledged once stored; what can never be stored goes to
//! `<queue>.dead` with the header `reason`. Connects again by itself.

mod arrivals;
mod letters;
mod session;
mod tags;

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::Channel;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};

use super::health::Health;
use super::instruments::Instruments;
use super::pipeline::Pipeline;
use crate::backoff::Backoff;
use crate::causes::chain;
use crate::shutdown::Shutdown;
use crate::trace::transport::connection::{Broker, BrokerError, Link};
pub(super) use arrivals::Room;
use letters::Letters;
use session::{CONSUMER_TAG, Session};

/// Between two tries to read; a broker that is back is not kept waiting for longer.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// One queue's reader.
pub(super) struct Source {
    pub broker: Broker,
    /// `<queue>.dead`.
    pub dead_queue: ShortString,
    pub prefetch: u16,
    /// For the bytes of messages.
    pub room: Arc<Room>,
    pub pipeline: Pipeline,
    pub instruments: Instruments,
    pub health: Health,
    pub shutdown: Shutdown,
}

impl Source {
    /// Reads until the end is asked for.
    pub async fn run(mut self) {
        let mut backoff = Backoff::seeded(Duration::from_millis(100), LAST_WAIT);
        let (mut started, mut away) = (false, false);
        while !self.shutdown.has_begun() {
            let shutdown = self.shutdown.clone();
            let opened = tokio::select! {
                opened = self.open() => opened,
                () = shutdown.begun() => return,
            };
            let error = match opened {
                Ok((link, channel)) => {
                    let ended = self.read(&link, &channel, &mut started, &mut away, &mut backoff).await;
                    link.close().await;
                    match ended {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            let reason = chain(&error);
            self.health.set_queue(Some(format!("cannot read trace events: {reason}")));
            if !std::mem::replace(&mut away, true) {
                log::warn!("trace consumer cannot read, it tries again: {reason}");
            }
            let slow = if error.is_setting() { LAST_WAIT } else { Duration::ZERO };
            tokio::select! {
                () = tokio::time::sleep(backoff.next_wait().max(slow)) => {}
                () = shutdown.begun() => return,
            }
        }
    }

    async fn open(&mut self) -> Result<(Link, Channel), BrokerError> {
        let link = self.broker.connect("goms trace consumer").await?;
        if self.broker.declare(&link).await?.consumers.is_none() {
            return Err(BrokerError::Exclusive(self.broker.queue.to_string()));
        }
        let channel = link.channel().await?;
        Ok((link, channel))
    }

    /// Asks the broker for messages, as many at once as the prefetch says.
    ///
    /// Once only: what arrives while the client cancels a subscription it drops unacknowledged, so a subscription lasts
    /// as long as its channel.
    async fn subscribe(&self, link: &Link, channel: &Channel) -> Result<lapin::Consumer, BrokerError> {
        link.step(channel.basic_qos(self.prefetch, BasicQosOptions::default())).await?;
        let consume = channel.basic_consume(
            self.broker.queue.clone(),
            CONSUMER_TAG.into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        link.step(consume).await
    }

    async fn read(
        &self,
        link: &Link,
        channel: &Channel,
        started: &mut bool,
        away: &mut bool,
        backoff: &mut Backoff,
    ) -> Result<(), BrokerError> {
        let letters = Letters::new(&self.broker, link, &self.dead_queue);
        let session = Session::new(self, link, channel, &letters);
        let deliveries = self.subscribe(link, channel).await?;
        if !std::mem::replace(started, true) {
            log::info!("[amqp] trace consumer is runner");
        }
        if std::mem::take(away) {
            log::info!("trace consumer reads again address={}", link.address());
        }
        self.health.set_queue(None);
        let began = Instant::now();
        let ended = session.run(deliveries).await;
        if began.elapsed() > LAST_WAIT {
            backoff.reset(); // what ends sooner, each time, must not be tried ten times a second
        }
        ended
    }
}

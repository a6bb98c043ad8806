//! Events from RabbitMQ: taken with a prefetch, acknowledged once stored; what can never be stored goes to
//! `<queue>.dead` with the header `reason`. Connects again by itself.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::try_join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use prometheus::IntCounter;

use super::pipeline::{Pipeline, Verdict, document};
use crate::backoff::Backoff;
use crate::shutdown::Shutdown;
use crate::store::Document;
use crate::trace::event::parse;
use crate::trace::transport::chain;
use crate::trace::transport::connection::{Broker, BrokerError, Link};

/// A longer message is dead-lettered unread: no sender of ours makes one over 8 MiB.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// How long an ending consumer waits for what it took to be stored.
const FINISH_LIMIT: Duration = Duration::from_secs(5);
const CONSUMER_TAG: &str = "goms-trace-consumer";
const PERSISTENT: u8 = 2;

/// One queue's reader.
pub(super) struct Source {
    pub broker: Broker,
    /// `<queue>.dead`.
    pub dead_queue: ShortString,
    pub prefetch: u16,
    pub pipeline: Pipeline,
    pub refused: IntCounter,
    pub shutdown: Shutdown,
}

/// A message that was taken and is not acknowledged yet.
struct Taken {
    delivery: Delivery,
    /// What cannot be stored, with the reason.
    dead: Vec<(Vec<u8>, String)>,
}

impl Source {
    /// Reads until the end is asked for.
    pub async fn run(mut self) {
        let mut backoff = Backoff::seeded(Duration::from_millis(100), Duration::from_secs(5));
        let (mut started, mut away) = (false, false);
        while !self.shutdown.has_begun() {
            let shutdown = self.shutdown.clone();
            let opened = tokio::select! {
                opened = self.open() => opened,
                () = shutdown.begun() => return,
            };
            let error = match opened {
                Ok((link, channel, deliveries)) => {
                    if !std::mem::replace(&mut started, true) {
                        log::info!("[amqp] trace consumer is runner");
                    }
                    if std::mem::take(&mut away) {
                        log::info!("trace consumer reads again address={}", link.address());
                    }
                    backoff.reset();
                    let ended = self.read(&link, &channel, deliveries).await;
                    link.close().await;
                    match ended {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if !std::mem::replace(&mut away, true) {
                log::warn!("trace consumer cannot read, it tries again: {}", chain(&error));
            }
            let slow = if error.is_setting() { Duration::from_secs(5) } else { Duration::ZERO };
            tokio::select! {
                () = tokio::time::sleep(backoff.next_wait().max(slow)) => {}
                () = shutdown.begun() => return,
            }
        }
    }

    async fn open(&mut self) -> Result<(Link, Channel, lapin::Consumer), BrokerError> {
        let link = self.broker.connect("goms trace consumer").await?;
        if self.broker.declare(&link).await?.consumers.is_none() {
            return Err(BrokerError::Exclusive(self.broker.queue.to_string()));
        }
        let channel = link.channel().await?;
        link.step(channel.basic_qos(self.prefetch, BasicQosOptions::default())).await?;
        link.step(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let consume = channel.basic_consume(
            self.broker.queue.clone(),
            CONSUMER_TAG.into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let deliveries = link.step(consume).await?;
        Ok((link, channel, deliveries))
    }

    /// Takes messages and acknowledges them as they are stored; `Ok` once the end was asked for and all is settled.
    async fn read(&self, link: &Link, channel: &Channel, mut deliveries: lapin::Consumer) -> Result<(), BrokerError> {
        let mut waiting = FuturesUnordered::new();
        let mut finish_at = None;
        loop {
            if finish_at.is_some() && waiting.is_empty() {
                return Ok(());
            }
            tokio::select! {
                next = deliveries.next(), if finish_at.is_none() => match next {
                    Some(Ok(delivery)) => {
                        let (taken, documents) = self.sort(delivery);
                        // the queue of the pipeline may be full: only the end of the process breaks this wait
                        let reply = self.pipeline.submit(documents).await;
                        waiting.push(async move {
                            match reply {
                                Some(reply) => (taken, reply.await.ok()),
                                None => (taken, None),
                            }
                        });
                    }
                    Some(Err(error)) => return Err(link.error(error)),
                    None if link.is_connected() => return Err(BrokerError::Deleted(self.broker.queue.to_string())),
                    None => return Err(link.error(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into())),
                },
                Some(first) = waiting.next() => {
                    // a batch of the store settles many messages at once: their acknowledgements go out together
                    let mut settled = vec![first];
                    while let Some(Some(next)) = waiting.next().now_or_never() {
                        settled.push(next);
                    }
                    let mut acks = Vec::with_capacity(settled.len());
                    for (taken, verdicts) in settled {
                        if let Some(verdicts) = verdicts {
                            acks.push(self.bury_refused(link, channel, taken, verdicts).await?);
                        }
                    }
                    let acks = acks.iter().map(|delivery| delivery.acker.ack(BasicAckOptions::default()));
                    link.step(try_join_all(acks)).await?;
                }
                () = self.shutdown.begun(), if finish_at.is_none() => {
                    finish_at = Some(tokio::time::Instant::now() + FINISH_LIMIT);
                    // no new ones; what came already stays with us until the connection closes
                    link.step(channel.basic_cancel(CONSUMER_TAG.into(), BasicCancelOptions::default())).await?;
                }
                () = until(finish_at) => return Ok(()),
            }
        }
    }

    /// What of a message can be stored, and what cannot.
    fn sort(&self, mut delivery: Delivery) -> (Taken, Vec<Document>) {
        let body = std::mem::take(&mut delivery.data);
        if body.len() > MAX_MESSAGE_BYTES {
            let reason = format!("message of {} bytes is over {MAX_MESSAGE_BYTES}", body.len());
            return (Taken { delivery, dead: vec![(body, reason)] }, Vec::new());
        }
        match parse(&body) {
            Ok(received) => {
                let dead = received.refused.into_iter().map(|(json, why)| (json.into_bytes(), chain(&why))).collect();
                (Taken { delivery, dead }, received.events.into_iter().map(document).collect())
            }
            Err(error) => (Taken { delivery, dead: vec![(body, chain(&error))] }, Vec::new()),
        }
    }

    /// Dead-letters what was refused; gives back the message, which may then be acknowledged.
    async fn bury_refused(
        &self,
        link: &Link,
        channel: &Channel,
        taken: Taken,
        verdicts: Vec<Verdict>,
    ) -> Result<Delivery, BrokerError> {
        let junk = taken.dead.len() as u64;
        let refused = verdicts.into_iter().filter_map(|verdict| match verdict {
            Verdict::Refused(json, reason) => Some((json.get().as_bytes().to_vec(), reason)),
            Verdict::Stored => None,
        });
        let dead: Vec<_> = taken.dead.into_iter().chain(refused).collect();
        if !dead.is_empty() {
            self.broker.declare_queue(link, &self.dead_queue).await?;
        }
        for (body, reason) in dead {
            log::warn!("trace event moved to queue={} reason={reason}", self.dead_queue);
            self.bury(link, channel, &body, &reason).await?;
        }
        self.refused.inc_by(junk); // the pipeline counted those that the store refused
        Ok(taken.delivery)
    }

    async fn bury(&self, link: &Link, channel: &Channel, body: &[u8], reason: &str) -> Result<(), BrokerError> {
        let mut headers = FieldTable::default();
        headers.insert("reason".into(), AMQPValue::LongString(reason.into()));
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers);
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let answer = link
            .step(async {
                channel.basic_publish("".into(), self.dead_queue.clone(), options, body, properties).await?.await
            })
            .await?;
        match answer {
            Confirmation::Ack(None) => Ok(()),
            _ => Err(link.error(std::io::Error::other("the dead-letter queue took a message not").into())),
        }
    }
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

//! Events to RabbitMQ: persistent messages, published in a row and then confirmed by the broker; `mandatory`, so that a
//! message that no queue takes comes back instead of vanishing.
//!
//! A memory or disk alarm blocks the connection: a delivery then waits until the alarm ends, and the spool keeps what
//! comes meanwhile on disk. Confirmations that come late count, so nothing is sent twice for a slow broker.

use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};

use super::connection::{Broker, BrokerError, Link};
use super::{Away, CONSUMER_SERVICE, chain};
use crate::registry::CatalogWatch;
use crate::trace::batch::Batch;
use crate::trace::{AmqpSettings, Message, TraceError};

/// Without an alarm a broker confirms within milliseconds, a busy disk within seconds.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a delivery that takes long looks whether an alarm is the reason.
const ALARM_CHECK: Duration = Duration::from_millis(250);
/// Between tries when a person must correct a setting first.
const SETTING_RETRY: Duration = Duration::from_secs(5);
const PERSISTENT: u8 = 2;

/// Publishes batches with confirmation; connects by itself.
pub(in crate::trace) struct Publisher {
    broker: Broker,
    message: Message,
    catalog: CatalogWatch,
    open: Option<(Link, Channel)>,
    hinted: bool,
}

impl Publisher {
    pub fn new(settings: AmqpSettings, message: Message, catalog: CatalogWatch) -> Result<Self, TraceError> {
        Ok(Self { broker: Broker::new(&settings)?, message, catalog, open: None, hinted: false })
    }

    pub async fn deliver(&mut self, batches: &[Batch]) -> Result<(), Away> {
        if self.open.as_ref().is_none_or(|(link, channel)| !link.is_connected() || !channel.status().connected()) {
            self.open = None;
            self.open = Some(self.connect().await.map_err(away)?);
        }
        let Some((link, channel)) = self.open.take() else { return Err(Away::new("no connection to rabbitmq")) };
        // the connection is kept only when all went well: after an error, or when dropped half way, a new one is made
        match publish_all(&self.broker, self.message, &link, &channel, batches).await {
            Ok(()) => {
                self.open = Some((link, channel));
                Ok(())
            }
            Err(away) => {
                if !link.is_blocked() && link.is_connected() {
                    link.close().await;
                }
                Err(away)
            }
        }
    }

    async fn connect(&mut self) -> Result<(Link, Channel), BrokerError> {
        let link = self.broker.connect("goms traces").await?;
        let queue = self.broker.declare(&link).await?;
        let channel = link.channel().await?;
        link.step(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        log::debug!("publishing trace events address={} queue={}", link.address(), self.broker.queue);
        if queue.consumers == Some(0) {
            self.hint();
        }
        Ok((link, channel))
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

async fn publish_all(
    broker: &Broker,
    message: Message,
    link: &Link,
    channel: &Channel,
    batches: &[Batch],
) -> Result<(), Away> {
    let work = async {
        let mut confirms: Vec<PublisherConfirm> = Vec::with_capacity(batches.len());
        for batch in batches {
            match message {
                Message::Batch => confirms.push(publish(broker, channel, &batch.json, "application/json").await?),
                Message::Single => {
                    for event in batch.singles() {
                        confirms.push(publish(broker, channel, &event, "text/plain").await?);
                    }
                }
            }
        }
        try_join_all(confirms).await
    };
    tokio::pin!(work);
    let (mut told, mut waited) = (false, Duration::ZERO);
    let answers = loop {
        match tokio::time::timeout(ALARM_CHECK, &mut work).await {
            Ok(answers) => break answers.map_err(|error| away(link.error(error)))?,
            Err(_) if link.is_blocked() => {
                waited = Duration::ZERO;
                if !std::mem::replace(&mut told, true) {
                    log::warn!(
                        "rabbitmq takes no messages (memory or disk alarm), trace events wait on disk address={}",
                        link.address()
                    );
                }
            }
            Err(_) => {
                waited += ALARM_CHECK;
                if waited >= CONFIRM_TIMEOUT {
                    return Err(Away::new(format!("rabbitmq at `{}` does not confirm", link.address())));
                }
            }
        }
    };
    if told {
        log::info!("rabbitmq takes messages again address={}", link.address());
    }
    for answer in answers {
        match answer {
            Confirmation::Ack(None) => {}
            Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
                return Err(Away::new(format!(
                    "no queue takes messages for `{}`: {}; it is declared again",
                    broker.routing_key, returned.reply_text
                )));
            }
            Confirmation::Nack(None) | Confirmation::NotRequested => {
                return Err(Away::new("rabbitmq could not keep a message"));
            }
        }
    }
    Ok(())
}

async fn publish(broker: &Broker, channel: &Channel, body: &[u8], kind: &str) -> lapin::Result<PublisherConfirm> {
    let properties = BasicProperties::default().with_content_type(kind.into()).with_delivery_mode(PERSISTENT);
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    channel.basic_publish(broker.exchange.clone(), broker.routing_key.clone(), options, body, properties).await
}

fn away(error: BrokerError) -> Away {
    let wait = if error.is_setting() { SETTING_RETRY } else { Duration::ZERO };
    Away { wait, ..Away::new(chain(&error)) }
}

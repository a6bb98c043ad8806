//! One subscription: a session of its own, connection after connection, and what it acknowledges.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet, Publish};
use rumqttc::v5::{AsyncClient, Event};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::super::{AWAY_LIMIT, BrokerError, Delivery, Message, Receipt, unique};
use super::{REQUESTS, RETRY_CAP, RETRY_FIRST, Way};
use crate::backoff::Backoff;

/// One subscription.
pub(super) struct Hearing {
    pub(super) way: Way,
    pub(super) filter: String,
    /// `None` once no more are wanted.
    pub(super) sender: Option<mpsc::Sender<Delivery>>,
    pub(super) stop: CancellationToken,
}

/// Of a session: what belongs to one that the broker lost must not be acknowledged to the next.
struct Token {
    client: AsyncClient,
    publish: Publish,
    session: u64,
    current: Arc<AtomicU64>,
}

#[async_trait]
impl Receipt for Token {
    async fn ack(&self) -> Result<(), BrokerError> {
        let away = |source: Box<dyn std::error::Error + Send + Sync>| BrokerError::Away {
            kind: "mqtt",
            address: String::new(),
            source,
        };
        if self.current.load(Ordering::SeqCst) != self.session {
            return Err(away("the connection that brought the message broke".into()));
        }
        self.client.ack(&self.publish).await.map_err(|error| away(error.into()))
    }
}

impl Hearing {
    /// One session, connection after connection.
    pub(super) async fn keep_up(mut self, up: oneshot::Sender<()>, gone: &CancellationToken) {
        let mut options = self.way.options(&format!("{}-sub-{}", self.way.namespace, unique()));
        options.set_clean_start(false).set_manual_acks(true);
        options.set_session_expiry_interval(u32::try_from(AWAY_LIMIT.as_secs()).ok());
        let (client, mut events) = AsyncClient::new(options, REQUESTS);
        let mut backoff = Backoff::seeded(RETRY_FIRST, RETRY_CAP);
        let (mut up, mut said) = (Some(up), false);
        let current = Arc::new(AtomicU64::new(0));
        let mut leaving = false;
        loop {
            let event = tokio::select! {
                () = async { tokio::select! { () = self.stop.cancelled() => {}, () = gone.cancelled() => {} } }, if !leaving => {
                    // else the broker would keep on giving to a session that nobody reads
                    leaving = true;
                    if client.try_unsubscribe(&self.filter).is_err() {
                        self.sender = None;
                    }
                    continue;
                }
                event = events.poll() => event,
            };
            match event {
                Ok(Event::Incoming(Packet::UnsubAck(_))) if leaving => {
                    self.sender = None;
                    if gone.is_cancelled() {
                        return;
                    }
                }
                Ok(Event::Incoming(Packet::ConnAck(ack))) if ack.code == ConnectReturnCode::Success => {
                    // what the last connection brought comes again
                    current.fetch_add(1, Ordering::SeqCst);
                    backoff.reset();
                    if std::mem::take(&mut said) {
                        log::info!("topic is heard again filter={}", self.filter);
                    }
                    if !leaving {
                        self.subscribe(&client, ack.session_present);
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => drop(up.take().map(|up| up.send(()))),
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let session = current.load(Ordering::SeqCst);
                    let token = Token { client: client.clone(), publish, session, current: current.clone() };
                    let message = message(&token.publish);
                    if let Some(sender) = &self.sender
                        && sender.send(Delivery::new(message, token)).await.is_err()
                    {
                        return;
                    }
                }
                Ok(_) => {}
                Err(_) if leaving => return,
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        log::warn!("topic is not heard, trying again filter={} error=\"{error}\"", self.filter);
                    }
                    sleep(backoff.next_wait()).await;
                }
            }
        }
    }
}

impl Hearing {
    /// Mosquitto 2.0 knows after its restart that a session shares a subscription, but gives it nothing: it is made anew.
    fn subscribe(&self, client: &AsyncClient, resumed: bool) {
        let shared = resumed && self.filter.starts_with("$share/");
        let freed = if shared { client.try_unsubscribe(&self.filter) } else { Ok(()) };
        for step in [freed, client.try_subscribe(&self.filter, QoS::AtLeastOnce)] {
            if let Err(error) = step {
                log::error!("topic cannot be subscribed filter={} error=\"{error}\"", self.filter);
            }
        }
    }
}

fn message(publish: &Publish) -> Message {
    let properties = publish.properties.as_ref();
    let headers = properties.map(|properties| properties.user_properties.clone()).unwrap_or_default();
    Message {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        headers: headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect(),
        body: publish.payload.clone(),
    }
}

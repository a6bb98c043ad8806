//! A connection to RabbitMQ: several addresses in turn, names declared only where they do not exist yet, and errors that
//! say what to do and hold no password.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::{FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, ExchangeKind};

use crate::trace::AmqpSettings;

/// A broker on the same network answers in milliseconds; a frozen one never.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Seconds. RabbitMQ proposes 60; at 10 a frozen broker or cut wire is noticed within 20 s.
const HEARTBEAT: u16 = 10;

/// A broker setting that cannot work.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No address at all.
    #[error("`amqpAddr` names no address")]
    NoAddress,
    /// An address that is none. It is not shown, since it may hold a password.
    #[error("`amqpAddr` number {number} is no address like `amqp://user:password@host:5672/%2f`: {reason}")]
    Address {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// RabbitMQ takes at most 255 bytes.
    #[error("`amqp.{0}` is longer than 255 bytes")]
    TooLong(&'static str),
}

/// Why a broker cannot be used now.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// No answer in time.
    #[error("rabbitmq at `{0}` does not answer")]
    Silent(String),
    /// Wrong user, password or virtual host, or too few permissions.
    #[error("rabbitmq at `{address}` refuses user `{user}`; check user, password and permissions in `amqpAddr`")]
    Refused {
        /// Where.
        address: String,
        /// Who.
        user: String,
        /// What it said.
        #[source]
        source: lapin::Error,
    },
    /// Another process has the queue for itself.
    #[error("queue `{0}` belongs to another connection alone (exclusive); choose another `amqp.queue`")]
    Exclusive(String),
    /// The queue went away under its reader.
    #[error("queue `{0}` was deleted; it is declared again")]
    Deleted(String),
    /// Anything else.
    #[error("rabbitmq at `{address}` is not available")]
    Lost {
        /// Where.
        address: String,
        /// What went wrong.
        #[source]
        source: lapin::Error,
    },
}

impl BrokerError {
    /// Whether a person must act, so that trying again soon is pointless.
    #[must_use]
    pub fn is_setting(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Exclusive(_))
    }
}

/// What a queue was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// Who reads it; `None` where that cannot be seen (an exclusive queue of another connection).
    pub consumers: Option<u32>,
    /// There was none.
    made: bool,
}

/// Addresses and names that are known to be well formed.
#[derive(Clone)]
pub struct Broker {
    addresses: Vec<AMQPUri>,
    /// The next to try.
    turn: usize,
    /// The exchange; empty is the default one.
    pub exchange: ShortString,
    /// The queue.
    pub queue: ShortString,
    /// The routing key; the queue's name on the default exchange.
    pub routing_key: ShortString,
    durable: bool,
    /// The queue was there once.
    seen: bool,
}

impl Broker {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(settings: &AmqpSettings) -> Result<Self, SettingsError> {
        let short = |name, text: &str| ShortString::try_new(text).map_err(|_| SettingsError::TooLong(name));
        let mut addresses = Vec::new();
        for (index, url) in settings.urls.iter().enumerate() {
            let bad = |reason: String| SettingsError::Address { number: index + 1, reason };
            let parsed = url::Url::parse(url).map_err(|error| bad(error.to_string()))?;
            let mut address: AMQPUri = url.parse().map_err(bad)?;
            if parsed.path() == "/" {
                address.vhost = "/".to_owned(); // as without the slash: a virtual host without a name is never meant
            }
            address.query.heartbeat.get_or_insert(HEARTBEAT);
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err(SettingsError::NoAddress);
        }
        let queue = short("queue", &settings.queue)?;
        let routing_key =
            if settings.exchange.is_empty() { queue.clone() } else { short("routingKey", &settings.routing_key)? };
        let exchange = short("exchange", &settings.exchange)?;
        Ok(Self { addresses, turn: 0, exchange, queue, routing_key, durable: settings.durable, seen: false })
    }

    /// Connects to the first address that takes us, beginning with the one that did last.
    ///
    /// # Errors
    /// [`BrokerError`] of the last address when none does.
    pub async fn connect(&mut self, name: &str) -> Result<Link, BrokerError> {
        let mut tried = 0;
        loop {
            let uri = self.addresses[self.turn % self.addresses.len()].clone();
            match connect_one(uri, name).await {
                Ok(link) => return Ok(link),
                Err(error) => {
                    self.turn = (self.turn + 1) % self.addresses.len();
                    tried += 1;
                    if tried >= self.addresses.len() {
                        return Err(error);
                    }
                    log::debug!("trying the next address: {error}");
                }
            }
        }
    }

    /// Sees to exchange, queue and binding. What exists is used as it is, whatever its flags. Says it where a queue that
    /// was there before is gone (deleted, or not durable and the broker died).
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn declare(&mut self, link: &Link) -> Result<QueueState, BrokerError> {
        if !self.exchange.as_str().is_empty() {
            let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
            let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
            if self.declare_exchange(link, passive).await.is_err() {
                self.declare_exchange(link, durable).await?;
            }
        }
        let state = self.declare_queue(link, &self.queue).await?;
        if std::mem::replace(&mut self.seen, true) && state.made {
            log::error!(
                "a queue of rabbitmq was gone and is made again; trace events that waited in it are lost queue={} address={}",
                self.queue,
                link.address()
            );
        }
        if !self.exchange.as_str().is_empty() && state.consumers.is_some() {
            let channel = link.channel().await?;
            let bind = channel.queue_bind(
                self.queue.clone(),
                self.exchange.clone(),
                self.routing_key.clone(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            link.step(bind).await?;
            link.close_channel(&channel).await;
        }
        Ok(state)
    }

    /// Makes a queue unless it exists.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn declare_queue(&self, link: &Link, queue: &ShortString) -> Result<QueueState, BrokerError> {
        let passive = QueueDeclareOptions::default().passive();
        let create = QueueDeclareOptions { durable: self.durable, ..Default::default() };
        for options in [passive, create] {
            let channel = link.channel().await?; // a refused declare closes its channel
            match link.bounded(channel.queue_declare(queue.clone(), options, FieldTable::default())).await? {
                Ok(found) => {
                    link.close_channel(&channel).await;
                    return Ok(QueueState { consumers: Some(found.consumer_count()), made: !options.passive });
                }
                Err(error) => match soft_error(&error) {
                    // there, but another connection's: one can publish to it all the same
                    Some(AMQPSoftError::RESOURCELOCKED) => return Ok(QueueState { consumers: None, made: false }),
                    // made by someone else in between, with other flags: as it is, then
                    Some(AMQPSoftError::PRECONDITIONFAILED) => {
                        return Ok(QueueState { consumers: Some(0), made: false });
                    }
                    Some(AMQPSoftError::NOTFOUND) if options.passive => {}
                    _ => return Err(link.error(error)),
                },
            }
        }
        Ok(QueueState { consumers: Some(0), made: true })
    }

    /// How many messages wait in the queue and how many read it, without making it; `None` where there is none yet.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn look(&self, link: &Link) -> Result<Option<(u32, u32)>, BrokerError> {
        let channel = link.channel().await?;
        let passive = QueueDeclareOptions::default().passive();
        match link.bounded(channel.queue_declare(self.queue.clone(), passive, FieldTable::default())).await? {
            Ok(found) => Ok(Some((found.message_count(), found.consumer_count()))),
            Err(error) if soft_error(&error) == Some(AMQPSoftError::NOTFOUND) => Ok(None),
            Err(error) if soft_error(&error) == Some(AMQPSoftError::RESOURCELOCKED) => {
                Err(BrokerError::Exclusive(self.queue.to_string()))
            }
            Err(error) => Err(link.error(error)),
        }
    }

    async fn declare_exchange(&self, link: &Link, options: ExchangeDeclareOptions) -> Result<(), BrokerError> {
        let channel = link.channel().await?;
        let declare =
            channel.exchange_declare(self.exchange.clone(), ExchangeKind::Direct, options, FieldTable::default());
        link.step(declare).await?;
        link.close_channel(&channel).await;
        Ok(())
    }
}

/// An open connection and where it leads.
pub struct Link {
    connection: Connection,
    address: String,
    user: String,
}

async fn connect_one(uri: AMQPUri, name: &str) -> Result<Link, BrokerError> {
    let address = format!("{}:{}", uri.authority.host, uri.authority.port);
    let user = uri.authority.userinfo.username.clone();
    let options = ConnectionProperties::default().with_connection_name(name.into());
    match tokio::time::timeout(STEP_TIMEOUT, Connection::connect_uri(uri, options)).await {
        Err(_) => Err(BrokerError::Silent(address)),
        Ok(Err(source)) => Err(classify(source, address, user)),
        Ok(Ok(connection)) => Ok(Link { connection, address, user }),
    }
}

impl Link {
    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether the broker takes no messages now (memory or disk alarm).
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Whether it still stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// A new channel.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn channel(&self) -> Result<Channel, BrokerError> {
        self.step(self.connection.create_channel()).await
    }

    /// Ends the connection; the broker takes back what was not acknowledged.
    pub async fn close(&self) {
        if let Ok(Err(error)) = self.bounded(self.connection.close(200, "bye".into())).await {
            log::debug!("closing the connection to rabbitmq: {error}");
        }
    }

    async fn close_channel(&self, channel: &Channel) {
        if let Ok(Err(error)) = self.bounded(channel.close(200, "done".into())).await {
            log::debug!("closing a channel: {error}");
        }
    }

    /// A step of the protocol, bounded in time.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn step<T>(&self, step: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
        self.bounded(step).await?.map_err(|error| self.error(error))
    }

    async fn bounded<T>(&self, step: impl Future<Output = T>) -> Result<T, BrokerError> {
        tokio::time::timeout(STEP_TIMEOUT, step).await.map_err(|_| BrokerError::Silent(self.address.clone()))
    }

    /// What an error of this connection means.
    #[must_use]
    pub fn error(&self, source: lapin::Error) -> BrokerError {
        classify(source, self.address.clone(), self.user.clone())
    }
}

fn classify(source: lapin::Error, address: String, user: String) -> BrokerError {
    let refused = match source.kind() {
        ErrorKind::ProtocolError(error) => matches!(
            error.kind(),
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
        ),
        _ => false,
    };
    if refused { BrokerError::Refused { address, user, source } } else { BrokerError::Lost { address, source } }
}

fn soft_error(error: &lapin::Error) -> Option<AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(soft) => Some(soft.clone()),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> AmqpSettings {
        AmqpSettings {
            urls: vec![url.to_owned()],
            exchange: String::new(),
            queue: "trace".into(),
            routing_key: "ignored".into(),
            durable: true,
        }
    }

    #[test]
    fn a_bad_address_is_refused_without_showing_it() {
        for bad in ["http://guest:secret@127.0.0.1", "nonsense", "amqp://u:secret@host:notaport", ""] {
            let Err(error) = Broker::new(&settings(bad)) else { panic!("{bad} was taken") };
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert_eq!(Broker::new(&AmqpSettings { urls: vec![], ..settings("") }).err(), Some(SettingsError::NoAddress));
        let long = AmqpSettings { queue: "q".repeat(256), ..settings("amqp://127.0.0.1") };
        assert_eq!(Broker::new(&long).err(), Some(SettingsError::TooLong("queue")));
    }

    #[test]
    fn the_default_virtual_host_may_be_written_in_three_ways() {
        for url in ["amqp://127.0.0.1:5672", "amqp://127.0.0.1:5672/", "amqp://127.0.0.1:5672/%2f"] {
            let broker = Broker::new(&settings(url)).map_err(|error| error.to_string()).unwrap();
            assert_eq!(broker.addresses[0].vhost, "/", "{url}");
            assert_eq!(broker.routing_key.as_str(), "trace");
        }
    }
}

//! WHO HEARS IT: messages between services that nobody waits for, published to a topic and heard by who subscribed.
//!
//! May import: `trace::transport::connection` (the way to RabbitMQ), `trace` (its settings), `registry` (who hears by HTTP), `shutdown`,
//! `trust`, `backoff`, `causes`.
//!
//! ```text
//! publish(topic) → broker ─┬→ group `mail`: one of its members hears it
//!                          ├→ group `bill`: one of its members hears it
//!                          └→ each subscriber without a group
//! ```
//! - At least once: a message is confirmed to its publisher once the broker keeps it, and is acknowledged once it was
//!   handled; between the two it comes again where a connection or a process breaks. `memory` and `http` keep nothing: there
//!   it is at most once.
//! - A group is known from its first subscription on, and keeps its messages while no member is there. Who subscribes
//!   without a group hears what is published while it is there, or away for less than a minute.
//! - What was tried in vain goes to the dead letters of its topic ([`Broker::bury`]); who retries, and how often, is the
//!   subscriber's (`service`).
//!
//! [`Broker`] is the trait, `memory`, `amqp`, `mqtt`, `nats` and `http` (Go Micro's) are its backends.

mod amqp;
mod http;
mod memory;
mod message;
mod mqtt;
mod nats;

pub use http::Ground;
pub use memory::Memory;
pub use message::{MOST_BYTES, Message, MessageError};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::shutdown::Shutdown;

/// How long a message may take to be confirmed, with all tries.
const PUBLISH_LIMIT: Duration = Duration::from_secs(30);
/// How long who subscribes without a group may be away and still hear what was published meanwhile.
const AWAY_LIMIT: Duration = Duration::from_secs(60);
/// Messages that a subscription has unacknowledged.
const PREFETCH: u16 = 64;

/// A place where messages are left for others.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// The word that `--broker` takes for it.
    fn kind(&self) -> &'static str;

    /// Leaves a message for all who subscribed to its topic. Resolves once the broker keeps it.
    ///
    /// # Errors
    /// [`BrokerError`]; whether it was kept is then not known.
    async fn publish(&self, message: Message) -> Result<(), BrokerError>;

    /// Hears a topic. Resolves once what is published will be heard; waits for a broker that is away. From then on it
    /// is kept up by itself, until what is returned is dropped.
    ///
    /// # Errors
    /// [`BrokerError`] where waiting cannot help.
    async fn subscribe(&self, subscription: Subscription) -> Result<Deliveries, BrokerError>;

    /// Puts a message where a person finds it that no handler could work on.
    ///
    /// # Errors
    /// [`BrokerError`]; the message is then not put there.
    async fn bury(&self, message: &Message, reason: &str) -> Result<(), BrokerError>;
}

/// What is to be heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The topic, whole.
    pub topic: String,
    /// With a name: members of that group share the messages. `None`: each subscriber hears all.
    pub group: Option<String>,
}

/// Why a broker did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The message or a name cannot be sent.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The broker cannot be used now.
    #[error("broker `{kind}` at `{address}` is away")]
    Away {
        /// Its word.
        kind: &'static str,
        /// Where.
        address: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A setting cannot work.
    #[error("broker setting `{setting}`: {reason}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it and what to do.
        reason: String,
    },
}

/// A message on its way to a handler. Dropped without [`Delivery::ack`] it comes again, sooner or later.
pub struct Delivery {
    /// The message.
    pub message: Message,
    receipt: Box<dyn Receipt>,
}

/// How a backend is told.
#[async_trait]
trait Receipt: Send + Sync {
    /// It was handled.
    async fn ack(&self) -> Result<(), BrokerError>;

    /// It is still being worked on.
    async fn working(&self) {}

    /// It was not handled. Where dropping it says so, there is nothing to do.
    async fn give_back(&self) {}
}

impl Delivery {
    fn new(message: Message, receipt: impl Receipt + 'static) -> Self {
        Self { message, receipt: Box::new(receipt) }
    }

    /// Tells that it was handled, so that it does not come again.
    ///
    /// # Errors
    /// [`BrokerError`]; it then comes again.
    pub async fn ack(&self) -> Result<(), BrokerError> {
        self.receipt.ack().await
    }

    /// Tells that it is still being worked on. To be called every [`Delivery::WORKING`].
    pub async fn working(&self) {
        self.receipt.working().await;
    }

    /// Tells that it was not handled, so that it comes again though its connection goes on.
    pub async fn give_back(&self) {
        self.receipt.give_back().await;
    }

    /// A broker that hears nothing of a message for three times this may give it to another.
    pub const WORKING: Duration = Duration::from_secs(5);
}

/// The messages of a subscription, which ends when this is dropped. What was taken and not acknowledged then comes again,
/// to this subscriber or another of its group.
pub struct Deliveries {
    arrivals: mpsc::Receiver<Delivery>,
    leave: Leave,
    _end: DropGuard,
}

/// What becomes of messages that wait here when no more are wanted.
enum Leave {
    /// The broker takes them back.
    GiveBack,
    /// Nobody else would hear them.
    Finish,
    /// The same, and the broker is to be told first.
    Tell(CancellationToken),
}

impl Deliveries {
    /// The next message; `None` once the process ends, or after [`Deliveries::stop`].
    ///
    /// # Cancel safety
    /// Safe in `select!`.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.arrivals.recv().await
    }

    /// Takes no more from the broker. What [`Deliveries::next`] still gives is lost where it is not handled.
    pub fn stop(&mut self) {
        match &self.leave {
            Leave::Finish => self.arrivals.close(),
            Leave::Tell(stop) => stop.cancel(),
            Leave::GiveBack => {
                self.arrivals.close();
                while self.arrivals.try_recv().is_ok() {} // unacknowledged: the broker gives them to another
            }
        }
    }

    /// What a backend keeps of it: where deliveries go, and what tells that nobody wants them any more.
    fn channel() -> (mpsc::Sender<Delivery>, CancellationToken, Self) {
        let (sender, arrivals) = mpsc::channel(1);
        let end = CancellationToken::new();
        (sender, end.clone(), Self { arrivals, leave: Leave::GiveBack, _end: end.drop_guard() })
    }
}

/// Which broker, and how messages are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which.
    pub backend: Backend,
    /// What names at the broker begin with: the cluster's namespace.
    pub namespace: String,
    /// How often a message is given to a handler before it is buried.
    pub attempts: u32,
    /// How long the first wait is after a handler failed; doubled each time.
    pub backoff: Duration,
    /// Where the process may put a socket for itself: for MQTT by TLS. Made where it is not there.
    pub runtime_dir: PathBuf,
}

/// A broker and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Inside this process.
    Memory,
    /// RabbitMQ: `amqp://user:password@host:port/vhost`, several are tried in turn.
    Amqp(Vec<String>),
    /// MQTT 5.
    Mqtt {
        /// `mqtt://user:password@host:port`, or `mqtts://…` by TLS.
        url: String,
        /// Who vouches for a server by TLS; `None`: whom this system trusts.
        ca_file: Option<PathBuf>,
    },
    /// NATS with JetStream: `nats://user:password@host:port`, several of one cluster.
    Nats(Vec<String>),
    /// Go Micro's, without a server; where a process that hears listens (`None`: any port).
    Http(Option<SocketAddr>),
}

impl Backend {
    /// The word that `--broker` takes for it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Amqp(_) => "amqp",
            Self::Mqtt { .. } => "mqtt",
            Self::Nats(_) => "nats",
            Self::Http(_) => "http",
        }
    }
}

/// Opens the broker that the settings name. Does not wait for a server that is away. Its tasks run on this tokio runtime
/// until `shutdown` begins. `ground` is for [`Backend::Http`] alone.
///
/// # Errors
/// [`BrokerError::Setting`] when a setting cannot work.
pub async fn open(
    settings: &Settings,
    ground: Option<&Ground>,
    shutdown: &Shutdown,
) -> Result<Arc<dyn Broker>, BrokerError> {
    Ok(match &settings.backend {
        Backend::Memory => Arc::new(Memory::default()),
        Backend::Amqp(urls) => Arc::new(amqp::Amqp::open(urls, &settings.namespace, shutdown)?),
        Backend::Mqtt { url, ca_file } => Arc::new(mqtt::Mqtt::open(url, ca_file.as_deref(), settings, shutdown)?),
        Backend::Nats(urls) => Arc::new(nats::Nats::open(urls, &settings.namespace, shutdown).await?),
        Backend::Http(listen) => {
            let missing = || BrokerError::Setting { setting: "kind", reason: "`http` needs a registry".to_owned() };
            Arc::new(http::Http::open(*listen, ground.ok_or_else(missing)?, shutdown)?)
        }
    })
}

/// A name that no other subscriber has.
fn unique() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

//! Go Micro's HTTP broker (v2 to v5), which needs no server: who publishes sends a message to each that hears its topic, and
//! finds them in the registry.
//!
//! ```text
//! POST http://<hearer's address>/?id=<hearer's id>   {"Header":{"Micro-Topic":"orders",…},"Body":"<base64>"}   200
//! ```
//! At most once, but for connections that break: a message is with those that hear its topic just then, and nowhere else. A hearer that is killed loses
//! what it had not handled, and where none is there, nobody hears it. Publishing resolves once each hearer has it: one of
//! goms when it waits for its handler, one of Go when its handler is done. Where a member of a group cannot be reached,
//! the next gets the message.
//!
//! `letter` is a message on its way, `door` takes those that come. Hearers that ask for TLS are passed over.

mod door;
mod letter;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::{OnceCell, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::message::check_name;
use super::{Broker, BrokerError, Deliveries, Delivery, Leave, Message, PREFETCH, PUBLISH_LIMIT, Subscription, unique};
use crate::backoff::Backoff;
use crate::causes::chain;
use crate::registry::{Hearer, HearersWatch, Registry, RegistryError};
use crate::shutdown::Shutdown;
use door::Door;

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(2);
/// How long publishers get to see that somebody hears no more; as nodes that leave.
const NOTICE: Duration = Duration::from_millis(250);
/// How long leaving may take: its lease ends it otherwise.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// Messages that wait here for handlers.
const INBOX: usize = 16 * PREFETCH as usize;
/// Groups whose turns are known; more than a cluster has.
const MAX_TURNS: usize = 10_000;
/// Connections are not used again after so long; `door` closes them later.
const IDLE: Duration = Duration::from_secs(5);

/// What this broker stands on.
#[derive(Clone)]
pub struct Ground {
    /// Where those who hear find each other.
    pub registry: Arc<dyn Registry>,
    /// What is bound where a process hears.
    pub bind: IpAddr,
    /// What others call it by.
    pub advertised: IpAddr,
}

/// A handle.
pub(super) struct Http {
    ground: Ground,
    listen: Option<SocketAddr>,
    client: reqwest::Client,
    hearers: HearersWatch,
    /// Opened by the first subscription.
    door: OnceCell<Arc<Door>>,
    /// Whose turn it is, by topic and group.
    turns: Mutex<HashMap<String, usize>>,
    told_of_tls: AtomicBool,
    shutdown: Shutdown,
}

/// What became of a message at one hearer.
enum Sent {
    Taken,
    /// It surely has it not.
    NotThere(String),
    Unknown(String),
}

impl Http {
    pub(super) fn open(listen: Option<SocketAddr>, ground: &Ground, shutdown: &Shutdown) -> Result<Self, BrokerError> {
        let hearers = ground.registry.hearers().ok_or_else(|| BrokerError::Setting {
            setting: "kind",
            reason: format!(
                "the broker `http` finds who hears in etcd, and the registry is `{}`; use `--registry etcd` or another broker",
                ground.registry.kind()
            ),
        })?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .pool_idle_timeout(IDLE)
            .timeout(PUBLISH_LIMIT);
        let client = client.build().map_err(|error| away("", error))?;
        Ok(Self {
            ground: ground.clone(),
            listen,
            client,
            hearers,
            door: OnceCell::new(),
            turns: Mutex::default(),
            told_of_tls: AtomicBool::new(false),
            shutdown: shutdown.clone(),
        })
    }

    /// Everyone who hears something; waits for a registry that did not tell yet.
    async fn known(&self) -> Result<Arc<Vec<Hearer>>, BrokerError> {
        let mut hearers = self.hearers.clone();
        let known = timeout(PUBLISH_LIMIT, hearers.wait_for(Option::is_some)).await;
        let known = known.ok().and_then(Result::ok).and_then(|known| known.clone());
        known.ok_or_else(|| away("the registry", "it did not tell who hears"))
    }

    /// Sends a message. Where a connection breaks it is sent once more: a hearer that is gone will say so.
    async fn post(&self, hearer: &Hearer, letter: Bytes) -> Sent {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("id", &hearer.id).finish();
        let url = format!("http://{}/?{query}", hearer.address);
        let send = || self.client.post(&url).header("content-type", "application/json").body(letter.clone()).send();
        let answered = match send().await {
            Err(error) if !error.is_connect() && !error.is_timeout() => send().await,
            answered => answered,
        };
        match answered {
            Ok(answer) if answer.status().is_success() => Sent::Taken,
            Ok(answer) => Sent::NotThere(format!("`{}` answered {}", hearer.address, answer.status())),
            Err(error) if error.is_connect() => Sent::NotThere(chain(&error)),
            Err(error) => Sent::Unknown(chain(&error)),
        }
    }

    /// Whose turn it is of so many members.
    fn turn(&self, member: &Hearer, of: usize) -> usize {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() > MAX_TURNS {
            turns.clear();
        }
        let key = format!("{}@{}", member.topic, member.group.as_deref().unwrap_or_default());
        let turn = turns.entry(key).or_default();
        *turn = (*turn + 1) % of;
        *turn
    }

    /// One that hears all.
    async fn tell_one(&self, hearer: &Hearer, letter: Bytes) -> bool {
        match self.post(hearer, letter).await {
            Sent::Taken => true,
            Sent::NotThere(reason) | Sent::Unknown(reason) => {
                log::debug!("message is lost to a hearer topic={} id={} reason=\"{reason}\"", hearer.topic, hearer.id);
                false
            }
        }
    }

    /// One of a group: the next in turn, then those behind it.
    async fn tell_group(&self, members: &[&Hearer], letter: Bytes) -> Result<(), BrokerError> {
        let first = members.first().map_or(0, |member| self.turn(member, members.len()));
        let mut last = away("nobody", "the group has no member");
        for step in 0..members.len() {
            let member = members[(first + step) % members.len()];
            match self.post(member, letter.clone()).await {
                Sent::Taken => return Ok(()),
                Sent::NotThere(reason) => last = away(&member.address.to_string(), reason),
                Sent::Unknown(reason) => return Err(away(&member.address.to_string(), reason)),
            }
        }
        Err(last)
    }

    async fn door(&self) -> Result<&Arc<Door>, BrokerError> {
        let listen = self.listen.unwrap_or_else(|| SocketAddr::new(self.ground.bind, 0));
        self.door.get_or_try_init(|| Door::open(listen, self.ground.advertised, &self.shutdown)).await
    }
}

fn away(address: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BrokerError {
    BrokerError::Away { kind: "http", address: address.to_owned(), source: source.into() }
}

#[async_trait]
impl Broker for Http {
    fn kind(&self) -> &'static str {
        "http"
    }

    async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        message.check()?;
        let known = self.known().await?;
        let (secret, open): (Vec<&Hearer>, Vec<&Hearer>) =
            known.iter().filter(|hearer| hearer.topic == message.topic).partition(|hearer| hearer.tls);
        if let Some(hearer) = secret.first()
            && !self.told_of_tls.swap(true, Ordering::Relaxed)
        {
            log::warn!("hearers that take TLS alone hear nothing topic={} address={}", hearer.topic, hearer.address);
        }
        let letter = letter::written(&message);
        let mut groups: BTreeMap<&str, Vec<&Hearer>> = BTreeMap::new();
        let mut alone = Vec::new();
        for hearer in open {
            match &hearer.group {
                Some(group) => groups.entry(group).or_default().push(hearer),
                None => alone.push(hearer),
            }
        }
        let each = join_all(alone.iter().map(|hearer| self.tell_one(hearer, letter.clone())));
        let one = join_all(groups.values().map(|members| self.tell_group(members, letter.clone())));
        let (_, shared) = tokio::join!(each, one);
        shared.into_iter().collect()
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Deliveries, BrokerError> {
        check_name(&subscription.topic)?;
        subscription.group.as_deref().map_or(Ok(()), check_name)?;
        let door = self.door().await?.clone();
        let (sender, arrivals) = mpsc::channel(INBOX);
        let Subscription { topic, group } = subscription;
        let id = format!("{topic}-{}", unique());
        door.add(&id, &topic, sender);
        let (gone, stop) = (CancellationToken::new(), CancellationToken::new());
        let deliveries = Deliveries { arrivals, leave: Leave::Tell(stop.clone()), _end: gone.clone().drop_guard() };
        let heard = Heard { id: id.clone(), door: door.clone(), registry: self.ground.registry.clone() };
        let shutdown = self.shutdown.clone();
        // from here on it is taken back, also when this is given up half way
        self.shutdown.spawn(async move {
            let quick = tokio::select! {
                () = shutdown.begun() => true,
                () = gone.cancelled() => true,
                () = stop.cancelled() => false,
            };
            heard.leave(quick).await;
        });
        self.tell(Hearer { id, address: door.address(), topic, group, tls: false }).await?;
        Ok(deliveries)
    }

    /// There is nowhere to put it; who tried it says it loudly.
    async fn bury(&self, _message: &Message, _reason: &str) -> Result<(), BrokerError> {
        Ok(())
    }
}

impl Http {
    /// Puts a hearer into the registry, and waits until that shows it.
    async fn tell(&self, hearer: Hearer) -> Result<(), BrokerError> {
        let mut backoff = Backoff::seeded(RETRY_FIRST, RETRY_CAP);
        let mut said = false;
        while let Err(error) = self.ground.registry.hear(hearer.clone()).await {
            if !matches!(error, RegistryError::Unavailable { .. }) {
                return Err(away("the registry", error));
            }
            if !std::mem::replace(&mut said, true) {
                log::warn!("topic is not heard, trying again topic={} error=\"{}\"", hearer.topic, chain(&error));
            }
            sleep(backoff.next_wait()).await;
        }
        let is_shown =
            |known: &Option<Arc<Vec<Hearer>>>| known.iter().any(|all| all.iter().any(|known| known.id == hearer.id));
        let shown = self.hearers.clone().wait_for(is_shown).await.map(drop);
        shown.map_err(|_| away("the registry", "the process ends"))
    }
}

/// A subscription that will be taken back.
struct Heard {
    id: String,
    door: Arc<Door>,
    registry: Arc<dyn Registry>,
}

impl Heard {
    async fn leave(self, quick: bool) {
        match timeout(LEAVE_LIMIT, self.registry.unhear(&self.id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::debug!("hearer `{}` is left to its lease: {}", self.id, chain(&error)),
            Err(_) => log::debug!("hearer `{}` is left to its lease", self.id),
        }
        if !quick {
            sleep(NOTICE).await;
        }
        self.door.remove(&self.id);
    }
}

/// Taken as it comes.
struct Taken;

#[async_trait]
impl super::Receipt for Taken {
    async fn ack(&self) -> Result<(), BrokerError> {
        Ok(())
    }
}

fn delivery(message: Message) -> Delivery {
    Delivery::new(message, Taken)
}

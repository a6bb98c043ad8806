//! A broker inside this process, for one process alone and for tests: nothing outlives it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::message::check_name;
use super::{
    Broker, BrokerError, Deliveries, Delivery, Leave, Message, PREFETCH, PUBLISH_LIMIT, Receipt, Subscription,
};

/// Topics and who hears them. Clones are the same.
#[derive(Clone, Default)]
pub struct Memory {
    hub: Arc<Mutex<Hub>>,
}

#[derive(Default)]
struct Hub {
    /// By topic and group.
    groups: HashMap<(String, Option<String>), Members>,
    buried: u64,
}

#[derive(Default)]
struct Members {
    list: Vec<Member>,
    turn: usize,
}

#[derive(Clone)]
struct Member {
    inbox: mpsc::Sender<Delivery>,
    gone: CancellationToken,
}

/// Nothing is kept, so there is nothing to take back.
struct Kept;

#[async_trait]
impl Receipt for Kept {
    async fn ack(&self) -> Result<(), BrokerError> {
        Ok(())
    }
}

impl Memory {
    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many messages were buried.
    #[must_use]
    pub fn buried(&self) -> u64 {
        self.hub().buried
    }

    /// Who is to hear a topic's message: everyone without a group, and of each group the next.
    fn hearers(&self, topic: &str) -> Vec<Member> {
        let mut hub = self.hub();
        let mut found = Vec::new();
        for ((_, group), members) in hub.groups.iter_mut().filter(|((known, _), _)| known == topic) {
            members.list.retain(|member| !member.gone.is_cancelled() && !member.inbox.is_closed());
            if group.is_none() {
                found.extend(members.list.iter().cloned());
            } else if !members.list.is_empty() {
                members.turn = (members.turn + 1) % members.list.len();
                found.push(members.list[members.turn].clone());
            }
        }
        hub.groups.retain(|_, members| !members.list.is_empty());
        found
    }
}

#[async_trait]
impl Broker for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        message.check()?;
        for member in self.hearers(&message.topic) {
            let delivery = Delivery::new(message.clone(), Kept);
            tokio::select! {
                () = member.gone.cancelled() => {}
                // a member that ends just now hears no more
                sent = timeout(PUBLISH_LIMIT, member.inbox.send(delivery)) => if sent.is_err() {
                    let reason = format!("a subscriber of `{}` takes no more messages", message.topic);
                    return Err(BrokerError::Away { kind: "memory", address: "this process".into(), source: reason.into() });
                }
            }
        }
        Ok(())
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Deliveries, BrokerError> {
        check_name(&subscription.topic)?;
        subscription.group.as_deref().map_or(Ok(()), check_name)?;
        let (inbox, arrivals) = mpsc::channel(usize::from(PREFETCH) * 16);
        let gone = CancellationToken::new();
        let member = Member { inbox, gone: gone.clone() };
        self.hub().groups.entry((subscription.topic, subscription.group)).or_default().list.push(member);
        Ok(Deliveries { arrivals, leave: Leave::Finish, _end: gone.drop_guard() })
    }

    async fn bury(&self, _message: &Message, _reason: &str) -> Result<(), BrokerError> {
        self.hub().buried += 1; // who tried it says it loudly; there is nowhere to put it
        Ok(())
    }
}

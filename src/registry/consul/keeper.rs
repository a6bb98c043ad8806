//! Keeps the nodes of this process at the agent: a check by TTL each, passed every interval; an agent that knows nothing
//! of it (it was restarted, or someone removed it) is told anew.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::api::{ApiError, CheckDefinition, Registration, Weights, check_id};
use crate::backoff::Backoff;
use crate::registry::{HostPort, Node, NodeId, NodeState};
use crate::shutdown::Shutdown;

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(1);
/// Consul's least: how long a failed check stands in its lists, which no reader of ours looks at.
const DEREGISTER_CRITICAL_AFTER: &str = "1m";
/// How often it is looked whether a node is shown, and whether a foreign one's check failed.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_FOREIGN: Duration = Duration::from_millis(200);
/// An agent tells its servers at once; when they are busy, within seconds.
const SHOWN_WITHIN: Duration = Duration::from_secs(3);
/// What a check needs after its TTL to fail and to be told of.
const TTL_SLACK: Duration = Duration::from_secs(1);
/// Consul takes weights up to here.
const MOST_WEIGHT: u32 = 65_535;

/// A node of this process.
pub(super) struct Own {
    pub(super) node: Node,
    /// Locked while the agent is told of it.
    pub(super) told: Mutex<()>,
    /// It is deregistered.
    pub(super) stop: CancellationToken,
}

impl Own {
    pub(super) fn new(node: Node) -> Self {
        Self { node, told: Mutex::default(), stop: CancellationToken::new() }
    }
}

/// Renews a node until it is deregistered. `is_new`: the agent was never told of it.
pub(super) async fn keep(shared: Arc<Shared>, own: Arc<Own>, mut is_new: bool, shutdown: Shutdown) {
    let mut backoff = Backoff::seeded(BACKOFF_FIRST, BACKOFF_CAP);
    let mut wait = if is_new { BACKOFF_FIRST } else { shared.interval };
    let mut is_held = false;
    let id = &own.node.id;
    loop {
        tokio::select! {
            () = shared.ended(&shutdown) => return,
            () = own.stop.cancelled() => return,
            () = sleep(wait) => {}
        }
        let _told = own.told.lock().await;
        if own.stop.is_cancelled() {
            return;
        }
        let renewed = match is_new {
            true => shared.place_first(&own.node).await,
            false => shared.renew(&own.node).await,
        };
        wait = match renewed {
            Ok(false) if is_new => {
                if !std::mem::replace(&mut is_held, true) {
                    log::error!("node `{id}` of `{}` is another process's, waiting for its end", id.service);
                }
                shared.interval
            }
            Ok(put) => {
                if put {
                    let again = if is_new { "" } else { " again" };
                    log::info!("node `{id}` of `{}` is registered{again}", id.service);
                }
                is_new = false;
                backoff.reset();
                shared.interval
            }
            // The reader logs that the agent is away.
            Err(error) => {
                shared.gap.notify_one();
                log::debug!("node `{id}` is not renewed: {error}");
                backoff.next_wait().min(shared.interval)
            }
        };
    }
}

impl Shared {
    /// Tells the agent of a node for the first time. `false`: a live process holds its id.
    pub(super) async fn place_first(&self, node: &Node) -> Result<bool, ApiError> {
        if self.is_held(&node.id).await? {
            return Ok(false);
        }
        self.place(node).await.map(|()| true)
    }

    /// Tells the agent of a node, and waits until the servers tell others.
    async fn place(&self, node: &Node) -> Result<(), ApiError> {
        self.api.register(&self.registration(node)).await?;
        // where the agent knew the check, it keeps the state that it had
        self.api.tell("pass", &node.id.key(&self.namespace)).await?;
        let give_up = Instant::now() + SHOWN_WITHIN;
        while self.machine(&node.id).await?.is_none() {
            if Instant::now() > give_up {
                return Err(ApiError::Unseen);
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Passes the check; puts the node again where the agent does not know it. Returns whether it was.
    async fn renew(&self, node: &Node) -> Result<bool, ApiError> {
        let key = node.id.key(&self.namespace);
        match self.api.tell("pass", &key).await {
            Err(error) if error.is_unknown() => {}
            other => return other.map(|()| false),
        }
        self.gap.notify_one();
        // Out of rotation before, out of rotation again.
        let drained = self.publisher.current().is_some_and(|catalog| {
            catalog.find(&node.id).is_some_and(|known| known.state == NodeState::Draining && !known.meta.draining)
        });
        self.place(node).await?;
        if drained && let Some(machine) = self.machine(&node.id).await? {
            self.mark(&node.id, &machine, true).await?;
        }
        Ok(true)
    }

    /// Says that the node leaves, then takes it away.
    pub(super) async fn take_out(&self, id: &NodeId) -> Result<(), ApiError> {
        let key = id.key(&self.namespace);
        match self.api.tell("warn", &key).await {
            Err(error) if error.is_unknown() => return Ok(()), // it was lost, and not put again
            other => other?,
        }
        match self.api.deregister(&key).await {
            Err(error) if error.is_unknown() => Ok(()),
            other => other,
        }
    }

    /// Whether a live process holds an id.
    ///
    /// A node binds its ports before it registers. Where the address is this machine's, that proves the former owner
    /// dead, and a restart within the TTL takes over at once. Elsewhere only the check can tell: it fails, or someone
    /// renews it.
    async fn is_held(&self, id: &NodeId) -> Result<bool, ApiError> {
        if self.machine(id).await?.is_none() {
            return Ok(false);
        }
        let bound = |address: HostPort| {
            address.port.is_some() && UdpSocket::bind((address.ip, 0)).is_ok() // only a local address can be bound
        };
        if bound(id.rpc) || bound(id.http) {
            return Ok(false);
        }
        log::info!("node `{id}` of `{}` is registered already, looking whether its owner lives", id.service);
        let give_up = Instant::now() + self.ttl + TTL_SLACK;
        while Instant::now() < give_up {
            sleep(LOOK_FOREIGN).await;
            if self.machine(id).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The machine (a node in Consul's words) that a live node of ours is registered at.
    pub(super) async fn machine(&self, id: &NodeId) -> Result<Option<String>, ApiError> {
        let key = id.key(&self.namespace);
        let checks = self.api.checks_of(&id.service, &key).await?;
        if checks.iter().any(|check| check.status == "critical") {
            return Ok(None);
        }
        Ok(checks.into_iter().find(|check| check.check_id == check_id(&key)).map(|check| check.node))
    }

    fn registration(&self, node: &Node) -> Registration {
        let key = node.id.key(&self.namespace);
        let HostPort { ip, port } = node.id.http;
        let mut meta = BTreeMap::from([("goms", self.namespace.clone())]); // for people who look at Consul's pages
        if let Some(rpc) = node.id.rpc.socket() {
            meta.insert("rpc", rpc.to_string());
        }
        Registration {
            name: node.id.service.clone(),
            tags: vec![self.namespace.clone()],
            address: ip.to_string(),
            port: port.unwrap_or_default(),
            meta,
            weights: Weights { passing: node.meta.weight.clamp(1, MOST_WEIGHT), warning: 1 },
            check: CheckDefinition {
                check_id: check_id(&key),
                name: "renewed by goms",
                notes: serde_json::to_string(&node.meta).unwrap_or_default(), // a struct of plain fields
                ttl: format!("{}ms", self.ttl.as_millis()),
                status: "passing",
                deregister_critical_service_after: DEREGISTER_CRITICAL_AFTER,
            },
            id: key,
        }
    }
}

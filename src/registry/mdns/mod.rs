//! The registry of one network without a server: multicast DNS (RFC 6762) and DNS-SD (RFC 6763), `_goms._tcp.local.`
//!
//! - Each process announces its nodes, and says goodbye when they leave. A killed one says nothing: each reader asks after
//!   every node once a `register_ttl`, and drops who does not answer.
//! - What a node is out of rotation by is told by its own process: whoever wants it there announces a request, and waits
//!   until the node follows (`record`).
//! - mDNS has no end of a list: the catalog is known once the first answers had their time.
//!
//! The protocol itself, its timing and its caches are the crate `mdns-sd`, on a thread of its own.

mod record;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mdns_sd::{Receiver, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::malformed::Malformed;
use super::{CatalogWatch, HostPort, Node, NodeId, Publisher, Registry, RegistryError, Settings, check_service};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use record::{Found, NODES, Own, REQUESTS, RecordError, Request};

/// How long first answers may take: a responder waits up to 120 ms (RFC 6762 section 6), and a lost query is repeated
/// after a second.
const FIRST_ANSWERS: Duration = Duration::from_millis(1_500);
/// How long a node may need to be seen, or to follow a request.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// How long a node may need to answer whether it lives: it says nothing twice within a second (RFC 6762 section 6), and
/// is asked twice, a second apart.
const ANSWER_WITHIN: Duration = Duration::from_millis(2_500);
/// Readers hear of a node that drains before they hear its goodbye.
const HEARD: Duration = Duration::from_millis(50);

/// A handle; when it is dropped its nodes say goodbye.
pub(super) struct Mdns {
    shared: Arc<Shared>,
}

struct Shared {
    daemon: ServiceDaemon,
    namespace: String,
    ttl: Duration,
    publisher: Publisher,
    malformed: Malformed,
    state: Mutex<State>,
    dropped: CancellationToken,
}

#[derive(Default)]
struct State {
    own: Vec<Own>,
    /// By the full name of the instance, in the order in which they were found.
    found: Vec<(String, Found)>,
    /// First answers had their time.
    known: bool,
}

impl Mdns {
    pub(super) fn open(
        settings: &Settings,
        shutdown: &Shutdown,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, RegistryError> {
        let start = || {
            let daemon = ServiceDaemon::new()?;
            let (nodes, requests) = (daemon.browse(NODES)?, daemon.browse(REQUESTS)?);
            Ok((daemon, nodes, requests))
        };
        let (daemon, nodes, requests) = start().map_err(unavailable)?;
        let shared = Arc::new(Shared {
            daemon,
            namespace: settings.namespace.clone(),
            ttl: settings.register_ttl,
            publisher: Publisher::new(),
            malformed: Malformed::new(metrics),
            state: Mutex::default(),
            dropped: CancellationToken::new(),
        });
        shutdown.spawn(follow(shared.clone(), nodes, requests, shutdown.clone()));
        Ok(Arc::new(Self { shared }))
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        self.shared.dropped.cancel();
        self.shared.end();
    }
}

fn unavailable(error: mdns_sd::Error) -> RegistryError {
    RegistryError::Unavailable { kind: "mdns", address: NODES.to_owned(), source: error.into() }
}

#[async_trait]
impl Registry for Mdns {
    fn kind(&self) -> &'static str {
        "mdns"
    }

    fn catalog(&self) -> CatalogWatch {
        self.shared.publisher.subscribe()
    }

    async fn register(&self, node: Node) -> Result<(), RegistryError> {
        check_service(&node.id)?;
        let (id, own) = (node.id.clone(), Own::new(node));
        let info = own.info(&self.shared.namespace)?;
        let name = info.get_fullname().to_owned();
        if self.shared.is_own(&id) || self.shared.is_held(&id).await? || !self.shared.claim(&own) {
            return Err(RegistryError::Taken(id));
        }
        let announced = match self.shared.announce(info).await {
            Ok(()) => self.shared.wait(&id, |found| found.is_some_and(|found| found.life == own.life)).await,
            Err(error) => Err(error),
        };
        if announced.is_err() {
            self.shared.state().own.retain(|known| known.life != own.life);
            self.shared.publisher.forget_own(&id);
            self.shared.daemon.unregister(&name).map(drop).map_err(unavailable)?;
        }
        announced
    }

    async fn deregister(&self, id: &NodeId) -> Result<(), RegistryError> {
        let own = {
            let mut state = self.shared.state();
            let place = state.own.iter().position(|own| own.node.id == *id);
            let mut own = state.own.remove(place.ok_or_else(|| RegistryError::Unknown(id.clone()))?);
            own.node.meta.draining = true;
            own
        };
        self.shared.publisher.retire_own(id);
        let info = own.info(&self.shared.namespace)?;
        let name = info.get_fullname().to_owned();
        self.shared.announce(info).await?;
        sleep(HEARD).await;
        let said = self.shared.daemon.unregister(&name).map_err(unavailable)?;
        // its own thread says goodbye; that it was asked is all there is to wait for
        timeout(SEEN_WITHIN, said.recv_async())
            .await
            .is_err()
            .then(|| log::debug!("goodbye of `{id}` is not confirmed"));
        Ok(())
    }

    async fn set_draining(&self, id: &NodeId, draining: bool) -> Result<(), RegistryError> {
        let followed = |found: Option<&Found>| found.is_none_or(|found| found.drained == draining);
        if self.shared.is_own(id) {
            self.shared.obey(&Request { node: id.key(&self.shared.namespace), drained: draining }).await?;
        } else if !self.shared.state().found.iter().any(|(_, found)| found.id == *id) {
            return Err(RegistryError::Unknown(id.clone()));
        } else {
            let request = Request { node: id.key(&self.shared.namespace), drained: draining };
            let info = request.info().map_err(unavailable)?;
            let name = info.get_fullname().to_owned();
            self.shared.announce(info).await?;
            let result = self.shared.wait(id, followed).await;
            self.shared.daemon.unregister(&name).map(drop).map_err(unavailable)?;
            result?;
        }
        self.shared.wait(id, followed).await
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_own(&self, id: &NodeId) -> bool {
        self.state().own.iter().any(|own| own.node.id == *id)
    }

    /// Takes an id for this handle. `false` when it has it already.
    fn claim(&self, new: &Own) -> bool {
        let mut state = self.state();
        if state.own.iter().any(|own| own.node.id == new.node.id) {
            return false;
        }
        self.publisher.add_own(new.node.id.clone());
        state.own.push(new.clone());
        true
    }

    /// Says goodbye for every node and ends the thread.
    fn end(&self) {
        if let Err(error) = self.daemon.shutdown() {
            log::debug!("mdns had ended already: {error}");
        }
    }

    /// Announces an instance, or what changed of it. Its queue is emptied by its own thread within moments.
    async fn announce(&self, info: ServiceInfo) -> Result<(), RegistryError> {
        let give_up = Instant::now() + SEEN_WITHIN;
        loop {
            match self.daemon.register(info.clone()) {
                Err(mdns_sd::Error::Again) if Instant::now() < give_up => sleep(HEARD).await,
                done => return done.map_err(unavailable),
            }
        }
    }

    /// Waits until what is found of a node fits.
    async fn wait(&self, id: &NodeId, fits: impl Fn(Option<&Found>) -> bool) -> Result<(), RegistryError> {
        let give_up = Instant::now() + SEEN_WITHIN;
        while Instant::now() < give_up {
            {
                let state = self.state();
                if fits(state.found.iter().map(|(_, found)| found).find(|found| found.id == *id)) {
                    return Ok(());
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
        let reason = "no answer by multicast; are packets to 224.0.0.251, UDP port 5353, let through?";
        Err(RegistryError::Unavailable { kind: "mdns", address: NODES.to_owned(), source: reason.into() })
    }

    /// Takes an own node out of rotation or puts it back.
    async fn obey(&self, request: &Request) -> Result<(), RegistryError> {
        let mut changed = {
            let mut state = self.state();
            let own = state.own.iter_mut().find(|own| own.node.id.key(&self.namespace) == request.node);
            let Some(own) = own.filter(|own| own.drained != request.drained) else { return Ok(()) };
            own.drained = request.drained;
            let now = own.clone();
            own.turn += 1; // taken by this change
            now
        };
        self.change(&mut changed).await.map(drop)
    }

    /// Announces what a node says now, then takes back what it said before. Returns the name of the new instance.
    async fn change(&self, own: &mut Own) -> Result<String, RegistryError> {
        let before = own.info(&self.namespace)?;
        own.turn += 1;
        let now = own.info(&self.namespace)?;
        let name = now.get_fullname().to_owned();
        self.announce(now).await?;
        sleep(HEARD).await;
        self.daemon.unregister(before.get_fullname()).map(drop).map_err(unavailable)?;
        Ok(name)
    }

    /// Whether a live process holds an id: it answers when it is asked, unless this machine proves it dead by having let
    /// us bind its ports.
    async fn is_held(&self, id: &NodeId) -> Result<bool, RegistryError> {
        let bound = |address: HostPort| {
            address.port.is_some() && std::net::UdpSocket::bind((address.ip, 0)).is_ok() // only a local address can be bound
        };
        let holders = || -> Vec<String> {
            let state = self.state();
            state.found.iter().filter(|(_, found)| found.id == *id).map(|(name, _)| name.clone()).collect()
        };
        let mut catalog = self.publisher.subscribe();
        drop(timeout(SEEN_WITHIN, catalog.wait_for(Option::is_some)).await); // first answers have their time
        let before = holders();
        if before.is_empty() || bound(id.rpc) || bound(id.http) {
            return Ok(false);
        }
        for name in before {
            self.daemon.verify(name, ANSWER_WITHIN).map_err(unavailable)?;
        }
        sleep(ANSWER_WITHIN + ANSWER_WITHIN / 10).await;
        Ok(!holders().is_empty())
    }

    /// Takes news of nodes over.
    fn hear(&self, event: ServiceEvent) {
        let mut state = self.state();
        match event {
            ServiceEvent::ServiceResolved(service) => match record::read(&self.namespace, &service) {
                Ok(found) => {
                    let name = service.get_fullname().to_owned();
                    match state.found.iter_mut().find(|(_, known)| known.id == found.id) {
                        Some((_, known)) if known.life == found.life && known.turn > found.turn => return,
                        // another turn, or its former life, whose process is gone
                        Some(place) => *place = (name, found),
                        None => state.found.push((name, found)),
                    }
                }
                Err(RecordError::Foreign) => return,
                Err(error) => return self.malformed.skip(service.get_fullname(), &error),
            },
            ServiceEvent::ServiceRemoved(_, name) => state.found.retain(|(known, _)| *known != name),
            _ => return,
        }
        self.publish(&state);
    }

    fn publish(&self, state: &State) {
        if state.known {
            self.publisher.publish(state.found.iter().map(|(_, found)| found.node()).collect());
        }
    }

    /// Asks after every node of another process.
    fn ask_after_all(&self) {
        let state = self.state();
        let own = |found: &Found| state.own.iter().any(|own| own.life == found.life);
        for (name, _) in state.found.iter().filter(|(_, found)| !own(found)) {
            if let Err(error) = self.daemon.verify(name.clone(), ANSWER_WITHIN) {
                log::debug!("mdns cannot ask after `{name}`: {error}");
            }
        }
    }
}

/// Follows nodes and requests until the end or until the handle is gone.
async fn follow(
    shared: Arc<Shared>,
    nodes: Receiver<ServiceEvent>,
    requests: Receiver<ServiceEvent>,
    shutdown: Shutdown,
) {
    let mut ask = interval(shared.ttl);
    ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let first = Instant::now() + FIRST_ANSWERS;
    loop {
        let known = shared.state().known;
        tokio::select! {
            () = shutdown.begun() => return shared.end(),
            () = shared.dropped.cancelled() => return,
            () = sleep_until(first), if !known => {
                let mut state = shared.state();
                state.known = true;
                shared.publish(&state);
            }
            event = nodes.recv_async() => match event {
                Ok(event) => shared.hear(event),
                Err(error) => return log::error!("mdns ended, nodes are no longer found: {error}"),
            },
            event = requests.recv_async() => {
                if let Ok(ServiceEvent::ServiceResolved(service)) = event
                    && let Some(request) = Request::read(&service)
                    && let Err(error) = shared.obey(&request).await
                {
                    log::warn!("node cannot follow a request of another process: {error}");
                }
            }
            _ = ask.tick() => shared.ask_after_all(),
        }
    }
}

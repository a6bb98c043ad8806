//! The balancer: every service with its nodes, kept up with the catalog.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounterVec;
use tokio::sync::Notify;

use super::clock::Clock;
use super::names::{self, Addresses};
use super::permit::Permit;
use super::pick::Kind;
use super::service::{Call, Counters, Service};
use super::settings::Settings;
use crate::metrics::Metrics;
use crate::registry::{Catalog, CatalogWatch, Node, NodeId, go_micro};
use crate::shutdown::Shutdown;

/// Chooses nodes for a whole process; each worker does so through a [`LocalBalancer`] of its own.
#[derive(Debug)]
pub struct Balancer {
    given: Mutex<Given>,
    clock: Clock,
    ejections: IntCounterVec,
    breaks: IntCounterVec,
    shed: IntCounterVec,
    newest: Mutex<Snapshot>,
    /// That of `newest`, for readers to see without the lock that there is a newer one.
    version: AtomicU64,
    random: AtomicU64,
    /// The names that are to be looked up may be others.
    renamed: Notify,
}

/// What the services are made of.
#[derive(Debug, Default)]
struct Given {
    settings: HashMap<String, Settings>,
    /// `None`: nothing is known yet.
    catalog: Option<Arc<Catalog>>,
    addresses: Addresses,
}

/// Every service as one catalog tells it. Never changed: a new catalog makes a new one.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    version: u64,
    services: Arc<BTreeMap<String, Arc<Service>>>,
}

/// A worker's way to the [`Balancer`]: a pick takes no lock but the first after a change of the catalog.
#[derive(Debug)]
pub struct LocalBalancer {
    shared: Arc<Balancer>,
    seen: RefCell<Snapshot>,
}

/// Why there is no node to call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// The catalog holds no such service, or nothing is known of the cluster yet.
    #[error("no node of service `{0}` is registered")]
    UnknownService(String),
    /// It is known, but each of its nodes leaves or is gone.
    #[error("service `{0}` has no node that takes requests now")]
    NoNode(String),
    /// Each of its nodes has as many requests in flight as it may, and so many wait already, or this one waited too long.
    #[error("every node of service `{0}` has as many requests as it may have at once")]
    Full(String),
    /// Its answers take longer than they should, and this request is one of those that are refused for it.
    #[error("service `{0}` is slow and gets fewer requests for now")]
    Shed(String),
    /// Each of its nodes failed of late, and its breaker is open.
    #[error("service `{service}` fails on all its nodes and gets no requests for now")]
    Open {
        /// The service.
        service: String,
        /// When to ask again; at least a second.
        retry_after: Duration,
    },
}

/// A service as `/cluster` and `goms cluster` show it.
#[derive(Clone, Debug)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Index in `nodes` that the next request uses.
    pub poll_next: usize,
    /// Its nodes in catalog order.
    pub nodes: Vec<NodeView>,
    /// Requests that this process handed to the service; a retried one counts once.
    pub request_finish: u64,
    /// Requests that wait until a node has room.
    pub waiting: usize,
    /// Of the new requests, so many percent are refused since it is slow.
    pub shed_percent: u32,
    /// How long its breaker is still open; zero while it lets one request through at a time, `None` when it is closed.
    pub breaker_open_for: Option<Duration>,
}

/// A node with what this process measured of it.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The node.
    pub node: Arc<Node>,
    /// Requests without a complete answer.
    pub in_flight: usize,
    /// Tries it answered.
    pub answered: u64,
    /// Tries that found nobody listening.
    pub refused: u64,
    /// How long it still gets no requests because it failed; zero while it is on trial.
    pub ejected_for: Option<Duration>,
    /// Health checks say that it should get nothing while another can.
    pub is_unwell: bool,
}

impl Balancer {
    /// A balancer that follows `catalog` until `shutdown` begins. `settings` says how a service's nodes are chosen and
    /// watched (by the defaults where it says nothing). What is known already is there when it returns.
    #[must_use]
    pub fn start(
        mut catalog: CatalogWatch,
        settings: HashMap<String, Settings>,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> Arc<Self> {
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let balancer = Arc::new(Self::new(settings, metrics, Clock::new(Instant::now), seed));
        if let Some(known) = catalog.borrow_and_update().clone() {
            balancer.apply(known);
        }
        balancer.renew(|_| {}); // for who needs no catalog
        shutdown.spawn(names::follow(balancer.clone(), shutdown.clone()));
        let (follower, ending) = (balancer.clone(), shutdown.clone());
        shutdown.spawn(async move {
            loop {
                tokio::select! {
                    () = ending.begun() => return,
                    changed = catalog.changed() => if changed.is_err() {
                        return; // the registry is gone: the last known nodes stay
                    },
                }
                let known = catalog.borrow_and_update().clone();
                if let Some(known) = known {
                    follower.apply(known);
                }
            }
        });
        balancer
    }

    /// An empty balancer; `seed` steers the random pickers.
    pub(super) fn new(settings: HashMap<String, Settings>, metrics: &Metrics, clock: Clock, seed: u64) -> Self {
        let ejections =
            metrics.counter("ejections_total", "nodes left out for a while because they failed", &["service"]);
        let breaks = metrics.counter(
            "breaker_opened_total",
            "services left alone for a while because they failed",
            &["service"],
        );
        let shed = metrics.counter("shed_total", "requests refused because a service was slow", &["service"]);
        let given = Mutex::new(Given { settings, ..Given::default() });
        let (newest, version, random) = (Mutex::default(), AtomicU64::new(0), AtomicU64::new(seed));
        Self { given, clock, ejections, breaks, shed, newest, version, random, renamed: Notify::new() }
    }

    /// A worker's way to this balancer.
    #[must_use]
    pub fn local(self: &Arc<Self>) -> LocalBalancer {
        LocalBalancer { shared: self.clone(), seen: RefCell::new(self.newest()) }
    }

    /// Every service with its nodes and numbers, in order of name.
    #[must_use]
    pub fn view(&self) -> Vec<ServiceView> {
        let newest = self.newest();
        let named = newest.services.iter().filter(|(name, service)| *name == service.name());
        named.map(|(_, service)| service.view()).collect()
    }

    /// The nodes of a service.
    #[must_use]
    pub fn nodes(&self, service: &str) -> Vec<Arc<Node>> {
        self.newest().services.get(service).map(|known| known.nodes().cloned().collect()).unwrap_or_default()
    }

    /// Takes what health checks say of a node: it gets requests only while it is well, or nobody else is left. For all
    /// parts of its service.
    pub fn report(&self, id: &NodeId, is_well: bool) {
        self.newest().services.values().for_each(|service| service.report(id, is_well)); // twice does no harm
    }

    fn newest(&self) -> Snapshot {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Chooses and watches nodes by these settings from now on; what is known of the nodes stays.
    pub fn configure(&self, settings: HashMap<String, Settings>) {
        self.renew(|given| given.settings = settings);
        self.renamed.notify_one();
    }

    /// The names of servers that are to be looked up.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        names::names(given.settings.values().flat_map(|settings| &settings.origins))
    }

    /// Waits until there may be other names.
    pub(super) async fn names_changed(&self) {
        self.renamed.notified().await;
    }

    /// A name has these addresses.
    pub(super) fn found(&self, name: String, addresses: Vec<IpAddr>) {
        let is_news = {
            let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            given.addresses.get(&name) != Some(&addresses)
        };
        if is_news {
            self.renew(|given| drop(given.addresses.insert(name, addresses)));
        }
    }

    /// Takes over a new catalog: endpoints keep their counters, a service that was called stays known without nodes.
    pub(super) fn apply(&self, catalog: Arc<Catalog>) {
        self.renew(|given| given.catalog = Some(catalog));
    }

    fn renew(&self, change: impl FnOnce(&mut Given)) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = given.catalog.is_none();
        change(&mut given);
        let Given { settings, catalog, addresses } = &*given;
        let nothing = Catalog::default();
        let has_origins = settings.values().any(|settings| !settings.origins.is_empty());
        let catalog = match catalog {
            Some(catalog) => &**catalog,
            None if has_origins => &nothing, // they need no registry
            None => return,
        };
        let default = Settings::default();
        let mut services: BTreeMap<String, Arc<Service>> = BTreeMap::new();
        let mut add = |name: &str, nodes: &[Arc<Node>]| {
            let by_short_name = || go_micro::short_name(name).and_then(|short| settings.get(&short));
            let settings = settings.get(name).or_else(by_short_name).unwrap_or(&default);
            let service = match newest.services.get(name) {
                Some(known) => known.with_settings(settings),
                None => self.service(name, settings.clone()),
            };
            services.insert(name.to_owned(), service.with_nodes(nodes, is_first));
        };
        catalog.services().for_each(|(name, nodes)| add(name, nodes));
        for (name, settings) in settings {
            if !settings.origins.is_empty() {
                add(name, &names::nodes(name, &settings.origins, addresses));
            } else if let Some(of) = &settings.of {
                let is_part = |node: &&Arc<Node>| settings.version.as_ref().is_none_or(|v| *v == node.meta.version);
                add(name, &catalog.nodes(of).iter().filter(is_part).cloned().collect::<Vec<_>>());
            }
        }
        for (name, service) in newest.services.iter().filter(|(name, service)| *name == service.name()) {
            if !services.contains_key(name) && service.was_called() {
                services.insert(name.clone(), service.with_nodes(&[], is_first));
            }
        }
        // a service goes by its short name and by the one that it has with Go Micro, where no other has them
        let own: Vec<Arc<Service>> = services.values().cloned().collect();
        for service in own {
            let name = service.name();
            let other = go_micro::short_name(name).unwrap_or_else(|| go_micro::full_name(name));
            services.entry(other).or_insert(service);
        }
        self.publish(&mut newest, services);
    }

    fn service(&self, name: &str, settings: Settings) -> Arc<Service> {
        let ejections = self.ejections.with_label_values(&[name]);
        let breaks = self.breaks.with_label_values(&[name]);
        let shed = self.shed.with_label_values(&[name]);
        Arc::new(Service::new(name, settings, self.clock.clone(), Counters { ejections, breaks, shed }))
    }

    fn publish(&self, newest: &mut Snapshot, services: BTreeMap<String, Arc<Service>>) {
        *newest = Snapshot { version: newest.version + 1, services: Arc::new(services) };
        self.version.store(newest.version, Ordering::Release);
        newest.services.values().for_each(|service| service.nodes_changed()); // who is woken finds the new ones
    }
}

impl LocalBalancer {
    /// Chooses a node of `service` for one try: never one of `tried` while another can be called. An empty `tried`
    /// means a new request, which counts in [`ServiceView::request_finish`]. `client` is whom a source-hash picker
    /// looks at.
    ///
    /// # Errors
    /// [`PickError`] when there is nobody to call.
    pub fn pick(
        &self,
        service: &str,
        kind: Kind,
        client: Option<IpAddr>,
        tried: &[Arc<Node>],
    ) -> Result<Permit, PickError> {
        self.with_newest(service, |known| known.pick(&self.call(kind, client, tried), false))
    }

    /// As [`LocalBalancer::pick`]; waits for room where the service's nodes have as many requests in flight as they may.
    ///
    /// # Errors
    /// [`PickError`] when there is nobody to call, or there was no room in time.
    ///
    /// # Cancel safety
    /// Dropped, it has picked nobody.
    pub async fn acquire(
        &self,
        service: &str,
        kind: Kind,
        client: Option<IpAddr>,
        tried: &[Arc<Node>],
    ) -> Result<Permit, PickError> {
        match self.pick(service, kind, client, tried) {
            Err(PickError::Full(_)) => {}
            found => return found,
        }
        let known = self.with_newest(service, |known| Ok(known.clone()))?;
        let attempt = || self.with_newest(service, |known| known.pick(&self.call(kind, client, tried), true));
        // in a box: the way that is nearly always taken stays small
        Box::pin(async move { known.queued(attempt).await }).await
    }

    /// Runs `run` with the service as the newest catalog tells it.
    fn with_newest<T>(
        &self,
        service: &str,
        run: impl FnOnce(&Arc<Service>) -> Result<T, PickError>,
    ) -> Result<T, PickError> {
        let mut seen = self.seen.borrow_mut();
        if seen.version != self.shared.version.load(Ordering::Acquire) {
            *seen = self.shared.newest();
        }
        run(seen.services.get(service).ok_or_else(|| PickError::UnknownService(service.to_owned()))?)
    }

    fn call<'a>(&'a self, kind: Kind, client: Option<IpAddr>, tried: &'a [Arc<Node>]) -> Call<'a> {
        Call { kind, client, tried, random: &self.shared.random }
    }
}

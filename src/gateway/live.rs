//! What is in force, and what takes its place while requests go on.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;

use super::Settings;
use super::keeper::Kept;
use super::micro::Handler;
use super::route::Routes;
use crate::metrics::Metrics;
use crate::upstream::{Policy, Schemas};

/// The settings in force with the table of their routes. A request keeps those with which it began to its end.
pub(super) struct Table {
    pub settings: Settings,
    pub routes: Routes,
}

impl Table {
    /// How a service is called where no route says it.
    pub fn policy(&self, service: &str) -> &Policy {
        self.settings.service(service).map_or(&self.settings.usual, |known| &known.policy)
    }
}

/// Takes new settings for a running gateway. Every clone is the same.
#[derive(Clone)]
pub struct Live {
    table: watch::Sender<Arc<Table>>,
    metrics: Metrics,
    kept: Kept,
    schemas: Arc<Schemas>,
}

impl Live {
    /// With what a gateway begins.
    #[must_use]
    pub fn new(settings: Settings, metrics: &Metrics) -> Self {
        let kept = Kept::default();
        let table = Table { routes: Routes::new(&settings, metrics, &kept), settings };
        Self { table: watch::Sender::new(Arc::new(table)), metrics: metrics.clone(), kept, schemas: Arc::default() }
    }

    /// Puts these in force for every request from now on. What the listening socket was made with stays: see
    /// [`Settings::needs_restart`].
    pub fn replace(&self, settings: Settings) {
        let routes = Routes::new(&settings, &self.metrics, &self.kept);
        let table = Table { routes, settings };
        self.table.send_replace(Arc::new(table));
    }

    /// What is in force.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.table.borrow().settings.clone()
    }

    /// What is known of the messages of services, whatever the settings are.
    pub(super) fn schemas(&self) -> Arc<Schemas> {
        self.schemas.clone()
    }

    pub(super) fn view(&self) -> View {
        let mut receiver = self.table.subscribe();
        let current = Rc::new(Arc::clone(&receiver.borrow_and_update()));
        View { shared: RefCell::new(receiver), current: RefCell::new(current) }
    }
}

/// A table with a count of this thread's own: each request counts, and threads that share a counter slow each other down.
pub(super) type Counted = Rc<Arc<Table>>;

/// A worker thread's look at the table: while nothing changes, a look costs no lock and no shared counter.
pub(super) struct View {
    shared: RefCell<watch::Receiver<Arc<Table>>>,
    current: RefCell<Counted>,
}

impl View {
    /// What is in force now.
    pub fn table(&self) -> Counted {
        let mut shared = self.shared.borrow_mut();
        if shared.has_changed().unwrap_or(false) {
            self.current.replace(Rc::new(Arc::clone(&shared.borrow_and_update())));
        }
        Rc::clone(&self.current.borrow())
    }
}

impl Settings {
    /// The keys whose change a running gateway does not follow.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let proxied = |settings: &Self| settings.proxy_protocol.then(|| settings.trusted_proxies.clone());
        let publishes = |settings: &Self| settings.micro.as_ref().is_some_and(|micro| micro.handler == Handler::Event);
        let from_proxies = (self.proxy_protocol, proxied(self).is_some() && proxied(self) != proxied(new));
        let rpc = |settings: &Self| settings.tls.as_ref().is_some_and(|tls| tls.rpc);
        let doors = [
            ("tls", self.tls.is_some() != new.tls.is_some()),
            ("tls.rpc", rpc(self) != rpc(new) && self.tls.is_some() == new.tls.is_some()),
            ("proxyProtocol", from_proxies.0 != new.proxy_protocol),
            ("trustedProxies (of `proxyProtocol`)", from_proxies.1 && new.proxy_protocol),
            ("micro.handler (`event` needs the broker)", publishes(new) && !publishes(self)),
        ];
        let (old, new) = (&self.limits, &new.limits);
        let fixed = [
            ("limits.headerTimeout", old.header_timeout != new.header_timeout),
            ("limits.idleTimeout", old.idle_timeout != new.idle_timeout),
            ("limits.sendTimeout", old.send_timeout != new.send_timeout),
            ("limits.connections", old.connections != new.connections),
            ("limits.rpcKeepalive", old.rpc_keepalive != new.rpc_keepalive),
        ];
        doors.into_iter().chain(fixed).filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
    }
}

//! THE WINDOW: the pages that people read, on the admin port of every role.
//!
//! May import: `admin`, `registry`, `balance`, `gateway` (`explain`), `store`, `reading`, `units`, `trace::event`,
//! `metrics`, `shutdown`, `causes`, `figures`, `call_key`, `json`, `rpc` (names of methods and their messages).
//!
//! Pages are made here, as HTML without scripts in it, and every value in them is escaped: what requests brought is
//! hostile. [`page`] is the frame of each; `assets` are the files that it names, served from the binary; `guard` stands
//! before all of it: who may read, and what browsers are told of safety; [`live`] sends what changes to the pages that are
//! open.
//!
//! ```text
//! GET /  → guard (who is it?) → overview → page → text/html
//! GET /assets/<hash>/dashboard.css → kept by browsers for ever: another text has another address
//! ```

mod assets;
mod cluster;
mod feed;
mod graph;
mod guard;
mod jaeger;
pub mod live;
mod login;
mod nodes;
mod openapi;
mod overview;
pub mod page;
mod peers;
mod playground;
mod range;
mod routes;
mod rpc;
mod send;
mod spark;
mod traces;

pub use guard::Visitor;
pub use login::{Login, SHORTEST_TOKEN, Stay, User};
pub use rpc::{Asked, Local, Method, Rpc, Told};

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use actix_web::web;

use self::feed::{Feed, What};
use self::live::Live;
use self::login::Doorkeeper;
use self::range::Range;
use crate::admin::{self, Admin};
use crate::balance::ServiceView;
use crate::call_key::SigningKey;
use crate::causes::chain;
use crate::gateway;
use crate::registry::CatalogWatch;
use crate::shutdown::Shutdown;
use crate::store::{Query, Stats, StatsQuery, StoreError, TraceStore};

/// What the pages read. Every clone is the same.
#[derive(Clone)]
pub struct Dashboard {
    inner: Arc<Inner>,
}

struct Inner {
    admin: Admin,
    catalog: CatalogWatch,
    shutdown: Shutdown,
    live: Arc<Live>,
    doorkeeper: Doorkeeper,
    feed: Feed,
    store: OnceLock<Arc<dyn TraceStore>>,
    call_key: SigningKey,
    settings: RwLock<Arc<Settled>>,
    gateway: OnceLock<Gateway>,
    openapi: openapi::Kept,
    peers: peers::Kept,
}

/// How services are called, as it is now.
type Settled = dyn Fn() -> gateway::Settings + Send + Sync;

/// What a gateway of this process tells.
pub struct Gateway {
    /// What it knows of the nodes that it calls.
    pub balance: Box<dyn Fn() -> Vec<ServiceView> + Send + Sync>,
    /// What it knows of methods by RPC, and how it calls them.
    pub rpc: Rpc,
    /// Where these settings stand: the config's file, or words for the built-in one.
    pub config: String,
}

impl Dashboard {
    /// Of a process with this admin port, catalog, key of its calls and end of background tasks. Must be made within a tokio runtime.
    #[must_use]
    pub fn new(admin: Admin, catalog: CatalogWatch, call_key: SigningKey, shutdown: Shutdown) -> Self {
        let inner = Inner {
            admin,
            catalog,
            shutdown,
            live: Arc::default(),
            doorkeeper: Doorkeeper::default(),
            feed: Feed::default(),
            store: OnceLock::new(),
            call_key,
            settings: RwLock::new(Arc::new(gateway::Settings::default)),
            gateway: OnceLock::new(),
            openapi: openapi::Kept::default(),
            peers: peers::Kept::default(),
        };
        let dashboard = Self { inner: Arc::new(inner) };
        let of = dashboard.clone();
        dashboard.inner.shutdown.spawn(async move {
            let (catalog, shutdown) = (of.inner.catalog.clone(), of.inner.shutdown.clone());
            of.inner.feed.follow(catalog, shutdown).await;
        });
        dashboard
    }

    /// Shows that a config was read again: whether it is in force now, and what was said of it.
    pub fn note_reload(&self, is_taken: bool, told: Vec<String>) {
        self.inner.feed.add(What::Reload { is_taken, told });
    }

    /// Puts a login in force, on a port that is reached from this machine alone or (`false`) from others.
    pub fn set_login(&self, login: Login, is_loopback: bool) {
        self.inner.doorkeeper.replace(login, is_loopback);
    }

    /// Where traces are read; the first store counts.
    pub fn set_store(&self, store: Arc<dyn TraceStore>) {
        if self.inner.store.set(store).is_err() {
            log::debug!("a process has two trace stores, its dashboard reads the first");
        }
    }

    /// What services are called with by requests that a visitor sends to them.
    fn call_key(&self) -> Option<Arc<str>> {
        self.inner.call_key.get()
    }

    /// From now on asks this how services are called: a config that nobody reads again, or what a gateway has in force.
    pub fn follow_settings(&self, settings: impl Fn() -> gateway::Settings + Send + Sync + 'static) {
        *self.inner.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// How services are called.
    fn settings(&self) -> gateway::Settings {
        let settings = self.inner.settings.read().unwrap_or_else(PoisonError::into_inner).clone();
        settings()
    }

    /// Whether the HTTP ports of a service's nodes are called by TLS.
    fn is_secure(&self, service: &str) -> bool {
        self.settings().is_secure(service)
    }

    /// Has the pages show what a gateway of this process does: the first one.
    pub fn set_gateway(&self, gateway: Gateway) {
        if self.inner.gateway.set(gateway).is_err() {
            log::debug!("a process has two gateways, its dashboard shows the first");
        }
    }

    /// Where traces are read: this process's own store, Elasticsearch, or a trace consumer that the registry names.
    /// `None` while the process starts.
    #[must_use]
    pub fn store(&self) -> Option<&Arc<dyn TraceStore>> {
        self.inner.store.get()
    }

    /// Asked for the end: then streams end.
    fn ending(&self) -> Shutdown {
        self.inner.shutdown.clone()
    }

    /// Serves the pages, and behind the same guard the admin port's JSON. For the admin port's `App`.
    pub fn mount(&self, config: &mut web::ServiceConfig) {
        config.app_data(web::Data::new(self.clone())).service(
            web::scope("")
                .wrap(actix_web::middleware::from_fn(guard::guard))
                .configure(admin::api)
                .configure(assets::routes)
                .configure(login::routes)
                .configure(overview::routes)
                .configure(nodes::routes)
                .configure(peers::routes)
                .configure(graph::routes)
                .configure(routes::routes)
                .configure(openapi::routes)
                .configure(playground::routes)
                .configure(traces::routes)
                .configure(jaeger::routes)
                .default_service(web::to(page::not_found)),
        );
    }
}

/// What the traces of a range say in numbers, each service with a bucket for each point; or why they say nothing.
async fn counted(dashboard: &Dashboard, range: Range, now_ms: i64, filter: Query) -> Result<Stats, String> {
    let store = dashboard.store().ok_or("this process is just starting")?;
    let (since_ms, until_ms) = range.at(now_ms);
    let filter = Query { since_ms: Some(since_ms), until_ms: Some(until_ms), ..filter };
    let query = StatsQuery { filter, bucket_ms: u64::try_from(range.step_ms()).ok(), ..StatsQuery::default() };
    in_time(store.stats(&query)).await
}

/// How long a page waits for numbers; then it shows the rest without them.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the store counted, or why it did not.
async fn in_time(counting: impl Future<Output = Result<Stats, StoreError>>) -> Result<Stats, String> {
    match tokio::time::timeout(PATIENCE, counting).await {
        Ok(counted) => counted.map_err(|error| chain(&error).to_string()),
        Err(_) => Err(format!("the trace store did not answer within {} seconds", PATIENCE.as_secs())),
    }
}

/// A value of a query string; an empty one is none.
fn value_of(query_string: &str, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query_string.as_bytes());
    pairs.find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.into_owned())
}

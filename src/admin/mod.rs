//! THE BACK DOOR: health, readiness, metrics and the JSON API of every role, on the admin port.
//!
//! May import: `registry`, `metrics`, `shutdown`, `call_key`.
//!
//! `/healthz` (the process lives), `/readyz` (200 while it takes requests; 503 with the reason before that, while it
//! drains, and while a part says that it is of no use),
//! `/metrics` (Prometheus), `/api/nodes` (the nodes of this process with their load), `/api/cluster` (the catalog),
//! `/api/routes` (what a gateway has in force), `/api/keys` (which call keys there are, and when each was last used).
//! The pages come from elsewhere: [`Admin::serve`] mounts them.

mod api;

pub use api::{KeyReport, KeysReported, NodeReport, Reported, api, index};

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use actix_web::{App, HttpServer, web};

use crate::call_key::{CallKeys, fingerprint};
use crate::metrics::{Load, Metrics};
use crate::registry::{CatalogWatch, NodeId, NodeMeta};
use crate::shutdown::Shutdown;

/// Searches of the embedded store and checks of passwords at once: one that is slow holds up no other page.
const BLOCKING_THREADS: usize = 4;

/// What the admin port tells; shared by the roles of a process.
#[derive(Clone)]
pub struct Admin {
    inner: Arc<Inner>,
}

struct Inner {
    metrics: Metrics,
    catalog: CatalogWatch,
    ready: AtomicBool,
    nodes: Mutex<Vec<OwnNode>>,
    checks: Mutex<Vec<Check>>,
    routes: OnceLock<Tell>,
    keys: Mutex<Keys>,
}

/// What a part tells of itself, as JSON.
type Tell = Box<dyn Fn() -> serde_json::Value + Send + Sync>;

/// Why a part is of no use now, if so.
type Check = Box<dyn Fn() -> Option<String> + Send>;

/// Which call keys the process has, and when each was last used.
type Keys = Box<dyn Fn() -> Vec<KeyReport> + Send>;

#[derive(Clone)]
struct OwnNode {
    id: NodeId,
    meta: NodeMeta,
    load: Option<Load>,
}

impl Admin {
    /// Not ready yet, without nodes.
    #[must_use]
    pub fn new(metrics: Metrics, catalog: CatalogWatch) -> Self {
        let ready = AtomicBool::new(false);
        let inner = Inner {
            metrics,
            catalog,
            ready,
            nodes: Mutex::default(),
            checks: Mutex::default(),
            keys: Mutex::new(Box::new(Vec::new)),
            routes: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A node of this process, for `/api/nodes`; a trace consumer counts no requests.
    pub fn add_node(&self, id: NodeId, meta: NodeMeta, load: Option<Load>) {
        self.inner.nodes.lock().unwrap_or_else(PoisonError::into_inner).push(OwnNode { id, meta, load });
    }

    /// What a node of this process says of itself in the registry.
    #[must_use]
    pub fn meta_of(&self, id: &NodeId) -> Option<NodeMeta> {
        self.nodes().into_iter().find(|node| node.id == *id).map(|node| node.meta)
    }

    /// What `/readyz` says from now on.
    pub fn set_ready(&self, ready: bool) {
        self.inner.ready.store(ready, Ordering::Release);
    }

    /// Has `/readyz` ask a part too: while it gives a reason the process is not ready.
    pub fn add_check(&self, check: impl Fn() -> Option<String> + Send + 'static) {
        self.inner.checks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(check));
    }

    /// What `/api/routes` tells; the first gateway of a process.
    pub fn set_routes(&self, tell: impl Fn() -> serde_json::Value + Send + Sync + 'static) {
        if self.inner.routes.set(Box::new(tell)).is_err() {
            log::debug!("a process has two gateways, `/api/routes` tells of the first");
        }
    }

    /// What `/api/keys` says: these keys, which callers bring.
    pub fn tell_keys(&self, keys: CallKeys) {
        let report = move || {
            let uses = keys.uses().into_iter().enumerate();
            uses.map(|(place, used)| KeyReport::new(used.fingerprint, place == 0, true, used.last_ms)).collect()
        };
        *self.inner.keys.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(report);
    }

    /// What `/api/keys` says of a process that calls with these keys, and is called with none.
    pub fn tell_signing_keys(&self, keys: impl Fn() -> Vec<String> + Send + 'static) {
        let report = move || {
            let keys = keys().into_iter().enumerate();
            keys.map(|(place, key)| KeyReport::new(fingerprint(&key), place == 0, false, None)).collect()
        };
        *self.inner.keys.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(report);
    }

    fn keys(&self) -> Vec<KeyReport> {
        self.inner.keys.lock().unwrap_or_else(PoisonError::into_inner)()
    }

    /// The process's instruments.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// The nodes of this process with their load.
    #[must_use]
    pub fn own_nodes(&self) -> Vec<NodeReport> {
        self.nodes().iter().map(api::report).collect()
    }

    /// The routes that the gateway of this process has in force, as the config writes them; `None` where there is none.
    #[must_use]
    pub fn routes(&self) -> Option<serde_json::Value> {
        self.inner.routes.get().map(|tell| tell())
    }

    /// Why the process is not ready, if so; empty when it starts or ends.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if !self.inner.ready.load(Ordering::Acquire) {
            return Some(String::new());
        }
        self.inner.checks.lock().unwrap_or_else(PoisonError::into_inner).iter().find_map(|check| check())
    }

    fn nodes(&self) -> Vec<OwnNode> {
        self.inner.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves on a bound listener until the shutdown begins, with one worker: nobody's request waits for an admin page.
    ///
    /// Everyone may read health and metrics; `mount` adds the rest, and who may read it.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn serve(
        &self,
        listener: TcpListener,
        shutdown: &Shutdown,
        mount: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    ) -> std::io::Result<()> {
        let admin = self.clone();
        let app =
            move || App::new().app_data(web::Data::new(admin.clone())).configure(api::open).configure(mount.clone());
        let server = HttpServer::new(app)
            .workers(1)
            .worker_max_blocking_threads(BLOCKING_THREADS)
            .disable_signals()
            .shutdown_timeout(1)
            .keep_alive(Duration::from_secs(30))
            .listen(listener)?
            .run();
        let handle = server.handle();
        let ended = shutdown.clone();
        shutdown.spawn(async move {
            let stop = async {
                ended.begun().await;
                handle.stop(false).await;
            };
            if let (Err(error), ()) = tokio::join!(server, stop) {
                log::error!("the admin port ended: {error}");
            }
        });
        Ok(())
    }
}

//! The registry of a fleet on Kubernetes: its EndpointSlices, which its own controllers write by the pods' readiness. goms
//! only reads them.
//!
//! - A Service whose pods are to be found has the label that `registry.selector` asks for (`goms.dev/service: user`), and
//!   ports called `http` and `rpc`. Other Services of the cluster are never nodes, so that none of them is sent a call key.
//! - What a process registers it keeps for itself. Others see its pod once its readiness probe (`/readyz`) passes, and that
//!   it leaves as soon as Kubernetes ends the pod, which still serves then: it drains.
//! - While the API server is away the nodes are those it told last.
//!
//! `api` asks the server, `slice` makes nodes of what it answers.

mod api;
mod slice;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use prometheus::IntGauge;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::malformed::Malformed;
use super::own::OwnNodes;
use super::remembered::Remembered;
use super::{CatalogWatch, Node, NodeId, Publisher, Registry, RegistryError, Settings, check_service};
use crate::backoff::Backoff;
use crate::causes::chain;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use api::{Api, ApiError, Change};
use slice::Slice;

/// Short enough that everything is back within 5 s of the server's return, long enough to cost nothing while it is away.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(2);
/// A server (or what stands before it) that ends its answers sooner is not asked again at once.
const LEAST_WATCH: Duration = Duration::from_secs(1);

/// How to reach the API server. Each default is that of a pod.
#[derive(Clone, Debug)]
pub struct KubernetesSettings {
    /// `https://host:port`.
    pub address: String,
    /// A bearer token; `None`: that of the pod's service account, read anew for each request.
    pub token: Option<String>,
    /// A CA certificate (PEM file) that vouches for the server; `None`: that of the service account.
    pub ca_file: Option<PathBuf>,
    /// The namespace of Kubernetes whose pods are nodes.
    pub pods: String,
    /// Which Services are nodes, by their labels, as `kubectl -l` takes it.
    pub selector: String,
}

impl KubernetesSettings {
    /// The label that a Service has by default whose pods are nodes; its value is the service's name.
    pub const SELECTOR: &'static str = slice::SERVICE;
}

/// A handle; its own nodes go when it is dropped.
pub(super) struct Kubernetes {
    shared: Arc<Shared>,
}

struct Shared {
    api: Api,
    publisher: Publisher,
    malformed: Malformed,
    connected: IntGauge,
    state: Mutex<State>,
    dropped: CancellationToken,
}

#[derive(Default)]
struct State {
    slices: BTreeMap<String, Slice>,
    nodes: Vec<Node>,
    /// The server told all slices once.
    is_known: bool,
    own: OwnNodes,
    /// Why the server cannot be used now.
    trouble: Option<String>,
}

impl Kubernetes {
    pub(super) fn open(
        settings: &Settings,
        kubernetes: &KubernetesSettings,
        shutdown: &Shutdown,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, RegistryError> {
        let connected = metrics.gauge("registry_connected", "Whether the registry's server answers", &[]);
        let shared = Arc::new(Shared {
            api: Api::new(kubernetes)?,
            publisher: Publisher::new(),
            malformed: Malformed::new(metrics),
            connected: connected.with_label_values(&[] as &[&str]),
            state: Mutex::default(),
            dropped: CancellationToken::new(),
        });
        let (watched, ending, whole) = (shared.clone(), shared.clone(), shutdown.clone());
        let is_live = move || !watched.publisher.is_recalled() && watched.state().trouble.is_none();
        let ended = async move { ending.ended(&whole).await };
        let remembered = Remembered::start(settings, shared.publisher.subscribe(), is_live, (shutdown, ended));
        shutdown.spawn(follow(shared.clone(), remembered, shutdown.clone()));
        Ok(Arc::new(Self { shared }))
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.shared.dropped.cancel();
    }
}

#[async_trait]
impl Registry for Kubernetes {
    fn kind(&self) -> &'static str {
        "kubernetes"
    }

    fn catalog(&self) -> CatalogWatch {
        self.shared.publisher.subscribe()
    }

    fn trouble(&self) -> Option<String> {
        self.shared.state().trouble.clone()
    }

    async fn register(&self, node: Node) -> Result<(), RegistryError> {
        check_service(&node.id)?;
        let mut state = self.shared.state();
        let id = node.id.clone();
        state.own.add(node)?;
        self.shared.publisher.add_own(id);
        self.shared.publish(&state);
        Ok(())
    }

    async fn deregister(&self, id: &NodeId) -> Result<(), RegistryError> {
        let mut state = self.shared.state();
        state.own.leave(id)?;
        self.shared.publish(&state);
        state.own.remove(id);
        self.shared.publisher.retire_own(id);
        self.shared.publish(&state);
        Ok(())
    }

    async fn set_draining(&self, id: &NodeId, draining: bool) -> Result<(), RegistryError> {
        let mut state = self.shared.state();
        if state.own.drain(id, draining) {
            self.shared.publish(&state);
            return Ok(());
        }
        let node = state.nodes.iter().find(|node| node.id == *id).ok_or_else(|| RegistryError::Unknown(id.clone()))?;
        let pod = node.meta.labels.get("pod").map_or("POD", String::as_str);
        let reason = format!(
            "Kubernetes says who is in rotation; take the pod out of its Service with `kubectl label pod {pod} LABEL-`, \
             where LABEL is one that the Service selects by"
        );
        Err(RegistryError::Setting { setting: "kind", reason })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called with the state locked, so that catalogs come in order. What is known of others from disk is not overwritten by
    /// this process's own nodes alone.
    fn publish(&self, state: &State) {
        if state.is_known {
            self.publisher.publish(state.own.among(&state.nodes));
        }
    }

    /// Takes over what the server told.
    fn change(&self, make: impl FnOnce(&mut BTreeMap<String, Slice>)) {
        let mut state = self.state();
        make(&mut state.slices);
        state.nodes = slice::nodes(state.slices.values(), |name, reason| self.malformed.skip(name, &reason));
        state.is_known = true;
        self.publish(&state);
    }

    /// Resolves once the handle is gone or the process ends.
    async fn ended(&self, shutdown: &Shutdown) {
        tokio::select! {
            () = shutdown.begun() => {}
            () = self.dropped.cancelled() => {}
        }
    }
}

/// Runs until the end. Where the first connection fails, what is remembered has its place.
async fn follow(shared: Arc<Shared>, mut remembered: Option<Arc<Remembered>>, shutdown: Shutdown) {
    let mut backoff = Backoff::seeded(BACKOFF_FIRST, BACKOFF_CAP);
    let mut up = None;
    loop {
        let error = tokio::select! {
            () = shared.ended(&shutdown) => return,
            error = session(&shared, &mut up, &mut backoff) => error,
        };
        if matches!(error, ApiError::Expired) {
            log::debug!("kubernetes at `{}`: {error}, reading all again", shared.api.address());
        } else {
            let told = chain(&error);
            if up.replace(false) != Some(false) {
                shared.connected.set(0);
                log::warn!("kubernetes at `{}` is unavailable, retrying: {told}", shared.api.address());
            }
            shared.state().trouble = Some(told);
        }
        if error.is_away()
            && let Some(remembered) = remembered.take()
        {
            remembered.recall(&shared.publisher, "kubernetes").await;
        }
        tokio::select! {
            () = shared.ended(&shutdown) => return,
            () = sleep(backoff.next_wait()) => {}
        }
    }
}

/// Reads all and follows it: returns why that ended.
async fn session(shared: &Shared, up: &mut Option<bool>, backoff: &mut Backoff) -> ApiError {
    let mut version = match shared.api.list().await {
        Ok(list) => {
            if up.replace(true) == Some(false) {
                log::info!("kubernetes at `{}` is back", shared.api.address());
            }
            shared.state().trouble = None;
            shared.connected.set(1);
            shared.change(|slices| {
                *slices = list.slices.into_iter().map(|slice| (slice.metadata.name.clone(), slice)).collect();
            });
            list.version
        }
        Err(error) => return error,
    };
    loop {
        let began = Instant::now();
        if let Err(error) = watch(shared, &mut version, backoff).await {
            return error;
        }
        if began.elapsed() < LEAST_WATCH {
            sleep(LEAST_WATCH).await;
        }
    }
}

/// Follows the slices until the server ends the answer.
async fn watch(shared: &Shared, version: &mut String, backoff: &mut Backoff) -> Result<(), ApiError> {
    let mut watch = shared.api.watch(version).await?;
    while let Some((change, now)) = watch.next().await? {
        backoff.reset();
        *version = now;
        match change {
            Change::Put(slice) => shared.change(|slices| drop(slices.insert(slice.metadata.name.clone(), *slice))),
            Change::Gone(name) => shared.change(|slices| drop(slices.remove(&name))),
            Change::None => {}
        }
    }
    Ok(())
}

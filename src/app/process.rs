//! A process: what its roles share, and the order in which it starts and ends.
//!
//! Start: ports, registry known, roles listen, nodes register, ready.
//! End: not ready, deregister, let watchers notice, drain, background tasks, spool, done. Each step is bounded.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::OnceCell;

use super::reload::Reload;
use super::running::{RunningNode, Server};
use super::{AppError, ports, service_manager};
use crate::admin::Admin;
use crate::backoff::Backoff;
use crate::broker::{self, Broker};
use crate::call_key::SigningKey;
use crate::causes::chain;
use crate::config::{Config, GoMicroProtocol};
use crate::dashboard::Dashboard;
use crate::gateway::access::redact_credentials;
use crate::metrics::{Load, Metrics};
use crate::registry::{self, Catalog, HostPort, Node, NodeId, NodeMeta, Registry, RegistryError};
use crate::service::{self, CallTable};
use crate::shutdown::Shutdown;
use crate::trace::{self, Origin, Recorder};

/// How long other nodes get to see that a node left before it stops listening. A watch event takes a few milliseconds
/// through etcd or inotify; the rest is for a busy machine.
pub const NOTICE: Duration = Duration::from_millis(250);
/// How long background tasks (watches, leases, health) may take to end.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(2);
/// How long the spool may take to hand over or write down what it holds.
const SPOOL_LIMIT: Duration = Duration::from_secs(5);

/// What the roles of a process share.
pub struct Process {
    /// What the user said.
    pub config: Config,
    /// How it is read again; `None` where nobody follows it.
    pub reload: Option<Reload>,
    /// The process's instruments.
    pub metrics: Metrics,
    /// Where nodes find each other.
    pub registry: Arc<dyn Registry>,
    /// Takes the events of all roles.
    pub recorder: Recorder,
    /// The admin port's state.
    pub admin: Admin,
    /// Its pages.
    pub dashboard: Dashboard,
    /// What its own calls are signed with; follows the config.
    pub signing: SigningKey,
    /// Ends the background tasks; not the requests.
    pub background: Shutdown,
    spool: Shutdown,
    broker: OnceCell<Arc<dyn Broker>>,
}

impl Process {
    /// Opens the registry and the trace pipeline; nothing listens yet. Must be called within an actix system.
    ///
    /// # Errors
    /// When a setting cannot work or the data folder cannot be used.
    pub fn open(config: Config, reload: Option<Reload>) -> Result<Self, AppError> {
        let metrics = Metrics::new();
        let background = Shutdown::new();
        let registry = registry::open(&config.registry, &background, &metrics).map_err(AppError::Registry)?;
        let spool = Shutdown::new();
        // a service behind a gateway with the same config may get what that gateway's callers prove themselves with
        let mut traces = config.trace.clone();
        redact_credentials(&config.gateway.ways, &mut traces.redact);
        let signing = SigningKey::new(config.call_keys.first());
        if let trace::Transport::Direct { call_key } = &mut traces.transport {
            *call_key = signing.clone();
        }
        let recorder = trace::start(&traces, registry.catalog(), &metrics, &spool)
            .map_err(|error| AppError::Part(Box::new(error)))?;
        let admin = Admin::new(metrics.clone(), registry.catalog());
        admin.tell_keys(config.call_keys.clone());
        let dashboard = Dashboard::new(admin.clone(), registry.catalog(), signing.clone(), background.clone());
        let settings = config.gateway.clone();
        dashboard.follow_settings(move || settings.clone());
        let broker = OnceCell::new();
        Ok(Self { config, reload, metrics, registry, recorder, admin, dashboard, signing, background, spool, broker })
    }

    /// The address that a node of this process tells others.
    pub fn advertised_ip(&self) -> IpAddr {
        let node = &self.config.node;
        node.advertise_ip.unwrap_or_else(|| if node.bind.is_unspecified() { registry::own_ip() } else { node.bind })
    }

    /// A node's identity from its bound ports.
    ///
    /// # Errors
    /// When the operating system does not tell the ports.
    pub fn identity(&self, service: &str, ports: &ports::Ports) -> Result<NodeId, AppError> {
        let ip = self.advertised_ip();
        Ok(NodeId {
            service: service.to_owned(),
            rpc: HostPort::new(ip, ports::port_of(&ports.rpc)?),
            http: HostPort::new(ip, ports::port_of(&ports.http)?),
        })
    }

    /// Whom a node's events name.
    pub fn origin(&self, id: &NodeId) -> Arc<Origin> {
        Arc::new(Origin {
            service_name: id.service.clone(),
            service_id: id.key(&self.config.registry.namespace),
            project_name: self.config.registry.namespace.clone(),
            node: id.to_string(),
        })
    }

    /// Serves the admin port and tells where; `rpc_port` decides the default.
    ///
    /// # Errors
    /// When an explicit port is taken.
    pub fn serve_admin(&self, rpc_port: u16) -> Result<std::net::SocketAddr, AppError> {
        let node = &self.config.node;
        let listener = ports::bind_admin(node.admin_bind, node.admin_port, rpc_port)?;
        let port = ports::port_of(&listener)?;
        let login = self.config.login.clone();
        if !node.admin_bind.is_loopback() && !login.is_set() {
            log::warn!(
                "the admin port is open to other machines without a login, so it answers nothing but /healthz, /readyz and /metrics; \
                 write `admin: {{ token: … }}` into the config"
            );
        }
        self.dashboard.set_login(login, node.admin_bind.is_loopback());
        let dashboard = self.dashboard.clone();
        let mount = move |config: &mut actix_web::web::ServiceConfig| dashboard.mount(config);
        self.admin.serve(listener, &self.background, mount).map_err(AppError::Start)?;
        let ip = match node.admin_bind {
            ip if ip.is_unspecified() => self.advertised_ip(),
            ip => ip,
        };
        log::debug!("admin port address={ip}:{port}");
        Ok(std::net::SocketAddr::new(ip, port))
    }

    /// Where services of this process leave messages; opened when the first asks.
    ///
    /// # Errors
    /// When a setting cannot work.
    pub async fn broker(&self) -> Result<Arc<dyn Broker>, AppError> {
        let (bind, advertised) = (self.config.node.bind, self.advertised_ip());
        let ground = broker::Ground { registry: self.registry.clone(), bind, advertised };
        let open = || broker::open(&self.config.broker, Some(&ground), &self.background);
        let opened = self.broker.get_or_try_init(open).await;
        opened.cloned().map_err(|error| AppError::Part(Box::new(error)))
    }

    /// What the ports of a service node need.
    pub fn service_parts(&self, id: &NodeId, load: &Load, workers: usize, calls: Option<CallTable>) -> service::Parts {
        let limits = &self.config.gateway.limits;
        service::Parts {
            call_keys: self.config.call_keys.clone(),
            recorder: self.recorder.clone(),
            origin: self.origin(id),
            metrics: self.metrics.clone(),
            calls,
            load: load.clone(),
            workers,
            access_log: self.config.node.access_log.unwrap_or(true),
            // a body that a gateway passes is not too long for the service
            limits: service::Limits {
                body_bytes: limits.body_bytes,
                rpc_keepalive: limits.rpc_keepalive,
                header_timeout: limits.header_timeout,
                body_timeout: limits.body_timeout,
                idle_timeout: limits.idle_timeout,
                connections: limits.connections,
            },
            tls: None,
        }
    }

    /// What a node of ours says of itself.
    pub fn meta(&self, admin: std::net::SocketAddr) -> NodeMeta {
        let node = &self.config.node;
        NodeMeta {
            version: node.version.clone(),
            zone: node.zone.clone(),
            weight: node.weight,
            started_ms: jiff::Timestamp::now().as_millisecond(),
            admin: Some(admin),
            instance: trace::instance().to_owned(),
            ..NodeMeta::default()
        }
    }

    /// Whether nodes of Go Micro are to call a service's node by mucp.
    pub fn speaks_mucp(&self) -> bool {
        let is_mucp = self.config.node.go_micro_protocol == GoMicroProtocol::Mucp;
        self.config.registry.format == registry::Format::GoMicro && is_mucp
    }

    /// Says how nodes of Go Micro are to call a service's node.
    pub fn speak_go_micro(&self, meta: &mut NodeMeta) {
        if self.speaks_mucp() {
            meta.protocols.push("mucp".to_owned());
        }
    }

    /// How nodes of Go Micro call a node.
    fn rpc_told(id: &NodeId, meta: &NodeMeta) -> Option<(&'static str, HostPort)> {
        let is_mucp = meta.protocols.iter().any(|protocol| protocol == "mucp");
        let (protocol, address) = if is_mucp { ("mucp", id.http) } else { ("grpc", id.rpc) };
        address.port.map(|_| (protocol, address))
    }

    /// Makes a listening node visible, trying again while the registry is away, for `--registry-wait` at most.
    ///
    /// # Errors
    /// [`RegistryError::Taken`] at once; [`RegistryError::Unavailable`] after the wait.
    pub async fn register(&self, id: &NodeId, meta: NodeMeta, load: Option<Load>) -> Result<(), AppError> {
        let deadline = tokio::time::Instant::now() + self.config.registry_wait;
        let mut backoff = Backoff::seeded(Duration::from_millis(100), Duration::from_secs(2));
        let name = self.config.registry.node_name(id);
        if let Some((protocol, address)) = Self::rpc_told(id, &meta) {
            log::info!("Server [{protocol}] Listening on {address}");
        }
        log::info!("Registry [{}] Registering node: {name}", self.registry.kind());
        loop {
            match self.registry.register(Node::new(id.clone(), meta.clone())).await {
                Ok(()) => {
                    self.admin.add_node(id.clone(), meta, load);
                    return Ok(());
                }
                Err(error @ RegistryError::Unavailable { .. }) if tokio::time::Instant::now() < deadline => {
                    let wait = backoff.next_wait();
                    log::warn!("cannot register, trying again in {wait:?}: {}", chain(&error));
                    tokio::time::sleep(wait).await;
                }
                Err(error) => return Err(AppError::Registry(error)),
            }
        }
    }

    /// Ends the nodes and then the process; every step is bounded.
    pub async fn end(self, nodes: Vec<RunningNode>) {
        self.admin.set_ready(false);
        service_manager::stopping();
        // a consumer in this process stays until the events of the last requests are with it
        let (consumers, doors): (Vec<_>, Vec<_>) =
            nodes.into_iter().partition(|node| matches!(node.server, Server::Consumer(_)));
        self.end_nodes(doors).await;
        self.flush_spool().await;
        self.end_nodes(consumers).await;
        self.background.begin();
        if !self.background.finished(BACKGROUND_LIMIT).await {
            log::warn!("background tasks did not end within {BACKGROUND_LIMIT:?}");
        }
        log::info!("stopped");
    }

    async fn end_nodes(&self, nodes: Vec<RunningNode>) {
        if nodes.is_empty() {
            return;
        }
        for node in &nodes {
            self.leave(node).await;
        }
        tokio::time::sleep(NOTICE).await;
        let drain = self.config.node.drain_timeout;
        log::info!("draining: waiting up to {drain:?} for running requests");
        let stopping = nodes.into_iter().map(|node| async move {
            let (http, rpc) = tokio::join!(node.server.stop(drain), node.rpc.stop(drain));
            if !(http && rpc) {
                log::warn!("[{}] node [{}] ended with requests unfinished", node.id.service, node.id);
            }
        });
        futures_util::future::join_all(stopping).await;
    }

    /// Takes a node out of the registry; its ports stay open.
    pub async fn leave(&self, node: &RunningNode) -> bool {
        node.rpc.set_serving(false).await;
        match self.registry.deregister(&node.id).await {
            // it was out already: its program died, or it never got in
            Ok(()) | Err(RegistryError::Unknown(_)) => true,
            Err(error) => {
                log::warn!("cannot deregister, the lease will end it: {}", chain(&error));
                false
            }
        }
    }

    /// Makes a node visible again that had left. Returns whether it is.
    pub async fn come_back(&self, node: &RunningNode) -> bool {
        let Some(meta) = self.admin.meta_of(&node.id) else { return false };
        match self.registry.register(Node::new(node.id.clone(), meta)).await {
            Ok(()) => {
                node.rpc.set_serving(true).await;
                log::info!("[{}] the program is up, the node is back", node.id.service);
                true
            }
            Err(error) => {
                log::warn!("cannot register again: {}", chain(&error));
                false
            }
        }
    }

    async fn flush_spool(&self) {
        self.spool.begin();
        if !self.spool.finished(SPOOL_LIMIT).await {
            log::warn!("the trace spool did not end within {SPOOL_LIMIT:?}; what it held is on disk");
        }
    }
}

/// Opens the registry for a command that only reads or steers; what is shown is what the registry says now.
///
/// # Errors
/// When a setting cannot work.
pub fn open_registry(config: &Config) -> Result<Arc<dyn Registry>, AppError> {
    let settings = registry::Settings { remember: None, ..config.registry.clone() };
    registry::open(&settings, &Shutdown::new(), &Metrics::new()).map_err(AppError::Registry)
}

/// Waits for the first read of the registry.
///
/// # Errors
/// [`AppError::RegistryAway`] after `limit`.
pub async fn known_catalog(
    registry: &dyn Registry,
    config: &Config,
    limit: Duration,
) -> Result<Arc<Catalog>, AppError> {
    let mut catalog = registry.catalog();
    let known = tokio::time::timeout(limit, catalog.wait_for(Option::is_some)).await;
    match known.ok().and_then(Result::ok).and_then(|known| known.clone()) {
        Some(known) => Ok(known),
        None => {
            let address = config.registry.backend.address();
            let why = registry.trouble().map(|trouble| format!(": {trouble}")).unwrap_or_default();
            Err(AppError::RegistryAway { kind: registry.kind(), address, waited: limit, why })
        }
    }
}

/// Resolves at SIGTERM or SIGINT. A second one ends the process at once.
///
/// # Errors
/// When signals cannot be handled.
pub fn termination(background: &Shutdown) -> Result<impl Future<Output = ()> + use<>, AppError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Start)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Start)?;
    let background = background.clone();
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => log::info!("stopping on SIGTERM"),
            _ = interrupt.recv() => log::info!("stopping on SIGINT"),
        }
        let ended = background.clone();
        background.spawn(async move {
            tokio::select! {
                _ = terminate.recv() => std::process::exit(130),
                _ = interrupt.recv() => std::process::exit(130),
                () = ended.begun() => {}
            }
        });
    })
}

/// The address of a loopback-only process (`goms up`).
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

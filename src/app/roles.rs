//! Runs the roles of a process from start to end.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::console::Console;
use super::ports::{self, Ports};
use super::process::{LOOPBACK, Process, known_catalog, termination};
use super::reload::{self, Reload};
use super::running::{RunningNode, Server};
use super::service::{Listening, Served};
use super::supervise::{Supervised, supervise};
use super::watch::Watch;
use super::{AppError, gateway, service, service_manager, trace, trace_consumer, up};
use crate::config::Config;
use crate::metrics::Load;
use crate::registry::NodeMeta;
use crate::service::{Program, ProgramSettings, ProgramState};

/// One node of a process.
pub enum Role {
    /// The front door.
    Gateway,
    /// A service.
    Service(Box<Served>),
    /// The pipeline's end.
    TraceConsumer,
    /// A node of the demo service, beside others in one process.
    UpUser(usize),
    /// A node of a team's own service, beside others in one process, and the port that is kept for its program.
    UpProgram {
        /// The name that its lines have.
        name: String,
        /// The program.
        served: Box<Served>,
        /// Holds the port until the program takes it.
        port: Option<TcpListener>,
    },
    /// A program that is a node itself.
    UpNode(Box<Beside>),
}

/// A program that is a node itself.
pub struct Beside {
    /// The service.
    pub service: String,
    /// `shop#1`.
    pub name: String,
    /// How it is run.
    pub settings: ProgramSettings,
    /// Files whose change restarts it.
    pub watched: Vec<PathBuf>,
    /// Holds its port until it takes it.
    pub port: TcpListener,
}

impl Role {
    /// What others need is there first, and the door opens last.
    fn stage(&self) -> usize {
        match self {
            Self::TraceConsumer | Self::Service(_) | Self::UpUser(_) => 0,
            Self::UpProgram { .. } | Self::UpNode(_) => 1,
            Self::Gateway => 2,
        }
    }
}

/// What listens and is about to register.
struct Started {
    /// What its lines are called, where the service's name does not tell.
    name: Option<String>,
    node: Option<(RunningNode, NodeMeta, Option<Load>)>,
    program: Option<Supervised>,
}

/// Starts every role, registers its node once it answers, and ends all of them at SIGTERM or SIGINT.
///
/// # Errors
/// When a port is taken, the registry is away for too long, or a part cannot start; what had started is ended again.
pub async fn run(
    mut config: Config,
    roles: Vec<Role>,
    reload: Option<Reload>,
    console: Option<&Console>,
) -> Result<(), AppError> {
    let whole_cluster = roles.len() > 1;
    if whole_cluster && !config.node.bind_given {
        config.node.bind = LOOPBACK;
    }
    // every port first: what is taken is told before anything else happens
    let alone = !whole_cluster;
    let bound = roles.into_iter().map(|role| bind(&config, role, alone)).collect::<Result<Vec<_>, _>>()?;
    for ports in bound.iter().filter_map(|(_, ports)| ports.as_ref()) {
        if ports.takes_spans_of(config.trace.otlp.as_ref())? {
            log::warn!(
                "OTEL_EXPORTER_OTLP_ENDPOINT is where this process takes spans itself; its own are not sent there, or each request would count twice"
            );
            config.trace.otlp = None;
        }
    }
    let process = Process::open(config, reload)?;
    if !bound.iter().any(|(role, _)| matches!(role, Role::Gateway)) {
        reload::follow(&process, None)?;
    }
    let (mut spans, mut https) = (Vec::new(), None);
    for ports in bound.iter().filter_map(|(_, ports)| ports.as_ref()) {
        https = https.or(ports.https.as_ref().and_then(|listener| listener.local_addr().ok()));
        spans.extend(ports.spans(process.advertised_ip())?);
    }
    let terminated = termination(&process.background)?;
    tokio::pin!(terminated);
    let mut nodes = Vec::new();
    let mut programs = Vec::new();
    let outcome = tokio::select! {
        started = start_all(&process, bound, &mut nodes, &mut programs, console) => match started {
            Ok(admin) => {
                if whole_cluster {
                    let ids: Vec<_> = nodes.iter().map(|node| &node.id).collect();
                    if let Some(console) = console {
                        console.flush();
                    }
                    up::greet(&process.config, &ids, https, &spans, admin);
                }
                tokio::select! {
                    () = &mut terminated => Ok(()),
                    failed = supervise(&process, &nodes, &programs, alone) => Err(failed),
                }
            }
            Err(error) => Err(error),
        },
        () = &mut terminated => Ok(()),
    };
    // programs that are nodes themselves leave on their own, and need the consumer for their last events
    let (in_front, beside): (Vec<_>, Vec<_>) = programs.into_iter().partition(|each| each.node.is_some());
    join_all(beside.into_iter().map(|each| each.program.stop())).await;
    process.end(nodes).await;
    join_all(in_front.into_iter().map(|each| each.program.stop())).await;
    outcome
}

async fn start_all(
    process: &Process,
    bound: Vec<(Role, Option<Ports>)>,
    nodes: &mut Vec<RunningNode>,
    programs: &mut Vec<Supervised>,
    console: Option<&Console>,
) -> Result<SocketAddr, AppError> {
    let admin_beside = match bound.last() {
        Some((_, Some(ports))) => ports::port_of(&ports.rpc)?,
        _ => 0,
    };
    if !bound.iter().any(|(role, _)| matches!(role, Role::TraceConsumer)) {
        process.dashboard.set_store(trace::of_process(process)?);
    }
    let admin = process.serve_admin(admin_beside)?;
    known_catalog(&*process.registry, &process.config, process.config.registry_wait).await?;
    let mut stages = [Vec::new(), Vec::new(), Vec::new()];
    for (role, ports) in bound {
        stages[role.stage()].push(listen(process, role, ports, admin));
    }
    for stage in stages {
        // programs of other languages take their time to start
        let mut failed = None;
        for started in join_all(stage).await {
            match started {
                Ok(started) => join(process, started, nodes, programs, console).await?,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
    }
    // beside others a consumer's trouble is no reason to send their requests elsewhere
    if let [RunningNode { server: Server::Consumer(consumer), .. }] = nodes.as_slice() {
        let health = consumer.health();
        process.admin.add_check(move || health.trouble());
    }
    // a version that never heard its topics is not to take the place of one that does; what hears and loses its broker
    // later still answers requests, and one that only publishes tells each caller itself
    for node in nodes.iter() {
        if let Server::Service(_, subscribers) = &node.server {
            let unheard = subscribers.unheard();
            process.admin.add_check(move || unheard.trouble());
        }
    }
    process.admin.set_ready(true);
    service_manager::ready();
    service_manager::keep_alive(&process.background);
    Ok(admin)
}

/// Registers what listens.
async fn join(
    process: &Process,
    started: Started,
    nodes: &mut Vec<RunningNode>,
    programs: &mut Vec<Supervised>,
    console: Option<&Console>,
) -> Result<(), AppError> {
    let Started { name, node, program } = started;
    let is_up = program.as_ref().is_none_or(|each| matches!(*each.program.state().borrow(), ProgramState::Up));
    let index = programs.len();
    programs.extend(program);
    let Some((node, meta, load)) = node else { return Ok(()) };
    let id = node.id.clone();
    if let (Some(console), Some(name)) = (console, name) {
        console.name_node(id.to_string(), name);
    }
    if !is_up {
        process.admin.add_node(id, meta, load);
        nodes.push(node);
        return Ok(());
    }
    node.rpc.set_serving(true).await;
    nodes.push(node);
    process.register(&id, meta, load).await?;
    if let Some(supervised) = programs.get(index) {
        supervised.registered.send_replace(true);
    }
    Ok(())
}

/// Binds a role's ports. In a whole cluster the port flags are the gateway's; the others take free ones.
fn bind(config: &Config, role: Role, alone: bool) -> Result<(Role, Option<Ports>), AppError> {
    if matches!(role, Role::UpNode(_)) {
        return Ok((role, None));
    }
    let node = &config.node;
    let default = if matches!(role, Role::Gateway) { gateway::DEFAULT_PORTS } else { (0, 0) };
    let asked = if alone || matches!(role, Role::Gateway) { (node.http_port, node.rpc_port) } else { (None, None) };
    let ports = ports::bind(node.bind, asked.0.unwrap_or(default.0), asked.1.unwrap_or(default.1))?;
    let ports = match role {
        Role::Gateway => ports.and_doors(config)?,
        Role::TraceConsumer => ports.and_spans(node.bind, config.spans)?,
        Role::Service(_) | Role::UpUser(_) | Role::UpProgram { .. } | Role::UpNode(_) => ports,
    };
    Ok((role, Some(ports)))
}

async fn listen(process: &Process, role: Role, ports: Option<Ports>, admin: SocketAddr) -> Result<Started, AppError> {
    let mut meta = process.meta(admin);
    let workers = process.config.node.workers;
    let Some(ports) = ports else {
        let Role::UpNode(beside) = role else {
            return Err(AppError::Unavailable("a node has no ports".to_owned()));
        };
        return start_beside(*beside).await;
    };
    let one = |node, meta, load, name| Started { name, node: Some((node, meta, load)), program: None };
    match role {
        Role::Gateway => {
            let (node, load) = gateway::listen(process, ports).await?;
            Ok(one(node, meta, Some(load), None))
        }
        Role::TraceConsumer => {
            meta.takes_events = true;
            Ok(one(trace_consumer::listen(process, ports).await?, meta, None, None))
        }
        Role::Service(served) => {
            let name = served.name().to_owned();
            listen_service(process, ports, *served, workers, meta, name).await
        }
        Role::UpProgram { name, served, port } => {
            drop(port); // the program is started next
            listen_service(process, ports, *served, 1, meta, name).await
        }
        Role::UpUser(number) => {
            let served = Served::demo(&process.config, up::SERVICE)?;
            let Listening { node, load, tls, .. } = service::listen(process, ports, served, 1).await?;
            meta.tls = tls;
            Ok(one(node, meta, Some(load), Some(format!("{}#{number}", up::SERVICE))))
        }
        Role::UpNode(beside) => start_beside(*beside).await,
    }
}

async fn listen_service(
    process: &Process,
    ports: Ports,
    served: Served,
    workers: usize,
    mut meta: NodeMeta,
    name: String,
) -> Result<Started, AppError> {
    let watch = match &served {
        Served::Program { watched, .. } => Watch::of(watched),
        Served::Handlers(_) => None,
    };
    let listening = service::listen(process, ports, served, workers).await?;
    let Listening { node, load, version, endpoints, streams, rpc_services, tls, openapi, program } = listening;
    (meta.streams, meta.tls) = (streams, tls);
    if let Some(path) = &openapi {
        meta.tell_openapi(path);
    }
    meta.tell_methods(endpoints, rpc_services);
    if meta.version.is_empty() {
        meta.version = version;
    }
    process.speak_go_micro(&mut meta);
    let program = program.map(|program| Supervised {
        service: node.id.service.clone(),
        name: name.clone(),
        program,
        node: Some((node.id.clone(), load.clone())),
        registered: watch::Sender::new(false),
        watch: watch.into(),
    });
    Ok(Started { name: Some(name), node: Some((node, meta, Some(load))), program })
}

/// Starts a program that is a node itself.
async fn start_beside(beside: Beside) -> Result<Started, AppError> {
    let Beside { service, name, settings, watched, port } = beside;
    drop(port);
    let watch = Watch::of(&watched).into();
    let program = Program::start(settings).await.map_err(|error| AppError::Part(Box::new(error)))?;
    let registered = watch::Sender::new(true);
    let program = Supervised { service, name, program, node: None, registered, watch };
    Ok(Started { name: None, node: None, program: Some(program) })
}

//! Runs the roles of a process from start to end.

use std::net::SocketAddr;
use std::time::Duration;

use super::ports::{self, Ports};
use super::process::{LOOPBACK, Process, RunningNode, Server, known_catalog, termination};
use super::reload::Reload;
use super::service::{Listening, Served};
use super::{AppError, gateway, service, service_manager, trace, trace_consumer, up};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::metrics::Load;
use crate::registry::NodeMeta;
use crate::service::{Program, ProgramState};

/// One node of a process.
pub enum Role {
    /// The front door.
    Gateway,
    /// A service.
    Service(Box<Served>),
    /// The pipeline's end.
    TraceConsumer,
    /// A node of the demo service, beside others in one process.
    UpUser,
}

/// The roles of `goms up`, in the order of starting.
pub fn of_up() -> Vec<Role> {
    let mut roles = vec![Role::TraceConsumer];
    roles.extend((0..up::USER_NODES).map(|_| Role::UpUser));
    roles.push(Role::Gateway);
    roles
}

/// A node that listens and is about to register.
struct Started {
    node: RunningNode,
    meta: NodeMeta,
    load: Option<Load>,
    program: Option<Program>,
}

/// Starts every role, registers its node once it answers, and ends all of them at SIGTERM or SIGINT.
///
/// # Errors
/// When a port is taken, the registry is away for too long, or a part cannot start; what had started is ended again.
pub async fn run(mut config: Config, roles: Vec<Role>, reload: Option<Reload>) -> Result<(), AppError> {
    let whole_cluster = roles.len() > 1;
    if whole_cluster && !config.node.bind_given {
        config.node.bind = LOOPBACK;
    }
    // every port first: what is taken is told before anything else happens
    let alone = !whole_cluster;
    let bound = roles.into_iter().map(|role| bind(&config, role, alone)).collect::<Result<Vec<_>, _>>()?;
    for (_, ports) in &bound {
        if ports.takes_spans_of(config.trace.otlp.as_ref())? {
            log::warn!(
                "OTEL_EXPORTER_OTLP_ENDPOINT is where this process takes spans itself; its own are not sent there, or each request would count twice"
            );
            config.trace.otlp = None;
        }
    }
    let process = Process::open(config, reload)?;
    let (mut spans, mut https) = (Vec::new(), None);
    for (_, ports) in &bound {
        https = https.or(ports.https.as_ref().and_then(|listener| listener.local_addr().ok()));
        spans.extend(ports.spans(process.advertised_ip())?);
    }
    let terminated = termination(&process.background)?;
    tokio::pin!(terminated);
    let mut nodes = Vec::new();
    let mut programs = Vec::new();
    let outcome = tokio::select! {
        started = start_all(&process, bound, &mut nodes, &mut programs) => match started {
            Ok(admin) => {
                if whole_cluster {
                    let ids: Vec<_> = nodes.iter().map(|node| &node.id).collect();
                    up::greet(&ids, https, &spans, admin);
                }
                tokio::select! {
                    () = &mut terminated => Ok(()),
                    failed = supervise(&process, &nodes, &programs) => Err(failed),
                }
            }
            Err(error) => Err(error),
        },
        () = &mut terminated => Ok(()),
    };
    process.end(nodes).await;
    for program in programs {
        program.stop().await;
    }
    outcome
}

async fn start_all(
    process: &Process,
    bound: Vec<(Role, Ports)>,
    nodes: &mut Vec<RunningNode>,
    programs: &mut Vec<Program>,
) -> Result<SocketAddr, AppError> {
    let admin_beside = match bound.last() {
        Some((_, ports)) => ports::port_of(&ports.rpc)?,
        None => 0,
    };
    if !bound.iter().any(|(role, _)| matches!(role, Role::TraceConsumer)) {
        process.dashboard.set_store(trace::of_process(process)?);
    }
    let admin = process.serve_admin(admin_beside)?;
    known_catalog(&*process.registry, &process.config, process.config.registry_wait).await?;
    for (role, ports) in bound {
        let Started { node, meta, load, program } = listen(process, role, ports, admin).await?;
        programs.extend(program);
        let (id, registered) = (node.id.clone(), (meta, load));
        node.rpc.set_serving(true).await;
        nodes.push(node);
        process.register(&id, registered.0, registered.1).await?;
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

/// Binds a role's ports. In a whole cluster the port flags are the gateway's; the others take free ones.
fn bind(config: &Config, role: Role, alone: bool) -> Result<(Role, Ports), AppError> {
    let node = &config.node;
    let default = if matches!(role, Role::Gateway) { gateway::DEFAULT_PORTS } else { (0, 0) };
    let asked = if alone || matches!(role, Role::Gateway) { (node.http_port, node.rpc_port) } else { (None, None) };
    let ports = ports::bind(node.bind, asked.0.unwrap_or(default.0), asked.1.unwrap_or(default.1))?;
    let ports = match role {
        Role::Gateway => ports.and_doors(config)?,
        Role::TraceConsumer => ports.and_spans(node.bind, config.spans)?,
        Role::Service(_) | Role::UpUser => ports,
    };
    Ok((role, ports))
}

async fn listen(process: &Process, role: Role, ports: Ports, admin: SocketAddr) -> Result<Started, AppError> {
    let mut meta = process.meta(admin);
    let workers = process.config.node.workers;
    let (node, load, program) = match role {
        Role::Gateway => {
            let (node, load) = gateway::listen(process, ports).await?;
            (node, Some(load), None)
        }
        Role::TraceConsumer => {
            meta.takes_events = true;
            (trace_consumer::listen(process, ports).await?, None, None)
        }
        Role::Service(served) => {
            let listening = service::listen(process, ports, *served, workers).await?;
            let Listening { node, load, version, endpoints, streams, rpc_services, program } = listening;
            meta.streams = streams;
            meta.tell_methods(endpoints, rpc_services);
            if meta.version.is_empty() {
                meta.version = version;
            }
            process.speak_go_micro(&mut meta);
            (node, Some(load), program)
        }
        Role::UpUser => {
            let served = Served::demo(&process.config, up::SERVICE)?;
            let Listening { node, load, .. } = service::listen(process, ports, served, 1).await?;
            (node, Some(load), None)
        }
    };
    Ok(Started { node, meta, load, program })
}

/// Follows the programs behind the nodes: takes a node out while its program is down, puts it back when it is up again,
/// and resolves when one is gone for good.
async fn supervise(process: &Process, nodes: &[RunningNode], programs: &[Program]) -> AppError {
    let (Some(node), Some(program)) = (nodes.first(), programs.first()) else {
        return std::future::pending().await;
    };
    let mut state = program.state();
    let mut registered = true;
    let mut retry = Backoff::seeded(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        let now = state.borrow_and_update().clone();
        let done = match now {
            ProgramState::Ended(why) => {
                return AppError::Unavailable(format!("the program of `{}` {why}", node.id.service));
            }
            ProgramState::Down if registered => {
                registered = false;
                log::warn!("[{}] the program is down, the node leaves until it is back", node.id.service);
                process.leave(node).await
            }
            ProgramState::Up if !registered => {
                registered = process.come_back(node).await;
                registered
            }
            _ => true,
        };
        let again = if done { Duration::MAX } else { retry.next_wait() };
        tokio::select! {
            changed = state.changed() => if changed.is_err() {
                return AppError::Unavailable(format!("the program of `{}` is not watched any more", node.id.service));
            },
            () = tokio::time::sleep(again) => {}
        }
    }
}

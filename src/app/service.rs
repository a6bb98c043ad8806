//! The service role: the echo demo, a program in another language, or a service author's own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::AppError;
use super::ports::Ports;
use super::process::Process;
use super::rpc::Rpc;
use super::running::{RunningNode, Server};
use crate::balance::Balancer;
use crate::broker::{self, Broker};
use crate::config::Config;
use crate::gateway::Fallback;
use crate::listener::Tls;
use crate::metrics::Load;
use crate::registry::{self, NodePort};
use crate::service::{self, CallTable, CalledAction, Program, ProgramSettings, ProgramUrl, Service, Subscribers};

/// Bytes of another service's answer that a handler may ask for; as many as a request may have.
const CALLED_ANSWER_BYTES: usize = 10 << 20;

/// What a node serves.
pub enum Served {
    /// Handlers.
    Handlers(Service),
    /// A program behind this node.
    Program {
        /// The name it registers under.
        name: String,
        /// Where it is and how it is run.
        settings: ProgramSettings,
        /// Files whose change restarts it.
        watched: Vec<PathBuf>,
        /// The path of its OpenAPI document.
        openapi: Option<String>,
    },
}

impl Served {
    /// The echo demo for a service of the config.
    ///
    /// # Errors
    /// [`AppError::Usage`] when the config has no such service.
    pub fn demo(config: &Config, name: &str) -> Result<Self, AppError> {
        let services = config.gateway.services.iter().filter(|(_, known)| !known.actions.is_empty());
        let Some((_, known)) = services.clone().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = services.map(|(name, _)| name.as_str()).collect();
            return Err(AppError::Usage(format!(
                "no service `{name}` with actions in the config, which has {}; add it there, or give a program with `--app`",
                names.join(", ")
            )));
        };
        let by_http = known.actions.values().filter(|action| action.rpc.is_none());
        let paths: Vec<String> = by_http.map(|action| action.path.clone()).collect();
        Ok(Self::Handlers(service::echo_service(name, paths)))
    }

    /// The name it registers under.
    pub fn name(&self) -> &str {
        match self {
            Self::Handlers(service) => service.name(),
            Self::Program { name, .. } => name,
        }
    }
}

/// A listening service node, and its program's state if it has one.
pub struct Listening {
    /// The node.
    pub node: RunningNode,
    /// Its load.
    pub load: Load,
    /// The version it tells.
    pub version: String,
    /// Its methods by RPC.
    pub endpoints: Vec<String>,
    /// Those that are streams.
    pub streams: Vec<String>,
    /// Its services by RPC.
    pub rpc_services: Vec<String>,
    /// Its ports that take nothing but TLS, as [`registry::NodeMeta::tls`] has them.
    pub tls: Vec<String>,
    /// The path of its OpenAPI document.
    pub openapi: Option<String>,
    /// The program behind it.
    pub program: Option<Program>,
}

/// Listens (and first starts the program, if there is one); the node is not registered yet.
///
/// # Errors
/// When the program does not come up or a listener cannot be used.
pub async fn listen(process: &Process, ports: Ports, served: Served, workers: usize) -> Result<Listening, AppError> {
    let named = process.config.node.service_name.clone();
    let name = named.unwrap_or_else(|| process.config.registry.service_name(served.name()));
    let id = process.identity(&name, &ports)?;
    let load = Load::default();
    let broker = process.broker().await?;
    let mut parts = process.service_parts(&id, &load, workers, Some(call_table(process, broker.clone())));
    let tls = process.config.service_tls.clone().map(|settings| Tls::open(settings, &process.metrics));
    let tls = tls.transpose().map_err(part)?;
    if let Some(tls) = &tls {
        tls.follow(&process.background);
    }
    let mut methods = Service::new(&name);
    let rpc_parts = parts.clone();
    // Go Micro's nodes tell their streams by the first bytes of a connection
    let is_plain = process.config.service_tls.as_ref().is_none_or(|tls| tls.plain_http) || process.speaks_mucp();
    parts.tls = tls.clone().filter(|_| !is_plain);
    let secure = [(NodePort::Http, !is_plain), (NodePort::Rpc, tls.is_some())];
    let secure =
        secure.into_iter().filter(|(_, is_secure)| *is_secure).map(|(port, _)| port.word().to_owned()).collect();
    let (running, program, version, openapi) = match served {
        Served::Handlers(service) => {
            let version = service.version_text().to_owned();
            methods = service.clone();
            let serve = if process.speaks_mucp() { service::serve_mucp } else { service::serve };
            let running = serve(ports.http, service, parts).map_err(part)?;
            let openapi = methods.openapi_path().map(str::to_owned);
            (running, None, version, openapi)
        }
        Served::Program { name, settings, openapi, .. } => {
            log::info!("[{name}] waiting for the program at {}", settings.url);
            let program = Program::start(settings).await.map_err(part)?;
            let running = service::serve_program(ports.http, &name, program.door(), service::PROGRAM_TIMEOUT, parts)
                .map_err(part)?;
            (running, Some(program), String::new(), openapi)
        }
    };
    let (endpoints, rpc_services) = (methods.endpoints(), methods.rpc_services());
    let streams = methods.streams();
    let subscribers = subscribe(process, &methods, rpc_parts.clone(), broker)?;
    let rpc = Rpc::serve(ports.rpc, methods, (rpc_parts, tls)).await?;
    log::info!("[{name}] Http Listen on port: {}", id.http.port.unwrap_or(0));
    let node = RunningNode { id, rpc, server: Server::Service(running, subscribers) };
    Ok(Listening { node, load, version, endpoints, streams, rpc_services, tls: secure, openapi, program })
}

/// Starts the handlers of topics.
fn subscribe(
    process: &Process,
    service: &Service,
    parts: service::Parts,
    broker: Arc<dyn Broker>,
) -> Result<Subscribers, AppError> {
    let settings = &process.config.broker;
    let alone = !matches!(process.config.registry.backend, registry::Backend::Memory);
    if settings.backend == broker::Backend::Memory && alone && service.topics().next().is_some() {
        log::warn!(
            "[{}] hears what this process publishes only; name a broker for all: `--broker amqp|mqtt|nats|http`",
            service.name()
        );
    }
    Subscribers::start(service, parts, broker, settings.clone()).map_err(part)
}

/// What `--app` asks for.
///
/// # Errors
/// [`AppError::Usage`] when the address is none of a program.
pub fn program_settings(
    url: &url::Url,
    command: Vec<String>,
    restart: service::Restart,
) -> Result<ProgramSettings, AppError> {
    let url: ProgramUrl = url.as_str().parse().map_err(|error| AppError::Usage(format!("`--app`: {error}")))?;
    let mut settings = ProgramSettings::new(url, (!command.is_empty()).then_some(command));
    settings.restart = restart;
    Ok(settings)
}

fn call_table(process: &Process, broker: Arc<dyn Broker>) -> CallTable {
    let services = &process.config.gateway.services;
    let settings = process.config.gateway.balance();
    let actions: BTreeMap<String, BTreeMap<String, CalledAction>> = services
        .iter()
        .map(|(name, service)| {
            let called = |(action, to): (&String, &crate::gateway::Action)| {
                let fallback = match &to.fallback {
                    Some(Fallback::Service(service)) => Some(service.clone()),
                    Some(Fallback::Respond(_)) | None => None, // an answer for clients is no value for a handler
                };
                (action.clone(), CalledAction { path: to.path.clone(), policy: to.policy.clone(), fallback })
            };
            (name.clone(), service.actions.iter().filter(|(_, to)| to.rpc.is_none()).map(called).collect())
        })
        .collect();
    CallTable {
        balancer: Balancer::start(process.registry.catalog(), settings, &process.metrics, &process.background),
        actions: Arc::new(actions),
        answer_bytes: CALLED_ANSWER_BYTES,
        broker: Some(broker),
        usual: process.config.gateway.usual.clone(),
    }
}

fn part(error: impl std::error::Error + Send + Sync + 'static) -> AppError {
    AppError::Part(Box::new(error))
}

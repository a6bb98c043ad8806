//! `goms rpc`: which methods the nodes of the cluster say that they serve, and with what messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use serde::Serialize;

use super::table::render;
use super::{AppError, output, process};
use crate::balance::Balancer;
use crate::causes;
use crate::cli::RpcCommand;
use crate::config::Config;
use crate::gateway::Settings;
use crate::metrics::Metrics;
use crate::registry::{Catalog, Node};
use crate::rpc::method::ends_with;
use crate::rpc::schema::{Schema, SchemaMethod, Shape};
use crate::shutdown::Shutdown;
use crate::trace::TraceContext;
use crate::upstream::Upstream;

/// What tells of the others.
const REFLECTION: &str = "grpc.reflection.";

/// A service as its nodes tell it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    service: String,
    nodes: usize,
    /// `greeter.Say`.
    rpc_services: BTreeSet<String>,
    /// `Say.Hello`.
    methods: BTreeSet<String>,
}

/// A method, and where it is.
#[derive(Serialize)]
pub struct Described {
    /// `Say.Hello`.
    pub method: String,
    /// `/greeter.Say/Hello`.
    pub path: String,
    nodes: Vec<String>,
    /// Its messages, where they are protobuf; otherwise JSON that its author knows.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    messages: Option<Messages>,
    /// What these were read from.
    #[serde(skip)]
    pub told: Option<SchemaMethod>,
}

/// What a method takes and gives.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Messages {
    request: Shape,
    request_stream: bool,
    response: Shape,
    response_stream: bool,
}

impl Messages {
    fn of(method: &SchemaMethod) -> Self {
        let (request_stream, response_stream) = method.streams();
        Self { request: method.input(), request_stream, response: method.output(), response_stream }
    }

    /// For people.
    fn shown(&self) -> [String; 2] {
        let one = |shape: &Shape, is_stream| format!("{}{shape}", if is_stream { "stream " } else { "" });
        [one(&self.request, self.request_stream), one(&self.response, self.response_stream)]
    }
}

/// Runs one `goms rpc` command.
///
/// # Errors
/// [`AppError::RegistryAway`] when the registry cannot be read, [`AppError::Unavailable`] when the service is not there.
pub async fn run(config: &Config, command: RpcCommand) -> Result<(), AppError> {
    let registry = process::open_registry(config)?;
    let catalog = process::known_catalog(&*registry, config, config.read_wait).await?;
    let (background, metrics) = (Shutdown::new(), Metrics::new());
    let balancer = Balancer::start(registry.catalog(), config.gateway.balance(), &metrics, &background);
    let upstream = Upstream::new(balancer, "goms", &metrics);
    let asking = Asking { settings: &config.gateway, catalog: &catalog, upstream };
    match command {
        RpcCommand::List(args) => {
            let told = asking.list().await;
            if args.form.json() {
                output::json(&told);
            } else {
                let joined = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let row = |told: &Told| {
                    let (services, methods) = (joined(&told.rpc_services), joined(&told.methods));
                    vec![told.service.clone(), told.nodes.to_string(), services, methods]
                };
                let rows: Vec<_> = told.iter().map(row).collect();
                output::text(&render(&["SERVICE", "NODES", "GRPC SERVICES", "METHODS"], &rows));
            }
        }
        RpcCommand::Describe(args) => {
            let described = asking.describe(&args.service).await?;
            if args.form.json() {
                output::json(&described);
            } else {
                let row = |one: &Described| {
                    let [request, response] =
                        one.messages.as_ref().map_or_else(|| ["JSON", "JSON"].map(str::to_owned), Messages::shown);
                    vec![one.method.clone(), one.path.clone(), request, response, one.nodes.join(", ")]
                };
                let rows: Vec<_> = described.iter().map(row).collect();
                output::text(&render(&["METHOD", "PATH", "REQUEST", "RESPONSE", "NODES"], &rows));
            }
        }
    }
    background.begin();
    Ok(())
}

fn takes_rpc(node: &Node) -> bool {
    !node.meta.rpc_services.is_empty()
}

/// The name of a service of gRPC, and what it is made of.
type Learned = (String, Arc<Schema>);

/// Who asks nodes for their methods.
pub struct Asking<'a> {
    /// How services are called.
    pub settings: &'a Settings,
    /// Who is there.
    pub catalog: &'a Catalog,
    /// The client.
    pub upstream: Upstream,
}

impl Asking<'_> {
    fn nodes(&self, service: &str) -> Vec<&Arc<Node>> {
        self.catalog.nodes(service).iter().filter(|node| takes_rpc(node)).collect()
    }

    async fn list(&self) -> Vec<Told> {
        let told = self.catalog.services().map(|(service, _)| async move {
            let nodes = self.nodes(service);
            let mut methods: BTreeSet<String> =
                nodes.iter().flat_map(|node| node.meta.endpoints.iter().cloned()).collect();
            if !nodes.is_empty() {
                for (full, schema) in self.learn(service, &nodes, log::Level::Debug).await {
                    methods.extend(schema.methods(&full).iter().map(|method| endpoint(&full, method)));
                }
            }
            (!nodes.is_empty()).then(|| Told {
                service: service.to_owned(),
                nodes: nodes.len(),
                rpc_services: nodes.iter().flat_map(|node| node.meta.rpc_services.iter().cloned()).collect(),
                methods,
            })
        });
        join_all(told).await.into_iter().flatten().collect()
    }

    async fn describe(&self, service: &str) -> Result<Vec<Described>, AppError> {
        if self.nodes(service).is_empty() {
            let known: Vec<&str> =
                self.catalog.services().map(|(name, _)| name).filter(|name| !self.nodes(name).is_empty()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(AppError::Unavailable(format!(
                "no node of service `{service}` takes rpc; of those that do there is {known}"
            )));
        }
        Ok(self.described(service, log::Level::Warn).await)
    }

    /// The methods of a service; a part that nobody tells is logged at `level`.
    pub async fn described(&self, service: &str, level: log::Level) -> Vec<Described> {
        let nodes = self.nodes(service);
        let mut all: BTreeMap<String, Described> = BTreeMap::new();
        for (full, schema) in self.learn(service, &nodes, level).await {
            for method in schema.methods(&full) {
                let serving = nodes.iter().filter(|node| node.meta.rpc_services.contains(&full));
                let described = Described {
                    method: endpoint(&full, &method),
                    path: method.path().to_string(),
                    nodes: serving.map(|node| node.id.rpc.to_string()).collect(),
                    messages: Some(Messages::of(&method)),
                    told: Some(method),
                };
                all.insert(described.path.clone(), described);
            }
        }
        let methods: BTreeSet<&String> = nodes.iter().flat_map(|node| &node.meta.endpoints).collect();
        for method in methods {
            let serving: Vec<_> = nodes.iter().filter(|node| node.meta.endpoints.contains(method)).collect();
            let (of, name) = method.rsplit_once('.').unwrap_or(("", method));
            let full = serving.iter().flat_map(|node| &node.meta.rpc_services).find(|full| ends_with(full, of));
            let full = full.cloned().unwrap_or_else(|| format!("{service}.{of}"));
            let (path, nodes) =
                (format!("/{full}/{name}"), serving.iter().map(|node| node.id.rpc.to_string()).collect());
            let described = Described { method: method.clone(), path: path.clone(), nodes, messages: None, told: None };
            all.entry(path).or_insert(described);
        }
        all.into_values().collect()
    }

    /// What the services of gRPC are made of whose methods the nodes' records do not name, and all that nodes with reflection serve.
    async fn learn(&self, service: &str, nodes: &[&Arc<Node>], level: log::Level) -> Vec<Learned> {
        let names: BTreeSet<&String> = nodes.iter().flat_map(|node| &node.meta.rpc_services).collect();
        let tells = names.iter().any(|full| full.starts_with(REFLECTION));
        let is_named = |full: &str| {
            let endpoints = || nodes.iter().flat_map(|node| &node.meta.endpoints);
            endpoints().any(|endpoint| endpoint.rsplit_once('.').is_some_and(|(of, _)| ends_with(full, of)))
        };
        let wanted = names.iter().filter(|full| !full.starts_with(REFLECTION) && (tells || !is_named(full)));
        let known = self.settings.service(service);
        let policy = known.map(|known| known.policy.clone()).unwrap_or_default();
        let (policy, call_key) = (&policy, self.settings.call_keys.first().map(String::as_str));
        let asked = wanted.map(|full| async move {
            let context = TraceContext::from_headers(None, None);
            match self.upstream.rpc_schema(service, full, (&context, call_key), policy).await {
                Ok(schema) => Some(((*full).clone(), schema)),
                Err(error) if is_named(full) => {
                    log::debug!("messages not told service={service} error=\"{}\"", causes::chain(&error));
                    None
                }
                Err(error) => {
                    log::log!(level, "methods of `{full}` not told: {}", causes::chain(&error));
                    None
                }
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

/// `Say.Hello`, as nodes name what takes JSON.
fn endpoint(full: &str, method: &SchemaMethod) -> String {
    format!("{}.{}", full.rsplit('.').next().unwrap_or(full), method.name())
}

//! `goms rpc`: which methods the nodes of the cluster say that they serve.

use std::collections::BTreeSet;

use serde::Serialize;

use super::table::render;
use super::{AppError, output, process};
use crate::cli::RpcCommand;
use crate::config::Config;
use crate::registry::{Catalog, Node};
use crate::rpc::method::ends_with;

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
struct Described {
    method: String,
    path: String,
    nodes: Vec<String>,
}

/// Runs one `goms rpc` command.
///
/// # Errors
/// [`AppError::RegistryAway`] when the registry cannot be read, [`AppError::Unavailable`] when the service is not there.
pub async fn run(config: &Config, command: RpcCommand) -> Result<(), AppError> {
    let registry = process::open_registry(config)?;
    let catalog = process::known_catalog(&*registry, config, config.read_wait).await?;
    match command {
        RpcCommand::List(args) => {
            let told = list(&catalog);
            if args.form.json() {
                output::json(&told);
                return Ok(());
            }
            let joined = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let row = |told: &Told| {
                vec![told.service.clone(), told.nodes.to_string(), joined(&told.rpc_services), joined(&told.methods)]
            };
            let rows: Vec<_> = told.iter().map(row).collect();
            output::text(&render(&["SERVICE", "NODES", "GRPC SERVICES", "METHODS"], &rows));
            Ok(())
        }
        RpcCommand::Describe(args) => {
            let described = describe(&catalog, &args.service)?;
            if args.form.json() {
                output::json(&described);
                return Ok(());
            }
            let row = |one: &Described| vec![one.method.clone(), one.path.clone(), one.nodes.join(", ")];
            let rows: Vec<_> = described.iter().map(row).collect();
            output::text(&render(&["METHOD", "PATH", "NODES"], &rows));
            Ok(())
        }
    }
}

fn takes_rpc(node: &Node) -> bool {
    !node.meta.rpc_services.is_empty()
}

fn list(catalog: &Catalog) -> Vec<Told> {
    let told = |(service, nodes): (&str, &[std::sync::Arc<Node>])| {
        let nodes: Vec<_> = nodes.iter().filter(|node| takes_rpc(node)).collect();
        (!nodes.is_empty()).then(|| Told {
            service: service.to_owned(),
            nodes: nodes.len(),
            rpc_services: nodes.iter().flat_map(|node| node.meta.rpc_services.iter().cloned()).collect(),
            methods: nodes.iter().flat_map(|node| node.meta.endpoints.iter().cloned()).collect(),
        })
    };
    catalog.services().filter_map(told).collect()
}

fn describe(catalog: &Catalog, service: &str) -> Result<Vec<Described>, AppError> {
    let nodes: Vec<_> = catalog.nodes(service).iter().filter(|node| takes_rpc(node)).collect();
    if nodes.is_empty() {
        let known = list(catalog).into_iter().map(|told| told.service).collect::<Vec<_>>();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(AppError::Unavailable(format!(
            "no node of service `{service}` takes rpc; of those that do there is {known}"
        )));
    }
    let methods: BTreeSet<&String> = nodes.iter().flat_map(|node| &node.meta.endpoints).collect();
    let one = |method: &String| {
        let serving: Vec<_> = nodes.iter().filter(|node| node.meta.endpoints.contains(method)).collect();
        let (of, name) = method.rsplit_once('.').unwrap_or(("", method));
        let full = serving.iter().flat_map(|node| &node.meta.rpc_services).find(|full| ends_with(full, of));
        let full = full.cloned().unwrap_or_else(|| format!("{service}.{of}"));
        let nodes = serving.iter().map(|node| node.id.rpc.to_string()).collect();
        Described { method: method.clone(), path: format!("/{full}/{name}"), nodes }
    };
    Ok(methods.into_iter().map(one).collect())
}

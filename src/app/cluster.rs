//! `goms cluster`: reads and steers the cluster through whatever registry the config names.

mod keys;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use awc::http::StatusCode;
use serde::Serialize;

use super::table::{age, render};
use super::{AppError, output, process};
use crate::admin::{NodeReport, Reported};
use crate::cli::{ClusterCommand, Output};
use crate::config::Config;
use crate::registry::{Catalog, Node, NodeId, NodeState, Registry};

/// How long a node's admin port may take to tell its load; it is on this machine or in the same network.
const ADMIN_TIMEOUT: Duration = Duration::from_millis(800);

/// Asks other nodes' admin ports, which may want to know who asks.
pub(super) fn admin_client(config: &Config, timeout: Duration) -> awc::Client {
    let mut client = awc::Client::builder().timeout(timeout).disable_redirects();
    if let Some(token) = config.login.reader_token() {
        client = client.add_default_header(("Authorization", format!("Bearer {token}")));
    }
    client.finish()
}

/// What to do about an admin port that refuses what the config brings it.
pub(super) const BRING_A_TOKEN: &str =
    "have `admin.readOnlyToken` (or `admin.token`) of its config in the config of this command, too";

/// Says once that admin ports refuse what the config brings them, so that what they would tell is missing.
fn warn_of_refusals(refused: &[(SocketAddr, StatusCode)]) {
    if let [(admin, status), more @ ..] = refused {
        let others = if more.is_empty() { String::new() } else { format!(" (and {} more)", more.len()) };
        // a quiet command logs no warning
        eprintln!(
            "goms: the admin port {admin}{others} answers {status}, so what it would tell is missing; {BRING_A_TOKEN}"
        );
    }
}

/// The answer of an admin port, if it is one; a refusal is written down.
fn granted<S>(
    admin: SocketAddr,
    answer: awc::ClientResponse<S>,
    refused: &RefCell<Vec<(SocketAddr, StatusCode)>>,
) -> Option<awc::ClientResponse<S>> {
    match answer.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            refused.borrow_mut().push((admin, answer.status()));
            None
        }
        _ => Some(answer),
    }
}

/// One node as every output shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    service: String,
    node: String,
    #[serde(skip)]
    address: String, // short enough for a table of many columns
    state: NodeState,
    version: String,
    zone: String,
    started_ms: i64,
    admin: Option<SocketAddr>,
    in_flight: Option<u64>,
    answered: Option<u64>,
}

/// Runs one `goms cluster` command.
///
/// # Errors
/// [`AppError::RegistryAway`] when the registry cannot be read, [`AppError::Unavailable`] when a named service or node is
/// not there.
pub async fn run(config: &Config, command: ClusterCommand) -> Result<(), AppError> {
    let registry = process::open_registry(config)?;
    let catalog = process::known_catalog(&*registry, config, config.read_wait).await?;
    match command {
        ClusterCommand::Status(args) => status(config, &catalog, args.service.as_deref(), args.form.output).await,
        ClusterCommand::Nodes(args) => nodes(config, &catalog, args.service.as_deref(), args.form.output).await,
        ClusterCommand::Services(args) => {
            services(&catalog, args.output);
            Ok(())
        }
        ClusterCommand::Routes(args) => super::routes::run(config, &catalog, args.output).await,
        ClusterCommand::Keys(args) => {
            keys::run(config, &catalog, args.output).await;
            Ok(())
        }
        ClusterCommand::Watch(args) => watch(&*registry, args.output).await,
        ClusterCommand::Drain { node, undo } => {
            let id = find(&catalog, &node)?;
            registry.set_draining(&id, !undo).await.map_err(AppError::Registry)?;
            let now = if undo { "back in rotation" } else { "draining: it gets no new requests" };
            output::line(&format!("{} {id} is {now}", id.service));
            Ok(())
        }
    }
}

async fn status(config: &Config, catalog: &Catalog, service: Option<&str>, format: Output) -> Result<(), AppError> {
    let rows = rows(config, catalog, service).await?;
    match format {
        Output::Json => output::json(&rows),
        Output::Table => {
            let now_ms = jiff::Timestamp::now().as_millisecond();
            let lines: Vec<Vec<String>> = rows
                .iter()
                .map(|row| {
                    vec![
                        row.service.clone(),
                        row.address.clone(),
                        state_word(row.state).to_owned(),
                        age(row.started_ms, now_ms),
                        or_dash(&row.version),
                        count(row.in_flight),
                        count(row.answered),
                    ]
                })
                .collect();
            output::text(&render(&["SERVICE", "ADDRESS", "STATE", "AGE", "VERSION", "IN FLIGHT", "ANSWERED"], &lines));
            let names: BTreeSet<&str> = rows.iter().map(|row| row.service.as_str()).collect();
            output::line(&format!("{}, {}", plural(names.len(), "service"), plural(rows.len(), "node")));
        }
    }
    Ok(())
}

async fn nodes(config: &Config, catalog: &Catalog, service: Option<&str>, format: Output) -> Result<(), AppError> {
    let rows = rows(config, catalog, service).await?;
    match format {
        Output::Json => output::json(&rows),
        Output::Table => {
            let lines: Vec<Vec<String>> = rows
                .iter()
                .map(|row| {
                    let admin = row.admin.map_or_else(|| "-".to_owned(), |admin| admin.to_string());
                    let state = state_word(row.state).to_owned();
                    vec![row.service.clone(), row.node.clone(), state, admin, or_dash(&row.zone)]
                })
                .collect();
            output::text(&render(&["SERVICE", "NODE", "STATE", "ADMIN", "ZONE"], &lines));
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct ServiceRow {
    service: String,
    nodes: usize,
    ready: usize,
    versions: BTreeSet<String>,
}

fn services(catalog: &Catalog, format: Output) {
    let rows: Vec<ServiceRow> = catalog
        .services()
        .map(|(service, nodes)| ServiceRow {
            service: service.to_owned(),
            nodes: nodes.len(),
            ready: nodes.iter().filter(|node| node.state == NodeState::Ready).count(),
            versions: nodes.iter().map(|node| or_dash(&node.meta.version)).collect(),
        })
        .collect();
    match format {
        Output::Json => output::json(&rows),
        Output::Table => {
            let lines: Vec<Vec<String>> = rows
                .iter()
                .map(|row| {
                    let versions = row.versions.iter().cloned().collect::<Vec<_>>().join(", ");
                    vec![row.service.clone(), row.nodes.to_string(), row.ready.to_string(), versions]
                })
                .collect();
            output::text(&render(&["SERVICE", "NODES", "READY", "VERSIONS"], &lines));
        }
    }
}

/// Prints every node there is, then each change, until the user ends it.
async fn watch(registry: &dyn Registry, format: Output) -> Result<(), AppError> {
    let mut catalog = registry.catalog();
    let mut known: BTreeMap<NodeId, NodeState> = BTreeMap::new();
    loop {
        let newest = catalog.borrow_and_update().clone();
        if let Some(newest) = newest {
            let now: BTreeMap<NodeId, NodeState> = newest.all().map(|node| (node.id.clone(), node.state)).collect();
            for (id, state) in &now {
                match known.get(id) {
                    None if *state == NodeState::Ready => print_change(id, "join", format),
                    None => print_change(id, state_word(*state), format),
                    Some(before) if before != state => print_change(id, state_word(*state), format),
                    Some(_) => {}
                }
            }
            for id in known.keys().filter(|id| !now.contains_key(*id)) {
                print_change(id, "leave", format);
            }
            known = now;
        }
        tokio::select! {
            changed = catalog.changed() => if changed.is_err() { return Ok(()) },
            ended = tokio::signal::ctrl_c() => return ended.map_err(AppError::Start),
        }
    }
}

fn print_change(id: &NodeId, what: &str, format: Output) {
    let now = jiff::Zoned::now();
    output::line(&match format {
        Output::Table => format!("{} [{}] node [{id}] {what}", now.strftime("%Y/%m/%d %H:%M:%S"), id.service),
        Output::Json => serde_json::json!({
            "timeMs": now.timestamp().as_millisecond(), "service": id.service, "node": id.to_string(), "change": what
        })
        .to_string(),
    });
}

/// The one node that `wanted` names: all of `ip:rpc_ip:http`, `service/…`, or one of its addresses.
fn find(catalog: &Catalog, wanted: &str) -> Result<NodeId, AppError> {
    let (service, address) = wanted.split_once('/').map_or((None, wanted), |(service, node)| (Some(service), node));
    let is_meant = |node: &&Arc<Node>| {
        let id = &node.id;
        service.is_none_or(|service| id.service == service)
            && [id.to_string(), id.rpc.to_string(), id.http.to_string()].iter().any(|form| form == address)
    };
    let found: Vec<&Arc<Node>> = catalog.all().filter(is_meant).collect();
    match found.as_slice() {
        [node] => Ok(node.id.clone()),
        [] => Err(AppError::Unavailable(format!("no node `{wanted}`; `goms cluster nodes` lists them"))),
        several => {
            let names: Vec<String> = several.iter().map(|node| format!("{}/{}", node.id.service, node.id)).collect();
            Err(AppError::Unavailable(format!("`{wanted}` means several nodes: {}", names.join(", "))))
        }
    }
}

async fn rows(config: &Config, catalog: &Catalog, service: Option<&str>) -> Result<Vec<Row>, AppError> {
    if let Some(service) = service
        && catalog.nodes(service).is_empty()
    {
        let known: Vec<&str> = catalog.services().map(|(name, _)| name).collect();
        let known =
            if known.is_empty() { "the cluster is empty".to_owned() } else { format!("it has {}", known.join(", ")) };
        return Err(AppError::Unavailable(format!("no service `{service}` in the cluster; {known}")));
    }
    let wanted: Vec<&Arc<Node>> =
        catalog.all().filter(|node| service.is_none_or(|service| node.id.service == service)).collect();
    let loads = loads(config, wanted.iter().filter_map(|node| node.meta.admin).collect()).await;
    Ok(wanted
        .into_iter()
        .map(|node| {
            let load = loads.get(&(node.id.service.clone(), node.id.to_string()));
            Row {
                service: node.id.service.clone(),
                node: node.id.to_string(),
                address: node
                    .id
                    .http
                    .socket()
                    .or(node.id.rpc.socket())
                    .map_or_else(|| node.id.to_string(), |http| http.to_string()),
                state: node.state,
                version: node.meta.version.clone(),
                zone: node.meta.zone.clone(),
                started_ms: node.meta.started_ms,
                admin: node.meta.admin,
                in_flight: load.and_then(|load| load.in_flight),
                answered: load.and_then(|load| load.answered),
            }
        })
        .collect())
}

/// Asks each admin port for its nodes; one that does not answer (it is on loopback of another machine, say) is left out.
async fn loads(config: &Config, admins: BTreeSet<SocketAddr>) -> HashMap<(String, String), NodeReport> {
    let client = admin_client(config, ADMIN_TIMEOUT);
    let refused = RefCell::default();
    let ask = |admin: SocketAddr| {
        let (request, refused) = (client.get(format!("http://{admin}/api/nodes")).send(), &refused);
        async move {
            match request.await {
                Ok(answer) => match granted(admin, answer, refused) {
                    Some(mut answer) => answer.json::<Reported>().await.map(|told| told.nodes).unwrap_or_default(),
                    None => Vec::new(),
                },
                Err(error) => {
                    log::debug!("admin port does not answer address={admin} error={error}");
                    Vec::new()
                }
            }
        }
    };
    let answers = futures_util::future::join_all(admins.into_iter().map(ask)).await;
    warn_of_refusals(&refused.take());
    answers.into_iter().flatten().map(|report| ((report.service.clone(), report.node.clone()), report)).collect()
}

fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Ready => "ready",
        NodeState::Draining => "draining",
        NodeState::Stale => "stale",
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn count(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn plural(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

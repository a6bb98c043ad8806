//! Follows the programs behind nodes: a node is out while its program is down, and a changed file restarts one after the other.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, select_all};
use tokio::sync::watch;

use super::AppError;
use super::process::{NOTICE, Process};
use super::running::RunningNode;
use super::watch::Watch;
use crate::backoff::Backoff;
use crate::metrics::Load;
use crate::registry::{Catalog, NodeId};
use crate::service::{Program, ProgramState};

/// How long a node may take to leave or to be back before the next is restarted all the same.
const TURN_LIMIT: Duration = Duration::from_secs(10);
/// How often requests in flight are counted while they end.
const COUNT_EVERY: Duration = Duration::from_millis(20);

/// A program that this process runs or stands in front of.
pub struct Supervised {
    /// The service.
    pub service: String,
    /// `shop#1` beside others, else the service.
    pub name: String,
    /// The program.
    pub program: Program,
    /// The node in front of it; `None`: it is a node itself.
    pub node: Option<(NodeId, Load)>,
    /// Whether the node is in the registry.
    pub registered: watch::Sender<bool>,
    /// What restarts it, with the others of its service. As the files were before it started.
    pub watch: Cell<Option<Watch>>,
}

/// Follows all of them. Resolves when the one of a process that has `alone` nothing else is gone for good.
pub async fn supervise(process: &Process, nodes: &[RunningNode], programs: &[Supervised], alone: bool) -> AppError {
    let mut tasks: Vec<LocalBoxFuture<'_, AppError>> = Vec::new();
    for supervised in programs {
        let node = supervised.node.as_ref().and_then(|(id, _)| nodes.iter().find(|node| node.id == *id));
        tasks.push(Box::pin(async move {
            let error = keep(process, node, supervised).await;
            if !alone {
                log::error!("[{}] {error}; the others go on", supervised.name);
                return std::future::pending().await;
            }
            error
        }));
    }
    let mut groups: Vec<&str> = programs.iter().map(|each| each.service.as_str()).collect();
    groups.dedup();
    for service in groups {
        let group: Vec<&Supervised> = programs.iter().filter(|each| each.service == service).collect();
        // the files are the same for all of them
        if let Some(watch) = group.first().and_then(|first| first.watch.take()) {
            tasks.push(Box::pin(roll(process, group, watch)));
        }
    }
    match tasks.is_empty() {
        true => std::future::pending().await,
        false => select_all(tasks).await.0,
    }
}

/// Takes a node out while its program is down, and puts it back when it is up; resolves when it is gone for good.
async fn keep(process: &Process, node: Option<&RunningNode>, supervised: &Supervised) -> AppError {
    let name = &supervised.name;
    let mut state = supervised.program.state();
    let mut retry = Backoff::seeded(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        let now = state.borrow_and_update().clone();
        let registered = *supervised.registered.borrow();
        let done = match (now, node) {
            (ProgramState::Ended(why), node) => {
                if let Some(node) = node.filter(|_| registered) {
                    supervised.registered.send_replace(!process.leave(node).await);
                }
                return AppError::Unavailable(format!("the program of `{}` {why}", supervised.service));
            }
            (ProgramState::Down, Some(node)) if registered => {
                supervised.registered.send_replace(false);
                log::warn!("[{name}] the program is down, the node leaves until it is back");
                process.leave(node).await
            }
            (ProgramState::Held, Some(node)) if registered => {
                let left = process.leave(node).await;
                supervised.registered.send_replace(false);
                left
            }
            (ProgramState::Up, Some(node)) if !registered => {
                let back = process.come_back(node).await;
                supervised.registered.send_replace(back);
                back
            }
            _ => true,
        };
        let again = if done { Duration::MAX } else { retry.next_wait() };
        tokio::select! {
            changed = state.changed() => if changed.is_err() {
                return AppError::Unavailable(format!("the program of `{}` is not watched any more", supervised.service));
            },
            () = tokio::time::sleep(again) => {}
        }
    }
}

/// Restarts the instances of a service whenever its files change, one after the other.
async fn roll(process: &Process, mut group: Vec<&Supervised>, mut watch: Watch) -> AppError {
    loop {
        let file = watch.changed().await;
        // those that are out have nothing to lose
        group.sort_by_key(|each| *each.registered.borrow());
        let many = if group.len() > 1 { ", one after the other" } else { "" };
        log::info!("[{}] {} changed, restarting{many}", group[0].service, file.display());
        if let [only] = group.as_slice() {
            renew(process, only).await;
            continue;
        }
        for (turn, supervised) in group.iter().enumerate() {
            if !replace(process, supervised).await {
                if turn + 1 < group.len() {
                    log::warn!("[{}] the others stay as they were", supervised.name);
                }
                break;
            }
        }
    }
}

/// Restarts the only one, which nobody stands in for: the new one is there before the old one goes, or requests wait.
async fn renew(process: &Process, supervised: &Supervised) {
    let Supervised { name, program, node, .. } = supervised;
    let drain = process.config.node.drain_timeout;
    if !matches!(*program.state().borrow(), ProgramState::Up) {
        replace(process, supervised).await;
        return;
    }
    if !program.can_renew() && node.is_none() {
        // it leaves and drains on its own
        if replace(process, supervised).await {
            log::info!("[{name}] the program is new");
        }
        return;
    }
    if !program.can_renew() {
        // only one can have its port
        if program.restart_held(drain).await.is_ok() {
            log::info!("[{name}] the program is new, requests waited meanwhile");
        }
        return;
    }
    let Ok(url) = program.renew().await else {
        log::warn!(
            "[{name}] the one before goes on; if only one can run at a time (another port, a file), say `up.services.{}.beside: false`",
            supervised.service
        );
        return;
    };
    if let (None, Some(url)) = (node, url) {
        joined(process, &supervised.service, url.port()).await;
    }
    log::info!("[{name}] the program is new, the one before ends");
    if program.retire(drain).await.is_err() {
        log::warn!("[{name}] the one before cannot be ended, as the program is gone");
    }
}

/// Waits until the node of this service with this HTTP port of this machine is known to all.
async fn joined(process: &Process, service: &str, port: u16) {
    let mut catalog = process.registry.catalog();
    let (service, own) = (process.config.registry.service_name(service), process.advertised_ip());
    let is_it = |id: &NodeId| id.http.port == Some(port) && (id.http.ip == own || id.http.ip.is_loopback());
    let is_in = |known: &Option<Arc<Catalog>>| {
        known.as_ref().is_some_and(|known| known.nodes(&service).iter().any(|node| is_it(&node.id)))
    };
    if tokio::time::timeout(TURN_LIMIT, catalog.wait_for(is_in)).await.is_err() {
        log::warn!("the program on port {port} did not register as `{service}` within {TURN_LIMIT:?}");
    }
    tokio::time::sleep(NOTICE).await;
}

/// Restarts one, which first answers what it took. Returns whether it is up again.
async fn replace(process: &Process, supervised: &Supervised) -> bool {
    let Some((_, load)) = &supervised.node else {
        // it leaves and drains on its own
        let up = supervised.program.restart().await.is_ok();
        if up {
            tokio::time::sleep(NOTICE * 2).await;
        }
        return up;
    };
    let mut registered = supervised.registered.subscribe();
    supervised.program.hold();
    reached(&mut registered, false).await;
    tokio::time::sleep(NOTICE).await;
    let drained = async {
        while load.in_flight() > 0 {
            tokio::time::sleep(COUNT_EVERY).await;
        }
    };
    let limit = process.config.node.drain_timeout;
    if tokio::time::timeout(limit, drained).await.is_err() {
        log::warn!("[{}] restarted with requests unfinished after {limit:?}", supervised.name);
    }
    if supervised.program.restart().await.is_err() {
        return false; // it was told
    }
    if reached(&mut registered, true).await {
        tokio::time::sleep(NOTICE).await;
    }
    true
}

async fn reached(registered: &mut watch::Receiver<bool>, wanted: bool) -> bool {
    let turn = registered.wait_for(|is| *is == wanted);
    matches!(tokio::time::timeout(TURN_LIMIT, turn).await, Ok(Ok(_)))
}

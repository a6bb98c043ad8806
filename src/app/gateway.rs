//! The gateway role.

use super::desk::Desk;
use super::ports::{Ports, port_of};
use super::process::Process;
use super::rpc::Rpc;
use super::running::{RunningNode, Server};
use super::{AppError, reload};
use crate::balance::Balancer;
use crate::config::shown_routes;
use crate::dashboard;
use crate::gateway;
use crate::gateway::micro::Handler;
use crate::listener::{Doors, Tls};
use crate::upstream::HealthChecks;

/// The name under which gateways register.
pub const SERVICE: &str = "gateway";
/// The ports of a gateway that was not told any.
pub const DEFAULT_PORTS: (u16, u16) = (8080, 8180);

/// Listens; the node is not registered yet.
///
/// # Errors
/// When a listener cannot be used.
pub async fn listen(process: &Process, ports: Ports) -> Result<(RunningNode, crate::metrics::Load), AppError> {
    let id = process.identity(SERVICE, &ports)?;
    let settings = process.config.gateway.balance();
    let balancer = Balancer::start(process.registry.catalog(), settings, &process.metrics, &process.background);
    let load = crate::metrics::Load::default();
    let live = gateway::Live::new(process.config.gateway.clone(), &process.metrics);
    let publishes = process.config.gateway.micro.as_ref().is_some_and(|micro| micro.handler == Handler::Event);
    let parts = gateway::Parts {
        live: live.clone(),
        balancer: balancer.clone(),
        catalog: process.registry.catalog(),
        broker: if publishes { Some(process.broker().await?) } else { None },
        recorder: process.recorder.clone(),
        origin: process.origin(&id),
        metrics: process.metrics.clone(),
        load: load.clone(),
        workers: process.config.node.workers,
    };
    let rpc_parts = parts.clone();
    let settings = &process.config.gateway;
    let tls = settings.tls.clone().map(|settings| Tls::open(settings, &process.metrics)).transpose();
    let tls = tls.map_err(|error| AppError::Part(Box::new(error)))?;
    let rpc_tls = tls.clone().filter(|_| settings.tls.as_ref().is_some_and(|tls| tls.rpc));
    let told = told(&ports)?;
    let doors = Doors {
        http: ports.http,
        https: ports.https.zip(tls.clone()),
        file: ports.file,
        proxies: settings.proxy_protocol.then(|| settings.trusted_proxies.clone()),
    };
    let running = gateway::serve(doors, parts).map_err(|error| AppError::Part(Box::new(error)))?;
    if let Some(tls) = &tls {
        tls.follow(&process.background);
    }
    if process.reload.as_ref().is_some_and(|reload| reload.only_signs) {
        let shown = live.clone();
        process.admin.tell_signing_keys(move || shown.settings().call_keys);
    }
    let checks = HealthChecks::default();
    checks.configure(settings.health(), settings.call_keys.first().cloned());
    checks.start(balancer.clone(), &process.background);
    let shown = live.clone();
    let (nodes, asked) = (balancer.clone(), live.clone());
    let file = process.config.file.as_ref();
    let desk = Desk {
        live: live.clone(),
        balancer: balancer.clone(),
        catalog: process.registry.catalog(),
        metrics: process.metrics.clone(),
    };
    process.dashboard.follow_settings(move || asked.settings());
    process.dashboard.set_gateway(dashboard::Gateway {
        balance: Box::new(move || nodes.view()),
        rpc: desk.rpc(),
        config: file.map_or_else(|| "the built-in config".to_owned(), |file| file.display().to_string()),
    });
    process.admin.set_routes(move || serde_json::to_value(shown_routes(&shown.settings())).unwrap_or_default());
    reload::follow(process, Some(reload::Front { live, balancer, checks, tls }))?;
    let rpc = Rpc::serve_gateway(ports.rpc, SERVICE, (rpc_parts, rpc_tls)).await?;
    log::info!("[{SERVICE}] Http Listen on port: {}", id.http.port.unwrap_or(0));
    for line in told {
        log::info!("{line}");
    }
    Ok((RunningNode { id, rpc, server: Server::Http(running) }, load))
}

/// Where it listens besides.
fn told(ports: &Ports) -> Result<Vec<String>, AppError> {
    let mut told = Vec::new();
    if let Some(listener) = &ports.https {
        told.push(format!("[{SERVICE}] Https Listen on port: {}", port_of(listener)?));
    }
    if let Some(file) = &ports.file {
        told.push(format!("[{SERVICE}] Http Listen on socket: {}", file.path().display()));
    }
    Ok(told)
}

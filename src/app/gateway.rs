//! The gateway role.

use super::ports::Ports;
use super::process::{Process, RunningNode, Server};
use super::rpc::Rpc;
use super::{AppError, reload};
use crate::balance::Balancer;
use crate::gateway;

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
    let parts = gateway::Parts {
        live: live.clone(),
        balancer: balancer.clone(),
        catalog: process.registry.catalog(),
        recorder: process.recorder.clone(),
        origin: process.origin(&id),
        metrics: process.metrics.clone(),
        load: load.clone(),
        workers: process.config.node.workers,
    };
    let running = gateway::serve(ports.http, parts).map_err(|error| AppError::Part(Box::new(error)))?;
    reload::follow(process, live, balancer)?;
    let rpc = Rpc::serve(ports.rpc, SERVICE, &process.background).await?;
    log::info!("[{SERVICE}] Http Listen on port: {}", id.http.port.unwrap_or(0));
    Ok((RunningNode { id, rpc, server: Server::Http(running) }, load))
}

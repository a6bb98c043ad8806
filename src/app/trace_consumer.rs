//! The trace consumer role.

use super::ports::Ports;
use super::process::Process;
use super::rpc::Rpc;
use super::running::{RunningNode, Server};
use super::{AppError, own};
use crate::consumer;
use crate::registry::{Catalog, NodeState};
use crate::service::Service;
use crate::store;

/// The name under which trace consumers register, as the originals spell it.
pub use crate::trace::transport::CONSUMER_SERVICE as SERVICE;

/// `ip:port` of the consumers that can be asked for what they store.
#[must_use]
pub fn readable(catalog: &Catalog) -> Vec<String> {
    let nodes = catalog.nodes(SERVICE).iter();
    let answering = nodes.filter(|node| node.meta.takes_events && node.state != NodeState::Draining);
    answering.filter_map(|node| node.id.http.socket()).map(|address| address.to_string()).collect()
}

/// Opens the store and takes events; the node is not registered yet.
///
/// # Errors
/// When the store is in use or a listener cannot be used.
pub async fn listen(process: &Process, ports: Ports) -> Result<RunningNode, AppError> {
    let id = process.identity(SERVICE, &ports)?;
    let spans = ports.spans(process.advertised_ip())?;
    let own = own::follow(process.registry.catalog(), &process.background);
    let listeners = consumer::Listeners { events: Some(ports.http), otlp: ports.otlp, zipkin: ports.zipkin, own };
    let store = store::open(&process.config.store, &process.background, &process.metrics)
        .map_err(|error| AppError::Part(Box::new(error)))?;
    process.dashboard.set_store(store.clone());
    let running = consumer::start(&process.config.consumer, store, listeners, &process.metrics, &process.background)
        .map_err(|error| AppError::Part(Box::new(error)))?;
    for (protocol, url) in spans {
        log::info!("[{SERVICE}] takes spans protocol={protocol} url={url}");
    }
    let parts = process.service_parts(&id, &crate::metrics::Load::default(), 1, None);
    let rpc = Rpc::serve(ports.rpc, Service::new(SERVICE), (parts, None)).await?;
    Ok(RunningNode { id, rpc, server: Server::Consumer(running) })
}

//! The listening side: what each worker thread has at hand.

use std::rc::Rc;
use std::sync::Arc;

use super::live::Live;
use super::pipeline::{self, Worker};
use super::rpc::Directory;
use crate::balance::Balancer;
use crate::broker::Broker;
use crate::drain::{Running, Traffic};
use crate::listener::{self, Doors};
use crate::metrics::{Load, Metrics};
use crate::registry::CatalogWatch;
use crate::trace::{Origin, Recorder};
use crate::upstream::Upstream;

/// What a gateway is made of.
#[derive(Clone)]
pub struct Parts {
    /// Routes, keys, limits.
    pub live: Live,
    /// Chooses nodes, and tells `/cluster`.
    pub balancer: Arc<Balancer>,
    /// Tells "no node" from "not known yet".
    pub catalog: CatalogWatch,
    /// Where handler `event` publishes.
    pub broker: Option<Arc<dyn Broker>>,
    /// Takes the events.
    pub recorder: Recorder,
    /// Who this gateway is in its events.
    pub origin: Arc<Origin>,
    /// Where its instruments are.
    pub metrics: Metrics,
    /// Counts the requests of this node.
    pub load: Load,
    /// Worker threads, at least 1.
    pub workers: usize,
}

/// Why a gateway cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The socket cannot be used.
    #[error("cannot serve on this socket")]
    Listen(#[source] std::io::Error),
}

/// Serves on these doors until [`Running::stop`]. Must be called within a tokio runtime.
///
/// # Errors
/// [`GatewayError::Listen`] when a socket cannot be used.
pub fn serve(doors: impl Into<Doors>, parts: Parts) -> Result<Running, GatewayError> {
    let Parts { live, balancer, catalog, broker, recorder, origin, metrics, load, workers } = parts;
    let limits = live.settings().limits;
    let limits = listener::Limits {
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        send_timeout: limits.send_timeout,
        connections: limits.connections,
    };
    let traffic = Traffic::new(load);
    let (name, shared, counted) = (origin.service_name.clone(), traffic.clone(), metrics.clone());
    let app = move || {
        let worker = Rc::new(Worker {
            view: live.view(),
            balancer: balancer.clone(),
            upstream: Upstream::new(balancer.clone(), &origin.service_name, &metrics).with_schemas(live.schemas()),
            recorder: recorder.clone(),
            origin: origin.clone(),
            directory: Directory::new(catalog.clone(), &metrics),
            catalog: catalog.clone(),
            broker: broker.clone(),
            traffic: shared.clone(),
        });
        move |request, payload| pipeline::run(worker.clone(), request, payload)
    };
    listener::serve(&name, doors.into(), limits, workers, (traffic, &counted), app).map_err(GatewayError::Listen)
}

//! The listening side: worker threads, and an end that cuts nobody off.

use std::any::Any;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Extensions;
use actix_web::{App, HttpRequest, HttpServer, web};

use super::live::Live;
use super::pipeline::{self, Worker};
use crate::balance::Balancer;
use crate::drain::{NO_LIMIT_SECS, Running, Traffic};
use crate::metrics::{Load, Metrics};
use crate::registry::CatalogWatch;
use crate::trace::{Origin, Recorder};
use crate::upstream::Upstream;

/// How long a client may take to read what it was refused while it still sends.
const LINGER: Duration = Duration::from_secs(5);
/// What a gateway is made of.
pub struct Parts {
    /// Routes, keys, limits.
    pub live: Live,
    /// Chooses nodes, and tells `/cluster`.
    pub balancer: Arc<Balancer>,
    /// Tells "no node" from "not known yet".
    pub catalog: CatalogWatch,
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

/// Serves on `listener` until [`Running::stop`]. Must be called within a tokio runtime.
///
/// # Errors
/// [`GatewayError::Listen`] when the socket cannot be used.
pub fn serve(listener: TcpListener, parts: Parts) -> Result<Running, GatewayError> {
    let kept = listener.try_clone().map_err(GatewayError::Listen)?;
    let Parts { live, balancer, catalog, recorder, origin, metrics, load, workers } = parts;
    let limits = live.settings().limits;
    let traffic = Traffic::new(load);
    let (name, shared, counted) = (origin.service_name.clone(), traffic.clone(), traffic.clone());
    let server = HttpServer::new(move || {
        let worker = Rc::new(Worker {
            view: live.view(),
            balancer: balancer.clone(),
            upstream: Upstream::new(balancer.clone(), &origin.service_name, &metrics),
            recorder: recorder.clone(),
            origin: origin.clone(),
            catalog: catalog.clone(),
            traffic: shared.clone(),
        });
        App::new().default_service(web::to(move |request: HttpRequest, payload: web::Payload| {
            pipeline::run(worker.clone(), request, payload.into_inner())
        }))
    })
    .on_connect(move |_: &dyn Any, connection: &mut Extensions| {
        connection.insert(counted.connected());
    })
    .workers(workers.max(1))
    .max_connections(limits.connections)
    .client_request_timeout(limits.header_timeout)
    .client_disconnect_timeout(LINGER)
    .keep_alive(limits.idle_timeout)
    .tcp_nodelay(true)
    .shutdown_timeout(NO_LIMIT_SECS)
    .disable_signals()
    .listen(listener)
    .map_err(GatewayError::Listen)?
    .run();
    Running::start(&name, kept, server, traffic).map_err(GatewayError::Listen)
}

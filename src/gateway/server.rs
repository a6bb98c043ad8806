//! The listening side: worker threads, and an end that cuts nobody off.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpServer, web};
use tokio::time::Instant;

use super::Settings;
use super::pipeline::{self, Worker};
use super::route::Routes;
use crate::balance::Balancer;
use crate::metrics::{Load, Metrics};
use crate::registry::CatalogWatch;
use crate::shutdown::Shutdown;
use crate::trace::{Origin, Recorder};
use crate::upstream::Upstream;

/// How long a client may take to read what it was refused while it still sends.
const LINGER: Duration = Duration::from_secs(5);
/// No request for so long: the clients that were busy have been told to close.
const QUIET: Duration = Duration::from_millis(50);
/// At most so long are busy clients waited for before idle connections are closed.
const WIND_DOWN: Duration = Duration::from_secs(2);
/// actix-server's own limit, longer than any drain: [`Running::stop`] keeps the time.
const NO_LIMIT_SECS: u64 = 24 * 3600;

/// What a gateway is made of.
pub struct Parts {
    /// Routes, keys, limits.
    pub settings: Arc<Settings>,
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

/// A gateway that serves.
pub struct Running {
    address: SocketAddr,
    handle: ServerHandle,
    listener: TcpListener,
    load: Load,
    draining: Arc<AtomicBool>,
    tasks: Shutdown,
}

/// Serves on `listener` until [`Running::stop`]. Must be called within a tokio runtime.
///
/// # Errors
/// [`GatewayError::Listen`] when the socket cannot be used.
pub fn serve(listener: TcpListener, parts: Parts) -> Result<Running, GatewayError> {
    let address = listener.local_addr().map_err(GatewayError::Listen)?;
    let kept = listener.try_clone().map_err(GatewayError::Listen)?;
    let (tasks, draining) = (Shutdown::new(), Arc::new(AtomicBool::new(false)));
    let Parts { settings, balancer, catalog, recorder, origin, metrics, load, workers } = parts;
    let routes = Arc::new(Routes::new(&settings, &metrics));
    let limits = settings.limits.clone();
    let (worker_load, worker_draining) = (load.clone(), draining.clone());
    let server = HttpServer::new(move || {
        let worker = Rc::new(Worker {
            settings: settings.clone(),
            routes: routes.clone(),
            balancer: balancer.clone(),
            upstream: Upstream::new(balancer.clone(), settings.call_keys.first().map(String::as_str), &metrics),
            recorder: recorder.clone(),
            origin: origin.clone(),
            load: worker_load.clone(),
            catalog: catalog.clone(),
            draining: worker_draining.clone(),
        });
        App::new().default_service(web::to(move |request: HttpRequest, payload: web::Payload| {
            pipeline::run(worker.clone(), request, payload.into_inner())
        }))
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
    let handle = server.handle();
    let forced = tasks.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = forced.begun() => {} // dropping a server ends its workers, whatever they do
            ended = server => if let Err(error) = ended {
                log::error!("http server ended by itself: {error}");
            },
        }
    });
    Ok(Running { address, handle, listener: kept, load, draining, tasks })
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it: takes no new connection, tells the clients of the others to close with their next answer, finishes what
    /// runs, closes what is idle. Returns after `drain` at the latest.
    pub async fn stop(self, drain: Duration) {
        let deadline = Instant::now() + drain;
        self.draining.store(true, Ordering::Relaxed);
        // Connections that the kernel has accepted already are taken; from here on a connect is refused.
        self.handle.pause().await;
        if let Err(error) = socket2::SockRef::from(&self.listener).shutdown(std::net::Shutdown::Read) {
            log::debug!("cannot shut the listening socket: {error}");
        }
        self.wind_down(deadline.min(Instant::now() + WIND_DOWN)).await;
        let finished = tokio::time::timeout_at(deadline, self.handle.stop(true)).await.is_ok();
        if !finished {
            log::warn!("drain ended with requests unfinished in_flight={}", self.load.in_flight());
            self.tasks.begin();
        }
        if !self.tasks.finished(LINGER).await {
            log::warn!("http server did not end");
        }
    }

    /// Waits until nothing is in flight and nothing came for a moment.
    async fn wind_down(&self, limit: Instant) {
        let taken_now = || self.load.answered() + self.load.in_flight();
        let (mut taken, mut since) = (taken_now(), Instant::now());
        while Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let now = taken_now();
            if now != taken || self.load.in_flight() > 0 {
                (taken, since) = (now, Instant::now());
            } else if since.elapsed() >= QUIET {
                return;
            }
        }
    }
}

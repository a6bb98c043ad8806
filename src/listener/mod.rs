//! THE DOORSTEP: from an accepted socket to requests.
//!
//! May import: `metrics`, `shutdown`, `trust`, `drain`, `causes`, `timer`, `framing`.
//!
//! [`serve`] listens. A connection's way: `accept` (PROXY header → TLS → which HTTP) → `http1` or `http2`. Both read and write
//! through a `connection`, which ends what a client does not take, and both hand each request, as [`Incoming`], to the same
//! function. [`Peer`] tells who is at the other end; `tls` holds certificates and changes them while connections go on;
//! `networks` says whom to believe.

mod accept;
mod certificate;
mod connection;
mod http1;
mod http2;
mod incoming;
mod instruments;
mod networks;
mod peer;
mod proxy_protocol;
mod socket_file;
mod tls;

pub use incoming::Incoming;
pub use networks::{Network, Networks};
pub use peer::Peer;
pub use socket_file::{SocketFile, SocketFileError};
pub use tls::{CertificateFiles, ClientAuth, HTTPS_PORT, Tls, TlsError, TlsSettings, ToHttps};

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::{Payload, Response};
use actix_server::GracefulShutdownSignal;
use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};

use self::instruments::Instruments;
use crate::drain::{self, Running, Traffic};
use crate::metrics::Metrics;

/// A client that was silent for so long is asked whether it is there, by TCP; as nginx's `so_keepalive=60s:10s:3` would.
const PROBED_AFTER: Duration = Duration::from_secs(60);
const PROBED_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// How long a client may take to read what it was refused while it still sends.
const LINGER: Duration = Duration::from_secs(5);

/// What a connection may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a client may take for a request's head, and before the first one for the PROXY header and TLS together.
    pub header_timeout: Duration,
    /// How long a connection may idle between requests.
    pub idle_timeout: Duration,
    /// How long a client may take none of what is there for it.
    pub send_timeout: Duration,
    /// Connections a worker.
    pub connections: usize,
}

/// Where a server listens. All serve the same application.
#[derive(Debug)]
pub struct Doors {
    /// Plain HTTP; the address that others are told.
    pub http: TcpListener,
    /// HTTP over TLS.
    pub https: Option<(TcpListener, Tls)>,
    /// Plain HTTP on a Unix socket.
    pub file: Option<SocketFile>,
    /// Connections to the ports begin with a PROXY header, which only these may send; `None`: they begin with HTTP or TLS.
    pub proxies: Option<Networks>,
}

impl From<TcpListener> for Doors {
    fn from(http: TcpListener) -> Self {
        Self { http, https: None, file: None, proxies: None }
    }
}

/// What the workers share.
#[derive(Clone)]
struct Shared {
    limits: Limits,
    tls: Option<Tls>,
    proxies: Option<Arc<Networks>>,
    traffic: Arc<Traffic>,
    instruments: Instruments,
    stopping: GracefulShutdownSignal,
}

/// What answers requests.
trait Answers: 'static {
    /// Answers one. Dropped when its client is gone.
    fn answer(&self, request: Incoming, payload: Payload) -> impl Future<Output = Response<BoxBody>> + 'static;
}

impl<A, R> Answers for A
where
    A: Fn(Incoming, Payload) -> R + 'static,
    R: Future<Output = HttpResponse<BoxBody>> + 'static,
{
    fn answer(&self, request: Incoming, payload: Payload) -> impl Future<Output = Response<BoxBody>> + 'static {
        let answering = self(request, payload);
        async move { answering.await.into() }
    }
}

/// Serves requests with what `app` makes, once a worker and door, until [`Running::stop`]. Must be called within a tokio
/// runtime. `name` is for the log.
///
/// # Errors
/// When a socket cannot be used.
pub fn serve<F, A, R>(
    name: &str,
    doors: Doors,
    limits: Limits,
    workers: usize,
    counts: (Arc<Traffic>, &Metrics),
    app: F,
) -> io::Result<Running>
where
    F: Fn() -> A + Clone + Send + 'static,
    A: Fn(Incoming, Payload) -> R + 'static,
    R: Future<Output = HttpResponse<BoxBody>> + 'static,
{
    let Doors { http, https, file, proxies } = doors;
    for listener in [Some(&http), https.as_ref().map(|(listener, _)| listener)].into_iter().flatten() {
        notice_absence(listener);
    }
    let (traffic, instruments) = (counts.0, Instruments::new(counts.1));
    let address = http.local_addr()?;
    let mut builder = drain::builder(workers, limits.connections);
    let stopping = builder.graceful_shutdown_signal();
    let (proxies, counted) = (proxies.map(Arc::new), traffic.clone());
    let shared = Shared { limits, tls: None, proxies, traffic: counted, instruments, stopping };
    let mut sockets = vec![http.try_clone()?.into()];
    let (plain, make) = (shared.clone(), app.clone());
    builder = builder.listen("http", http, move || accept::door::<TcpStream, _, _, _>(&make, &plain))?;
    if let Some((listener, tls)) = https {
        sockets.push(listener.try_clone()?.into());
        let (secure, make) = (Shared { tls: Some(tls), ..shared.clone() }, app.clone());
        builder = builder.listen("https", listener, move || accept::door::<TcpStream, _, _, _>(&make, &secure))?;
    }
    let mut kept = None;
    if let Some(file) = file {
        sockets.push(file.listener().try_clone()?.into());
        let (local, listener) = (Shared { proxies: None, ..shared }, file.listener().try_clone()?);
        builder =
            builder.listen_uds("http socket", listener, move || accept::door::<UnixStream, _, _, _>(&app, &local))?;
        kept = Some(file);
    }
    Ok(Running::on(name, address, sockets, builder.run(), traffic).keeping(kept))
}

/// Has a client noticed whose machine is gone while its answer stands still: connections have this of their listener.
fn notice_absence(listener: &TcpListener) {
    let probes = TcpKeepalive::new().with_time(PROBED_AFTER).with_interval(PROBED_EVERY).with_retries(PROBES);
    if let Err(error) = SockRef::from(listener).set_tcp_keepalive(&probes) {
        log::debug!("cannot have clients noticed that are silently gone: {error}");
    }
}

/// The address that stands for one of this machine's own: a client on a Unix socket has none.
pub const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_probed_as_its_listener_was_told() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        notice_absence(&listener);
        let client = std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (accepted, _) = listener.accept().expect("accepted");
        let socket = SockRef::from(&accepted);
        assert!(socket.keepalive().expect("told"));
        assert_eq!(socket.tcp_keepalive_time().expect("told"), PROBED_AFTER);
        drop(client);
    }
}

//! Connections of HTTP/2, which many calls share. A worker has one to a node, and more where that node takes no more streams
//! on it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};
use h2_v4::client::{Builder, SendRequest};
use http_v1::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::registry::Node;
use crate::rpc::keepalive::{self, Keepalive};
use crate::upstream::http1::Secure;
use crate::upstream::mucp::bridge;
use crate::upstream::{ClientTls, Policy};

/// How much of a stream a node may send before it was read, and of all streams of a connection together.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// How much of a stream may wait for the node.
const SEND_BUFFER: usize = 256 << 10;
/// Bytes of an answer's head, and of its trailers.
const HEAD: u32 = 64 << 10;
/// As on the RPC port: small frames that wait for a slow reader are not an attack.
const FRAME_BUDGET: usize = 8 << 20;
/// Connections of a worker to one node at most; each bears what the node allows, 100 streams or more.
const CONNECTIONS: usize = 16;
/// How often connections that are idle for too long are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// A peer that does not even acknowledge for so long is gone (its machine is).
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The node has no RPC port.
    #[error("it has no rpc port")]
    NoPort,
    /// Nobody listens there, or it cannot be reached.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// It took too long.
    #[error("cannot connect within {0:?}")]
    Timeout(Duration),
    /// Each connection to it has as many streams as the node takes.
    #[error("it takes no more calls, and none ended within {0:?}")]
    Full(Duration),
    /// It does not speak HTTP/2, or takes no more calls.
    #[error("no stream of http/2")]
    Http2(#[source] h2_v4::Error),
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::upstream) enum Place {
    /// An address.
    Plain(SocketAddr),
    /// An address that is called by TLS.
    Secure(Arc<Secure>),
}

impl Place {
    /// That of a node which listens at `address`.
    pub fn of(node: &Node, address: SocketAddr, tls: Option<&ClientTls>) -> Result<Self, Arc<ConnectError>> {
        let Some(tls) = tls else { return Ok(Self::Plain(address)) };
        let name = tls.name_of(node).ok_or_else(|| {
            let why = "its host is no name that a certificate could have";
            Arc::new(ConnectError::Connect(io::Error::new(io::ErrorKind::InvalidInput, why)))
        })?;
        Ok(Self::Secure(Arc::new(Secure { address, name, config: tls.rpc.clone() })))
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Plain(address) => *address,
            Self::Secure(secure) => secure.address,
        }
    }
}

type Connecting = Shared<LocalBoxFuture<'static, Result<Rc<Connection>, Arc<ConnectError>>>>;

/// The connections of one worker.
pub(in crate::upstream) struct Pool {
    idle: Duration,
    kept: RefCell<HashMap<Place, Vec<Rc<Connection>>>>,
    connecting: RefCell<HashMap<Place, Connecting>>,
}

/// A connection.
struct Connection {
    sender: SendRequest<Bytes>,
    authority: Authority,
    is_tls: bool,
    streams: Rc<Cell<usize>>,
    is_closed: Cell<bool>,
    used: Cell<Instant>,
}

/// The right to one stream of a connection; the stream counts until this is dropped.
pub struct Lease {
    connection: Rc<Connection>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Lease").field("to", &self.connection.authority).finish_non_exhaustive()
    }
}

impl Lease {
    fn new(connection: Rc<Connection>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self { connection }
    }

    /// Whom it is to.
    pub(super) fn authority(&self) -> &Authority {
        &self.connection.authority
    }

    /// Whether it is by TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.connection.is_tls
    }

    /// Nothing comes over this connection any more: the next call gets another.
    pub(super) fn give_up(&self) {
        self.connection.is_closed.set(true);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.streams.set(connection.streams.get().saturating_sub(1));
        connection.used.set(Instant::now());
    }
}

impl Connection {
    fn has_room(&self) -> bool {
        self.streams.get() < self.sender.current_max_send_streams()
    }
}

impl Pool {
    /// An empty pool: an unused connection is kept for `idle`. Must be called within a `LocalSet`, as on actix's threads.
    #[expect(clippy::disallowed_methods, reason = "it ends with its pool, and no end of a process has to wait for it")]
    pub fn new(idle: Duration) -> Rc<Self> {
        let pool = Rc::new(Self { idle, kept: RefCell::default(), connecting: RefCell::default() });
        drop(tokio::task::spawn_local(sweep(Rc::downgrade(&pool))));
        pool
    }

    /// A place for a stream on a connection to `place`, and what begins it.
    ///
    /// # Errors
    /// [`ConnectError`]: nothing was sent.
    pub async fn lease(
        self: &Rc<Self>,
        place: &Place,
        policy: &Policy,
    ) -> Result<(Lease, SendRequest<Bytes>), Arc<ConnectError>> {
        let timeout = policy.connect_timeout;
        let mut is_retry = false;
        loop {
            let (connection, is_new) = match self.usable(place) {
                Some(connection) => (connection, false),
                None => (self.connect(place, policy).await?, true),
            };
            let lease = Lease::new(connection);
            // where the node takes no more streams, it waits for one to end
            let ready = tokio::time::timeout(timeout, lease.connection.sender.clone().ready()).await;
            match ready {
                Ok(Ok(sender)) => return Ok((lease, sender)),
                Ok(Err(error)) if is_new && is_retry => return Err(Arc::new(ConnectError::Http2(error))),
                Ok(Err(_)) => lease.give_up(), // it was about to close, and no call was sent on it
                Err(_) => return Err(Arc::new(ConnectError::Full(timeout))),
            }
            is_retry |= is_new;
        }
    }

    /// The connection with the fewest streams, where there is one with room or there can be no further one.
    fn usable(&self, place: &Place) -> Option<Rc<Connection>> {
        let mut kept = self.kept.borrow_mut();
        let connections = kept.get_mut(place)?;
        connections.retain(|connection| !connection.is_closed.get());
        let found = connections.iter().min_by_key(|connection| connection.streams.get())?;
        (found.has_room() || connections.len() >= CONNECTIONS).then(|| found.clone())
    }

    /// A new connection; calls that ask for one at the same time get the same.
    async fn connect(self: &Rc<Self>, place: &Place, policy: &Policy) -> Result<Rc<Connection>, Arc<ConnectError>> {
        let known = self.connecting.borrow().get(place).cloned();
        let connecting = known.unwrap_or_else(|| {
            let connecting = self.begin(place.clone(), policy.connect_timeout, policy.keepalive);
            self.connecting.borrow_mut().insert(place.clone(), connecting.clone());
            connecting
        });
        connecting.await
    }

    /// Connects as a task of its own, since who asked first may not wait to the end.
    #[expect(clippy::disallowed_methods, reason = "it is bounded in time, and no end of a process has to wait for it")]
    fn begin(self: &Rc<Self>, place: Place, timeout: Duration, keepalive: Option<Keepalive>) -> Connecting {
        let pool = Rc::downgrade(self);
        let task = tokio::task::spawn_local(async move {
            let opened = tokio::time::timeout(timeout, open(&place, keepalive)).await;
            let opened = opened.unwrap_or(Err(ConnectError::Timeout(timeout))).map(Rc::new).map_err(Arc::new);
            if let Some(pool) = pool.upgrade() {
                pool.connecting.borrow_mut().remove(&place);
                if let Ok(connection) = &opened {
                    pool.kept.borrow_mut().entry(place).or_default().push(connection.clone());
                }
            }
            opened
        });
        let gone = || Err(Arc::new(ConnectError::Connect(io::ErrorKind::Interrupted.into())));
        task.map(move |opened| opened.unwrap_or_else(|_| gone())).boxed_local().shared()
    }
}

async fn open(place: &Place, keepalive: Option<Keepalive>) -> Result<Connection, ConnectError> {
    let address = place.address();
    let tcp = reach(address).await?;
    match place {
        Place::Plain(_) => begin_http2(tcp, (address, false), keepalive).await,
        Place::Secure(secure) => {
            let connector = TlsConnector::from(secure.config.clone());
            let tls = connector.connect(secure.name.clone(), tcp).await.map_err(ConnectError::Connect)?;
            begin_http2(tls, (address, true), keepalive).await
        }
    }
}

async fn reach(address: SocketAddr) -> Result<TcpStream, ConnectError> {
    let tcp = TcpStream::connect(address).await.map_err(ConnectError::Connect)?;
    if let Err(error) = tcp.set_nodelay(true) {
        log::debug!("cannot turn off Nagle's algorithm: {error}");
    }
    notice_absence(&tcp);
    Ok(tcp)
}

/// A call to a node of mucp, which gets a connection of its own, behind HTTP/2 in this process.
///
/// # Errors
/// [`ConnectError`]: nothing was sent.
pub(super) async fn bridged(
    place: &Place,
    node: &Arc<Node>,
    timeout: Duration,
) -> Result<(Lease, SendRequest<Bytes>), Arc<ConnectError>> {
    let address = place.address();
    let opened = async {
        let tcp = reach(address).await?;
        begin_http2(bridge::front(tcp, node.clone()), (address, false), None).await
    };
    let opened = tokio::time::timeout(timeout, opened).await.unwrap_or(Err(ConnectError::Timeout(timeout)));
    let connection = opened.map_err(Arc::new)?;
    let sender = connection.sender.clone();
    Ok((Lease::new(Rc::new(connection)), sender))
}

async fn begin_http2<T>(
    socket: T,
    (address, is_tls): (SocketAddr, bool),
    keepalive: Option<Keepalive>,
) -> Result<Connection, ConnectError>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEAD)
        .data_frame_budget(FRAME_BUDGET);
    let (sender, driver) = builder.handshake::<_, Bytes>(socket).await.map_err(ConnectError::Http2)?;
    let streams = Rc::new(Cell::new(0));
    drive(driver, (address, keepalive), streams.clone());
    let authority = Authority::try_from(address.to_string());
    let authority = authority.map_err(|_| ConnectError::Connect(io::ErrorKind::InvalidInput.into()))?;
    Ok(Connection { sender, authority, is_tls, streams, is_closed: Cell::new(false), used: Cell::new(Instant::now()) })
}

/// Reads and writes a connection until its last call is over and nobody holds it any more.
#[expect(clippy::disallowed_methods, reason = "it ends with its connection, which calls and the pool hold")]
fn drive<T: AsyncRead + AsyncWrite + Unpin + 'static>(
    mut driver: h2_v4::client::Connection<T>,
    (address, keepalive): (SocketAddr, Option<Keepalive>),
    streams: Rc<Cell<usize>>,
) {
    drop(tokio::task::spawn_local(async move {
        let pings = driver.ping_pong();
        tokio::select! {
            biased;
            ended = driver => {
                if let Err(error) = ended {
                    log::debug!("an rpc connection ended to={address} error=\"{error}\"");
                }
            }
            // without its driver a connection is over, and its calls with it
            () = keepalive::silence(keepalive, pings, || streams.get() > 0) => {
                log::warn!("a node answers no ping, its calls end to={address}");
            }
        }
    }));
}

/// A machine that is gone says nothing: the kernel asks now and then, and gives up in time.
fn notice_absence(tcp: &TcpStream) {
    let socket = socket2::SockRef::from(tcp);
    let asked = socket2::TcpKeepalive::new().with_time(UNACKNOWLEDGED).with_interval(Duration::from_secs(5));
    let mut told = socket.set_tcp_keepalive(&asked);
    #[cfg(target_os = "linux")]
    {
        told = told.and_then(|()| socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED)));
    }
    if let Err(error) = told {
        log::debug!("cannot watch an rpc connection: {error}");
    }
}

/// Lets connections go that nobody used for long, until the pool is gone.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.kept.borrow_mut().retain(|_, connections| {
            connections.retain(|kept| {
                !kept.is_closed.get() && (kept.streams.get() > 0 || kept.used.get().elapsed() < pool.idle)
            });
            !connections.is_empty()
        });
    }
}

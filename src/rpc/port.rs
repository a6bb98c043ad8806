//! The RPC port: HTTP/2 on a listening socket, from the accepted connection to calls.
//!
//! Calls are answered on actix-server's worker threads, each with an [`Answers`] of its own, so what answers may hold what is
//! bound to its thread (`upstream`). A connection and its calls are one task: when the connection is gone, so are they. The
//! end goes as with HTTP: busy clients get a GOAWAY with their next call, idle ones when their server stops.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_server::GracefulShutdownSignal;
use actix_service::{fn_factory, fn_service};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2_v4::RecvStream;
use h2_v4::server::{Builder, Connection, SendResponse};
use http_v1::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::foreign::{self, WithoutForeign};
use super::keepalive::{self, Keepalive};
use crate::drain::{self, Running, Traffic};
use crate::listener::Tls;

/// How much of a stream a caller may send before it was read, and of all streams of a connection together.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// How much of a stream may wait for the caller.
const SEND_BUFFER: usize = 256 << 10;
/// Bytes of a call's head: names, values and 32 for each field (RFC 9113 section 6.5.2).
const HEAD: u32 = 64 << 10;
/// What small frames that were not read yet may cost a connection, of h2's reckoning: its own default is that of a server
/// which reads at once, and ends a connection whose reader is slow.
const FRAME_BUDGET: usize = 8 << 20;
/// How long a client without a call may take to go once it was told to.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a port may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls at once on a connection.
    pub streams: u32,
    /// How long a client may take to begin HTTP/2.
    pub handshake_timeout: Duration,
    /// How long a connection may idle between calls.
    pub idle_timeout: Duration,
    /// Connections a worker.
    pub connections: usize,
    /// How a caller is noticed that is silently gone; `None`: by the kernel alone.
    pub keepalive: Option<Keepalive>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 1_000,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300), // clients of gRPC keep theirs for long
            connections: 25_000,
            keepalive: Some(Keepalive::SERVER),
        }
    }
}

/// A call that came.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request<RecvStream>,
    /// Where the answer goes.
    pub respond: SendResponse<Bytes>,
    /// Who is at the other end.
    pub peer: Option<SocketAddr>,
    /// Of a connection by TLS: as `Client-Cert` tells it (RFC 9440); empty where the caller showed none.
    pub certificate: Option<Rc<str>>,
}

/// What answers calls; a worker thread has one.
pub trait Answers: 'static {
    /// Answers a call to its end. Dropped when the caller or its connection is gone.
    fn answer(&self, call: Call) -> impl Future<Output = ()>;
}

/// Serves what `make` makes, once a worker, until [`Running::stop`]. Must be called within a tokio runtime; `name` is for the
/// log.
///
/// # Errors
/// When the socket cannot be used.
pub fn serve<A: Answers>(
    name: &str,
    listener: TcpListener,
    (limits, tls): (Limits, Option<Tls>),
    workers: usize,
    traffic: Arc<Traffic>,
    make: impl Fn() -> A + Clone + Send + 'static,
) -> io::Result<Running> {
    let kept = listener.try_clone()?;
    let mut builder = drain::builder(workers, limits.connections);
    let stopping = builder.graceful_shutdown_signal();
    let shared = Shared { limits, tls, traffic: traffic.clone(), stopping };
    builder = builder.listen("rpc", listener, move || {
        let (make, shared) = (make.clone(), shared.clone());
        fn_factory(move || {
            let worker = Rc::new((make(), shared.clone()));
            ready(Ok::<_, ()>(fn_service(move |socket: TcpStream| {
                let worker = worker.clone();
                async move {
                    open(socket, &worker.0, &worker.1).await;
                    Ok::<(), Infallible>(())
                }
            })))
        })
    })?;
    Running::start(name, kept, builder.run(), traffic)
}

/// What the workers share.
#[derive(Clone)]
struct Shared {
    limits: Limits,
    tls: Option<Tls>,
    traffic: Arc<Traffic>,
    stopping: GracefulShutdownSignal,
}

async fn open<A: Answers>(socket: TcpStream, answers: &A, shared: &Shared) {
    let _connected = shared.traffic.connected();
    let peer = socket.peer_addr().ok();
    if let Err(error) = socket.set_nodelay(true) {
        log::debug!("cannot turn off Nagle's algorithm: {error}");
    }
    match &shared.tls {
        None => begin(socket, (peer, None), answers, shared).await,
        Some(tls) => {
            let accepting = TlsAcceptor::from(tls.config()).accept(socket);
            let accepted = tokio::time::timeout(shared.limits.handshake_timeout, accepting).await;
            match accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(socket) => {
                    let shown = socket.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                    // RFC 8941 section 3.3.5: a byte sequence stands between colons
                    let shown = shown.map_or_else(String::new, |der| format!(":{}:", STANDARD.encode(der)));
                    begin(socket, (peer, Some(shown.into())), answers, shared).await;
                }
                Err(error) => log::debug!("no TLS on the rpc port client={peer:?} error=\"{error}\""),
            }
        }
    }
}

/// Who is at the other end, and its certificate.
type Peer = (Option<SocketAddr>, Option<Rc<str>>);

async fn begin<A, T>(socket: T, peer: Peer, answers: &A, shared: &Shared)
where
    A: Answers,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = builder(&shared.limits).handshake::<_, Bytes>(WithoutForeign::new(socket));
    let opened = {
        let _opening = shared.traffic.opening();
        tokio::select! {
            biased;
            opened = tokio::time::timeout(shared.limits.handshake_timeout, handshake) => opened,
            () = shared.stopping.notified() => return,
        }
    };
    match opened {
        Ok(Ok(http2)) => Box::pin(converse(http2, peer, answers, shared)).await,
        Ok(Err(error)) => log::debug!("no http/2 on the rpc port client={:?} error=\"{error}\"", peer.0),
        Err(_) => log::debug!("no http/2 on the rpc port in time client={:?}", peer.0),
    }
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEAD)
        .data_frame_budget(FRAME_BUDGET);
    builder
}

/// A connection to its end.
async fn converse<A, T>(mut http2: Connection<T, Bytes>, peer: Peer, answers: &A, shared: &Shared)
where
    A: Answers,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let idle_timeout = shared.limits.idle_timeout;
    let mut calls = FuturesUnordered::new();
    let mut stopping = pin!(shared.stopping.notified());
    let mut idle = pin!(tokio::time::sleep(idle_timeout));
    let mut is_ending = false;
    let is_busy = Cell::new(false);
    let pings = http2.ping_pong();
    let mut silence = pin!(keepalive::silence(shared.limits.keepalive, pings, || is_busy.get()));
    loop {
        tokio::select! {
            biased;
            Some(()) = calls.next(), if !calls.is_empty() => {}
            accepted = http2.accept() => match accepted {
                Some(Ok((mut request, respond))) => {
                    foreign::remove(request.headers_mut());
                    let (peer, certificate) = peer.clone();
                    calls.push(answer(Call { request, respond, peer, certificate }, answers));
                    is_busy.set(true);
                    if shared.traffic.is_draining() && !is_ending {
                        is_ending = true;
                        http2.graceful_shutdown();
                    }
                    continue;
                }
                Some(Err(error)) => return log::debug!("an rpc connection ended client={:?} error=\"{error}\"", peer.0),
                None => return,
            },
            () = &mut silence => return log::debug!("an rpc client answers no ping client={:?}", peer.0),
            () = &mut stopping, if !is_ending => {
                is_ending = true;
                http2.graceful_shutdown();
            }
            () = &mut idle, if calls.is_empty() => {
                if is_ending {
                    return;
                }
                is_ending = true;
                http2.graceful_shutdown();
            }
        }
        if calls.is_empty() {
            is_busy.set(false);
            let wait = if is_ending { FAREWELL } else { idle_timeout };
            idle.as_mut().reset(Instant::now() + wait);
        }
    }
}

/// One call, as long as its caller wants an answer.
async fn answer<A: Answers>(call: Call, answers: &A) {
    answers.answer(call).await;
}

/// Resolves when the caller wants no answer any more.
pub async fn gone(respond: &mut SendResponse<Bytes>) {
    // an error is a connection that has gone
    drop(poll_fn(|task| respond.poll_reset(task)).await);
}

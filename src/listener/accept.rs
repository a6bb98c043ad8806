//! From an accepted socket to a dispatcher of HTTP: PROXY header, TLS, and which version is spoken.

use std::future::{Future, ready};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use actix_http::Payload;
use actix_server::GracefulShutdownSignal;
use actix_service::{ServiceFactory, fn_factory, fn_service};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Buf;
use tokio_rustls::TlsAcceptor;

use super::connection::{Connection, Socket, Stream, Wire};
use super::incoming::Incoming;
use super::peer::Peer;
use super::proxy_protocol::{self, Header};
use super::{Answered, Shared, http1, http2};
use crate::causes::chain;

/// What HTTP/2 begins with (RFC 9113 section 3.4). No request of HTTP/1.1 does.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long ago a client has come whose request may be under way still.
const YOUNG: Duration = Duration::from_secs(1);

/// Why a connection did not come to speak HTTP.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("it broke")]
    Broken(#[from] io::Error),
    #[error("no TLS came of it")]
    Tls(#[source] io::Error),
    #[error("it took longer than `limits.headerTimeout`")]
    Late,
    #[error("{0}")]
    Proxy(&'static str),
    #[error("PROXY headers are taken from `trustedProxies` only")]
    NotTrusted,
}

/// What takes connections of one door, once a worker.
pub(super) fn door<W, F, A, R>(
    app: &F,
    shared: &Shared,
) -> impl ServiceFactory<W, Config = (), Response = (), Error = (), InitError = ()> + use<W, F, A, R>
where
    W: Into<Wire> + 'static,
    F: Fn() -> A,
    A: Fn(Incoming, Payload) -> R + 'static,
    R: Future<Output = Answered> + 'static,
{
    let (app, shared) = (Rc::new((app(), http1::Spare::default())), Rc::new(shared.clone()));
    fn_factory(move || {
        let (app, shared) = (app.clone(), shared.clone());
        ready(Ok::<_, ()>(fn_service::<_, _, _, _, _, ()>(move |socket: W| {
            let (app, shared) = (app.clone(), shared.clone());
            async move {
                let Some((connection, is_http2)) = Box::pin(open(socket.into(), &shared)).await else {
                    return Ok(());
                };
                let peer = connection.peer().clone();
                if is_http2 {
                    Box::pin(http2::serve(connection, &peer, &app.0, &shared)).await;
                } else {
                    Box::pin(http1::serve(connection, &peer, (&app.0, &app.1), &shared)).await;
                }
                Ok::<(), ()>(())
            }
        })))
    })
}

/// When a client that says nothing is let go at the end of a server: at once, but one that has only just come gets a
/// moment, for its request may be under way.
pub(super) async fn end_of_silence(stopping: GracefulShutdownSignal) {
    let came = tokio::time::Instant::now();
    stopping.notified().await;
    tokio::time::sleep_until(came + YOUNG).await;
}

/// Waits until a client speaks, and finds out how. `None`: it never came to HTTP.
async fn open(wire: Wire, shared: &Shared) -> Option<(Connection, bool)> {
    let connected = shared.traffic.connected();
    let address = match &wire {
        Wire::Tcp(socket) => {
            // small answers must not wait for each other's acknowledgement
            if let Err(error) = socket.set_nodelay(true) {
                log::debug!("cannot turn off Nagle's algorithm: {error}");
            }
            socket.peer_addr().ok()
        }
        Wire::Unix(_) => None,
    };
    let mut socket = Socket::new(wire);
    let deadline = tokio::time::Instant::now() + shared.limits.header_timeout;
    tokio::select! {
        biased;
        speaks = socket.speaks() => speaks.ok()?,
        () = end_of_silence(shared.stopping.clone()) => return None,
        () = tokio::time::sleep_until(deadline) => return None,
    }
    let _opening = shared.traffic.opening();
    let opened = async {
        let client = match &shared.proxies {
            Some(trusted) if !address.is_some_and(|address| trusted.hold(address.ip())) => {
                return Err(OpenError::NotTrusted);
            }
            Some(_) => told_by_proxy(&mut socket).await?.or(address),
            None => address,
        };
        match &shared.tls {
            Some(tls) => {
                let stream = TlsAcceptor::from(tls.config()).accept(socket).await.map_err(OpenError::Tls)?;
                let session = stream.get_ref().1;
                let is_http2 = session.alpn_protocol() == Some(b"h2");
                let certificate = session.peer_certificates().and_then(|chain| chain.first());
                // RFC 8941 section 3.3.5: a byte sequence stands between colons
                let certificate = certificate.map(|der| format!(":{}:", STANDARD.encode(der)));
                let counted = (connected, shared.instruments.opened(is_http2));
                let peer = Peer::new(client, true, certificate, counted);
                Ok((Connection::new(Stream::Tls(Box::new(stream)), peer, &shared.limits), is_http2))
            }
            None => {
                let is_http2 = begins_http2(&mut socket).await?;
                let counted = (connected, shared.instruments.opened(is_http2));
                let peer = Peer::new(client, false, None, counted);
                Ok((Connection::new(Stream::Plain(socket), peer, &shared.limits), is_http2))
            }
        }
    };
    match tokio::time::timeout_at(deadline, opened).await.unwrap_or(Err(OpenError::Late)) {
        Ok(opened) => Some(opened),
        Err(error) => {
            shared.instruments.refused(&error);
            let client = address.map_or_else(|| "unix".to_owned(), |address| address.to_string());
            log::debug!("a connection was not opened client={client} error=\"{}\"", chain(&error));
            None
        }
    }
}

/// Takes the PROXY header off; the client that it tells of.
async fn told_by_proxy(socket: &mut Socket) -> Result<Option<SocketAddr>, OpenError> {
    loop {
        match proxy_protocol::read(socket.ahead()).map_err(OpenError::Proxy)? {
            Header::Whole { length, client } => {
                socket.ahead().advance(length);
                return Ok(client);
            }
            Header::Partial => more(socket).await?,
        }
    }
}

/// Whether HTTP/2 is spoken with prior knowledge (RFC 9113 section 3.3).
async fn begins_http2(socket: &mut Socket) -> Result<bool, OpenError> {
    loop {
        let ahead = socket.ahead();
        let common = ahead.len().min(PREFACE.len());
        if ahead[..common] != PREFACE[..common] {
            return Ok(false);
        }
        if common == PREFACE.len() {
            return Ok(true);
        }
        more(socket).await?;
    }
}

async fn more(socket: &mut Socket) -> Result<(), OpenError> {
    match socket.read_ahead().await? {
        0 => Err(OpenError::Broken(io::ErrorKind::UnexpectedEof.into())),
        _ => Ok(()),
    }
}

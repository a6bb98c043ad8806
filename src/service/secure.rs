//! The HTTP port of a node that takes nothing but TLS: each connection is one of TLS first, then HTTP/1.1, which is all that ALPN
//! offers: as on the plain port, and bodies of HTTP/2 without a length would be none to who reads those of HTTP/1.1.
//! Certificates that change are those of the next connection.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use actix_http::{HttpService, Protocol};
use actix_service::{Service, ServiceFactory, ServiceFactoryExt, fn_factory, fn_service, map_config};
use actix_web::dev::AppConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Parts;
use super::server::{Shared, Target, app};
use crate::causes;
use crate::drain::{self, Running, Traffic};
use crate::listener::Tls;

/// What a connection is to the server behind TLS.
type Opened = (TlsStream<TcpStream>, Protocol, Option<SocketAddr>);

/// Serves `target` on a bound listener, by TLS alone, until [`Running::stop`].
///
/// # Errors
/// When the listener cannot be used.
pub(super) fn start(
    listener: TcpListener,
    name: &str,
    target: Target,
    (parts, tls): (Parts, Tls),
) -> io::Result<Running> {
    let (kept, address) = (listener.try_clone()?, listener.local_addr()?);
    let (limits, traffic) = (parts.limits.clone(), Traffic::new(parts.load.clone()));
    let mut builder = drain::builder(parts.workers, limits.connections);
    let stopping = builder.graceful_shutdown_signal();
    let shared = Shared { target, parts, traffic: traffic.clone() };
    let counted = traffic.clone();
    builder = builder.listen(name, listener, move || {
        let (stopping, ending) = (stopping.clone(), stopping.clone());
        let (tls, traffic, patience) = (tls.clone(), counted.clone(), limits.header_timeout);
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let signal = stopping.clone();
                async move { signal.notified().await }
            })
            .keep_alive(limits.idle_timeout)
            .client_request_timeout(limits.header_timeout)
            .local_addr(address);
        let served = actix_service::IntoServiceFactory::into_factory(app(&shared));
        let served = served.map_err(|error: actix_web::Error| error.error_response());
        let http = http.finish(map_config(served, |()| AppConfig::default()));
        fn_factory(move || {
            let made = ServiceFactory::<Opened>::new_service(&http, ());
            let (tls, traffic, ending) = (tls.clone(), traffic.clone(), ending.clone());
            async move {
                let http = Rc::new(made.await?);
                Ok::<_, ()>(fn_service(move |socket: TcpStream| {
                    let (http, tls, traffic, ending) = (http.clone(), tls.clone(), traffic.clone(), ending.clone());
                    async move {
                        let _connected = traffic.connected();
                        let opened = tokio::select! {
                            biased;
                            opened = open(socket, &tls, &traffic) => opened,
                            () = tokio::time::sleep(patience) => return Ok(()),
                            () = ending.notified() => return Ok(()), // it never asked for anything
                        };
                        let Some(opened) = opened else { return Ok(()) };
                        poll_fn(|task| Service::<Opened>::poll_ready(&*http, task)).await?;
                        http.call(opened).await
                    }
                }))
            }
        })
    })?;
    Running::start(name, kept, builder.run(), traffic)
}

/// `None`: it never came to HTTP.
async fn open(socket: TcpStream, tls: &Tls, traffic: &Arc<Traffic>) -> Option<Opened> {
    let peer = socket.peer_addr().ok();
    // small answers must not wait for each other's acknowledgement
    if let Err(error) = socket.set_nodelay(true) {
        log::debug!("cannot turn off Nagle's algorithm: {error}");
    }
    socket.readable().await.ok()?;
    let _opening = traffic.opening();
    let mut config = tls.config();
    Arc::make_mut(&mut config).alpn_protocols = vec![b"http/1.1".to_vec()];
    match TlsAcceptor::from(config).accept(socket).await {
        Ok(stream) => Some((stream, Protocol::Http1, peer)),
        Err(error) => {
            log::debug!("a connection was not opened client={peer:?} error=\"{}\"", causes::chain(&error));
            None
        }
    }
}

//! The HTTP port of a node that nodes of Go Micro's v4 and v5 call: streams of mucp have connections of their own there,
//! told by their first head; every other connection is HTTP's as anywhere.

use std::future::poll_fn;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;

use actix_http::HttpService;
use actix_service::{Service as _, ServiceFactory, ServiceFactoryExt, fn_factory, fn_service, map_config};
use actix_web::dev::{AppConfig, Extensions};
use tokio::net::TcpStream;

use super::rpc::{answers, mucp_stream};
use super::server::{Shared, Target, app};
use super::{Parts, ServeError, Service};
use crate::drain::{self, Running, Traffic};
use crate::rpc::MESSAGE_BYTES;

/// Serves a service's handlers and its methods by mucp on a bound listener until [`Running::stop`]. Must be called within a
/// tokio runtime; the node answers once this returns. It is plain: what nodes of Go Micro call is told by its first bytes.
///
/// # Errors
/// [`ServeError`] when the listener cannot be used.
pub fn serve_mucp(listener: TcpListener, service: Service, parts: Parts) -> Result<Running, ServeError> {
    let name = service.name().to_owned();
    start(listener, &name, Arc::new(service), parts).map_err(|source| ServeError { service: name, source })
}

fn start(listener: TcpListener, name: &str, service: Arc<Service>, parts: Parts) -> std::io::Result<Running> {
    let (kept, address) = (listener.try_clone()?, listener.local_addr()?);
    let (limits, traffic) = (parts.limits.clone(), Traffic::new(parts.load.clone()));
    let mut builder = drain::builder(parts.workers, limits.connections);
    let stopping = builder.graceful_shutdown_signal();
    let of_messages = mucp_stream::Limits {
        bytes: MESSAGE_BYTES.max(limits.body_bytes),
        head: limits.header_timeout,
        body: limits.body_timeout,
    };
    let target = Target::Handlers(service.clone());
    let shared = Shared { target, parts: parts.clone(), traffic: traffic.clone() };
    let counted = traffic.clone();
    builder = builder.listen(name, listener, move || {
        let (stopping, traffic, counted) = (stopping.clone(), counted.clone(), counted.clone());
        let ending = stopping.clone();
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let signal = stopping.clone();
                async move { signal.notified().await }
            })
            .keep_alive(limits.idle_timeout)
            .client_request_timeout(limits.header_timeout)
            .local_addr(address)
            .on_connect_ext(move |_: &TcpStream, connection: &mut Extensions| {
                connection.insert(counted.connected());
            });
        let served = actix_service::IntoServiceFactory::into_factory(app(&shared));
        let served = served.map_err(|error: actix_web::Error| error.error_response());
        let http = http.finish(map_config(served, |()| AppConfig::default())).tcp();
        let (service, parts, head_limit) = (service.clone(), parts.clone(), limits.header_timeout);
        fn_factory(move || {
            let made = http.new_service(());
            let methods = Rc::new((answers(&service, &parts, &traffic), traffic.clone()));
            let ending = ending.clone();
            async move {
                let http = Rc::new(made.await?);
                Ok::<_, ()>(fn_service(move |socket: TcpStream| {
                    let (http, methods, ending) = (http.clone(), methods.clone(), ending.clone());
                    async move {
                        let is_stream = tokio::select! {
                            biased;
                            is_stream = mucp_stream::is_one(&socket, head_limit) => is_stream,
                            () = ending.notified() => return Ok(()), // it never asked for anything
                        };
                        if is_stream {
                            let _connected = methods.1.connected();
                            mucp_stream::carry(socket, &methods.0, of_messages).await;
                            return Ok(());
                        }
                        poll_fn(|task| http.poll_ready(task)).await?;
                        http.call(socket).await
                    }
                }))
            }
        })
    })?;
    Running::start(name, kept, builder.run(), traffic)
}

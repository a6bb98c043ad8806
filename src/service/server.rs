//! The HTTP server of a service's node: one function in reading order, from a request to its answer.

use std::any::Any;
use std::net::TcpListener;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::{Extensions, Payload, ServiceFactory, ServiceRequest, ServiceResponse, fn_service};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use bytes::Bytes;
use futures_util::FutureExt;

use super::calls::{CallTable, Calls};
use super::context::{Asker, asker_of};
use super::forward::Forwarder;
use super::guard::Guard;
use super::observe::{Observed, Observer};
use super::program::Door;
use super::rpc::mucp;
use super::{Context, ServeError, Service, ServiceError, body, secure};
use crate::call_key::CallKeys;
use crate::drain::{NO_LIMIT_SECS, Running, Traffic};
use crate::listener::Tls;
use crate::metrics::{Load, Metrics};
use crate::rpc::{Keepalive, Status};
use crate::trace::{CALL_KEY_HEADER, Origin, Recorder, TraceBody, TraceContext};

/// What a node needs besides its service.
#[derive(Clone)]
pub struct Parts {
    /// Any of them opens the node; none: no guard.
    pub call_keys: CallKeys,
    /// Takes the trace events.
    pub recorder: Recorder,
    /// Which node they come from.
    pub origin: Arc<Origin>,
    /// Where the node's instruments are.
    pub metrics: Metrics,
    /// How handlers call other services; `None`: they cannot.
    pub calls: Option<CallTable>,
    /// Counts the requests of this node.
    pub load: Load,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Print one line a request.
    pub access_log: bool,
    /// What one request may use.
    pub limits: Limits,
    /// The HTTP port takes nothing but TLS, by this; `None`: it is plain.
    pub tls: Option<Tls>,
}

/// What a request to a service may use. Over a limit: the status beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body: 413.
    pub body_bytes: usize,
    /// How long a caller may take for the request's head: 408.
    pub header_timeout: Duration,
    /// How long a caller may take for the body: 408.
    pub body_timeout: Duration,
    /// How long a connection may idle between requests.
    pub idle_timeout: Duration,
    /// Connections a worker.
    pub connections: usize,
    /// How a caller by RPC is noticed that is silently gone; `None`: by the kernel alone.
    pub rpc_keepalive: Option<Keepalive>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 10 << 20,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75), // nginx's keepalive_timeout
            connections: 25_000,
            rpc_keepalive: Some(Keepalive::SERVER),
        }
    }
}

/// Serves a service's handlers on a bound listener until [`Running::stop`]. Must be called within a tokio runtime; the node
/// answers once this returns.
///
/// # Errors
/// [`ServeError`] when the listener cannot be used.
pub fn serve(listener: TcpListener, service: Service, parts: Parts) -> Result<Running, ServeError> {
    let name = service.name().to_owned();
    start(listener, &name, Target::Handlers(Arc::new(service)), parts)
}

/// What stands behind the guard.
#[derive(Clone)]
pub(super) enum Target {
    /// Handlers in this process.
    Handlers(Arc<Service>),
    /// A program in any language, and how long it may take for an answer's head.
    Program(Door, Duration),
}

pub(super) fn start(listener: TcpListener, name: &str, target: Target, parts: Parts) -> Result<Running, ServeError> {
    let bad = |source| ServeError { service: name.to_owned(), source };
    if let Some(tls) = parts.tls.clone() {
        return secure::start(listener, name, target, (parts, tls)).map_err(bad);
    }
    let kept = listener.try_clone().map_err(bad)?;
    let (limits, workers, traffic) = (parts.limits.clone(), parts.workers.max(1), Traffic::new(parts.load.clone()));
    let counted = traffic.clone();
    let shared = Shared { target, parts, traffic: traffic.clone() };
    let server = HttpServer::new(move || app(&shared))
        .on_connect(move |_: &dyn Any, connection: &mut Extensions| {
            connection.insert(counted.connected());
        })
        .workers(workers)
        .keep_alive(limits.idle_timeout)
        .client_request_timeout(limits.header_timeout)
        .max_connections(limits.connections)
        .shutdown_timeout(NO_LIMIT_SECS)
        .disable_signals()
        .listen(listener)
        .map_err(bad)?
        .run();
    Running::start(name, kept, server, traffic).map_err(bad)
}

/// What every worker is made of.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) parts: Parts,
    pub(super) traffic: Arc<Traffic>,
}

/// One worker thread's application.
pub(super) fn app(
    shared: &Shared,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<BoxBody>,
        Error = actix_web::Error,
        InitError = (),
    > + use<>,
> {
    let worker = Rc::new(Worker::new(shared));
    App::new().default_service(fn_service(move |request: ServiceRequest| {
        let worker = worker.clone();
        async move { Ok::<_, actix_web::Error>(worker.answer(request).await) }
    }))
}

/// One worker thread's state.
struct Worker {
    target: WorkerTarget,
    guard: Guard,
    observer: Rc<Observer>,
    calls: Option<Rc<Calls>>,
    traffic: Arc<Traffic>,
    limits: Limits,
}

enum WorkerTarget {
    Handlers(Arc<Service>),
    Program(Forwarder),
}

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Worker {
    fn new(shared: &Shared) -> Self {
        let parts = &shared.parts;
        let observer = Observer::new(parts.recorder.clone(), parts.origin.clone(), parts.access_log, &parts.metrics);
        Self {
            target: match &shared.target {
                Target::Handlers(service) => WorkerTarget::Handlers(service.clone()),
                Target::Program(door, timeout) => {
                    WorkerTarget::Program(Forwarder::new(door.clone(), &parts.origin.service_name, *timeout))
                }
            },
            guard: Guard::new(&parts.call_keys),
            observer: Rc::new(observer),
            calls: parts.calls.as_ref().map(|table| {
                Rc::new(Calls::new(table.clone(), &parts.origin.service_name, &parts.call_keys, &parts.metrics))
            }),
            traffic: shared.traffic.clone(),
            limits: parts.limits.clone(),
        }
    }

    /// One request: who is it → may it → what is asked → answer.
    async fn answer(&self, mut request: ServiceRequest) -> ServiceResponse<BoxBody> {
        let headers = request.headers();
        let mut trace = TraceContext::from_headers(
            headers.get(&REQUEST_ID).map(HeaderValue::as_bytes),
            headers.get(&TRACEPARENT).map(HeaderValue::as_bytes),
        );
        let observed = Observed::begin(
            &self.observer,
            self.traffic.load.enter(),
            &mut trace,
            request.method().as_str(),
            request.path(),
        );
        let admitted = self.guard.admits(headers);
        request.headers_mut().remove(CALL_KEY_HEADER);
        let (request, payload) = request.into_parts();
        let mut response = if admitted {
            match &self.target {
                WorkerTarget::Handlers(service) => self.handle(service, &request, payload, trace, observed).await,
                WorkerTarget::Program(program) => {
                    let asker = asker_of(&request, &self.guard);
                    let recorder = self.observer.recorder();
                    program.forward(&request, payload, recorder, trace, &asker, observed).await
                }
            }
        } else {
            let refused =
                ServiceError::new(403, "the `Call-Service-Key` is missing or wrong; call through the gateway");
            match (&self.target, mucp::endpoint(&request)) {
                (WorkerTarget::Handlers(service), Some(_)) => {
                    let status = Status::of_http(refused.status(), refused.message().to_owned());
                    let (status, response) = mucp::failure(service, &request, status);
                    observed.end(status);
                    response
                }
                _ => failure(&refused, trace, observed),
            }
        };
        if let Ok(id) = HeaderValue::from_str(&trace.request_id.to_string()) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        if self.traffic.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
        }
        ServiceResponse::new(request, response)
    }

    /// A call of Go Micro's v4 and v5.
    async fn handle_mucp(
        &self,
        service: &Service,
        request: &HttpRequest,
        endpoint: &str,
        read: Result<Bytes, ServiceError>,
        (trace, asker, mut observed): (TraceContext, Asker<'_>, Observed),
    ) -> HttpResponse {
        if observed.is_traced() {
            let shown = match &read {
                Ok(body) if body::check(body).is_ok() => TraceBody::Json(body.clone()),
                Ok(body) => TraceBody::Opaque(body.len() as u64),
                Err(_) => TraceBody::None,
            };
            observed.record_start(request_info(self.observer.recorder(), request, &asker, shown));
        }
        let context = Context::new(request.clone(), trace, asker.client, self.calls.clone());
        let (status, response) = match read {
            Ok(body) => mucp::answer(service, request, endpoint, body, context).await,
            Err(error) => mucp::failure(service, request, Status::of_http(error.status(), error.message().to_owned())),
        };
        observed.end(status);
        response
    }

    async fn handle(
        &self,
        service: &Service,
        request: &HttpRequest,
        mut payload: Payload,
        trace: TraceContext,
        mut observed: Observed,
    ) -> HttpResponse {
        let limits = &self.limits;
        let asker = asker_of(request, &self.guard);
        let read = body::read(request.headers(), &mut payload, limits.body_bytes, limits.body_timeout).await;
        if let Some(endpoint) = mucp::endpoint(request) {
            return self.handle_mucp(service, request, endpoint, read, (trace, asker, observed)).await;
        }
        let len = read.as_ref().map_or(0, Bytes::len) as u64;
        let json = read.and_then(|body| body::to_json(request.headers(), body));
        let recorder = self.observer.recorder();
        if observed.is_traced() {
            let shown = match &json {
                Ok(_) if len == 0 => TraceBody::None,
                Ok(json) => TraceBody::Json(json.clone()),
                Err(_) => TraceBody::Opaque(len),
            };
            observed.record_start(request_info(recorder, request, &asker, shown));
        }
        let outcome = match json.and_then(|json| service.find(request.path()).map(|handler| (json, handler))) {
            Ok((json, handler)) => {
                let context = Context::new(request.clone(), trace, asker.client, self.calls.clone());
                // a panic may come from the call itself or from any poll of what it returns
                let running = async { handler.call(context, &json).await };
                AssertUnwindSafe(running).catch_unwind().await.unwrap_or_else(|panic| {
                    let reason = panic_text(&*panic);
                    log::error!(
                        "a handler panicked path={} requestId={} reason={reason}",
                        request.path(),
                        trace.request_id
                    );
                    Err(ServiceError::new(500, "the handler failed; its log has the reason"))
                })
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(json) => {
                observed.end(200);
                HttpResponse::Ok().insert_header((CONTENT_TYPE, JSON)).body(json)
            }
            Err(error) => failure(&error, trace, observed),
        }
    }
}

/// The answer of an error.
pub(super) fn failure(error: &ServiceError, trace: TraceContext, observed: Observed) -> HttpResponse {
    observed.end(error.status());
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).insert_header((CONTENT_TYPE, JSON)).body(error.to_json(&trace.request_id.to_string()))
}

/// The lines of `tracestate` as they came.
pub(super) fn trace_lines(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(TRACESTATE).map(HeaderValue::as_bytes)
}

/// The request as its events show it.
pub(super) fn request_info(
    recorder: &Recorder,
    request: &HttpRequest,
    asker: &Asker<'_>,
    body: TraceBody,
) -> crate::trace::RequestInfo {
    let headers = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let (method, path, query) = (request.method().as_str(), request.path(), request.query_string());
    let mut info = recorder.request_info(method, path, query, asker.client.to_string(), headers, body);
    info.caller = asker.service.map(Box::from);
    info
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("not text")
}

//! The RPC port of a service: from a call to its answer, in reading order.

use std::net::TcpListener;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use h2_v4::RecvStream;
use h2_v4::server::SendResponse;
use http_v1::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http_v1::{Method as HttpMethod, StatusCode};

use super::methods::{Found, Generated, Method, Unary};
use super::stream::{self, Streaming};
use crate::drain::{Running, Traffic};
use crate::listener::Tls;
use crate::rpc::generated;
use crate::rpc::method::service_of_path;
use crate::rpc::port::{self, Answers, Call, gone};
use crate::rpc::timeout::{self, End};
use crate::rpc::wire::{Batch, Messages, ReadError, answer_head, refuse, refuse_http};
use crate::rpc::{Code, Codec, CodecError, MESSAGE_BYTES, MethodName, Status, frame};
use crate::service::calls::Calls;
use crate::service::context::{RpcHead, asker};
use crate::service::guard::Guard;
use crate::service::observe::{Observed, Observer};
use crate::service::server::panic_text;
use crate::service::{Context, Parts, ServeError, Service, ServiceError};
use crate::trace::{CALL_KEY_HEADER, TraceBody, TraceContext, tracestate};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What only Go Micro's clients send beside gRPC's own fields; they read errors in their form.
const OF_GO_MICRO: [&str; 2] = ["x-content-type", "timeout"];

/// Serves a service's methods on a bound listener until [`Running::stop`]. Must be called within a tokio runtime; the node
/// answers once this returns.
///
/// # Errors
/// [`ServeError`] when the listener cannot be used.
pub fn serve_rpc(
    listener: TcpListener,
    service: Service,
    (parts, tls): (Parts, Option<Tls>),
) -> Result<Running, ServeError> {
    let name = service.name().to_owned();
    let limits = port::Limits {
        handshake_timeout: parts.limits.header_timeout,
        connections: parts.limits.connections,
        keepalive: parts.limits.rpc_keepalive,
        ..port::Limits::default()
    };
    let (workers, traffic) = (parts.workers, Traffic::new(parts.load.clone()));
    let (service, counted) = (Arc::new(service), traffic.clone());
    let make = move || Worker::new(&service, &parts, &counted);
    port::serve(&name, listener, (limits, tls), workers, traffic, make)
        .map_err(|source| ServeError { service: name, source })
}

/// What answers a service's calls, wherever they come from; a worker thread has one.
pub(in crate::service) fn answers(
    service: &Arc<Service>,
    parts: &Parts,
    traffic: &Arc<Traffic>,
) -> impl Answers + use<> {
    Worker::new(service, parts, traffic)
}

/// One worker thread's state.
struct Worker {
    service: Arc<Service>,
    guard: Guard,
    observer: Rc<Observer>,
    calls: Option<Rc<Calls>>,
    traffic: Arc<Traffic>,
    message_bytes: usize,
}

/// A call that is admitted, as far as it is the same for every kind.
struct Asked {
    context: Context,
    codec: Codec,
    /// When the caller waits no longer.
    end: Option<End>,
    /// As it came, without the call key.
    head: Rc<RpcHead>,
    /// The caller reads errors in Go Micro's form.
    is_go_micro: bool,
    observed: Observed,
    trace: TraceContext,
}

impl Worker {
    fn new(service: &Arc<Service>, parts: &Parts, traffic: &Arc<Traffic>) -> Self {
        let observer = Observer::new(parts.recorder.clone(), parts.origin.clone(), parts.access_log, &parts.metrics);
        Self {
            service: service.clone(),
            guard: Guard::new(&parts.call_keys),
            observer: Rc::new(observer),
            calls: parts.calls.as_ref().map(|table| {
                Rc::new(Calls::new(table.clone(), &parts.origin.service_name, &parts.call_keys, &parts.metrics))
            }),
            traffic: traffic.clone(),
            message_bytes: MESSAGE_BYTES.max(parts.limits.body_bytes),
        }
    }
}

impl Answers for Worker {
    /// One call: is it one → who is it → may it → which method → answer.
    async fn answer(&self, call: Call) {
        if let Some(open) = self.open(call.request.uri().path()) {
            return generated::answer(&*open.service, call).await;
        }
        let Call { request, mut respond, peer, .. } = call;
        let (head, body) = request.into_parts();
        let codec = Codec::of_content_type(head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes));
        if head.method != HttpMethod::POST {
            return told(refuse_http(&mut respond, StatusCode::METHOD_NOT_ALLOWED, "gRPC takes POST only\n"));
        }
        if let Err(error @ CodecError::NotGrpc(_)) = &codec {
            return told(refuse_http(&mut respond, StatusCode::UNSUPPORTED_MEDIA_TYPE, &format!("{error}\n")));
        }
        let path = head.uri.path();
        let field = |name: &str| head.headers.get(name).map(HeaderValue::as_bytes);
        let mut trace = TraceContext::from_headers(field("x-request-id"), field("traceparent"));
        let mut observed = Observed::begin(&self.observer, self.traffic.load.enter(), &mut trace, "POST", path);
        let admitted =
            self.guard.admits_one_of(head.headers.get_all(CALL_KEY_HEADER).iter().map(HeaderValue::as_bytes));
        let is_go_micro = OF_GO_MICRO.iter().any(|name| head.headers.contains_key(*name));
        let end = field("grpc-timeout")
            .and_then(timeout::parse)
            .or_else(|| field("timeout").and_then(timeout::parse_go_micro))
            .map(End::in_time);
        let found = match (&codec, MethodName::parse(path)) {
            _ if !admitted => Err(Status::new(
                Code::PermissionDenied,
                "the `call-service-key` is missing or wrong; call through the gateway",
            )),
            (Err(error), _) => Err(Status::from(error)),
            (Ok(codec), Ok(name)) => self.method(path, &name, *codec).map(|method| (*codec, method)),
            (Ok(_), Err(_)) => Err(self.unknown(path)),
        };
        let client = {
            let lines = head.headers.get_all("tracestate").iter().map(HeaderValue::as_bytes);
            let forwarded = head.headers.get_all("x-forwarded-for").iter().next_back().map(HeaderValue::as_bytes);
            let asker = asker(tracestate::caller(lines), forwarded, peer, &self.guard);
            if observed.is_traced() {
                let fields = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                let recorder = self.observer.recorder();
                let mut info =
                    recorder.request_info("POST", path, "", asker.client.to_string(), fields, TraceBody::None);
                info.caller = asker.service.map(Box::from);
                observed.record_start(info);
            }
            asker.client
        };
        let (codec, method) = match found {
            Ok(found) => found,
            Err(status) => {
                let codec = codec.unwrap_or(Codec::Proto);
                let status = if is_go_micro { status.in_go_form(self.service.name()) } else { status };
                observed.end(status.to_http());
                return told(refuse(&mut respond, codec.content_type(), ids(&trace), &status));
            }
        };
        let mut metadata = head.headers;
        metadata.remove(CALL_KEY_HEADER);
        let asked = RpcHead { path: head.uri.path().to_owned(), metadata, deadline: end.map(|end| end.at) };
        let head = Rc::new(asked);
        let context = Context::of_rpc(head.clone(), trace, client, self.calls.clone());
        let asked = Asked { context, head, codec, end, is_go_micro, observed, trace };
        match method {
            Found::Method(Method::Unary(method)) => {
                self.unary(asked, &**method, Messages::new(body, self.message_bytes), respond).await;
            }
            Found::Method(Method::Streaming(method)) => {
                self.streaming(asked, &**method, Messages::new(body, self.message_bytes), respond).await;
            }
            Found::Generated(generated) => Self::generated(asked, generated, body, respond).await,
        }
    }
}

impl Worker {
    /// The service of a path that is open for all.
    fn open(&self, path: &str) -> Option<&Generated> {
        let generated = self.service.methods.generated(service_of_path(path)?)?;
        generated.is_open.then_some(generated)
    }

    fn method(&self, path: &str, name: &MethodName<'_>, codec: Codec) -> Result<Found<'_>, Status> {
        let method = self.service.methods.find(name).ok_or_else(|| self.unknown(path))?;
        let codecs = match &method {
            Found::Method(method) => method.codecs(),
            Found::Generated(_) => &[Codec::Proto],
        };
        if codecs.contains(&codec) {
            return Ok(method);
        }
        let takes = if codecs.contains(&Codec::Json) { "application/grpc+json" } else { "application/grpc (protobuf)" };
        Err(Status::new(Code::Unimplemented, format!("method `{}` takes {takes} only", name.endpoint())))
    }

    fn unknown(&self, path: &str) -> Status {
        let known = self.service.endpoints();
        let has = if known.is_empty() { "no methods".to_owned() } else { known.join(", ") };
        let service = self.service.name();
        Status::new(Code::Unimplemented, format!("no method `{path}` in service `{service}`; it has {has}"))
    }

    async fn generated(asked: Asked, known: &Generated, body: RecvStream, mut respond: SendResponse<Bytes>) {
        let Asked { head, end, observed, trace, .. } = asked;
        let mut request = generated::request(known.name, &head.path, head.metadata.clone(), body);
        request.extensions_mut().insert(trace);
        let answered = {
            let calling = generated::carry_out(&*known.service, request);
            tokio::select! {
                biased;
                () = gone(&mut respond) => return,
                answered = within(end, calling) => answered,
            }
        };
        let sent = match answered {
            Ok(answer) => generated::send(&mut respond, answer, ids(&trace), end).await,
            Err(status) => refuse(&mut respond, Codec::Proto.content_type(), ids(&trace), &status).map(|()| status),
        };
        match sent {
            Ok(status) => observed.end(status.to_http()),
            Err(error) => log::debug!("an answer by rpc was not sent error=\"{error}\""),
        }
    }

    async fn streaming(
        &self,
        asked: Asked,
        method: &dyn Streaming,
        messages: Messages,
        mut respond: SendResponse<Bytes>,
    ) {
        let Asked { context, codec, end, is_go_micro, observed, trace, .. } = asked;
        let replies = AssertUnwindSafe(method.call(context, codec, messages))
            .catch_unwind()
            .map(|reply| reply.unwrap_or_else(|panic| Err(panicked(&*panic, &trace))));
        let (mut replies, mut batch) = (Box::pin(replies), Batch::default());
        let form = |status: Status| if is_go_micro { status.in_go_form(self.service.name()) } else { status };
        // a method that fails at once answers with nothing else; else its caller learns at once that it has begun
        match futures_util::poll!(replies.next()) {
            Poll::Ready(Some(Ok(message))) => batch.push(&message),
            Poll::Ready(Some(Err(error))) => {
                let status = form(Status::of_http(error.status(), error.message()));
                observed.end(status.to_http());
                return told(refuse(&mut respond, codec.content_type(), ids(&trace), &status));
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        let mut stream = match respond.send_response(answer_head(codec.content_type(), ids(&trace)), false) {
            Ok(stream) => stream,
            Err(error) => return told(Err(error)),
        };
        let pumped = match end {
            None => stream::pump(&mut stream, &mut replies, &mut batch).await,
            Some(end) => {
                let pumped = stream::pump(&mut stream, &mut replies, &mut batch);
                tokio::time::timeout_at(end.at.into(), pumped).await.unwrap_or_else(|_| Ok(end.status()))
            }
        };
        match pumped {
            Ok(status) => {
                let status = form(status);
                observed.end(status.to_http());
                told(stream.send_trailers(status.to_trailers()));
            }
            Err(error) => log::debug!("an answer by rpc was not sent error=\"{error}\""),
        }
    }

    async fn unary(&self, asked: Asked, method: &dyn Unary, mut messages: Messages, mut respond: SendResponse<Bytes>) {
        let Asked { context, codec, end, is_go_micro, observed, trace, .. } = asked;
        let outcome = {
            let running = async {
                let message = one(&mut messages).await?;
                // a panic may come from the call itself or from any poll of what it returns
                let running = async { method.call(context, codec, &message).await };
                let outcome = AssertUnwindSafe(running)
                    .catch_unwind()
                    .await
                    .unwrap_or_else(|panic| Err(panicked(&*panic, &trace)));
                outcome.map_err(|error| Status::of_http(error.status(), error.message()))
            };
            tokio::select! {
                biased;
                () = gone(&mut respond) => return, // dropping the call ends it
                outcome = within(end, running) => outcome,
            }
        };
        match outcome {
            Ok(message) => {
                observed.end(200);
                told(send(&mut respond, codec, ids(&trace), &message));
            }
            Err(status) => {
                let status = if is_go_micro { status.in_go_form(self.service.name()) } else { status };
                observed.end(status.to_http());
                told(refuse(&mut respond, codec.content_type(), ids(&trace), &status));
            }
        }
    }
}

fn panicked(panic: &(dyn std::any::Any + Send), trace: &TraceContext) -> ServiceError {
    let (reason, id) = (panic_text(panic), trace.request_id);
    log::error!("a method panicked requestId={id} reason={reason}");
    ServiceError::new(500, "the method failed; its log has the reason")
}

/// Runs `work` until the caller waits no longer.
async fn within<T>(end: Option<End>, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let Some(end) = end else { return work.await };
    tokio::time::timeout_at(end.at.into(), work).await.unwrap_or_else(|_| Err(end.status()))
}

/// The one message of a caller.
async fn one(messages: &mut Messages) -> Result<Bytes, Status> {
    let message = messages.next().await.map_err(|error| broken(&error))?;
    let message = message.ok_or_else(|| Status::new(Code::Internal, "the call has no message; send one"))?;
    match messages.next().await.map_err(|error| broken(&error))? {
        None => Ok(message),
        Some(_) => Err(Status::new(Code::Internal, "the method takes one message, and the call has more")),
    }
}

fn broken(error: &ReadError) -> Status {
    match error {
        ReadError::Frame(error) => Status::from(error),
        ReadError::Broken(error) => Status::new(Code::Cancelled, format!("the call broke off: {error}")),
    }
}

/// An answer of one message. It is in memory anyway: h2 sends it as the caller takes it.
fn send(
    respond: &mut SendResponse<Bytes>,
    codec: Codec,
    metadata: HeaderMap,
    message: &[u8],
) -> Result<(), h2_v4::Error> {
    let mut stream = respond.send_response(answer_head(codec.content_type(), metadata), false)?;
    stream.send_data(frame::framed(message), false)?;
    stream.send_trailers(Status::ok().to_trailers())
}

/// What every answer tells.
fn ids(trace: &TraceContext) -> HeaderMap {
    let mut metadata = HeaderMap::with_capacity(4);
    let mut id = uuid::Uuid::encode_buffer();
    if let Ok(id) = HeaderValue::from_str(trace.request_id.hyphenated().encode_lower(&mut id)) {
        metadata.insert(REQUEST_ID, id);
    }
    metadata
}

/// An answer that could not be sent has nobody left to read it.
fn told(sent: Result<(), h2_v4::Error>) {
    if let Err(error) = sent {
        log::debug!("an answer by rpc was not sent error=\"{error}\"");
    }
}

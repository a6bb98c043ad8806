//! Forwarding to the program behind a node: streamed both ways, without hop-by-hop headers and the call key.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as Polling, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode, Uri};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use awc::error::{ConnectError, SendRequestError};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::context::Asker;
use super::observe::Observed;
use super::server::{REQUEST_ID, TRACEPARENT, TRACESTATE, failure, request_info, trace_lines};
use super::{ServiceError, body};
use crate::trace::{TraceBody, TraceContext, tracestate};
use crate::upstream::connector;

/// Headers that concern one connection only (RFC 9110, section 7.6.1), and those that the client sets itself.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "expect",
];

/// JSON bodies up to this size are read before they are forwarded, so that the trace can show them.
const SHOWN_BODY_BYTES: u64 = 64 << 10;

/// How long a connection to the program may idle: less than the 5 s of Node.js, the shortest default around.
const IDLE: Duration = Duration::from_secs(3);

/// How long the program may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// Sends requests to one URL; one a worker.
pub(super) struct Forwarder {
    client: awc::Client,
    base: String,
    /// `goms=<service>`: what the program calls, with the headers that it got, was called by this service.
    caller: Option<String>,
    timeout: Duration,
    body_bytes: usize,
}

impl Forwarder {
    pub(super) fn new(url: Uri, service: &str, timeout: Duration, body_bytes: usize) -> Self {
        let connector =
            awc::Connector::new().connector(connector::tcp()).limit(0).conn_keep_alive(IDLE).timeout(CONNECT);
        let client = awc::Client::builder().connector(connector).disable_redirects().no_default_headers().finish();
        let base = url.to_string().trim_end_matches('/').to_owned();
        Self { client, base, caller: tracestate::member(service), timeout, body_bytes }
    }

    /// Sends the request on and streams the answer back.
    pub(super) async fn forward(
        &self,
        request: &HttpRequest,
        mut payload: Payload,
        recorder: &crate::trace::Recorder,
        trace: TraceContext,
        asker: &Asker<'_>,
        mut observed: Observed,
    ) -> HttpResponse {
        let headers = request.headers();
        let announced = body::content_length(headers);
        if let Some(len) = announced.filter(|len| *len > self.body_bytes as u64) {
            if observed.is_traced() {
                observed.record_start(request_info(recorder, request, asker, TraceBody::Opaque(len)));
            }
            body::discard(&mut payload, self.body_bytes).await;
            return failure(&body::too_long(self.body_bytes), trace, observed);
        }
        let has_body = announced.is_some_and(|len| len > 0) || headers.contains_key(header::TRANSFER_ENCODING);
        let mut shown = TraceBody::None;
        let mut whole = None;
        if has_body {
            shown = TraceBody::Opaque(announced.unwrap_or(0));
            if body::is_json(headers) && announced.is_some_and(|len| len <= SHOWN_BODY_BYTES) {
                match body::read(headers, &mut payload, self.body_bytes, self.timeout).await {
                    Ok(bytes) => {
                        if body::check(&bytes).is_ok() {
                            shown = TraceBody::Json(bytes.clone());
                        }
                        whole = Some(bytes);
                    }
                    Err(error) => return failure(&error, trace, observed),
                }
            }
        }
        if observed.is_traced() {
            observed.record_start(request_info(recorder, request, asker, shown));
        }
        let over = Rc::new(Cell::new(false));
        let outgoing = self.outgoing(request, trace);
        let sent = match (whole, announced) {
            (Some(bytes), _) => outgoing.send_body(bytes).await,
            (None, Some(len)) if has_body => outgoing.send_body(Sized { len, chunks: payload }).await,
            (None, None) if has_body => outgoing.send_stream(limited(payload, self.body_bytes, over.clone())).await,
            _ => outgoing.send().await,
        };
        match sent {
            Ok(answer) => incoming(request, answer, trace, observed),
            Err(_) if over.get() => failure(&body::too_long(self.body_bytes), trace, observed),
            Err(error) => {
                log::warn!(
                    "cannot forward to the program at {} requestId={} error={error}",
                    self.base,
                    trace.request_id
                );
                failure(&self.explain(&error), trace, observed)
            }
        }
    }

    fn outgoing(&self, request: &HttpRequest, trace: TraceContext) -> awc::ClientRequest {
        let path = request.uri().path_and_query().map_or("/", |both| both.as_str());
        let mut outgoing = self.client.request(request.method().clone(), format!("{}{path}", self.base));
        outgoing = outgoing.no_decompress().timeout(self.timeout);
        copy_headers(request.headers(), outgoing.headers_mut(), &[header::HOST.as_str(), TRACESTATE.as_str()]);
        let headers = outgoing.headers_mut();
        if let Some(own) = headers.get_mut(header::DATE)
            && let Ok(marked) = HeaderValue::from_bytes(&connector::mark_own_date(own.as_bytes()))
        {
            *own = marked;
        }
        if let Ok(id) = HeaderValue::from_str(&trace.request_id.to_string()) {
            headers.insert(REQUEST_ID, id);
        }
        if let Ok(parent) = HeaderValue::from_str(&trace.traceparent()) {
            headers.insert(TRACEPARENT, parent);
        }
        let lines = trace_lines(request.headers()).filter(|_| trace.parent_id.is_some());
        let state = tracestate::with_caller(self.caller.as_deref(), lines);
        if let Ok(state) = HeaderValue::from_str(&state) {
            headers.insert(TRACESTATE, state);
        }
        outgoing
    }

    fn explain(&self, error: &SendRequestError) -> ServiceError {
        let base = &self.base;
        match error {
            SendRequestError::Timeout => {
                ServiceError::new(504, format!("the program at {base} did not answer within {:?}", self.timeout))
            }
            SendRequestError::Connect(ConnectError::Timeout) => {
                ServiceError::new(504, format!("the program at {base} did not accept a connection in time"))
            }
            // awc says `Disconnected` when the connection ends before the answer's head is complete
            SendRequestError::Connect(error) if !matches!(error, ConnectError::Disconnected) => {
                ServiceError::new(502, format!("nothing accepts connections at {base}; is the program running?"))
            }
            SendRequestError::Body(_) => ServiceError::new(400, "the body broke off"),
            _ => ServiceError::new(502, format!("the program at {base} broke off or sent no valid HTTP answer")),
        }
    }
}

/// Makes the program's answer ours.
fn incoming<S>(
    request: &HttpRequest,
    answer: awc::ClientResponse<S>,
    trace: TraceContext,
    mut observed: Observed,
) -> HttpResponse
where
    S: Stream<Item = Result<Bytes, awc::error::PayloadError>> + Unpin + 'static,
{
    let status = answer.status();
    if status.is_informational() {
        let interim = ServiceError::new(502, format!("the program ended its answer with the interim status {status}"));
        return failure(&interim, trace, observed);
    }
    let mut response: HttpResponseBuilder = HttpResponse::build(status);
    let mut response = response.finish();
    copy_headers(answer.headers(), response.headers_mut(), &[]);
    // RFC 9112 section 6.3: beside a transfer coding a length means nothing
    let is_coded = answer.headers().contains_key(header::TRANSFER_ENCODING);
    let len = body::content_length(answer.headers()).filter(|_| !is_coded);
    let bodyless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodyless {
        observed.end(status.as_u16());
        return response;
    }
    if *request.method() == Method::HEAD {
        observed.end(status.as_u16());
        return match len {
            Some(len) => response
                .set_body(Sized { len, chunks: stream::empty::<Result<Bytes, std::io::Error>>() })
                .map_into_boxed_body(),
            None => response,
        };
    }
    observed.set_status(status.as_u16());
    let chunks = answer.map(move |chunk| {
        let _told_at_the_end = &observed; // lives as long as the body
        chunk
    });
    match len {
        Some(len) => response.set_body(Sized { len, chunks }).map_into_boxed_body(),
        None => response.set_body(actix_web::body::BodyStream::new(chunks)).map_into_boxed_body(),
    }
}

/// Copies all values but those of connection headers, of headers that `Connection` lists, and of `skip`.
fn copy_headers(from: &HeaderMap, to: &mut HeaderMap, skip: &[&str]) {
    let listed: Vec<String> = from
        .get_all(header::CONNECTION)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    for (name, value) in from {
        let text = name.as_str();
        if !HOP_BY_HOP.contains(&text) && !skip.contains(&text) && !listed.iter().any(|other| other == text) {
            to.append(name.clone(), value.clone());
        }
    }
}

/// A stream that ends with an error past `limit` bytes, and says so in `over`.
fn limited(
    payload: Payload,
    limit: usize,
    over: Rc<Cell<bool>>,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Unpin {
    let mut len = 0usize;
    payload.map(move |chunk| {
        let chunk = chunk.map_err(std::io::Error::other)?;
        len = len.saturating_add(chunk.len());
        if len > limit {
            over.set(true);
            return Err(std::io::Error::other("the body is too long"));
        }
        Ok(chunk)
    })
}

/// A stream of a known length.
struct Sized<S> {
    len: u64,
    chunks: S,
}

impl<S, E> MessageBody for Sized<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn std::error::Error>> + 'static,
{
    type Error = E;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.len)
    }

    fn poll_next(mut self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<Option<Result<Bytes, E>>> {
        Pin::new(&mut self.chunks).poll_next(polling)
    }
}

//! Forwarding to the program behind a node: streamed both ways, without hop-by-hop headers and the call key.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as Polling, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::app::ProgramUrl;
use super::context::Asker;
use super::observe::Observed;
use super::server::{REQUEST_ID, TRACEPARENT, TRACESTATE, failure, request_info, trace_lines};
use super::{ServiceError, body};
use crate::trace::{TraceBody, TraceContext, tracestate};
use crate::upstream::headers;
use crate::upstream::http1::{Answer, HttpError, Outgoing, Parts, Pool, RequestHead, Shared, Target};

/// Headers that goms sets itself on its way to the program.
const OWN: [&str; 6] = ["host", "content-length", "expect", "x-request-id", "traceparent", "tracestate"];

/// JSON bodies up to this size are read before they are forwarded, so that the trace can show them.
const SHOWN_BODY_BYTES: u64 = 64 << 10;

/// How long a connection to the program may idle: less than the 5 s of Node.js, the shortest default around.
const IDLE: Duration = Duration::from_secs(3);

/// How long the program may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// Sends requests to one URL; one a worker.
pub(super) struct Forwarder {
    pool: Rc<Pool>,
    target: Target,
    url: ProgramUrl,
    /// `goms=<service>`: what the program calls, with the headers that it got, was called by this service.
    caller: Option<String>,
    timeout: Duration,
    body_bytes: usize,
}

impl Forwarder {
    pub(super) fn new(url: ProgramUrl, service: &str, timeout: Duration, body_bytes: usize) -> Self {
        let target = Target::Named(url.authority().into());
        Self { pool: Pool::new(CONNECT, IDLE), target, url, caller: tracestate::member(service), timeout, body_bytes }
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
        let body = match (whole, announced) {
            (Some(bytes), _) => Outgoing::Whole(bytes),
            (None, Some(len)) if has_body => Outgoing::Stream(Shared::new(parts(payload)), Some(len)),
            (None, None) if has_body => {
                Outgoing::Stream(Shared::new(limited(payload, self.body_bytes, over.clone())), None)
            }
            _ => Outgoing::NoBody,
        };
        match self.send(request, trace, &body).await {
            Ok(answer) => incoming(request, answer, observed),
            Err(_) if over.get() => failure(&body::too_long(self.body_bytes), trace, observed),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                log::warn!(
                    "cannot forward to the program at {} requestId={} error={error}{cause}",
                    self.url,
                    trace.request_id
                );
                failure(&self.explain(&error), trace, observed)
            }
        }
    }

    async fn send(&self, request: &HttpRequest, trace: TraceContext, body: &Outgoing) -> Result<Answer, HttpError> {
        let head = self.head(request, trace)?;
        let sent = self.pool.send(&self.target, &head, body, self.timeout).await;
        self.pool.recycle(head.into_buffer());
        sent
    }

    fn head(&self, request: &HttpRequest, trace: TraceContext) -> Result<RequestHead, HttpError> {
        let path = format!("{}{}", self.url.prefix(), request.path());
        let mut head = RequestHead::new(self.pool.buffer(), request.method().as_str(), &path, request.query_string())?;
        head.field("host", self.url.authority().as_bytes())?;
        let listed: Vec<&[u8]> = request.headers().get_all(header::CONNECTION).map(HeaderValue::as_bytes).collect();
        for (name, value) in request.headers() {
            let name = name.as_str();
            if !headers::is_hop_by_hop(name, listed.iter().copied()) && !OWN.contains(&name) {
                head.field(name, value.as_bytes())?;
            }
        }
        head.display(REQUEST_ID.as_str(), &trace.request_id)?;
        head.field(TRACEPARENT.as_str(), trace.traceparent().as_bytes())?;
        let lines = trace_lines(request.headers()).filter(|_| trace.parent_id.is_some());
        let state = tracestate::with_caller(self.caller.as_deref(), lines);
        if !state.is_empty() {
            head.field(TRACESTATE.as_str(), state.as_bytes())?;
        }
        Ok(head)
    }

    fn explain(&self, error: &HttpError) -> ServiceError {
        let url = &self.url;
        match error {
            HttpError::Deadline(after) => {
                ServiceError::new(504, format!("the program at {url} did not answer within {after:?}"))
            }
            HttpError::ConnectTimeout(_) => {
                ServiceError::new(504, format!("the program at {url} did not accept a connection in time"))
            }
            HttpError::Connect(_) => {
                ServiceError::new(502, format!("nothing accepts connections at {url}; is the program running?"))
            }
            HttpError::Body(_) => ServiceError::new(400, "the body broke off"),
            HttpError::Request(what) => ServiceError::new(400, format!("the request cannot be passed on: {what}")),
            _ => ServiceError::new(502, format!("the program at {url} broke off or sent no valid HTTP answer")),
        }
    }
}

/// Makes the program's answer ours.
fn incoming(request: &HttpRequest, answer: Answer, mut observed: Observed) -> HttpResponse {
    let Answer { head, body } = answer;
    let status = StatusCode::from_u16(head.status()).unwrap_or(StatusCode::BAD_GATEWAY); // never: it is 200 to 599
    let mut response = HttpResponse::new(status);
    let listed: Vec<&[u8]> = head.values("connection").collect();
    for field in head.fields() {
        let name = field.name();
        // what the client parsed as a field is one here too
        if !headers::is_hop_by_hop(name, listed.iter().copied())
            && !name.eq_ignore_ascii_case("content-length")
            && let Ok(name) = HeaderName::from_bytes(name.as_bytes())
            && let Ok(value) = HeaderValue::from_maybe_shared(field.shared_value())
        {
            response.headers_mut().append(name, value);
        }
    }
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        observed.end(status.as_u16());
        return response;
    }
    if *request.method() == Method::HEAD {
        observed.end(status.as_u16());
        return match head.announced_length() {
            Some(len) => response
                .set_body(Sized { len, chunks: stream::empty::<Result<Bytes, std::io::Error>>() })
                .map_into_boxed_body(),
            None => response,
        };
    }
    observed.set_status(status.as_u16());
    let len = body.left();
    let chunks = body.map(move |chunk| {
        let _told_at_the_end = &observed; // lives as long as the body
        chunk
    });
    match len {
        Some(len) => response.set_body(Sized { len, chunks }).map_into_boxed_body(),
        None => response.set_body(actix_web::body::BodyStream::new(chunks)).map_into_boxed_body(),
    }
}

fn parts(payload: Payload) -> Parts {
    Box::pin(payload.map(|part| part.map_err(Into::into)))
}

/// Parts that end with an error past `limit` bytes, and say so in `over`.
fn limited(payload: Payload, limit: usize, over: Rc<Cell<bool>>) -> Parts {
    let mut len = 0usize;
    Box::pin(payload.map(move |part| {
        let part = part?;
        len = len.saturating_add(part.len());
        if len > limit {
            over.set(true);
            return Err("the body is too long".into());
        }
        Ok(part)
    }))
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

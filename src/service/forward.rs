//! Forwarding to the program behind a node: streamed both ways, without hop-by-hop headers and the call key.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
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
use super::program::{Door, Place, Visit};
use super::server::{REQUEST_ID, TRACEPARENT, TRACESTATE, failure, request_info, trace_lines};
use super::{ServiceError, body};
use crate::trace::{TraceBody, TraceContext, tracestate};
use crate::upgrade;
use crate::upstream::headers;
use crate::upstream::http1::{Answer, HttpError, Outgoing, Pool, RequestHead, Shared, Times, Upgrade};

/// Headers that goms sets itself on its way to the program.
const OWN: [&str; 6] = ["host", "content-length", "expect", "x-request-id", "traceparent", "tracestate"];

/// JSON bodies up to this size are read before they are forwarded, so that the trace can show them.
const SHOWN_BODY_BYTES: u64 = 64 << 10;

/// How long a connection to the program may idle: less than the 5 s of Node.js, the shortest default around.
const IDLE: Duration = Duration::from_secs(3);

/// How long a WebSocket may stand still: longer than a gateway bears by default, which then tells its client.
const TUNNEL_IDLE: Duration = Duration::from_secs(2 * 3600);

/// Whose answers end when the client has enough.
const EVENTS: &[u8] = b"text/event-stream";

/// How long the program may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// Sends requests to one URL; one a worker.
pub(super) struct Forwarder {
    pool: Rc<Pool>,
    door: Door,
    /// `goms=<service>`: what the program calls, with the headers that it got, was called by this service.
    caller: Option<String>,
    timeout: Duration,
}

impl Forwarder {
    pub(super) fn new(door: Door, service: &str, timeout: Duration) -> Self {
        Self { pool: Pool::new(IDLE), door, caller: tracestate::member(service), timeout }
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
        let has_body = announced.is_some_and(|len| len > 0) || headers.contains_key(header::TRANSFER_ENCODING);
        if upgrade::is_ambiguous(request.head(), has_body) {
            let error =
                ServiceError::new(400, "a request for another protocol has no body, and this one announces one");
            return failure(&error, trace, observed);
        }
        let mut shown = TraceBody::None;
        let mut whole = None;
        if has_body {
            shown = TraceBody::Opaque(announced.unwrap_or(0));
            if body::is_json(headers) && announced.is_some_and(|len| len <= SHOWN_BODY_BYTES) {
                match body::read(headers, &mut payload, SHOWN_BODY_BYTES as usize, self.timeout).await {
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
        let body = match (whole, announced) {
            (Some(bytes), _) => Outgoing::Whole(bytes),
            (None, length) if has_body => Outgoing::Stream(Shared::new(upgrade::parts(payload)), length),
            _ if upgrade::is_asked(request.head()) => {
                Outgoing::Upgrade(Upgrade { parts: Shared::new(upgrade::parts(payload)), idle: TUNNEL_IDLE })
            }
            _ => Outgoing::NoBody,
        };
        let Some(place) = self.door.enter(self.timeout).await else {
            let error = ServiceError::new(503, format!("the program was not restarted within {:?}", self.timeout));
            return failure(&error, trace, observed);
        };
        match self.send(&place, request, trace, &body).await {
            Ok(answer) => incoming(request, answer, observed, place),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                log::warn!(
                    "cannot forward to the program at {} requestId={} error={error}{cause}",
                    place.url,
                    trace.request_id
                );
                failure(&explain(&error, &place.url), trace, observed)
            }
        }
    }

    async fn send(
        &self,
        place: &Place,
        request: &HttpRequest,
        trace: TraceContext,
        body: &Outgoing,
    ) -> Result<Answer, HttpError> {
        let mut head = self.head(&place.url, request, trace)?;
        if matches!(body, Outgoing::Upgrade(_)) {
            head.upgrade()?;
        }
        let times = Times { connect: CONNECT, head: self.timeout };
        let sent = self.pool.send(&place.target, &head, body, times).await;
        self.pool.recycle(head.into_buffer());
        sent
    }

    fn head(&self, url: &ProgramUrl, request: &HttpRequest, trace: TraceContext) -> Result<RequestHead, HttpError> {
        let path = format!("{}{}", url.prefix(), request.path());
        let mut head = RequestHead::new(self.pool.buffer(), request.method().as_str(), &path, request.query_string())?;
        head.field("host", url.authority().as_bytes())?;
        let listed: Vec<&[u8]> = request.headers().get_all(header::CONNECTION).map(HeaderValue::as_bytes).collect();
        for (name, value) in request.headers() {
            let name = name.as_str();
            if !headers::is_hop_by_hop(name, listed.iter().copied()) && !OWN.contains(&name) {
                head.field(name, value.as_bytes())?;
            }
        }
        head.display(REQUEST_ID.as_str(), &trace.request_id)?;
        head.field(TRACEPARENT.as_str(), &trace.traceparent_bytes())?;
        let lines = trace_lines(request.headers()).filter(|_| trace.parent_id.is_some());
        let state = tracestate::with_caller(self.caller.as_deref(), lines);
        if !state.is_empty() {
            head.field(TRACESTATE.as_str(), state.as_bytes())?;
        }
        Ok(head)
    }
}

fn explain(error: &HttpError, url: &ProgramUrl) -> ServiceError {
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

/// Makes the program's answer ours.
fn incoming(request: &HttpRequest, answer: Answer, mut observed: Observed, place: Arc<Place>) -> HttpResponse {
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
    if status == StatusCode::SWITCHING_PROTOCOLS {
        upgrade::grant(response.head_mut());
    }
    let is_events = head.values("content-type").any(|value| value.to_ascii_lowercase().starts_with(EVENTS));
    let visit = Visit::new(place, status == StatusCode::SWITCHING_PROTOCOLS || is_events);
    let len = body.left();
    let chunks = body.map(move |chunk| {
        let _told_at_the_end = (&observed, &visit); // live as long as the body
        chunk
    });
    match len {
        Some(len) => response.set_body(Sized { len, chunks }).map_into_boxed_body(),
        None => response.set_body(actix_web::body::BodyStream::new(chunks)).map_into_boxed_body(),
    }
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

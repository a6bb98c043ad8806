//! The one function that calls a service, with awc at this stage.
//!
//! Tries go to the next node each time. A try is repeated only where the request was surely not sent, or where doing it
//! twice is harmless: an idempotent method (RFC 9110 section 9.2.2), or a policy that says so.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpMessage;
use awc::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use awc::http::{Method, Uri};
use awc::{Client, ClientRequest, ClientResponse, Connector};
use prometheus::IntCounterVec;
use tokio::time::Instant;

use super::body::{AnswerBody, RequestBody, Shared};
use super::{CallError, Policy, connector, headers};
use crate::backoff::Backoff;
use crate::balance::{Balancer, Permit};
use crate::metrics::Metrics;
use crate::registry::Node;
use crate::trace::context::TraceContext;
use crate::trace::tracestate;

/// Shorter than the 75 s for which nodes keep an idle connection, so that they never close one in our hands.
const IDLE: Duration = Duration::from_secs(15);
/// A node on the same network accepts in a millisecond; a second lost SYN is repeated after 3 s, so this bears one.
const CONNECT: Duration = Duration::from_secs(2);
/// Connections a worker holds; the gateway's own limit of requests in flight comes first.
const CONNECTIONS: usize = 25_000;
/// The longest wait between two tries.
const BACKOFF_CAP: Duration = Duration::from_secs(1);

/// Calls services; one a worker.
#[derive(Clone)]
pub struct Upstream {
    client: Client,
    balancer: Arc<Balancer>,
    call_key: Option<HeaderValue>,
    /// `goms=<service>`, what callees read as their caller.
    caller: Option<(String, HeaderValue)>,
    retries: IntCounterVec,
    names: Rc<Names>,
}

/// Header names that every call carries, made once.
struct Names {
    call_key: HeaderName,
    request_id: HeaderName,
    traceparent: HeaderName,
    tracestate: HeaderName,
    forwarded_for: HeaderName,
    forwarded_proto: HeaderName,
    forwarded_host: HeaderName,
}

/// A request as it is to reach the service.
pub struct UpstreamRequest<'a> {
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// The path; begins with `/`.
    pub path: &'a str,
    /// The raw query without its `?`; empty for none.
    pub query: &'a str,
    /// The client's headers; what may not pass is left out here.
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// What the body is; `None` leaves the client's `Content-Type`.
    pub content_type: Option<&'static str>,
    /// The body.
    pub body: RequestBody,
    /// Whose request it is: becomes `X-Request-Id` and `traceparent`; where it continues a caller's trace, `tracestate` goes
    /// on too.
    pub context: &'a TraceContext,
    /// Who asked, for `X-Forwarded-*` and the source-hash picker.
    pub forwarded: Option<Forwarded<'a>>,
}

/// Who asked, as the gateway saw it.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded<'a> {
    /// `X-Forwarded-For`.
    pub client: IpAddr,
    /// `X-Forwarded-Proto`: `http` or `https`.
    pub proto: &'a str,
    /// `X-Forwarded-Host`: the `Host` that the client named.
    pub host: &'a str,
}

/// A service's answer.
pub struct UpstreamResponse {
    /// Its status.
    pub status: u16,
    head: ClientResponse,
    /// Its body, not read yet.
    pub body: AnswerBody,
    /// Who answered.
    pub node: Arc<Node>,
    /// Which try it was, from 1.
    pub attempt: u32,
}

impl UpstreamResponse {
    /// Its headers, all of them ([`headers::passes_up`] says which go on).
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.head.headers()
    }
}

impl Upstream {
    /// A client with its own connections. `caller` is the service that calls, `call_key` what signs its calls. Must run on an actix (or `LocalSet`) thread.
    #[must_use]
    pub fn new(balancer: Arc<Balancer>, caller: &str, call_key: Option<&str>, metrics: &Metrics) -> Self {
        let connector = Connector::new()
            .connector(connector::tcp())
            .timeout(CONNECT)
            .conn_keep_alive(IDLE)
            .conn_lifetime(Duration::from_secs(365 * 24 * 3600)) // only idleness ends a connection
            .limit(CONNECTIONS);
        let client = Client::builder()
            .connector(connector)
            .no_default_headers()
            .disable_redirects()
            .disable_timeout() // each try has its own
            .finish();
        let retries = metrics.counter("upstream_retries_total", "tries after the first one", &["service"]);
        let call_key = call_key.and_then(|key| HeaderValue::from_str(key).ok());
        let caller = tracestate::member(caller).and_then(|own| Some((own.clone(), HeaderValue::from_str(&own).ok()?)));
        Self { client, balancer, call_key, caller, retries, names: Rc::new(Names::new()) }
    }

    /// Sends `request` to a node of `service` and gives its answer, as soon as that answer's head is complete.
    ///
    /// # Errors
    /// [`CallError`], the last try's.
    ///
    /// # Cancel safety
    /// Dropping the future ends the try that runs; the service may have carried it out.
    pub async fn call(
        &self,
        service: &str,
        mut request: UpstreamRequest<'_>,
        policy: &Policy,
    ) -> Result<UpstreamResponse, CallError> {
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|error| CallError::Request(awc::error::HttpError::from(error).into()))?;
        let may_repeat = policy.retry_non_idempotent || is_idempotent(&method);
        let client_ip = request.forwarded.map(|forwarded| forwarded.client);
        let mut body = Outgoing::from(std::mem::replace(&mut request.body, RequestBody::Empty));
        let (mut tried, mut backoff, mut attempt) = (Vec::new(), None, 1);
        loop {
            let permit = self.balancer.pick(service, client_ip, &tried)?;
            let node = permit.node().clone();
            let outgoing = self.request(&method, &node, &request)?;
            let last = attempt >= policy.attempts.max(1);
            let failure = match try_once(outgoing, &mut body, &node, policy.timeout).await {
                Ok(answer) => {
                    permit.answered();
                    let status = answer.status().as_u16();
                    if last || !may_repeat || !body.is_replayable() || !policy.retry_status.contains(&status) {
                        return Ok(response(answer, &method, permit, attempt));
                    }
                    None
                }
                Err(error) => {
                    if matches!(error, CallError::Unreachable { .. }) {
                        permit.refused();
                    }
                    if last || !body.is_replayable() || !(error.was_not_sent() || may_repeat) {
                        return Err(error);
                    }
                    Some(error)
                }
            };
            log::debug!("try failed service={service} node={} attempt={attempt} error={failure:?}", node.id);
            drop(permit);
            self.retries.with_label_values(&[service]).inc();
            tried.push(node.id.clone());
            attempt += 1;
            let waits = backoff.get_or_insert_with(|| Backoff::seeded(policy.backoff, BACKOFF_CAP));
            tokio::time::sleep(waits.next_wait()).await;
        }
    }

    fn request(&self, method: &Method, node: &Node, request: &UpstreamRequest<'_>) -> Result<ClientRequest, CallError> {
        let (path, query) = (request.path, request.query);
        let mark = if query.is_empty() { "" } else { "?" };
        let target = format!("http://{}{path}{mark}{query}", node.id.http);
        let uri =
            Uri::try_from(target).map_err(|error| CallError::Request(awc::error::HttpError::from(error).into()))?;
        let mut outgoing = self.client.request(method.clone(), uri);
        if let Some(address) = node.id.http.socket() {
            outgoing = outgoing.address(address);
        }
        *outgoing.headers_mut() = self.head(request);
        outgoing = outgoing.no_decompress(); // or awc adds an `Accept-Encoding`
        Ok(outgoing)
    }

    fn head(&self, request: &UpstreamRequest<'_>) -> HeaderMap {
        let mut head = HeaderMap::with_capacity(request.headers.len() + 6);
        let listed = || request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
        for &(name, value) in &request.headers {
            let replaced = request.content_type.is_some()
                && (name.eq_ignore_ascii_case("content-type") || name.eq_ignore_ascii_case("content-encoding"));
            if replaced || !headers::passes_down(name, listed().map(|(_, value)| *value)) {
                continue;
            }
            let own_date = name.eq_ignore_ascii_case("date").then(|| connector::mark_own_date(value));
            let value = HeaderValue::from_bytes(own_date.as_deref().unwrap_or(value));
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
                head.append(name, value);
            }
        }
        if let Some(content_type) = request.content_type {
            head.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let names = &*self.names;
        if let Some(key) = &self.call_key {
            head.insert(names.call_key.clone(), key.clone());
        }
        let mut id = uuid::Uuid::encode_buffer();
        let id = &*request.context.request_id.hyphenated().encode_lower(&mut id);
        let mut insert = |name: &HeaderName, value: &[u8]| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                head.insert(name.clone(), value);
            }
        };
        insert(&names.request_id, id.as_bytes());
        insert(&names.traceparent, request.context.traceparent().as_bytes());
        if let Some(forwarded) = request.forwarded {
            insert(&names.forwarded_for, forwarded.client.to_string().as_bytes());
            insert(&names.forwarded_proto, forwarded.proto.as_bytes());
            insert(&names.forwarded_host, forwarded.host.as_bytes());
        }
        if let Some(state) = self.tracestate(request) {
            head.insert(names.tracestate.clone(), state);
        }
        head
    }

    /// Without a valid `traceparent` beside it a caller's `tracestate` means nothing (W3C Trace Context, section 3.3).
    fn tracestate(&self, request: &UpstreamRequest<'_>) -> Option<HeaderValue> {
        let continues = request.context.parent_id.is_some();
        let mut lines = request
            .headers
            .iter()
            .filter(|(name, _)| continues && name.eq_ignore_ascii_case("tracestate"))
            .map(|(_, line)| *line)
            .peekable();
        let own = self.caller.as_ref();
        if lines.peek().is_none() {
            return own.map(|(_, value)| value.clone());
        }
        let state = tracestate::with_caller(own.map(|(member, _)| member.as_str()), lines);
        HeaderValue::from_str(&state).ok().filter(|state| !state.is_empty())
    }
}

impl Names {
    fn new() -> Self {
        Self {
            call_key: HeaderName::from_static(crate::trace::CALL_KEY_HEADER),
            request_id: HeaderName::from_static("x-request-id"),
            traceparent: HeaderName::from_static("traceparent"),
            tracestate: HeaderName::from_static("tracestate"),
            forwarded_for: HeaderName::from_static("x-forwarded-for"),
            forwarded_proto: HeaderName::from_static("x-forwarded-proto"),
            forwarded_host: HeaderName::from_static("x-forwarded-host"),
        }
    }
}

/// A body between tries.
enum Outgoing {
    Empty,
    Whole(bytes::Bytes),
    Stream { parts: Shared, length: Option<u64> },
}

impl From<RequestBody> for Outgoing {
    fn from(body: RequestBody) -> Self {
        match body {
            RequestBody::Empty => Self::Empty,
            RequestBody::Whole(bytes) => Self::Whole(bytes),
            RequestBody::Stream { parts, length } => Self::Stream { parts: Shared::new(parts), length },
        }
    }
}

impl Outgoing {
    fn is_replayable(&self) -> bool {
        !matches!(self, Self::Stream { parts, .. } if parts.is_touched())
    }
}

async fn try_once(
    request: ClientRequest,
    body: &mut Outgoing,
    node: &Arc<Node>,
    timeout: Duration,
) -> Result<ClientResponse, CallError> {
    let (mut sending, parts) = match body {
        // `send()` would add `content-length: 0`
        Outgoing::Empty => (request.send_body(awc::body::None::new()), None),
        Outgoing::Whole(bytes) => (request.send_body(bytes.clone()), None),
        Outgoing::Stream { parts, length: Some(length) } => {
            let sized = awc::body::SizedStream::new(*length, parts.clone());
            (request.send_body(sized), Some(parts.clone()))
        }
        Outgoing::Stream { parts, length: None } => (request.send_stream(parts.clone()), Some(parts.clone())),
    };
    let started = Instant::now();
    loop {
        let since = parts.as_ref().map_or(started, |parts| parts.last().max(started));
        match tokio::time::timeout_at(since + timeout, &mut sending).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => return Err(CallError::from_send(node.clone(), error)),
            Err(_) if parts.as_ref().is_some_and(|parts| parts.last() > since) => {} // the body still flows
            Err(_) => return Err(CallError::Deadline { node: node.clone(), after: timeout }),
        }
    }
}

fn response(mut answer: ClientResponse, method: &Method, permit: Permit, attempt: u32) -> UpstreamResponse {
    let status = answer.status().as_u16();
    let node = permit.node().clone();
    let bodiless = *method == Method::HEAD || status == 204 || status == 304;
    let chunked = answer.headers().contains_key("transfer-encoding");
    let length = answer.headers().get(CONTENT_LENGTH).filter(|_| !bodiless && !chunked);
    let length = length.and_then(|value| value.to_str().ok()).and_then(|value| value.trim().parse().ok());
    let parts = answer.take_payload();
    UpstreamResponse { status, head: answer, body: AnswerBody::new(parts, length, permit), node, attempt }
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE].contains(method)
}

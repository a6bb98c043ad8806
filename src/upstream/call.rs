//! The one function that calls a service.
//!
//! Tries go to the next node each time. A try is repeated only where the request was surely not sent, or where doing it
//! twice is harmless: an idempotent method (RFC 9110 section 9.2.2), or a policy that says so.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounterVec;

use super::body::{AnswerBody, RequestBody};
use super::http1::{Answer, AnswerHead, HttpError, Outgoing, Pool, RequestHead, Shared, Target, is_idempotent};
use super::{CallError, Policy, headers};
use crate::backoff::Backoff;
use crate::balance::{Balancer, LocalBalancer};
use crate::metrics::Metrics;
use crate::registry::Node;
use crate::trace::context::TraceContext;
use crate::trace::tracestate;

/// Shorter than the 75 s for which nodes keep an idle connection, so that they never close one in our hands.
const IDLE: Duration = Duration::from_secs(15);
/// A node on the same network accepts in a millisecond; a second lost SYN is repeated after 3 s, so this bears one.
const CONNECT: Duration = Duration::from_secs(2);
/// The longest wait between two tries.
const BACKOFF_CAP: Duration = Duration::from_secs(1);

/// Where a node listens that names no port.
const HTTP_PORT: u16 = 80;

/// Calls services; one a worker.
#[derive(Clone)]
pub struct Upstream {
    pool: Rc<Pool>,
    balancer: Rc<LocalBalancer>,
    call_key: Option<String>,
    /// `goms=<service>`, what callees read as their caller.
    caller: Option<String>,
    retries: IntCounterVec,
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
    head: AnswerHead,
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
    pub fn headers(&self) -> &AnswerHead {
        &self.head
    }
}

impl Upstream {
    /// A client with its own connections. `caller` is the service that calls, `call_key` what signs its calls. Must run on an actix (or `LocalSet`) thread.
    #[must_use]
    pub fn new(balancer: Arc<Balancer>, caller: &str, call_key: Option<&str>, metrics: &Metrics) -> Self {
        let retries = metrics.counter("upstream_retries_total", "tries after the first one", &["service"]);
        Self {
            pool: Pool::new(CONNECT, IDLE),
            balancer: Rc::new(balancer.local()),
            call_key: call_key.map(str::to_owned),
            caller: tracestate::member(caller),
            retries,
        }
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
        let may_repeat = policy.retry_non_idempotent || is_idempotent(request.method);
        let client_ip = request.forwarded.map(|forwarded| forwarded.client);
        let body = Outgoing::from(std::mem::replace(&mut request.body, RequestBody::Empty));
        let (mut tried, mut backoff, mut attempt, mut before) = (Vec::new(), None, 1, None);
        loop {
            let permit = match self.balancer.acquire(service, client_ip, &tried).await {
                Ok(permit) => permit,
                Err(error) => return Err(before.unwrap_or_else(|| error.into())),
            };
            let node = permit.node().clone();
            let last = attempt >= policy.attempts.max(1);
            let failure = match self.try_once(&request, &body, &node, policy.timeout).await {
                Ok(answer) => {
                    let status = answer.head.status();
                    permit.answered(status);
                    if last || !may_repeat || !body.is_replayable() || !policy.retry_status.contains(&status) {
                        let Answer { head, body } = answer;
                        return Ok(UpstreamResponse {
                            status,
                            head,
                            body: AnswerBody::new(body, permit),
                            node,
                            attempt,
                        });
                    }
                    None
                }
                Err(error) => {
                    match &error {
                        CallError::Unreachable { .. } => permit.refused(),
                        CallError::Broken { .. } | CallError::Deadline { .. } => permit.failed(),
                        _ => {} // the client's fault
                    }
                    if last || !body.is_replayable() || !(error.was_not_sent() || may_repeat) {
                        return Err(error);
                    }
                    Some(error)
                }
            };
            log::debug!("try failed service={service} node={} attempt={attempt} error={failure:?}", node.id);
            drop(permit);
            before = failure;
            self.retries.with_label_values(&[service]).inc();
            tried.push(node);
            attempt += 1;
            let waits = backoff.get_or_insert_with(|| Backoff::seeded(policy.backoff, BACKOFF_CAP));
            tokio::time::sleep(waits.next_wait()).await;
        }
    }

    async fn try_once(
        &self,
        request: &UpstreamRequest<'_>,
        body: &Outgoing,
        node: &Arc<Node>,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        let address = SocketAddr::new(node.id.http.ip, node.id.http.port.unwrap_or(HTTP_PORT));
        let head = self.head(request, node).map_err(CallError::Request)?;
        let sent = self.pool.send(&Target::Socket(address), &head, body, timeout).await;
        self.pool.recycle(head.into_buffer());
        sent.map_err(|error| CallError::from_try(node.clone(), error))
    }

    fn head(&self, request: &UpstreamRequest<'_>, node: &Node) -> Result<RequestHead, HttpError> {
        let mut head = RequestHead::new(self.pool.buffer(), request.method, request.path, request.query)?;
        head.display("host", &node.id.http)?;
        let listed = || request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
        for &(name, value) in &request.headers {
            let replaced = request.content_type.is_some()
                && (name.eq_ignore_ascii_case("content-type") || name.eq_ignore_ascii_case("content-encoding"));
            if !replaced && headers::passes_down(name, listed().map(|(_, value)| *value)) {
                head.field(name, value)?;
            }
        }
        if let Some(content_type) = request.content_type {
            head.field("content-type", content_type.as_bytes())?;
        }
        if let Some(key) = &self.call_key {
            head.field(crate::trace::CALL_KEY_HEADER, key.as_bytes())?;
        }
        let mut id = uuid::Uuid::encode_buffer();
        let id = &*request.context.request_id.hyphenated().encode_lower(&mut id);
        head.field("x-request-id", id.as_bytes())?;
        head.field("traceparent", request.context.traceparent().as_bytes())?;
        if let Some(forwarded) = request.forwarded {
            head.display("x-forwarded-for", &forwarded.client)?;
            head.field("x-forwarded-proto", forwarded.proto.as_bytes())?;
            head.field("x-forwarded-host", forwarded.host.as_bytes())?;
        }
        self.tracestate(request, &mut head)?;
        Ok(head)
    }

    /// Without a valid `traceparent` beside it a caller's `tracestate` means nothing (W3C Trace Context, section 3.3).
    fn tracestate(&self, request: &UpstreamRequest<'_>, head: &mut RequestHead) -> Result<(), HttpError> {
        let continues = request.context.parent_id.is_some();
        let mut lines = request
            .headers
            .iter()
            .filter(|(name, _)| continues && name.eq_ignore_ascii_case("tracestate"))
            .map(|(_, line)| *line)
            .peekable();
        let own = self.caller.as_deref();
        let state = match lines.peek() {
            None => own.unwrap_or_default().into(),
            Some(_) => Cow::Owned(tracestate::with_caller(own, lines)),
        };
        if state.is_empty() { Ok(()) } else { head.field("tracestate", state.as_bytes()) }
    }
}

impl From<RequestBody> for Outgoing {
    fn from(body: RequestBody) -> Self {
        match body {
            RequestBody::Empty => Self::NoBody,
            RequestBody::Whole(bytes) => Self::Whole(bytes),
            RequestBody::Stream { parts, length } => Self::Stream(Shared::new(parts), length),
        }
    }
}

//! The one function that calls a service.
//!
//! Tries go to the next node each time. A try is repeated only where the request was surely not sent, or where doing it
//! twice is harmless: an idempotent method (RFC 9110 section 9.2.2), or a policy that says so.

use std::borrow::Cow;
use std::cell::{LazyCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounterVec;

use super::body::{AnswerBody, Deadline, RequestBody};
use super::http1::{
    Answer, AnswerHead, HttpError, Outgoing, Pool, RequestHead, Secure, Shared, Target, Times, Upgrade, is_idempotent,
};
use super::{CallError, ClientTls, Policy, Schemas, headers, rpc, tls_of};
use crate::backoff::Backoff;
use crate::balance::{Balancer, Kind, LocalBalancer, Permit};
use crate::causes;
use crate::metrics::Metrics;
use crate::registry::{Node, NodePort};
use crate::trace::context::TraceContext;
use crate::trace::tracestate;

/// Shorter than the 75 s for which nodes keep an idle connection, so that they never close one in our hands.
const IDLE: Duration = Duration::from_secs(15);
/// Shorter than the 300 s for which RPC ports keep one.
const RPC_IDLE: Duration = Duration::from_secs(120);
/// The longest wait between two tries.
pub(super) const BACKOFF_CAP: Duration = Duration::from_secs(1);

/// Where a node listens that names no port.
const HTTP_PORT: u16 = 80;

/// Calls services; one a worker.
#[derive(Clone)]
pub struct Upstream {
    pub(super) pool: Rc<Pool>,
    pub(super) rpc_pool: Rc<rpc::Pool>,
    pub(super) schemas: Arc<Schemas>,
    pub(super) balancer: Rc<LocalBalancer>,
    /// `goms=<service>`, what callees read as their caller.
    pub(super) caller: Option<String>,
    pub(super) retries: IntCounterVec,
    /// Requests that failed for want of a retry.
    unretried: IntCounterVec,
    fallbacks: IntCounterVec,
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
    /// What signs the call of a node; servers of the config do not get it.
    pub call_key: Option<&'a str>,
    /// Who asked, for `X-Forwarded-*` and the source-hash picker.
    pub forwarded: Option<Forwarded<'a>>,
    /// Where each try is noted, if anywhere.
    pub tries: Option<&'a Tries>,
}

/// The tries of a request, in their order.
pub type Tries = RefCell<Vec<Try>>;

/// What became of a try.
#[derive(Clone, Debug)]
pub struct Try {
    /// Which service (or part of it) was called.
    pub service: String,
    /// `ip:rpc_ip:http`; `None` where there was nobody to call.
    pub node: Option<String>,
    /// The status of its answer, or what went wrong.
    pub result: String,
    /// Up to the answer's head.
    pub took: Duration,
}

impl UpstreamRequest<'_> {
    fn note(&self, service: &str, node: Option<&Node>, began: Option<Instant>, result: impl FnOnce() -> String) {
        if let Some(tries) = self.tries {
            let (node, took) =
                (node.map(|node| node.id.to_string()), began.map_or(Duration::ZERO, |began| began.elapsed()));
            let tried = Try { service: service.to_owned(), node, result: result(), took };
            tries.borrow_mut().push(tried);
        }
    }
}

/// Who asked, as the gateway saw it.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded<'a> {
    /// The client, of whom [`Forwarded::chain`] tells more.
    pub client: IpAddr,
    /// `X-Forwarded-For` where a trusted proxy began it; else it is the client alone.
    pub chain: Option<&'a str>,
    /// `X-Forwarded-Proto`: `http` or `https`.
    pub proto: &'static str,
    /// `X-Forwarded-Host`: the `Host` that the client named.
    pub host: &'a str,
    /// `Client-Cert` (RFC 9440): the certificate that the client showed, which was verified.
    pub certificate: Option<&'a str>,
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
    /// A client with its own connections. `caller` is the service that calls. Must run on an actix (or `LocalSet`) thread.
    #[must_use]
    pub fn new(balancer: Arc<Balancer>, caller: &str, metrics: &Metrics) -> Self {
        let retries = metrics.counter("upstream_retries_total", "tries after the first one", &["service"]);
        let unretried = metrics.counter(
            "upstream_retries_refused_total",
            "retries that were left out since the service had too many",
            &["service"],
        );
        let fallbacks = metrics.counter(
            "fallbacks_total",
            "requests to another service, since none of this one was reached",
            &["service"],
        );
        let (balancer, caller) = (Rc::new(balancer.local()), tracestate::member(caller));
        Self {
            pool: Pool::new(IDLE),
            rpc_pool: rpc::Pool::new(RPC_IDLE),
            schemas: Arc::default(),
            balancer,
            caller,
            retries,
            unretried,
            fallbacks,
        }
    }

    /// With what others of the process know of messages, too.
    #[must_use]
    pub fn with_schemas(self, schemas: Arc<Schemas>) -> Self {
        Self { schemas, ..self }
    }

    /// Sends `request` to a node of `service` and gives its answer, as soon as that answer's head is complete. Where it
    /// reached none, `fallback` is called in its place.
    ///
    /// # Errors
    /// [`CallError`], the last try's.
    ///
    /// # Cancel safety
    /// Dropping the future ends the try that runs; the service may have carried it out.
    pub async fn call(
        &self,
        service: &str,
        fallback: Option<&str>,
        mut request: UpstreamRequest<'_>,
        policy: &Policy,
    ) -> Result<UpstreamResponse, CallError> {
        let body = outgoing(std::mem::replace(&mut request.body, RequestBody::Empty), policy);
        let end = policy.deadline.map(|after| Deadline { at: Instant::now() + after, after });
        let (mut service, mut next) = (service, fallback);
        loop {
            let error = match self.call_one(service, &request, &body, policy, end).await {
                Err(error) if error.was_not_sent() && body.is_replayable() => error,
                done => return done,
            };
            let Some(instead) = next.take() else { return Err(error) };
            log::debug!("fallback service={service} to={instead} error=\"{error}\"");
            self.fallbacks.with_label_values(&[service]).inc();
            service = instead;
        }
    }

    /// All tries of one service.
    async fn call_one(
        &self,
        service: &str,
        request: &UpstreamRequest<'_>,
        body: &Outgoing,
        policy: &Policy,
        end: Option<Deadline>,
    ) -> Result<UpstreamResponse, CallError> {
        let may_repeat = policy.retry_non_idempotent || is_idempotent(request.method);
        let client_ip = request.forwarded.map(|forwarded| forwarded.client);
        let (mut tried, mut attempt, mut before) = (Vec::new(), 1, None);
        let mut waits = LazyCell::new(|| Backoff::seeded(policy.backoff, BACKOFF_CAP));
        loop {
            let permit = match self.balancer.acquire(service, Kind::Http, client_ip, &tried).await {
                Ok(permit) => permit,
                Err(error) => {
                    request.note(service, None, None, || error.to_string());
                    return Err(before.unwrap_or_else(|| error.into()));
                }
            };
            let began = request.tries.map(|_| Instant::now());
            let node = permit.node().clone();
            // the wait before another try, where there may be one
            let mut again = |costs: bool| {
                if attempt >= policy.attempts.max(1) || !body.is_replayable() {
                    return None;
                }
                let wait = waits.next_wait();
                let in_time = end.is_none_or(|end| Instant::now() + wait < end.at);
                (in_time && (!costs || self.may_retry(service, &permit))).then_some(wait)
            };
            let (wait, failure) = match self.try_until(end, request, body, &node, policy).await {
                Ok(answer) => {
                    let status = answer.head.status();
                    request.note(service, Some(&node), began, || status.to_string());
                    permit.answered(status);
                    let is_wanted = !may_repeat || !policy.retry_status.contains(&status);
                    let Some(wait) = (if is_wanted { None } else { again(true) }) else {
                        let Answer { head, body } = answer;
                        let body = AnswerBody::new(body, permit, policy.stall_timeout, end);
                        return Ok(UpstreamResponse { status, head, body, node, attempt });
                    };
                    (wait, None)
                }
                Err(error) => {
                    request.note(service, Some(&node), began, || causes::chain(&error));
                    match &error {
                        CallError::Unreachable { .. } => permit.refused(),
                        CallError::Broken { .. } | CallError::Deadline { .. } => permit.failed(),
                        _ => {} // the client's fault
                    }
                    // what did not reach the service cost it nothing
                    let costs = !error.was_not_sent();
                    match if costs && !may_repeat { None } else { again(costs) } {
                        Some(wait) => (wait, Some(error)),
                        None => return Err(error),
                    }
                }
            };
            log::debug!("try failed service={service} node={} attempt={attempt} error={failure:?}", node.id);
            drop(permit);
            before = failure;
            self.retries.with_label_values(&[service]).inc();
            tried.push(node);
            attempt += 1;
            tokio::time::sleep(wait).await;
        }
    }

    /// Retries multiply an outage, so a service gets only so many.
    pub(super) fn may_retry(&self, service: &str, permit: &Permit) -> bool {
        let may = permit.take_retry();
        if !may {
            self.unretried.with_label_values(&[service]).inc();
        }
        may
    }

    /// A try that ends with the whole request's deadline.
    async fn try_until(
        &self,
        end: Option<Deadline>,
        request: &UpstreamRequest<'_>,
        body: &Outgoing,
        node: &Arc<Node>,
        policy: &Policy,
    ) -> Result<Answer, CallError> {
        // pinned, since each of the two ways would have a copy of its state
        let tried = std::pin::pin!(self.try_once(request, body, node, policy));
        match end {
            None => tried.await,
            Some(Deadline { at, after }) => tokio::time::timeout_at(at.into(), tried)
                .await
                .unwrap_or_else(|_| Err(CallError::Deadline { node: node.clone(), after })),
        }
    }

    async fn try_once(
        &self,
        request: &UpstreamRequest<'_>,
        body: &Outgoing,
        node: &Arc<Node>,
        policy: &Policy,
    ) -> Result<Answer, CallError> {
        let target = target(node, (policy.tls.as_deref(), policy.told_tls.as_deref()));
        let target = target.map_err(|error| CallError::from_try(node.clone(), error))?;
        let mut head = self.head(request, node).map_err(CallError::Request)?;
        if matches!(body, Outgoing::Upgrade(_)) {
            head.upgrade().map_err(CallError::Request)?;
        }
        let times = Times { connect: policy.connect_timeout, head: policy.timeout };
        let sent = self.pool.send(&target, &head, body, times).await;
        self.pool.recycle(head.into_buffer());
        sent.map_err(|error| CallError::from_try(node.clone(), error))
    }

    fn head(&self, request: &UpstreamRequest<'_>, node: &Node) -> Result<RequestHead, HttpError> {
        let mut head = RequestHead::new(self.pool.buffer(), request.method, request.path, request.query)?;
        head.host(node)?;
        let is_one = |name: &str, value: &[u8]| name.eq_ignore_ascii_case("connection") && headers::lists_more(value);
        let listed = request.headers.iter().filter(|(name, value)| is_one(name, value));
        let listed: Vec<&[u8]> = listed.map(|(_, value)| *value).collect();
        for &(name, value) in &request.headers {
            let replaced = request.content_type.is_some()
                && (name.eq_ignore_ascii_case("content-type") || name.eq_ignore_ascii_case("content-encoding"));
            if !replaced && headers::passes_down(name, listed.iter().copied()) {
                head.field(name, value)?;
            }
        }
        if let Some(content_type) = request.content_type {
            head.own("content-type", content_type.as_bytes())?;
        }
        if let Some(key) = request.call_key.filter(|_| node.knows_call_key()) {
            head.own(crate::trace::CALL_KEY_HEADER, key.as_bytes())?;
        }
        let mut id = uuid::Uuid::encode_buffer();
        let id = &*request.context.request_id.hyphenated().encode_lower(&mut id);
        head.plain("x-request-id", id.as_bytes());
        head.plain("traceparent", &request.context.traceparent_bytes());
        if let Some(forwarded) = request.forwarded {
            match forwarded.chain {
                Some(chain) => head.own("x-forwarded-for", chain.as_bytes())?,
                None => head.address("x-forwarded-for", forwarded.client, None)?,
            }
            if let Some(certificate) = forwarded.certificate {
                head.own("client-cert", certificate.as_bytes())?;
            }
            head.plain("x-forwarded-proto", forwarded.proto.as_bytes());
            head.own("x-forwarded-host", forwarded.host.as_bytes())?;
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
        if state.is_empty() { Ok(()) } else { head.own("tracestate", state.as_bytes()) }
    }
}

pub(super) fn target(node: &Node, tls: (Option<&ClientTls>, Option<&ClientTls>)) -> Result<Target, HttpError> {
    let address = SocketAddr::new(node.id.http.ip, node.id.http.port.unwrap_or(HTTP_PORT));
    match tls_of(node, NodePort::Http, tls).map_err(HttpError::Connect)? {
        Some(tls) => {
            let name =
                tls.name_of(node).ok_or(HttpError::Request("a host is no name that a certificate could have"))?;
            Ok(Target::Secure(Arc::new(Secure { address, name, config: tls.config.clone() })))
        }
        None => Ok(Target::Socket(address)),
    }
}

fn outgoing(body: RequestBody, policy: &Policy) -> Outgoing {
    match body {
        RequestBody::Empty => Outgoing::NoBody,
        RequestBody::Whole(bytes) => Outgoing::Whole(bytes),
        RequestBody::Stream { parts, length } => Outgoing::Stream(Shared::new(parts), length),
        RequestBody::Upgrade(parts) => {
            Outgoing::Upgrade(Upgrade { parts: Shared::new(parts), idle: policy.tunnel_timeout })
        }
    }
}

//! A call's way through the gateway, in reading order.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;

use http_v1::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http_v1::{Method, StatusCode};

use super::find::{Directory, Found, GOMS_SERVICE, to_02};
use super::journal::Journal;
use super::pass::{self, Marks};
use crate::drain::{Running, Traffic};
use crate::gateway::client::{Told, read};
use crate::gateway::keeper::{Finish, Keeper};
use crate::gateway::live::{Table, View};
use crate::gateway::respond::Failure;
use crate::gateway::{GatewayError, Parts, limit};
use crate::listener::Tls;
use crate::rpc::generated::{self, GrpcService};
use crate::rpc::port::{self, Answers, Call, gone};
use crate::rpc::timeout::{self, End};
use crate::rpc::wire::refuse_http;
use crate::rpc::{Code, Codec, CodecError, Status};
use crate::trace::{Origin, Recorder, TraceContext, tracestate};
use crate::upstream::{Forwarded, Opened, RpcError, RpcHead, Upstream, headers};

/// Passes calls on until [`Running::stop`]. Must be called within a tokio runtime. `own` answers calls of the gateway itself, by
/// the full name of its service: health checks. With `tls` the port takes nothing else.
///
/// # Errors
/// [`GatewayError::Listen`] when the socket cannot be used.
pub fn serve_rpc(
    listener: TcpListener,
    (parts, tls): (Parts, Option<Tls>),
    own: (&'static str, Arc<dyn GrpcService>),
) -> Result<Running, GatewayError> {
    let settings = parts.live.settings();
    let limits = port::Limits {
        handshake_timeout: settings.limits.header_timeout,
        connections: settings.limits.connections,
        keepalive: settings.limits.rpc_keepalive,
        ..port::Limits::default()
    };
    let name = parts.origin.service_name.clone();
    let traffic = Traffic::new(parts.load.clone());
    let (workers, counted) = (parts.workers, traffic.clone());
    let make = move || Front {
        view: parts.live.view(),
        directory: Directory::new(parts.catalog.clone(), &parts.metrics),
        upstream: Upstream::new(parts.balancer.clone(), &parts.origin.service_name, &parts.metrics),
        caller: tracestate::member(&parts.origin.service_name),
        recorder: parts.recorder.clone(),
        origin: parts.origin.clone(),
        traffic: counted.clone(),
        own: own.clone(),
    };
    port::serve(&name, listener, (limits, tls), workers, traffic, make).map_err(GatewayError::Listen)
}

/// What a worker thread has at hand.
pub(super) struct Front {
    view: View,
    directory: Directory,
    upstream: Upstream,
    /// Its member of `tracestate`.
    caller: Option<String>,
    pub recorder: Recorder,
    pub origin: Arc<Origin>,
    traffic: Arc<Traffic>,
    own: (&'static str, Arc<dyn GrpcService>),
}

/// Who asks: its address, what a trusted proxy tells of it, and its certificate.
type Caller<'c> = (IpAddr, Option<&'c Told>, Option<&'c str>);

impl Answers for Front {
    async fn answer(&self, call: Call) {
        let (path, fields) = (call.request.uri().path(), call.request.headers());
        let is_own = path.strip_prefix('/').and_then(|path| path.strip_prefix(self.own.0)?.strip_prefix('/')).is_some();
        if is_own && !fields.contains_key(GOMS_SERVICE) {
            return generated::answer(&*self.own.1, call).await;
        }
        let Call { request, mut respond, peer, certificate } = call;
        let (head, body) = request.into_parts();
        let refused = match Codec::of_content_type(head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes)) {
            _ if head.method != Method::POST => {
                Some((StatusCode::METHOD_NOT_ALLOWED, "the RPC port takes gRPC, by POST only\n".to_owned()))
            }
            Err(error @ CodecError::NotGrpc(_)) => Some((StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("{error}\n"))),
            _ => None,
        };
        if let Some((status, why)) = refused {
            return told(refuse_http(&mut respond, status, &why).map(drop));
        }
        let field = |name: &str| head.headers.get(name).map(HeaderValue::as_bytes);
        let mut context = TraceContext::from_headers(field("x-request-id"), field("traceparent"));
        let id = id_of(&context);
        let _in_flight = self.traffic.load.enter();
        let table = self.view.table();
        let client = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip().to_canonical());
        let trusted = &table.settings.trusted_proxies;
        let by_proxy =
            (!trusted.is_empty() && trusted.hold(client)).then(|| read(&to_02(&head.headers), client, trusted));
        let client = by_proxy.as_ref().map_or(client, |told| told.ip);
        let end = field("grpc-timeout").and_then(timeout::parse).map(End::in_time);
        let mut journal = Journal::begin(self, &table, &mut context, (head.uri.path(), client));
        journal.started(&head.headers);
        let asked = ((client, by_proxy.as_ref(), certificate.as_deref()), &context, end);
        let begun = tokio::select! {
            biased;
            // h2 counts a stream no more that its caller gave up, so nothing of it may go on
            () = gone(&mut respond) => return,
            begun = self.begin(&table, &mut journal, &head, asked) => begun,
        };
        let marks = Marks { id, fault: journal.fault() };
        match begun {
            Ok(Opened { response, sender, permit, lease, .. }) => {
                let passed = pass::streams((body, &mut respond), (response, sender), (marks, end)).await;
                match passed {
                    Ok((status, true)) => {
                        permit.failed();
                        journal.ended(status);
                    }
                    Ok((status, false)) => {
                        permit.answered(status.to_http());
                        journal.ended(status);
                    }
                    Err(error) => told(Err(error)),
                }
                drop(lease);
            }
            Err(status) => {
                journal.ended(status.clone());
                told(pass::refuse(&mut respond, marks, status).map(drop));
            }
        }
    }
}

impl Front {
    /// Finds where a call goes, whether it may, and begins it there.
    async fn begin(
        &self,
        table: &Table,
        journal: &mut Journal<'_>,
        head: &http_v1::request::Parts,
        ((client, told, certificate), context, end): (Caller<'_>, &TraceContext, Option<End>),
    ) -> Result<Opened, Status> {
        let (path, brought) = (head.uri.path(), &head.headers);
        let host = head.uri.authority().map(|authority| authority.as_str());
        let host = host.or_else(|| brought.get(HOST)?.to_str().ok()).unwrap_or_default();
        let Found { group, policy, keeper } = self.directory.find(table, path, host, brought)?;
        journal.routed(self.directory.meters(&group));
        limit::check_flow(&self.traffic.load, &table.settings.limits).map_err(|failure| status_of(&failure))?;
        let fields = match keeper {
            None => passing(brought),
            Some(keeper) => admitted(keeper, brought, (client, end), journal).await?,
        };
        let target = head.uri.path_and_query().cloned();
        let target = target.ok_or_else(|| Status::new(Code::Unimplemented, "the call names no method"))?;
        let proto = if certificate.is_some() { "https" } else { "http" };
        let certificate = certificate.filter(|shown| !shown.is_empty());
        let forwarded = Forwarded {
            client,
            chain: told.map(|told| told.chain.as_str()).filter(|chain| !chain.is_empty()),
            proto: told.and_then(|told| told.proto).unwrap_or(proto),
            host: told.and_then(|told| told.host.as_deref()).unwrap_or(host),
            certificate,
        };
        let mut passed_on = RpcHead::passed_on(target, fields);
        let lines: Vec<HeaderValue> = brought.get_all("tracestate").iter().cloned().collect();
        let key = table.settings.call_keys.first().map(String::as_str);
        passed_on.sign(context, key, self.caller.as_deref(), &lines, &forwarded);
        let opened = self.upstream.rpc_open(&group, &passed_on, Some(client), policy, end).await;
        opened.map_err(|error| {
            log::debug!("call failed path={path} request_id={} error=\"{error}\"", context.request_id);
            public(&error)
        })
    }
}

/// The fields of a call that is let in.
async fn admitted(
    keeper: &Keeper,
    brought: &HeaderMap,
    (client, end): (IpAddr, Option<End>),
    journal: &mut Journal<'_>,
) -> Result<HeaderMap, Status> {
    let brought = to_02(brought);
    let admitted = keeper.admit_fields((&brought, ""), client, &mut Finish::default()).await;
    let passage = admitted.map_err(|failure| status_of(&failure))?;
    if let Some(strike) = keeper.strike(&brought) {
        journal.struck(&strike);
        strike.land(end).await.map_err(|failure| status_of(&failure))?;
        in_time(end)?;
    }
    let mut fields = HeaderMap::with_capacity(brought.len() + 8);
    for (name, value) in passage.headers(&brought) {
        if is_passed(name)
            && let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
        {
            fields.append(name, value);
        }
    }
    Ok(fields)
}

/// Whether the caller still waits.
pub(super) fn in_time(end: Option<End>) -> Result<(), Status> {
    end.filter(|end| end.left().is_zero()).map_or(Ok(()), |end| Err(end.status()))
}

/// The fields of a call that go on.
fn passing(brought: &HeaderMap) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(brought.len() + 8);
    for (name, value) in brought {
        if is_passed(name.as_str()) {
            fields.append(name.clone(), value.clone());
        }
    }
    fields
}

/// Whether a field goes on: HTTP/2 has none that others would list in `Connection`.
pub(super) fn is_passed(name: &str) -> bool {
    !matches!(name, GOMS_SERVICE | "grpc-timeout") && headers::passes_down(name, std::iter::empty())
}

pub(super) fn status_of(failure: &Failure) -> Status {
    Status::of_http(failure.status().as_u16(), failure.to_string())
}

/// What a caller is told: which service, not which of its addresses.
pub(super) fn public(error: &RpcError) -> Status {
    let status = error.status();
    match error {
        RpcError::Status { .. } | RpcError::NoNode(_) | RpcError::Message(_) | RpcError::Request(_) => status,
        RpcError::Unreachable { node, .. } => {
            Status { message: format!("no node of service `{}` can be reached by rpc", node.id.service), ..status }
        }
        RpcError::Broken { node, .. }
        | RpcError::Mucp { node, .. }
        | RpcError::NotRpc { node, .. }
        | RpcError::Messages { node, .. }
        | RpcError::Answer { node, .. }
        | RpcError::Deadline { node, .. } => {
            Status { message: format!("service `{}` gave no proper answer", node.id.service), ..status }
        }
    }
}

fn id_of(context: &TraceContext) -> HeaderValue {
    let mut id = uuid::Uuid::encode_buffer();
    let id = context.request_id.hyphenated().encode_lower(&mut id);
    HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static("")) // digits and dashes always are one
}

fn told(sent: Result<(), h2_v4::Error>) {
    if let Err(error) = sent {
        log::debug!("an answer by rpc was not sent error=\"{error}\"");
    }
}

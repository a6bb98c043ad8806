//! gRPC-Web on the HTTP port: what browsers can send of gRPC. A call has one message, its answer one or a stream; trailers, which
//! browsers cannot read, are the answer's last frame.
//!
//! ```text
//! request:  frames of gRPC (0 | length | message)          the form `-text` has all of it in base64
//! answer:   frames of gRPC … | 0x80 | length | grpc-status: 0\r\ngrpc-message: …\r\n
//! ```
//! Source: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>. Calls go where those of the RPC port go, on the same terms.

mod form;

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;

use actix_web::dev::Payload;
use actix_web::http::header::{ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_TYPE, HeaderMap as FieldMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::stream;
use h2_v4::RecvStream;
use h2_v4::client::ResponseFuture;
use http_v1::HeaderMap;
use http_v1::uri::PathAndQuery;

use self::form::{Form, trailers};
use super::find::{Directory, Found, GOMS_SERVICE};
use super::front::{in_time, is_passed, public, status_of};
use super::lines::Parts;
use super::pass::{broken, keep_up, until};
use crate::balance::Permit;
use crate::gateway::answer::{Answer, Body};
use crate::gateway::asked::Asked as RouteAsked;
use crate::gateway::client::{Teller, client_ip};
use crate::gateway::journal::Journal;
use crate::gateway::keeper::{Finish, Passage};
use crate::gateway::live::Table;
use crate::gateway::pipeline::Worker;
use crate::gateway::respond::Failure;
use crate::gateway::{body, cors, faults, limit};
use crate::listener::Incoming;
use crate::rpc::timeout::{self, End};
use crate::rpc::wire::{poll_part, send_part};
use crate::rpc::{Code, Status, metadata};
use crate::trace::{TraceBody, TraceContext, tracestate};
use crate::upstream::{Opened, RpcHead};

const KIND: &str = "application/grpc-web";
/// What a browser's client announces that it will send.
const X_GRPC_WEB: &[u8] = b"x-grpc-web";
/// The content type of a request that is gRPC-Web, by its first word.
fn kind(request: &Incoming) -> Option<&str> {
    kind_of(request.method().as_str(), request.headers())
}

/// The same of a request that is not there.
pub(in crate::gateway) fn kind_of<'h>(method: &str, headers: &'h FieldMap) -> Option<&'h str> {
    if method != Method::POST.as_str() {
        return None;
    }
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let kind = text.split(';').next().unwrap_or_default().trim();
    kind.get(..KIND.len()).is_some_and(|start| start.eq_ignore_ascii_case(KIND)).then_some(kind)
}

/// Whether a browser asks if a page may call.
fn is_preflight(request: &Incoming) -> bool {
    let announced = |value: &HeaderValue| {
        value.as_bytes().split(|&byte| byte == b',').any(|name| name.trim_ascii().eq_ignore_ascii_case(X_GRPC_WEB))
    };
    cors::asked_method(request) == Some("POST")
        && request.headers().get_all(ACCESS_CONTROL_REQUEST_HEADERS).any(announced)
}

/// Whether a request is for here.
pub(in crate::gateway) fn is_asked(request: &Incoming) -> bool {
    kind(request).is_some() || is_preflight(request)
}

/// A request that may be a call.
pub(in crate::gateway) struct Asked<'a> {
    pub worker: &'a Worker,
    pub directory: &'a Directory,
    pub request: &'a Incoming,
    /// In its one spelling.
    pub path: &'a str,
    pub host: &'a str,
    pub context: &'a TraceContext,
}

impl<'a> Asked<'a> {
    /// Where the call goes, or would; `None`: a route takes the request over HTTP.
    pub fn find<'t>(&self, table: &'t Table) -> Option<Result<Found<'t>, Status>> {
        let asked = RouteAsked { method: "POST", ..RouteAsked::of_host(self.request, self.host, self.path) };
        self.directory.find_web(table, &asked)
    }

    /// Answers a preflight; `None`: the service has no terms for pages of other origins.
    pub fn preflight(&self, found: &Result<Found<'_>, Status>) -> Option<Result<Answer, Failure>> {
        if kind(self.request).is_some() {
            return None;
        }
        found.as_ref().ok()?.keeper?.preflight(self.request)
    }

    /// Carries a call out. Once the form is known, failures are answers of gRPC.
    ///
    /// # Errors
    /// 415 of a form that there is not.
    pub async fn answer<'t>(
        &self,
        found: Result<Found<'t>, Status>,
        table: &'t Table,
        payload: Payload,
        journal: &mut Journal,
        finish: &mut Finish<'t>,
    ) -> Result<Answer, Failure> {
        let kind = kind(self.request).unwrap_or_default();
        let form = Form::of(kind).ok_or_else(|| Failure::MediaType(kind.to_owned()))?;
        let told = Rc::new(Cell::new(StatusCode::OK.as_u16()));
        journal.told_by(told.clone());
        journal.started(TraceBody::None);
        let begun = match found {
            Ok(found) => self.begin(&found, table, form, payload, journal, finish).await,
            Err(status) => Err(status),
        };
        let begun = match begun {
            Ok((opened, message, end)) => self.respond(form, opened, message, end, told.clone()).await,
            Err(status) => Err(status),
        };
        Ok(begun.unwrap_or_else(|status| {
            told.set(status.to_http());
            let head = form.head(&HeaderMap::new());
            Answer { head, body: Body::Whole(form.part(trailers(&status.to_trailers()))) }
        }))
    }

    /// Looks whether a call may go where it was found to, and begins it there.
    async fn begin<'t>(
        &self,
        found: &Found<'t>,
        table: &'t Table,
        form: Form,
        payload: Payload,
        journal: &mut Journal,
        finish: &mut Finish<'t>,
    ) -> Result<(Opened, Bytes, Option<End>), Status> {
        let refused = |failure: Failure| status_of(&failure);
        let (brought, limits) = (self.request.headers(), &table.settings.limits);
        journal.counted(self.directory.meters(&found.group));
        limit::check_headers(brought, limits).map_err(refused)?;
        limit::check_flow(&self.worker.traffic.load, limits).map_err(refused)?;
        let client = client_ip(self.request);
        let end = brought.get("grpc-timeout").and_then(|value| timeout::parse(value.as_bytes())).map(End::in_time);
        let passage = match found.keeper {
            Some(keeper) => {
                finish.begin(keeper, self.request);
                let passage = faults::let_in(keeper, (self.request, end), finish, journal).await.map_err(refused)?;
                in_time(end)?;
                passage
            }
            None => Passage::free(self.request),
        };
        let body = body::whole(self.request, payload, limits, passage.body_bytes()).await.map_err(refused)?;
        let message = form.message(body)?;
        let target = PathAndQuery::try_from(self.path);
        let target = target.map_err(|_| Status::new(Code::Unimplemented, "the path names no method"))?;
        let mut head = RpcHead::passed_on(target, self.fields(form, &passage));
        let lines: Vec<http_v1::HeaderValue> = brought
            .get_all("tracestate")
            .filter_map(|value| http_v1::HeaderValue::from_bytes(value.as_bytes()).ok())
            .collect();
        let key = table.settings.call_keys.first().map(String::as_str);
        let caller = tracestate::member(&self.worker.origin.service_name);
        head.sign(self.context, key, caller.as_deref(), &lines, &Teller::new(self.request).forwarded());
        let opened = self.worker.upstream.rpc_open(&found.group, &head, Some(client), found.policy, end).await;
        let opened = opened.map_err(|error| {
            let id = self.context.request_id;
            log::debug!("call failed path={} request_id={id} error=\"{error}\"", self.path);
            public(&error)
        })?;
        Ok((opened, message, end))
    }

    /// The fields for the service.
    fn fields(&self, form: Form, passage: &Passage<'_>) -> HeaderMap {
        let mut fields = HeaderMap::with_capacity(16);
        for (name, value) in passage.headers(self.request.headers()) {
            let is_own = name.as_bytes() == X_GRPC_WEB || name == GOMS_SERVICE;
            if !is_own
                && metadata::passes(name)
                && is_passed(name)
                && let Ok(name) = http_v1::HeaderName::from_bytes(name.as_bytes())
                && let Ok(value) = http_v1::HeaderValue::from_bytes(value)
            {
                fields.append(name, value);
            }
        }
        fields.insert(http_v1::header::CONTENT_TYPE, http_v1::HeaderValue::from_static(form.grpc));
        fields
    }

    /// Sends the message, and waits for the answer's head.
    async fn respond(
        &self,
        form: Form,
        opened: Opened,
        message: Bytes,
        end: Option<End>,
        told: Rc<Cell<u16>>,
    ) -> Result<Answer, Status> {
        let Opened { response, mut sender, permit, lease, .. } = opened;
        let mut up: Sending = Some(Box::pin(async move {
            // a node that wants no more says so in its answer
            drop(send_part(&mut sender, message, true).await);
        }));
        let (answered, body) = match answered(response, &mut up, end).await {
            Ok(answered) => answered,
            Err((status, is_fault)) => {
                if is_fault {
                    permit.failed();
                }
                return Err(status);
            }
        };
        permit.answered(200);
        let at_once = answered.contains_key("grpc-status").then(|| answered.clone());
        let head = form.head(&answered);
        if let Some(told_at_once) = at_once.as_ref().and_then(Status::from_trailers) {
            told.set(told_at_once.to_http());
        }
        let going = Going { form, up, body, at_once, end, told, permit, _lease: lease };
        let parts: Parts = Box::pin(stream::unfold(Some(going), |going| async move {
            let mut going = going?;
            let (part, goes_on) = going.next().await;
            Some((Ok(part), goes_on.then_some(going)))
        }));
        Ok(Answer { head, body: Body::Messages(parts) })
    }
}

/// What is being sent to the node.
type Sending = Option<LocalBoxFuture<'static, ()>>;

async fn sent(up: &mut Sending) {
    match up {
        Some(sending) => sending.await,
        None => pending().await,
    }
    *up = None;
}

/// The head and the body of an answer of gRPC; else what the caller is told, and whether the node is at fault.
async fn answered(
    response: ResponseFuture,
    up: &mut Sending,
    end: Option<End>,
) -> Result<(HeaderMap, RecvStream), (Status, bool)> {
    let (mut response, mut late) = (std::pin::pin!(response), std::pin::pin!(until(end)));
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut response => break answer,
            () = sent(up), if up.is_some() => {}
            status = &mut late => return Err((status, true)),
        }
    };
    let (head, body) = answer.map_err(|error| (broken(&error), true))?.into_parts();
    if head.status != http_v1::StatusCode::OK {
        let code = Code::of_foreign_answer(head.status.as_u16());
        return Err((Status::new(code, format!("the service answered {} without gRPC", head.status)), true));
    }
    Ok((head.headers, body))
}

/// An answer on its way.
struct Going {
    form: Form,
    up: Sending,
    body: RecvStream,
    /// Trailers that stood in the head.
    at_once: Option<HeaderMap>,
    end: Option<End>,
    told: Rc<Cell<u16>>,
    permit: Permit,
    _lease: crate::upstream::Lease,
}

impl Going {
    /// The next part, and whether more follow.
    async fn next(&mut self) -> (Bytes, bool) {
        loop {
            let part = tokio::select! {
                biased;
                part = std::future::poll_fn(|task| poll_part(&mut self.body, task)) => part,
                () = sent(&mut self.up), if self.up.is_some() => continue,
                status = until(self.end) => return self.failed(&status),
            };
            match part {
                Some(Ok(part)) if part.is_empty() => {}
                Some(Ok(part)) => return (self.form.part(part), true),
                Some(Err(error)) => return self.failed(&broken(&error)),
                None => break,
            }
        }
        let ended = std::future::poll_fn(|task| self.body.poll_trailers(task)).await;
        let mut fields = match ended {
            Ok(fields) => fields.or_else(|| self.at_once.take()).unwrap_or_default(),
            Err(error) => return self.failed(&broken(&error)),
        };
        let Some(status) = Status::from_trailers(&fields) else {
            return self.failed(&Status::new(Code::Unknown, "the service's answer ended without a grpc-status"));
        };
        self.told.set(status.to_http());
        keep_up(&mut fields);
        (self.form.part(trailers(&fields)), false)
    }

    fn failed(&mut self, status: &Status) -> (Bytes, bool) {
        self.permit.failed();
        self.told.set(status.to_http());
        (self.form.part(trailers(&status.to_trailers())), false)
    }
}

//! A request's way through the gateway: one function, steps in reading order.

use std::borrow::Cow;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::Payload;
use actix_web::http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode};
use bytes::Bytes;
use futures_util::Stream;

use super::answer::{self, Answer, Body};
use super::asked::{self, Asked};
use super::client::{self, Teller};
use super::inside::Inside;
use super::journal::Journal;
use super::keeper::{Finish, Passage};
use super::live::{Table, View};
use super::respond::Failure;
use super::rule::{Fallback, Outcome};
use super::{AnswerForm, body, cluster, cors, faults, limit, micro, pattern, rpc, secure};
use crate::balance::Balancer;
use crate::broker::Broker;
use crate::drain::Traffic;
use crate::listener::{Answered, Incoming};
use crate::metrics::LoadGuard;
use crate::raw_fields::RawFields;
use crate::registry::CatalogWatch;
use crate::trace::{Origin, Recorder, TraceBody, TraceContext};
use crate::upstream::{Broken, CallError, Upstream, UpstreamRequest};

/// What a worker thread has at hand.
pub(super) struct Worker {
    pub view: View,
    pub balancer: Arc<Balancer>,
    pub upstream: Upstream,
    pub recorder: Recorder,
    pub origin: Arc<Origin>,
    pub catalog: CatalogWatch,
    /// Who serves which service of gRPC.
    pub directory: rpc::Directory,
    pub broker: Option<Arc<dyn Broker>>,
    pub traffic: Arc<Traffic>,
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Answers a request, whatever happens.
pub(super) async fn run(worker: Rc<Worker>, request: Incoming, payload: Payload) -> Answered {
    let header = |name: HeaderName| request.headers().get(name).map(HeaderValue::as_bytes);
    let mut context = TraceContext::from_headers(header(X_REQUEST_ID), header(TRACEPARENT));
    let mut id = [0; 36];
    let id = &*context.request_id.hyphenated().encode_lower(&mut id);
    let mut passed = RawFields::default();
    let mut response = if request.path() == "/cluster" {
        Box::pin(page(&worker, &request, id)).await
    } else {
        let in_flight = worker.traffic.load.enter();
        let table = worker.view.table();
        client::settle(&request, &table.settings.trusted_proxies);
        let inside = Inside::asked(&request, &table.settings);
        let mut asides = Asides { finish: Finish::default(), inside, passed: RawFields::default() };
        let mut journal = Journal::begin(&worker, &table, &request, &mut context);
        let steps = steps(&worker, &table, &request, payload, &context, &mut journal, &mut asides);
        let mut response = match steps.await {
            Ok(answer) => {
                journal.answered(answer.head.status().as_u16());
                deliver(asides.finish.encode(answer), journal, in_flight)
            }
            Err(failure) => {
                note(&failure, &request, id);
                journal.answered(failure.status().as_u16());
                let path = pattern::normal(request.path()).unwrap_or_default();
                let asked = Asked::new(&request, &path);
                if let Some(nearest) = table.routes.nearest_keeper(&asked) {
                    asides.finish.stray(nearest, &request);
                }
                failure.answer(table.routes.form(&asked), wants_problem(&request), id)
            }
        };
        passed = asides.passed;
        asides.finish.dress(response.headers_mut());
        match asides.inside {
            None => response,
            Some(inside) => inside.tell(&worker, &table, &request, &response),
        }
    };
    if !response.headers().is_empty() {
        response.headers_mut().remove(X_REQUEST_ID);
    }
    if worker.traffic.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    Answered { response, passed, request_id: id.as_bytes().try_into().ok() }
}

/// The page `/cluster`, for those who may do what is open by default.
async fn page(worker: &Worker, request: &Incoming, id: &str) -> HttpResponse<BoxBody> {
    let table = worker.view.table();
    let mut finish = Finish::default();
    client::settle(request, &table.settings.trusted_proxies);
    let admitted = match (secure::elsewhere(request, &table.settings), &table.routes.page) {
        (Some(Ok(redirect)), _) => return redirect.head.set_body(BoxBody::new(())),
        (Some(Err(failure)), _) => Err(failure),
        (None, None) => Ok(()),
        (None, Some(keeper)) => {
            finish.begin(keeper, request);
            keeper.admit(request, client::client_ip(request), &mut finish).await.map(drop)
        }
    };
    let mut response = match admitted {
        Ok(()) => {
            let page = cluster::page(worker.balancer.view(), request.query_string());
            HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(page)
        }
        Err(failure) => failure.answer(AnswerForm::default(), wants_problem(request), id),
    };
    finish.dress(response.headers_mut());
    response
}

/// What comes of a request beside its answer.
struct Asides<'t> {
    finish: Finish<'t>,
    inside: Option<Box<Inside>>,
    /// Its headers that pass as they came.
    passed: RawFields,
}

async fn steps<'t>(
    worker: &Worker,
    table: &'t Table,
    request: &Incoming,
    payload: Payload,
    context: &TraceContext,
    journal: &mut Journal,
    asides: &mut Asides<'t>,
) -> Result<Answer, Failure> {
    let Asides { finish, inside, passed } = asides;
    let limits = &table.settings.limits;

    // where to
    if request.method() == Method::CONNECT {
        // RFC 9110 section 9.3.6: what follows would be no HTTP, for some services and not for others
        return Err(Failure::Ambiguous("CONNECT asks for a tunnel, and this gateway opens none".to_owned()));
    }
    if let Some(redirect) = secure::elsewhere(request, &table.settings) {
        return redirect;
    }
    let host = asked::host_of(request);
    let path = asked::unambiguous(request.path(), host)?;
    if table.settings.grpc_web && rpc::web::is_asked(request) {
        let directory = &worker.directory;
        let asked = rpc::web::Asked { worker, directory, request, path: &path, host, context };
        // `None`: a route takes it over HTTP, or none holds for who asks, and other terms may
        if let Some(found) = asked.find(table) {
            match asked.preflight(&found) {
                Some(answer) => return answer,
                None if *request.method() == Method::POST => {
                    return Box::pin(asked.answer(found, table, payload, journal, finish)).await;
                }
                None => {}
            }
        }
    }
    let asked = Asked::of_host(request, host, &path);
    if let Some(method) = cors::asked_method(request) {
        // a browser asks whether a page may ask
        let meant = Asked { method, ..Asked::of_host(request, host, &path) };
        if let Ok((route, _)) = table.routes.find(&meant) {
            let keeper = table.routes.inner_keeper(route, &path).or(route.keeper.as_deref());
            if let Some(answer) = keeper.and_then(|keeper| keeper.preflight(request)) {
                journal.routed(route);
                return answer;
            }
        }
    }
    let (route, found) = match table.routes.find(&asked) {
        Ok(found) => found,
        Err(failure) => return stray(table, request, &asked, failure),
    };
    table.routes.check_spelling(&asked, route)?;
    journal.routed(route);
    if let Some(keeper) = &route.keeper {
        finish.begin(keeper, request);
    }

    // whether it may
    limit::check_headers(request.headers(), limits)?;
    limit::check_flow(&worker.traffic.load, limits)?;
    let mut passage = match &route.keeper {
        // in boxes, here and below: a request is as long as its longest way, and most go the short one
        Some(keeper) => Box::pin(faults::let_in(keeper, (request, None), finish, journal)).await?,
        None => Passage::free(request),
    };

    if let Some(keeper) = table.routes.inner_keeper(route, &path) {
        finish.begin(keeper, request);
        // whoever names a service by its path is asked what its own routes ask
        passage = Box::pin(faults::let_in(keeper, (request, None), finish, journal)).await?;
    }

    let mut named = None;
    let call = match &route.then {
        Outcome::Call(call) => &**call,
        Outcome::Micro(micro) => match micro.proxied(&path) {
            Some(service) => {
                named = Some(service);
                &micro.call
            }
            None => {
                let tries = inside.as_ref().map(|inside| &inside.tries);
                let asked = micro::Asked { worker, table, request, path: &path, passage: &passage, context, tries };
                return Box::pin(asked.answer(micro, payload, journal, finish)).await;
            }
        },
        Outcome::Redirect(redirect) => return answer::redirect(redirect, &found, &passage.query),
        Outcome::Respond(respond) => return Ok(answer::fixed(respond)),
    };

    // with what
    let mut prepared = body::prepare(request, payload, call.encode, limits, passage.body_bytes()).await?;
    journal.started(std::mem::replace(&mut prepared.shown, TraceBody::None));
    if let Some(method) = &call.rpc {
        let tries = inside.as_ref().map(|inside| &inside.tries);
        let teller = Teller::new(request);
        let asked = rpc::json::Asked { worker, table, request, passage: &passage, context, teller, tries };
        return Box::pin(asked.answer(route.group(&call.services), method, call, prepared)).await;
    }

    // the call
    let teller = Teller::new(request);
    let target = call.rewrite.as_ref().map_or(Cow::Borrowed(&*path), |rewrite| rewrite.fill(&found));
    let mut sent = UpstreamRequest {
        method: request.method().as_str(),
        path: if target.is_empty() { "/" } else { &target },
        query: &passage.query,
        headers: passage.headers(request.headers()),
        content_type: prepared.content_type,
        body: prepared.body,
        context,
        call_key: table.settings.call_keys.first().map(String::as_str),
        forwarded: Some(teller.forwarded()),
        tries: inside.as_ref().map(|inside| &inside.tries),
    };
    let copy = route.mirror.as_ref().and_then(|mirror| mirror.reflect(&worker.upstream, &mut sent, call));
    let fallback = match &call.fallback {
        Some(Fallback::Service(service)) => Some(service.as_str()),
        _ => None,
    };
    let group = named.as_deref().unwrap_or_else(|| route.group(&call.services));
    let policy = named.as_deref().map_or(&call.policy, |service| table.policy(service));
    let upstream = match worker.upstream.call(group, fallback, &mut sent, policy).await {
        Ok(upstream) => upstream,
        Err(error) => match &call.fallback {
            Some(Fallback::Respond(respond)) if error.was_not_sent() => return Ok(answer::fixed(respond)),
            _ if matches!(error, CallError::NoNode(_)) && worker.catalog.borrow().is_none() => {
                return Err(Failure::NotKnownYet);
            }
            _ => return Err(body::blame(error)),
        },
    };

    // the answer
    // nobody looks at its headers on their way
    let is_plain = route.keeper.is_none() && inside.is_none() && named.is_none();
    let (answer, fields) = answer::make(upstream, call.answer, request.method() == Method::HEAD, is_plain).await?;
    *passed = fields;
    if let Some(copy) = copy {
        copy.tell(&answer);
    }
    Ok(answer)
}

/// What no route takes. Browsers hear that a page may ask, so that it reads then what is wrong.
fn stray(table: &Table, request: &Incoming, asked: &Asked<'_>, failure: Failure) -> Result<Answer, Failure> {
    let nearest = match failure {
        Failure::NotFound(_) if cors::asked_method(request).is_some() => table.routes.nearest_keeper(asked),
        _ => None,
    };
    nearest.and_then(|keeper| keeper.preflight(request)).unwrap_or(Err(failure))
}

/// A whole body ends the journal now, a passing one with its last part.
fn deliver(answer: Answer, journal: Journal, in_flight: LoadGuard) -> HttpResponse<BoxBody> {
    match answer.body {
        Body::None => answer.head.set_body(BoxBody::new(actix_web::body::None::new())),
        Body::Whole(bytes) => answer.head.set_body(BoxBody::new(bytes)),
        Body::Passing(body) => {
            let size = body.length().map_or(BodySize::Stream, BodySize::Sized);
            let passing = Passing { body: *body, size, _journal: journal, _in_flight: in_flight };
            answer.head.set_body(BoxBody::new(passing))
        }
        Body::Messages(body) => {
            let passing = Passing { body, size: BodySize::Stream, _journal: journal, _in_flight: in_flight };
            answer.head.set_body(BoxBody::new(passing))
        }
        Body::Encoded(body) => {
            let passing = Passing { body: *body, size: BodySize::Stream, _journal: journal, _in_flight: in_flight };
            answer.head.set_body(BoxBody::new(passing))
        }
    }
}

/// An answer's body on its way to the client, with what must last as long as it.
struct Passing<B> {
    body: B,
    size: BodySize,
    _journal: Journal,
    _in_flight: LoadGuard,
}

impl<B: Stream<Item = Result<Bytes, Broken>> + Unpin> MessageBody for Passing<B> {
    type Error = Broken;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        Pin::new(&mut self.body).poll_next(task)
    }
}

/// The cause, with the addresses that the client does not get.
fn note(failure: &Failure, request: &Incoming, id: &str) {
    if let Failure::Call(error) = failure {
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        log::debug!("request failed path={} request_id={id} error=\"{error}\" cause=\"{cause}\"", request.path());
    }
}

/// RFC 9457 section 3: an error in the form `application/problem+json`, if the client names it.
fn wants_problem(request: &Incoming) -> bool {
    let asks = |value: &HeaderValue| {
        value.as_bytes().windows(24).any(|part| part.eq_ignore_ascii_case(b"application/problem+json"))
    };
    request.headers().get_all(ACCEPT).any(asks)
}

//! What is noted of a request: its two events, its metrics, its line in the access log.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::client::client_ip;
use super::faults::{GOMS_FAULT, Strike};
use super::live::Counted;
use super::pipeline::Worker;
use super::route::{Meters, Route};
use crate::listener::Incoming;
use crate::trace::event::now_ms;
use crate::trace::{Decision, Event, EventKind, REDACTED, RequestInfo, TraceBody, TraceContext};
use crate::upstream::headers;

/// nginx's word for a client that left before its answer.
const CLIENT_LEFT: u16 = 499;

/// One request's notes. Dropped without an end, it notes that the client left.
pub(super) struct Journal {
    worker: Rc<Worker>,
    table: Counted,
    request: Incoming,
    context: TraceContext,
    arrived: Instant,
    arrived_ms: i64,
    /// The place of its route in the table; `None`: it has none.
    route: Option<usize>,
    decision: Decision,
    info: Option<Arc<RequestInfo>>,
    held: Option<Event>,
    status: u16,
    /// Whose metrics it belongs to, where those of no route.
    meters: Option<Rc<Meters>>,
    /// Where its status will stand at its end, where it is not that of the head.
    told: Option<Rc<Cell<u16>>>,
    /// In the access log.
    is_logged: bool,
    /// What went wrong on purpose before its start was told.
    fault: Option<Arc<str>>,
}

impl Journal {
    /// Marks the context with whether callees shall record the request.
    pub fn begin(worker: &Rc<Worker>, table: &Counted, request: &Incoming, context: &mut TraceContext) -> Self {
        let decision = worker.recorder.decide(context);
        Self {
            worker: worker.clone(),
            table: table.clone(),
            request: request.clone(),
            context: *context,
            arrived: Instant::now(),
            arrived_ms: if decision == Decision::Off { 0 } else { now_ms() },
            is_logged: table.settings.access_log,
            route: None,
            decision,
            info: None,
            held: None,
            status: CLIENT_LEFT,
            meters: None,
            told: None,
            fault: None,
        }
    }

    /// Whose metrics it belongs to, and what its events call it.
    pub fn routed(&mut self, route: &Route) {
        self.route = Some(route.place);
    }

    /// Whose metrics it belongs to that has no route.
    pub fn counted(&mut self, meters: Rc<Meters>) {
        self.meters = Some(meters);
    }

    /// What went wrong on purpose: its events say so, those at least that are still to come.
    pub fn struck(&mut self, strike: &Strike) {
        match &mut self.info {
            Some(info) => mark(Arc::make_mut(info), &strike.told),
            None => self.fault = Some(strike.told.clone()),
        }
    }

    /// Its status is what stands here when its answer is over.
    pub fn told_by(&mut self, told: Rc<Cell<u16>>) {
        self.told = Some(told);
    }

    fn route(&self) -> Option<&Route> {
        self.table.routes.all().get(self.route?)
    }

    /// The body is known: tells the start, as of the arrival.
    pub fn started(&mut self, body: TraceBody) {
        if self.decision == Decision::Off || self.info.is_some() {
            return;
        }
        let secrets = &self.table.routes.known.secrets;
        let query = match self.request.query_string() {
            query if secrets.query.is_empty() => Cow::Borrowed(query),
            query => secrets.query(query),
        };
        let headers = self.request.headers().iter().map(|(name, value)| match name.as_str() {
            name if secrets.headers.iter().any(|secret| secret == name) => (name, REDACTED.as_bytes()),
            name => (name, value.as_bytes()),
        });
        let mut info = self.worker.recorder.request_info(
            self.request.method().as_str(),
            self.request.path(),
            &query,
            client_ip(&self.request).to_string(),
            headers.filter(|(name, _)| headers::is_shown(name)),
            body,
        );
        info.action = self.route().map(|route| route.name.clone());
        if let Some(fault) = self.fault.take() {
            mark(&mut info, &fault);
        }
        let info = Arc::new(info);
        self.info = Some(info.clone());
        let start = self.event(EventKind::RequestStart, info, self.arrived_ms, None);
        self.held = self.worker.recorder.record_start(self.decision, start);
    }

    /// What is answered; told when the journal is dropped, with the last part of the answer.
    pub fn answered(&mut self, status: u16) {
        self.status = status;
    }

    fn event(
        &self,
        kind: EventKind,
        request: Arc<RequestInfo>,
        time_ms: i64,
        duration: Option<std::time::Duration>,
    ) -> Event {
        Event {
            kind,
            context: self.context,
            request,
            origin: self.worker.origin.clone(),
            time_ms,
            duration,
            status: duration.map(|_| self.status),
            id: Uuid::new_v4(),
        }
    }

    fn log(&self, took: std::time::Duration) {
        let mut line = String::with_capacity(160);
        // writing into a String cannot fail
        let written = write!(
            line,
            "{} {} {} {} {:.3}ms request_id={}",
            client_ip(&self.request),
            self.request.method(),
            self.request.path(),
            self.status,
            took.as_secs_f64() * 1000.0,
            self.context.request_id
        );
        if written.is_ok() {
            log::info!(target: "goms::access", "{line}");
        }
    }
}

/// Says in an event what went wrong on purpose.
pub(super) fn mark(info: &mut RequestInfo, fault: &str) {
    info.head.push_header(GOMS_FAULT.as_str(), fault);
}

impl Drop for Journal {
    fn drop(&mut self) {
        let took = self.arrived.elapsed();
        if let Some(told) = self.told.take().filter(|_| self.status != CLIENT_LEFT) {
            self.status = told.get();
        }
        let of_route = self.route().map_or(&self.table.routes.stray, |route| &route.meters);
        let meters = self.meters.as_deref().unwrap_or(of_route);
        meters.count(self.status, took, self.decision.kept(&self.context));
        self.started(TraceBody::None);
        if let Some(info) = self.info.take() {
            let end = self.event(EventKind::RequestEnd, info, now_ms(), Some(took));
            self.worker.recorder.record_end(self.decision, self.held.take(), end);
        }
        if self.is_logged {
            self.log(took);
        }
    }
}

//! What is noted of a call: its two events, its metrics, its line in the access log.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http_v1::{HeaderMap, HeaderValue};
use uuid::Uuid;

use super::front::Front;
use crate::gateway::faults::Strike;
use crate::gateway::journal::mark;
use crate::gateway::live::Counted;
use crate::gateway::route::Meters;
use crate::rpc::{Code, Status};
use crate::trace::event::now_ms;
use crate::trace::{Decision, Event, EventKind, REDACTED, RequestInfo, TraceBody, TraceContext};
use crate::upstream::headers;

/// One call's notes. Dropped without an end, it notes that the caller left.
pub(super) struct Journal<'w> {
    front: &'w Front,
    table: Counted,
    context: TraceContext,
    began: Instant,
    path: String,
    client: IpAddr,
    decision: Decision,
    info: Option<Arc<RequestInfo>>,
    held: Option<Event>,
    /// What went wrong on purpose.
    fault: Option<Arc<str>>,
    meters: Option<Rc<Meters>>,
    status: Status,
}

impl<'w> Journal<'w> {
    /// Marks the context with whether callees shall record the call.
    pub fn begin(
        front: &'w Front,
        table: &Counted,
        context: &mut TraceContext,
        (path, client): (&str, IpAddr),
    ) -> Self {
        let decision = front.recorder.decide(context);
        Self {
            front,
            table: table.clone(),
            context: *context,
            began: Instant::now(),
            path: path.to_owned(),
            client,
            decision,
            info: None,
            held: None,
            fault: None,
            meters: None,
            status: Status::new(Code::Cancelled, ""),
        }
    }

    /// Tells the start. `fields` are the call's as they came.
    pub fn started(&mut self, fields: &HeaderMap) {
        if self.decision == Decision::Off {
            return;
        }
        let secrets = &self.table.routes.known.secrets.headers;
        let shown = fields.iter().map(|(name, value)| match name.as_str() {
            name if secrets.iter().any(|secret| secret == name) => (name, REDACTED.as_bytes()),
            name => (name, value.as_bytes()),
        });
        let shown = shown.filter(|(name, _)| headers::is_shown(name));
        let client = self.client.to_string();
        let info = self.front.recorder.request_info("POST", &self.path, "", client, shown, TraceBody::None);
        let info = Arc::new(info);
        self.info = Some(info.clone());
        let start = self.event(EventKind::RequestStart, info, false);
        self.held = self.front.recorder.record_start(self.decision, start);
    }

    /// What went wrong on purpose: the event of its end says so, and its answer shall.
    pub fn struck(&mut self, strike: &Strike) {
        self.fault = Some(strike.told.clone());
        if let Some(info) = &mut self.info {
            mark(Arc::make_mut(info), &strike.told);
        }
    }

    /// What its answer says that went wrong on purpose.
    pub fn fault(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(self.fault.as_deref()?).ok() // letters, digits and signs always are one
    }

    /// Whose metrics it belongs to.
    pub fn routed(&mut self, meters: Rc<Meters>) {
        self.meters = Some(meters);
    }

    /// How it ended; told when the journal is dropped.
    pub fn ended(&mut self, status: Status) {
        self.status = status;
    }

    fn event(&self, kind: EventKind, request: Arc<RequestInfo>, is_end: bool) -> Event {
        Event {
            kind,
            context: self.context,
            request,
            origin: self.front.origin.clone(),
            time_ms: now_ms(),
            duration: is_end.then(|| self.began.elapsed()),
            status: is_end.then(|| self.status.to_http()),
            id: Uuid::new_v4(),
        }
    }
}

impl Drop for Journal<'_> {
    fn drop(&mut self) {
        let (took, status) = (self.began.elapsed(), self.status.to_http());
        let meters = self.meters.as_deref().unwrap_or(&self.table.routes.stray);
        meters.count(status, took, self.decision.kept(&self.context));
        if let Some(info) = self.info.take() {
            let end = self.event(EventKind::RequestEnd, info, true);
            self.front.recorder.record_end(self.decision, self.held.take(), end);
        }
        if self.table.settings.access_log {
            log::info!(
                target: "goms::access",
                "{} RPC {} {} {:.3}ms request_id={}",
                self.client,
                self.path,
                self.status.code.name(),
                took.as_secs_f64() * 1000.0,
                self.context.request_id
            );
        }
    }
}

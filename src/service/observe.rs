//! What is told of each request: its trace events, its metrics and its line in the access log.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{IntCounter, IntGauge};
use uuid::Uuid;

use crate::metrics::{LoadGuard, Metrics, Timing};
use crate::trace::event::now_ms;
use crate::trace::{Decision, Event, EventKind, Origin, Recorder, RequestInfo, TraceContext};

/// The observers of one worker; made once.
pub(super) struct Observer {
    recorder: Recorder,
    origin: Arc<Origin>,
    access_log: bool,
    by_class: [IntCounter; 5],
    seconds: Timing,
    in_flight: IntGauge,
}

/// The status of a request whose client went away before the answer (nginx's number).
const CLIENT_GONE: u16 = 499;

impl Observer {
    pub(super) fn new(recorder: Recorder, origin: Arc<Origin>, access_log: bool, metrics: &Metrics) -> Self {
        let labels = [origin.service_name.as_str(), origin.node.as_str()];
        let counter =
            metrics.counter("service_requests_total", "requests a service answered", &["service", "node", "status"]);
        let by_class =
            ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| counter.with_label_values(&[labels[0], labels[1], class]));
        let seconds = metrics.timing(
            "service_request_seconds",
            "time a service took to answer",
            &[("service", labels[0]), ("node", labels[1])],
        );
        let in_flight = metrics
            .gauge("service_in_flight", "requests a service works on", &["service", "node"])
            .with_label_values(&labels);
        Self { recorder, origin, access_log, by_class, seconds, in_flight }
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    fn event(
        &self,
        kind: EventKind,
        trace: TraceContext,
        request: Arc<RequestInfo>,
        end: Option<(Duration, u16)>,
    ) -> Event {
        Event {
            kind,
            context: trace,
            request,
            origin: self.origin.clone(),
            time_ms: now_ms(),
            duration: end.map(|end| end.0),
            status: end.map(|end| end.1),
            id: Uuid::new_v4(),
        }
    }
}

/// One request from its arrival to its end. Its end is told when [`Observed::end`] is called, or when it is dropped
/// because the client went away.
pub(super) struct Observed {
    observer: Rc<Observer>,
    _load: LoadGuard,
    trace: TraceContext,
    method: String,
    path: String,
    started: Instant,
    decision: Decision,
    info: Option<Arc<RequestInfo>>,
    held: Option<Event>,
    status: u16,
    ended: bool,
}

impl Observed {
    /// `load` counts the request as running for as long as this lives. Marks `trace` with whether callees shall record
    /// the request.
    pub(super) fn begin(
        observer: &Rc<Observer>,
        load: LoadGuard,
        trace: &mut TraceContext,
        method: &str,
        path: &str,
    ) -> Self {
        observer.in_flight.inc();
        let decision = observer.recorder.decide(trace);
        Self {
            observer: observer.clone(),
            _load: load,
            trace: *trace,
            method: method.to_owned(),
            path: path.to_owned(),
            started: Instant::now(),
            decision,
            info: None,
            held: None,
            status: CLIENT_GONE,
            ended: false,
        }
    }

    /// Whether its events may be wanted.
    pub(super) fn is_traced(&self) -> bool {
        self.decision != Decision::Off
    }

    /// Tells `service.start`; the end will be told too.
    pub(super) fn record_start(&mut self, info: RequestInfo) {
        let info = Arc::new(info);
        self.info = Some(info.clone());
        let start = self.observer.event(EventKind::ServiceStart, self.trace, info, None);
        self.held = self.observer.recorder.record_start(self.decision, start);
    }

    /// The status that the end will be told with.
    pub(super) fn set_status(&mut self, status: u16) {
        self.status = status;
    }

    /// Tells the end.
    pub(super) fn end(mut self, status: u16) {
        self.status = status;
        self.finish();
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let observer = &self.observer;
        let took = self.started.elapsed();
        observer.in_flight.dec();
        observer.seconds.observe(took, self.decision.kept(&self.trace));
        let class = usize::from(self.status / 100).clamp(1, 5) - 1;
        observer.by_class[class].inc();
        if let Some(info) = self.info.take() {
            let end = observer.event(EventKind::ServiceEnd, self.trace, info, Some((took, self.status)));
            observer.recorder.record_end(self.decision, self.held.take(), end);
        }
        if observer.access_log {
            log::info!(
                target: "goms::access",
                "[{}] [{}] {} {} {} {took:.1?} requestId={}",
                observer.origin.service_name,
                observer.origin.node,
                self.method,
                self.path,
                self.status,
                self.trace.request_id,
            );
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.finish();
    }
}

//! The recorder: takes events from a running request without ever blocking it.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Settings;
use super::backlog::Backlog;
use super::context::TraceContext;
use super::event::{Event, RequestInfo};
use super::head::Head;
use super::redact::{REDACTED, Redact};
use super::sample::{Decision, Sampling};
use crate::metrics::Metrics;

/// A clonable handle of a process's spool.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    queue: mpsc::Sender<Event>,
    sampling: Sampling,
    body_bytes: usize,
    redact: Redact,
    backlog: Arc<Backlog>,
}

/// A body as an event shows it.
#[derive(Clone, Debug)]
pub enum TraceBody {
    /// No body: `{}`.
    None,
    /// JSON text.
    Json(Bytes),
    /// Something else of so many bytes, shown as a note.
    Opaque(u64),
}

/// Events that may wait in memory for the spool, besides the bound of bytes. Past either, events are dropped and counted.
const QUEUE_EVENTS: usize = 16_384;
/// A browser sends about a dozen; more are taken all the same.
const USUAL_HEADERS: usize = 16;

impl Recorder {
    /// Records nothing.
    #[must_use]
    pub fn off() -> Self {
        Self { shared: None }
    }

    /// A recorder and the queue that its spool reads.
    #[must_use]
    pub fn channel(settings: &Settings, metrics: &Metrics) -> (Self, mpsc::Receiver<Event>) {
        let (queue, events) = mpsc::channel(QUEUE_EVENTS);
        let shared = Shared {
            queue,
            sampling: Sampling::new(settings.sample, settings.slow),
            body_bytes: settings.body_bytes,
            redact: settings.redact.clone(),
            backlog: Arc::new(Backlog::new(metrics)),
        };
        (Self { shared: Some(Arc::new(shared)) }, events)
    }

    /// Keeps another share of all requests from now on; a recorder that is off stays off.
    pub fn set_sample(&self, share: f64) {
        if let Some(shared) = &self.shared {
            shared.sampling.set_share(share);
        }
    }

    /// What becomes of this request's events. Sets the context's flag to what callees shall do; off, it stays as it came.
    #[must_use]
    pub fn decide(&self, context: &mut TraceContext) -> Decision {
        self.shared.as_ref().map_or(Decision::Off, |shared| shared.sampling.decide(context))
    }

    /// The request as its events show it: first values only, names in the form `X-Request-Id`, without `Host`, secrets
    /// and the call key replaced by `[redacted]`, an overlong body by a note of its size. Action and caller are
    /// left to whoever knows them.
    #[must_use]
    pub fn request_info<'a>(
        &self,
        method: &str,
        path: &str,
        query: &str,
        client_ip: impl Display,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        body: TraceBody,
    ) -> RequestInfo {
        let only_the_key = Redact::default();
        let redact = self.shared.as_ref().map_or(&only_the_key, |shared| &shared.redact);
        let url_param: Cow<'_, str> =
            if query.is_empty() { Cow::Borrowed("") } else { Cow::Owned(format!("?{}", redact.query(query))) };
        // one of them is the host, which is not shown
        let usual = headers.size_hint().1.unwrap_or(0).saturating_sub(1).min(USUAL_HEADERS);
        let mut head = Head::new(method, path, &url_param, client_ip, usual);
        for (name, value) in headers {
            if name.eq_ignore_ascii_case("host") || head.headers().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                continue;
            }
            if redact.hides_header(name) {
                head.push_header(name, REDACTED);
            } else {
                head.push_header(name, &String::from_utf8_lossy(value));
            }
        }
        let cap = self.shared.as_ref().map_or(0, |shared| shared.body_bytes);
        let body = match body {
            TraceBody::None => Bytes::new(),
            TraceBody::Json(json) => {
                let len = json.len();
                let shown = if len <= cap { redact.body(json) } else { None };
                // what stands for many small values may be longer than they
                shown.filter(|shown| shown.len() <= cap).unwrap_or_else(|| note(len as u64))
            }
            TraceBody::Opaque(len) => note(len),
        };
        RequestInfo { head, body, action: None, caller: None }
    }

    /// Hands an event over. Never waits and takes no lock: when the queue is full the event is dropped and counted.
    /// It allocates no more than the event's own place in the queue, for 32 events at a time. The first event after a
    /// pause costs a system call, which wakes the spool; those that follow find it awake.
    pub fn record(&self, event: Event) {
        if let Some(shared) = &self.shared {
            shared.backlog.add(event, |event| shared.queue.try_send(event).is_ok());
        }
    }

    /// Takes the event that begins a request: records it, or gives it back to be held until the end.
    #[must_use = "a held event is wanted at the end"]
    pub fn record_start(&self, decision: Decision, event: Event) -> Option<Event> {
        match decision {
            Decision::Off => None,
            Decision::Held => Some(event),
            Decision::Kept => {
                self.record(event);
                None
            }
        }
    }

    /// Takes the event that ends a request, and what was held since its start.
    pub fn record_end(&self, decision: Decision, held: Option<Event>, end: Event) {
        let is_telling =
            |shared: &Arc<Shared>| decision == Decision::Kept || shared.sampling.is_telling(end.status, end.duration);
        if decision != Decision::Off && self.shared.as_ref().is_some_and(is_telling) {
            held.into_iter().for_each(|start| self.record(start));
            self.record(end);
        }
    }

    /// What waits for the spool; `None` where nothing is recorded.
    pub(super) fn backlog(&self) -> Option<Arc<Backlog>> {
        self.shared.as_ref().map(|shared| Arc::clone(&shared.backlog))
    }
}

fn note(len: u64) -> Bytes {
    Bytes::from(format!("{{\"goms\":\"body of {len} bytes not recorded\"}}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call_key::SigningKey;
    use crate::trace::event::{EventKind, Origin};
    use crate::trace::{Message, Transport};

    fn settings() -> Settings {
        Settings {
            sample: 1.0,
            slow: std::time::Duration::from_secs(1),
            body_bytes: 1024,
            redact: Redact::default(),
            spool_bytes: 1 << 20,
            spool_dir: std::path::PathBuf::new(),
            flush_interval: std::time::Duration::from_millis(100),
            message: Message::Batch,
            transport: Transport::Direct { call_key: SigningKey::default() },
            otlp: None,
        }
    }

    /// The events of one request.
    fn events(count: usize) -> Vec<Event> {
        let headers = [("accept", &b"*/*"[..])].into_iter();
        let info = Recorder::off().request_info("GET", "/", "", "::1", headers, TraceBody::None);
        let id = uuid::Uuid::new_v4();
        let text = String::new;
        let origin = Origin { service_name: text(), service_id: text(), project_name: text(), node: text() };
        let event = Event {
            kind: EventKind::RequestStart,
            context: TraceContext { request_id: id, trace_id: 1, span_id: 1, parent_id: None, sampled: true },
            request: Arc::new(info),
            origin: Arc::new(origin),
            time_ms: 0,
            duration: None,
            status: None,
            id,
        };
        vec![event; count]
    }

    #[test]
    fn recording_allocates_no_more_than_the_events_own_place() {
        let (recorder, mut queue) = Recorder::channel(&settings(), &Metrics::new());
        let record = |events: Vec<Event>| {
            allocation_counter::measure(|| events.into_iter().for_each(|event| recorder.record(event)))
        };
        let count = 8192;
        let first = record(events(count));
        let place = size_of::<Event>() as u64 + 2; // and its share of what binds 32 of them together
        assert!(first.bytes_total <= count as u64 * place, "{first:?} for {count} times {place}");
        assert!(first.count_total <= count as u64 / 32, "{first:?} for {count}");
        while queue.try_recv().is_ok() {}
        // what was read is used again, if not all of it
        let again = record(events(count));
        assert!(again.bytes_total <= first.bytes_total, "{again:?} after {first:?}");
        record(events(QUEUE_EVENTS));
        let full = record(events(100));
        assert_eq!((full.count_total, full.bytes_total), (0, 0), "a full queue");
    }

    #[test]
    fn of_a_header_the_first_value_is_shown_in_gos_spelling() {
        let headers = [("x-request-ID", "1"), ("host", "h"), ("HOST", "h"), ("X-Request-Id", "2"), ("dnt", "ä")];
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let info = Recorder::off().request_info("GET", "/", "", "", headers, TraceBody::None);
        let shown: Vec<_> = info.head.headers().collect();
        assert_eq!(shown, [("X-Request-Id", "1"), ("Dnt", "ä")]);
    }

    #[test]
    fn the_call_key_shows_under_no_spelling() {
        let headers = [("call-service-key", "k1"), ("Call_Service_Key", "k2"), ("call-service_KEY", "k3"), ("a", "b")];
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let info = Recorder::off().request_info("GET", "/", "", "", headers, TraceBody::None);
        let values: Vec<&str> = info.head.headers().map(|(_, value)| value).collect();
        assert_eq!(values, ["[redacted]", "[redacted]", "[redacted]", "b"]);
    }
}

//! What waits between the recorder and its spool: how many bytes may, and what is said when more comes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use super::event::Event;
use crate::metrics::Metrics;

/// Bytes that may wait for the spool, besides the bound of events: big bodies fill the memory long before 16,384 events
/// do. As much as the spool itself keeps in memory.
const BACKLOG_BYTES: usize = 32 << 20;
/// What an event takes besides its texts: itself, its share of the queue, the parts of its request.
const EVENT_BYTES: usize = 512;
/// So long nothing must have been dropped until it is said to be over, so that a queue at its brim is no line an event.
const QUIET: Duration = Duration::from_secs(1);

/// The bytes that wait; the recorder adds, the spool takes away. Without locks: requests pass here.
#[derive(Debug)]
pub(super) struct Backlog {
    bytes: AtomicUsize,
    limit: usize,
    dropped: IntCounter,
}

impl Backlog {
    pub fn new(metrics: &Metrics) -> Self {
        let dropped = metrics
            .counter("trace_dropped_total", "trace events lost because a queue was full", &["where"])
            .with_label_values(&["recorder"]);
        Self { bytes: AtomicUsize::new(0), limit: BACKLOG_BYTES, dropped }
    }

    /// Hands an event to `send`, which says whether there was room; else, or when too many bytes wait, it is dropped and
    /// counted. One event alone always fits.
    pub fn add(&self, event: Event, send: impl FnOnce(Event) -> bool) {
        let cost = cost(&event);
        let waiting = self.bytes.fetch_add(cost, Ordering::Relaxed);
        let fits = waiting == 0 || waiting + cost <= self.limit;
        if !(fits && send(event)) {
            self.bytes.fetch_sub(cost, Ordering::Relaxed);
            self.dropped.inc();
        }
    }

    /// These wait no longer.
    pub fn taken(&self, events: &[Event]) {
        self.bytes.fetch_sub(events.iter().map(cost).sum(), Ordering::Relaxed);
    }

    /// Events that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }
}

/// The same before and after the queue: nothing of it changes while it waits. The two events of a request share their
/// texts and are both charged for them.
fn cost(event: &Event) -> usize {
    let request = &event.request;
    EVENT_BYTES + request.head.len() + request.body.len()
}

/// Says when dropping begins and when it has ended, once each.
#[derive(Debug, Default)]
pub(super) struct DropNotice {
    /// What was dropped when it was looked at last.
    seen: u64,
    /// While it goes on: what was dropped before it began, and when the last one was noticed.
    going_on: Option<(u64, Instant)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    Began,
    /// With how many were dropped meanwhile.
    Ended(u64),
}

impl DropNotice {
    /// Compares and logs a change.
    pub fn look(&mut self, dropped: u64, now: Instant) {
        match self.change(dropped, now) {
            Some(Change::Began) => log::warn!(
                "trace events come faster than they are taken, the newest are dropped; lower `traces.sample` or \
                 `traces.bodyBytes`"
            ),
            Some(Change::Ended(events)) => log::info!("no more trace events are dropped events={events}"),
            None => {}
        }
    }

    /// When to look again though nothing came.
    pub fn deadline(&self) -> Option<Instant> {
        self.going_on.map(|(_, last)| last + QUIET)
    }

    fn change(&mut self, dropped: u64, now: Instant) -> Option<Change> {
        let before = std::mem::replace(&mut self.seen, dropped);
        match self.going_on {
            None if dropped > before => {
                self.going_on = Some((before, now));
                Some(Change::Began)
            }
            Some((start, _)) if dropped > before => {
                self.going_on = Some((start, now));
                None
            }
            Some((start, last)) if now >= last + QUIET => {
                self.going_on = None;
                Some(Change::Ended(dropped - start))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use uuid::Uuid;

    use super::super::{EventKind, Head, Origin, RequestInfo, TraceContext};
    use super::*;

    fn event(body: usize) -> Event {
        let context = TraceContext { request_id: Uuid::nil(), trace_id: 1, span_id: 1, parent_id: None, sampled: true };
        let request = RequestInfo {
            head: Head::new("POST", "/api/user/login", "?a=1", "127.0.0.1", 0),
            body: Bytes::from(vec![b' '; body]),
            action: None,
            caller: None,
        };
        let origin = Origin {
            service_name: "user".into(),
            service_id: "id".into(),
            project_name: "goms".into(),
            node: "node".into(),
        };
        Event {
            kind: EventKind::ServiceStart,
            context,
            request: Arc::new(request),
            origin: Arc::new(origin),
            time_ms: 0,
            duration: None,
            status: None,
            id: Uuid::nil(),
        }
    }

    #[test]
    fn bytes_bound_what_waits_and_come_back_when_it_is_taken() {
        let mut backlog = Backlog::new(&Metrics::new());
        backlog.limit = 10_000;
        let mut queue = Vec::new();
        let add = |backlog: &Backlog, queue: &mut Vec<Event>, body| {
            backlog.add(event(body), |event| {
                queue.push(event);
                true
            });
        };
        for _ in 0..5 {
            add(&backlog, &mut queue, 4000);
        }
        assert_eq!((queue.len(), backlog.dropped()), (2, 3), "a third one passes 10,000 bytes");
        backlog.taken(&queue);
        assert_eq!(backlog.bytes.load(Ordering::Relaxed), 0);
        queue.clear();
        add(&backlog, &mut queue, 20_000);
        assert_eq!((queue.len(), backlog.dropped()), (1, 3), "one alone always fits");
        add(&backlog, &mut queue, 0);
        assert_eq!((queue.len(), backlog.dropped()), (1, 4));
    }

    #[test]
    fn a_queue_that_takes_no_more_events_gives_the_bytes_back() {
        let backlog = Backlog::new(&Metrics::new());
        backlog.add(event(100), |_| false);
        assert_eq!((backlog.bytes.load(Ordering::Relaxed), backlog.dropped()), (0, 1));
    }

    #[test]
    fn a_change_of_state_is_said_once() {
        let (mut notice, start) = (DropNotice::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(notice.change(0, at(0)), None);
        assert_eq!(notice.change(3, at(10)), Some(Change::Began));
        assert_eq!(notice.deadline(), Some(at(1010)));
        assert_eq!(notice.change(3, at(500)), None, "a pause is no end");
        assert_eq!(notice.change(7, at(900)), None);
        assert_eq!(notice.change(7, at(1500)), None, "the last one was noticed at 900");
        assert_eq!(notice.change(7, at(1900)), Some(Change::Ended(7)));
        assert_eq!((notice.change(7, at(9000)), notice.deadline()), (None, None));
        assert_eq!(notice.change(8, at(9001)), Some(Change::Began));
        assert_eq!(notice.change(8, at(10_001)), Some(Change::Ended(1)));
    }
}

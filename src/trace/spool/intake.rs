//! Takes events out of the recorder's queue, without the recorder having to wake anybody while events keep coming.
//!
//! To wake a thread takes the waker a lock and a system call, which a request should not pay. So only the first event
//! after a pause does it; from then on the queue is emptied every few milliseconds until no event came for a while.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::mpsc;

use crate::trace::batch::BATCH_EVENTS;
use crate::trace::event::Event;

/// Between two looks: at 500,000 events a second 2,500 wait then, of 16,384 that may.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// And this part of the flush interval at most: what waits here is not on disk, and its age counts from when it is taken.
const LOOK_SHARE: u32 = 20;
/// Looks in vain until it sleeps again: at ten requests a second or less each wakes it, at more none does.
const LOOKS_IN_VAIN: u32 = 20;

/// The spool's end of the queue.
pub(super) struct Intake {
    queue: mpsc::Receiver<Event>,
    interval: Duration,
    /// When to look next; `None` while it sleeps until an event wakes it.
    look_at: Option<Instant>,
    in_vain: u32,
    /// The runtime had its turn since the last look.
    has_yielded: bool,
}

impl Intake {
    pub fn new(queue: mpsc::Receiver<Event>, flush_interval: Duration) -> Self {
        Self {
            queue,
            interval: LOOK_INTERVAL.min(flush_interval / LOOK_SHARE),
            look_at: None,
            in_vain: 0,
            has_yielded: false,
        }
    }

    /// Waits for events and appends up to [`BATCH_EVENTS`] to `received`, or none. Never ends once there are no recorders
    /// any more.
    ///
    /// # Cancel safety
    /// No event is lost.
    pub async fn receive(&mut self, received: &mut Vec<Event>) {
        if let Some(at) = self.look_at {
            if Instant::now() < at {
                tokio::time::sleep_until(at.into()).await;
            } else if !std::mem::replace(&mut self.has_yielded, true) {
                // the sockets are served by this thread too: without a pause no answer would be read while events come
                tokio::task::yield_now().await;
            }
            self.has_yielded = false;
            // nobody is to be woken by the next event
            self.queue.recv_many(received, BATCH_EVENTS).now_or_never();
        } else if self.queue.recv_many(received, BATCH_EVENTS).await == 0 {
            std::future::pending::<()>().await;
        }
        self.in_vain = if received.is_empty() { self.in_vain + 1 } else { 0 };
        self.look_at = match received.len() {
            0 if self.in_vain >= LOOKS_IN_VAIN => None,
            BATCH_EVENTS => Some(Instant::now()), // there may be more
            _ => Some(Instant::now() + self.interval),
        };
    }

    /// Takes no more events; what waits is appended.
    pub fn close(&mut self, received: &mut Vec<Event>) {
        self.queue.close();
        while let Ok(event) = self.queue.try_recv() {
            received.push(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Context, Wake, Waker};

    use super::*;
    use crate::trace::{EventKind, Head, Origin, RequestInfo, TraceContext};

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn event() -> Event {
        let (text, id) = (String::new, uuid::Uuid::nil());
        let request = RequestInfo { head: Head::default(), body: bytes::Bytes::new(), action: None, caller: None };
        Event {
            kind: EventKind::ServiceStart,
            context: TraceContext { request_id: id, trace_id: 1, span_id: 1, parent_id: None, sampled: true },
            request: Arc::new(request),
            origin: Arc::new(Origin { service_name: text(), service_id: text(), project_name: text(), node: text() }),
            time_ms: 0,
            duration: None,
            status: None,
            id,
        }
    }

    #[test]
    fn only_the_first_event_after_a_pause_wakes_the_spool() {
        // in a runtime, for its clock; nothing of it runs in between
        actix_web::rt::System::new().block_on(async {
            let (recorder, queue) = mpsc::channel(100);
            let mut intake = Intake::new(queue, Duration::from_millis(100));
            let wakes = Arc::new(Wakes::default());
            let waker = Waker::from(Arc::clone(&wakes));
            let mut received = Vec::new();
            let poll = |intake: &mut Intake, received: &mut Vec<Event>| {
                pin!(intake.receive(received)).poll(&mut Context::from_waker(&waker)).is_ready()
            };
            assert!(!poll(&mut intake, &mut received), "it sleeps");
            recorder.try_send(event()).unwrap();
            assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
            assert!(poll(&mut intake, &mut received));
            assert_eq!(received.drain(..).count(), 1);
            for _ in 0..50 {
                assert!(!poll(&mut intake, &mut received), "it is not time to look");
                recorder.try_send(event()).unwrap();
            }
            assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
            let look = |intake: &mut Intake, received: &mut Vec<Event>| {
                (intake.look_at, intake.has_yielded) = (Some(Instant::now()), true);
                assert!(poll(intake, received));
            };
            look(&mut intake, &mut received);
            assert_eq!(received.drain(..).count(), 50);
            for number in 0..LOOKS_IN_VAIN {
                assert!(intake.look_at.is_some(), "{number}");
                look(&mut intake, &mut received);
                assert!(received.is_empty());
            }
            assert!(!poll(&mut intake, &mut received), "it sleeps again");
            recorder.try_send(event()).unwrap();
            assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
        });
    }

    #[test]
    fn a_full_portion_is_followed_by_the_next_at_once_and_the_end_leaves_nothing() {
        actix_web::rt::System::new().block_on(async {
            let (recorder, queue) = mpsc::channel(1000);
            let mut intake = Intake::new(queue, Duration::from_millis(100));
            (0..2 * BATCH_EVENTS + 10).for_each(|_| recorder.try_send(event()).unwrap());
            let mut received = Vec::new();
            for _ in 0..2 {
                intake.receive(&mut received).await;
                assert_eq!(received.drain(..).count(), BATCH_EVENTS);
            }
            intake.close(&mut received);
            assert_eq!(received.len(), 10);
            assert!(recorder.try_send(event()).is_err());
        });
    }
}

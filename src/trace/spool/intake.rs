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
}

impl Intake {
    pub fn new(queue: mpsc::Receiver<Event>, flush_interval: Duration) -> Self {
        Self { queue, interval: LOOK_INTERVAL.min(flush_interval / LOOK_SHARE), look_at: None, in_vain: 0 }
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
            }
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

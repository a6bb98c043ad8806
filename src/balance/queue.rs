//! The queue of a service whose nodes all have as many requests in flight as they may.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Requests that wait until a node has room: first come, first served, but for one that was woken and found that another
/// took the room; it stands at the end again.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: AtomicUsize,
    room: Notify,
}

/// A place in the queue; gone when dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    queue: &'a Queue,
}

impl Queue {
    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A place among `most`, if one is left.
    pub fn enter(&self, most: usize) -> Option<Place<'_>> {
        let one_more = |waiting| (waiting < most).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok().map(|_| Place { queue: self })
    }

    /// There is room for one, or was a moment ago.
    pub fn one_left(&self) {
        self.room.notify_one();
    }

    /// Everything may have changed.
    pub fn all_changed(&self) {
        self.room.notify_waiters();
    }
}

impl Place<'_> {
    /// Runs `attempt` at once and whenever there may be room, until it gives something.
    ///
    /// # Cancel safety
    /// Dropped, it hands a wake-up that it got to the next one.
    pub async fn wait_for<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> T {
        loop {
            let mut room = std::pin::pin!(self.queue.room.notified());
            room.as_mut().enable(); // before the look, so that no room is missed after it
            if let Some(found) = attempt() {
                self.queue.one_left(); // there may be room for more than one
                return found;
            }
            room.await;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

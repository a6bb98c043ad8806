//! What a channel brings, bounded in bytes.
//!
//! The prefetch bounds messages, not bytes, and the client reads whatever the broker sends: 256 messages may be small, or
//! 128 MiB each. So a message for which there is no room loses its body here, at once. Its tag is kept (the broker sends
//! no other in its place), and when there is room it is given back to the queue, which sends it again. Nothing is lost,
//! and no subscription ends for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use lapin::message::Delivery;
use tokio::sync::mpsc;

use crate::shutdown::Shutdown;

/// Bytes of messages that are not settled.
#[derive(Debug)]
pub(in crate::consumer) struct Room {
    used: AtomicUsize,
    most: usize,
}

impl Room {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), most })
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How much more fits.
    pub fn left(&self) -> usize {
        self.most.saturating_sub(self.used())
    }

    /// Into an empty room anything goes, for what is larger than all of it could never be taken otherwise.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        // only one task takes; meanwhile the others can but make more room
        (bytes <= self.left() || self.used() == 0).then(|| {
            self.used.fetch_add(bytes, Ordering::Relaxed);
            Held { room: Arc::clone(self), bytes }
        })
    }
}

/// A message's part of the room, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    room: Arc<Room>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What came.
pub(super) enum Arrival {
    /// A message: its tag and body.
    Taken(u64, Vec<u8>, Held),
    /// The tag and bytes of a message for which there was no room.
    GivenUp(u64, usize),
}

/// Reads a subscription on a task of its own, so that nothing piles up in the client while the session waits for
/// something. The stream ends with an error, or without one where the queue or the connection went away.
pub(super) fn read(
    mut deliveries: lapin::Consumer,
    room: Arc<Room>,
    shutdown: &Shutdown,
) -> mpsc::UnboundedReceiver<lapin::Result<Arrival>> {
    let (sender, arrivals) = mpsc::unbounded_channel(); // bounded by the prefetch
    shutdown.spawn(async move {
        loop {
            let next = tokio::select! {
                next = deliveries.next() => next,
                () = sender.closed() => return,
            };
            let Some(next) = next else { return };
            let arrival = next.map(|Delivery { delivery_tag: tag, data: body, .. }| {
                let bytes = body.capacity();
                match room.take(bytes) {
                    Some(held) => Arrival::Taken(tag, body, held),
                    None => Arrival::GivenUp(tag, bytes),
                }
            });
            let failed = arrival.is_err();
            if sender.send(arrival).is_err() || failed {
                return;
            }
        }
    });
    arrivals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_not_taken_unless_it_is_alone() {
        let room = Room::new(100);
        let first = room.take(60).unwrap();
        assert_eq!(room.left(), 40);
        assert!(room.take(41).is_none());
        let second = room.take(40).unwrap();
        assert_eq!((room.used(), room.left()), (100, 0));
        drop((first, second));
        let huge = room.take(1000).unwrap();
        assert!(room.take(0).is_some(), "nothing always fits");
        assert!(room.take(1).is_none());
        drop(huge);
        assert_eq!(room.used(), 0);
    }
}

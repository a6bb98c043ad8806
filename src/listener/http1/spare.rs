//! The memory in which requests are answered, used again: it is some kilobytes long, which an allocator takes longer to give
//! and to take back than small pieces, and a connection that is idle does not need any.

use std::cell::RefCell;
use std::pin::Pin;

/// As many are kept as one worker's requests begin and end in one turn of its loop.
const SPARE: usize = 64;

/// Room for one `F` that runs, or for the next.
pub(super) type Room<F> = Pin<Box<Option<F>>>;

/// Rooms in which nothing runs; a worker's own.
pub(in super::super) struct Spare<F>(RefCell<Vec<Room<F>>>);

impl<F> Default for Spare<F> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<F> Spare<F> {
    /// A room with this in it.
    pub(super) fn take(&self, running: F) -> Room<F> {
        let room = self.0.borrow_mut().pop();
        match room {
            Some(mut room) => {
                room.set(Some(running));
                room
            }
            None => Box::pin(Some(running)),
        }
    }

    /// Ends what is in a room, and keeps it for the next.
    pub(super) fn give(&self, mut room: Room<F>) {
        room.set(None);
        let mut rooms = self.0.borrow_mut();
        if rooms.len() < SPARE {
            rooms.push(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn what_is_over_is_dropped_and_its_room_is_used_again() {
        let (spare, value) = (Spare::default(), Rc::new(()));
        let room = spare.take(value.clone());
        let place = std::ptr::from_ref(&*room);
        spare.give(room);
        assert_eq!(Rc::strong_count(&value), 1);
        let rooms: Vec<_> = (0..=SPARE).map(|_| spare.take(value.clone())).collect();
        assert!(std::ptr::eq(place, &*rooms[0]));
        rooms.into_iter().for_each(|room| spare.give(room));
        assert_eq!((spare.0.borrow().len(), Rc::strong_count(&value)), (SPARE, 1));
    }
}

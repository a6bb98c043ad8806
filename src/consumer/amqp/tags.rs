//! The delivery tags of a channel that are not acknowledged yet. A broker takes one acknowledgement for all tags up to
//! one, so what is done in order costs one frame a batch.

use std::collections::BTreeMap;

use super::arrivals::{Held, Room};

#[derive(Debug, Default)]
pub(super) struct Tags {
    open: BTreeMap<u64, State>,
    /// Those that are done.
    done: usize,
    given_up: usize,
}

#[derive(Debug)]
enum State {
    /// In work, with its part of the room.
    Taken(#[allow(dead_code, reason = "held until it is dropped")] Held),
    /// To be acknowledged.
    Done,
    /// To be given back when there is room for so many bytes.
    GivenUp(usize),
}

impl Tags {
    pub fn take(&mut self, tag: u64, held: Held) {
        self.open.insert(tag, State::Taken(held));
    }

    pub fn give_up(&mut self, tag: u64, bytes: usize) {
        self.open.insert(tag, State::GivenUp(bytes));
        self.given_up += 1;
    }

    pub fn done(&mut self, tag: u64) {
        if let Some(state @ State::Taken(_)) = self.open.get_mut(&tag) {
            *state = State::Done;
            self.done += 1;
        }
    }

    pub fn count(&self) -> usize {
        self.open.len()
    }

    pub fn given_up(&self) -> usize {
        self.given_up
    }

    /// Whether some are done that may not be acknowledged together, since one before them is not.
    pub fn has_stragglers(&self) -> bool {
        self.done > 0
    }

    /// The tag up to which all may be acknowledged.
    pub fn settled(&mut self) -> Option<u64> {
        let mut last = None;
        while let Some(first) = self.open.first_entry()
            && matches!(first.get(), State::Done)
        {
            last = Some(first.remove_entry().0);
            self.done -= 1;
        }
        last
    }

    /// Those that are done, to be acknowledged one by one.
    pub fn stragglers(&mut self) -> Vec<u64> {
        self.done = 0;
        let done = self.open.iter().filter(|(_, state)| matches!(state, State::Done));
        let tags: Vec<u64> = done.map(|(tag, _)| *tag).collect();
        tags.iter().for_each(|tag| drop(self.open.remove(tag)));
        tags
    }

    /// The oldest of those that were given up which fit into the room, to be given back.
    pub fn give_back(&mut self, room: &Room) -> Vec<u64> {
        let (mut tags, mut left) = (Vec::new(), room.left());
        for (tag, state) in &self.open {
            let State::GivenUp(bytes) = state else { continue };
            let alone = tags.is_empty() && room.used() == 0;
            if *bytes > left && !alone {
                break;
            }
            left = left.saturating_sub(*bytes);
            tags.push(*tag);
        }
        self.given_up -= tags.len();
        tags.iter().for_each(|tag| drop(self.open.remove(tag)));
        tags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(room: &std::sync::Arc<Room>) -> Held {
        room.take(10).unwrap()
    }

    #[test]
    fn nothing_is_acknowledged_that_is_not_done() {
        let room = Room::new(100);
        let mut tags = Tags::default();
        (1..=6).for_each(|tag| tags.take(tag, held(&room)));
        for tag in [2, 3, 5] {
            tags.done(tag);
        }
        assert_eq!(room.used(), 30, "what is done needs no room");
        assert_eq!(tags.settled(), None);
        assert!(tags.has_stragglers());
        tags.done(1);
        tags.done(1);
        assert_eq!(tags.settled(), Some(3));
        assert_eq!(tags.count(), 3);
        assert_eq!(tags.stragglers(), [5]);
        assert!(!tags.has_stragglers());
        tags.done(4);
        tags.done(6);
        assert_eq!((tags.settled(), tags.settled()), (Some(6), None));
        assert_eq!((tags.count(), room.used(), tags.has_stragglers()), (0, 0, false));
    }

    #[test]
    fn what_was_given_up_is_never_acknowledged_and_goes_back_when_it_fits() {
        let room = Room::new(100);
        let mut tags = Tags::default();
        let others = room.take(70).unwrap();
        tags.take(1, held(&room));
        tags.give_up(2, 50);
        tags.take(3, held(&room));
        for (tag, bytes) in [(4, 40), (5, 40), (6, 1000)] {
            tags.give_up(tag, bytes);
        }
        for tag in 1..=6 {
            tags.done(tag);
        }
        assert_eq!((tags.settled(), tags.stragglers()), (Some(1), vec![3]));
        assert_eq!(tags.give_back(&room), Vec::<u64>::new(), "the oldest first, and for that there is no room");
        drop(others);
        assert_eq!(tags.give_back(&room), [2, 4]);
        assert_eq!((tags.given_up(), tags.count()), (2, 2));
        let others = held(&room);
        assert_eq!(tags.give_back(&room), [5]);
        assert_eq!(tags.give_back(&room), Vec::<u64>::new(), "it fits nowhere beside others");
        drop(others);
        assert_eq!(tags.give_back(&room), [6]);
        assert_eq!((tags.given_up(), tags.count(), tags.settled()), (0, 0, None));
    }
}

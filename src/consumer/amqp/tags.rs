//! The delivery tags of a channel that are not acknowledged yet. A broker takes one acknowledgement for all tags up to
//! one, so what is done in order costs one frame a batch.

use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Tags {
    /// Bytes, and whether it is done.
    taken: BTreeMap<u64, (usize, bool)>,
    bytes: usize,
    /// Those that are done.
    done: usize,
}

impl Tags {
    pub fn take(&mut self, tag: u64, bytes: usize) {
        self.taken.insert(tag, (bytes, false));
        self.bytes += bytes;
    }

    pub fn done(&mut self, tag: u64) {
        if let Some((_, done)) = self.taken.get_mut(&tag)
            && !std::mem::replace(done, true)
        {
            self.done += 1;
        }
    }

    pub fn count(&self) -> usize {
        self.taken.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether some are done that may not be acknowledged together, since one before them is not.
    pub fn has_stragglers(&self) -> bool {
        self.done > 0
    }

    /// The tag up to which all may be acknowledged.
    pub fn settled(&mut self) -> Option<u64> {
        let mut last = None;
        while let Some(first) = self.taken.first_entry()
            && first.get().1
        {
            let (tag, (bytes, _)) = first.remove_entry();
            self.bytes -= bytes;
            self.done -= 1;
            last = Some(tag);
        }
        last
    }

    /// Those that are done, to be acknowledged one by one.
    pub fn stragglers(&mut self) -> Vec<u64> {
        let tags: Vec<u64> = self.taken.iter().filter(|(_, (_, done))| *done).map(|(tag, _)| *tag).collect();
        for (bytes, _) in tags.iter().filter_map(|tag| self.taken.remove(tag)) {
            self.bytes -= bytes;
        }
        self.done = 0;
        tags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_acknowledged_that_is_not_done() {
        let mut tags = Tags::default();
        (1..=6).for_each(|tag| tags.take(tag, 10));
        for tag in [2, 3, 5] {
            tags.done(tag);
        }
        assert_eq!(tags.settled(), None);
        assert!(tags.has_stragglers());
        tags.done(1);
        tags.done(1);
        assert_eq!(tags.settled(), Some(3));
        assert_eq!((tags.count(), tags.bytes()), (3, 30));
        assert_eq!(tags.stragglers(), [5]);
        assert!(!tags.has_stragglers());
        tags.done(4);
        tags.done(6);
        assert_eq!((tags.settled(), tags.settled()), (Some(6), None));
        assert_eq!((tags.count(), tags.bytes(), tags.has_stragglers()), (0, 0, false));
    }
}

//! How many messages may be taken at once, so that their bytes stay within a limit: a broker counts messages only.

/// Until a size is known a message counts as this: arrays of 256 events of ours are some 200 KiB.
const GUESS_BYTES: usize = 1 << 20;
/// A size that is not seen any more counts for less with each message: for half after some 90.
const MEMORY: usize = 128;

/// The prefetch that fits the sizes seen lately.
#[derive(Debug)]
pub(super) struct Window {
    most: u16,
    max_bytes: usize,
    /// The largest size lately.
    large: Option<usize>,
    now: u16,
    /// No size was known when it was taken.
    guessed: bool,
    /// Messages since the last change.
    seen: usize,
}

impl Window {
    pub fn new(most: u16, max_bytes: usize) -> Self {
        let mut window = Self { most: most.max(1), max_bytes, large: None, now: 1, guessed: true, seen: 0 };
        window.renew(0);
        window
    }

    /// What the broker is told.
    pub fn size(&self) -> u16 {
        self.now
    }

    pub fn see(&mut self, bytes: usize) {
        self.seen += 1;
        let before = self.large.unwrap_or(1);
        self.large = Some(bytes.max(before - before / MEMORY).max(1));
    }

    /// Whether one more fits beside `count` messages of `held` bytes. Alone any message does.
    pub fn admits(&self, held: usize, count: usize, bytes: usize) -> bool {
        count == 0 || held + bytes <= self.max_bytes
    }

    /// Whether one as large as those seen lately fits.
    pub fn has_room(&self, held: usize, count: usize) -> bool {
        self.admits(held, count, self.large.unwrap_or(GUESS_BYTES))
    }

    /// Whether the sizes of a whole window say that twice as many would fit, or the first sizes that more would, beside
    /// the `held` that are taken.
    pub fn may_grow(&self, held: usize) -> bool {
        let room = self.room(held);
        self.seen >= usize::from(self.now)
            && room > 0
            && (self.guessed || (self.now < self.most && room >= self.now.saturating_mul(2).min(self.most)))
    }

    /// Takes the size that fits now. A broker does not count the `held` that came under an earlier one.
    pub fn renew(&mut self, held: usize) {
        (self.now, self.seen) = (self.room(held).max(1), 0);
        self.guessed = self.large.is_none() && self.now < self.most;
    }

    fn room(&self, held: usize) -> u16 {
        let free = usize::from(self.most).saturating_sub(held);
        self.fitting().min(u16::try_from(free).unwrap_or(u16::MAX))
    }

    fn fitting(&self) -> u16 {
        let fitting = self.max_bytes / self.large.unwrap_or(GUESS_BYTES);
        u16::try_from(fitting).unwrap_or(u16::MAX).clamp(1, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_messages_fit_and_few_large_ones() {
        let mut window = Window::new(1_000, 64 << 20);
        assert_eq!(window.size(), 64);
        (0..63).for_each(|_| window.see(600));
        assert!(!window.may_grow(0), "not a whole window yet");
        window.see(600);
        assert!(window.may_grow(64) && !window.may_grow(1_000));
        window.renew(64);
        assert_eq!(window.size(), 936, "a thousand with those that are held");
        window.see(16 << 20);
        assert!(window.admits(48 << 20, 3, 16 << 20) && !window.admits((48 << 20) + 1, 3, 16 << 20));
        assert!(!window.has_room(60 << 20, 900));
        window.renew(0);
        assert_eq!(window.size(), 4);
        // one far too large comes alone
        window.see(128 << 20);
        assert!(window.admits(0, 0, 128 << 20) && !window.has_room(1, 1) && window.has_room(0, 0));
        window.renew(0);
        assert_eq!(window.size(), 1);
        // and is forgotten in time
        for _ in 0..3_000 {
            window.see(600);
            if window.may_grow(0) {
                window.renew(0);
            }
        }
        assert_eq!(window.size(), 1_000);
        assert_eq!(Window::new(50, 64 << 20).size(), 50);
    }
}

//! Load shedding: while a service takes longer for its answers than it should, a part of the new requests is refused at
//! once, so that the others get theirs in time and the service can catch up.
//!
//! Once a window the mean time up to the head of an answer (or to a failure) is looked at: over the target a tenth of the
//! requests more is refused, up to nine tenths (of a service that gets nothing nobody would learn that it is fast again),
//! otherwise a tenth less. So it takes a second to begin, ten at most to end, and settles where the service keeps the target.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How long a window is: some answers of a service that takes requests worth shedding, soon enough for who waits.
const WINDOW_MS: u64 = 1_000;
/// The mean of fewer answers than this says nothing.
const LEAST_ANSWERS: u64 = 10;
/// More or less a window, in percent.
const STEP: u32 = 10;
/// At most, in percent.
const MOST: u32 = 90;

/// What is known of a service's answers.
#[derive(Debug, Default)]
pub(super) struct Shedder {
    began_ms: AtomicU64,
    answers: AtomicU64,
    took_us: AtomicU64,
    /// Of the requests that are refused.
    percent: AtomicU32,
    /// Spreads the refusals evenly.
    turn: AtomicU32,
}

impl Shedder {
    /// A try was answered, or failed.
    pub fn measure(&self, took_us: u64) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.took_us.fetch_add(took_us, Ordering::Relaxed);
    }

    /// Whether a new request is to be refused, where answers should take `target_us`.
    pub fn refuses(&self, target_us: u64, now_ms: u64) -> bool {
        self.look(target_us, now_ms);
        match self.percent() {
            0 => false,
            percent => self.turn.fetch_add(percent, Ordering::Relaxed) % 100 + percent >= 100,
        }
    }

    /// Of the requests that are refused.
    pub fn percent(&self) -> u32 {
        self.percent.load(Ordering::Relaxed)
    }

    /// Ends the window if it is over; one thread does.
    fn look(&self, target_us: u64, now_ms: u64) {
        let began_ms = self.began_ms.load(Ordering::Relaxed);
        let is_over = now_ms.saturating_sub(began_ms) >= WINDOW_MS;
        if !is_over || self.began_ms.compare_exchange(began_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let (answers, took_us) = (self.answers.swap(0, Ordering::Relaxed), self.took_us.swap(0, Ordering::Relaxed));
        let is_slow = answers >= LEAST_ANSWERS && took_us / answers > target_us;
        let percent = self.percent();
        let next = if is_slow { (percent + STEP).min(MOST) } else { percent.saturating_sub(STEP) };
        self.percent.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a hundred requests at this time are refused.
    fn refused(shedder: &Shedder, now_ms: u64) -> usize {
        (0..100).filter(|_| shedder.refuses(50_000, now_ms)).count()
    }

    fn answers(shedder: &Shedder, count: usize, took_us: u64) {
        (0..count).for_each(|_| shedder.measure(took_us));
    }

    #[test]
    fn a_slow_service_gets_less_each_second_and_more_again_once_it_is_fast() {
        let shedder = Shedder::default();
        answers(&shedder, 100, 10_000);
        assert_eq!(refused(&shedder, 1_000), 0, "fast");
        for (second, expected) in [(2, 10), (3, 20), (4, 30)] {
            answers(&shedder, 100, 60_000);
            assert_eq!(refused(&shedder, second * 1_000), expected);
            assert_eq!(refused(&shedder, second * 1_000 + 999), expected, "until the window is over");
        }
        for second in 5..20 {
            answers(&shedder, 100, 60_000);
            refused(&shedder, second * 1_000);
        }
        assert_eq!(shedder.percent(), 90, "some must find out");
        for (second, expected) in [(20, 80), (21, 70)] {
            answers(&shedder, 20, 50_000);
            assert_eq!(refused(&shedder, second * 1_000), expected);
        }
    }

    #[test]
    fn few_answers_say_nothing() {
        let shedder = Shedder::default();
        answers(&shedder, 9, 10_000_000);
        assert_eq!(refused(&shedder, 5_000), 0);
    }
}

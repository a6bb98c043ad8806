//! Waiting longer after each failure, with jitter, so that many nodes do not return at the same instant.

use std::time::Duration;

/// Exponential backoff with "equal jitter" (half fixed, half random), after
/// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u32,
    state: u64,
}

impl Backoff {
    /// Waits `first` after the first failure, twice as long after each further one, `cap` at most.
    /// `seed` chooses the jitter.
    #[must_use]
    pub fn new(first: Duration, cap: Duration, seed: u64) -> Self {
        Self { first, cap, failures: 0, state: seed | 1 }
    }

    /// The same with a seed taken from a fresh UUID.
    #[must_use]
    pub fn seeded(first: Duration, cap: Duration) -> Self {
        Self::new(first, cap, uuid::Uuid::new_v4().as_u64_pair().0)
    }

    /// How long to wait now; each call counts as one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(self.failures.min(31)).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        let half = doubled.min(self.cap) / 2;
        // xorshift64 (Marsaglia, "Xorshift RNGs", 2003): jitter needs no better randomness.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let share = (self.state >> 11) as f64 / (1u64 << 53) as f64;
        half + half.mul_f64(share)
    }

    /// Starts anew after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_under_the_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), 7);
        for limit_ms in [100u64, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next_wait();
            assert!(wait >= Duration::from_millis(limit_ms / 2), "{wait:?} under half of {limit_ms} ms");
            assert!(wait <= Duration::from_millis(limit_ms), "{wait:?} over {limit_ms} ms");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }
}

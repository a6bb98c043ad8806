//! How fast a node answers: a peak-sensitive moving average, as Finagle's and linkerd's.

use std::sync::atomic::{AtomicU64, Ordering};

/// Over this time an old observation loses two thirds of its say; linkerd's default.
const DECAY_US: f64 = 10_000_000.0;
/// A try that failed counts as this slow at least: one that is refused in no time must not look fast.
const FAILURE_US: u64 = 1_000_000;

/// Rises at once with a slow answer, falls slowly with fast ones and with time. Two answers at the same instant may
/// count as one: that does no harm to an average.
#[derive(Debug, Default)]
pub(super) struct Latency {
    /// Microseconds, the bits of an `f64`; 0: nothing was observed.
    average: AtomicU64,
    /// When that was.
    at_us: AtomicU64,
}

impl Latency {
    /// Notes an answer that took so long and came now.
    pub fn answered(&self, took_us: u64, now_us: u64) {
        let took = took_us.max(1) as f64; // exact far beyond any deadline
        let before = f64::from_bits(self.average.load(Ordering::Relaxed));
        let old = self.decay(now_us);
        let average = if took > before { took } else { before * old + took * (1.0 - old) };
        self.average.store(average.to_bits(), Ordering::Relaxed);
        self.at_us.store(now_us, Ordering::Relaxed);
    }

    /// Notes a failure that took so long.
    pub fn failed(&self, took_us: u64, now_us: u64) {
        self.answered(took_us.max(FAILURE_US), now_us);
    }

    /// What to expect now, in microseconds; `None` when nothing was observed yet.
    pub fn expected_us(&self, now_us: u64) -> Option<f64> {
        let average = f64::from_bits(self.average.load(Ordering::Relaxed));
        (average > 0.0).then(|| average * self.decay(now_us))
    }

    fn decay(&self, now_us: u64) -> f64 {
        let passed = now_us.saturating_sub(self.at_us.load(Ordering::Relaxed));
        (-(passed as f64) / DECAY_US).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_at_once_and_falls_slowly() {
        let latency = Latency::default();
        assert_eq!(latency.expected_us(0), None);
        latency.answered(1_000, 0);
        latency.answered(9_000, 0);
        assert_eq!(latency.expected_us(0), Some(9_000.0));
        latency.answered(1_000, 1_000_000);
        let after = latency.expected_us(1_000_000).unwrap();
        assert!((8_000.0..9_000.0).contains(&after), "{after}");
        let idle = latency.expected_us(60_000_000).unwrap();
        assert!(idle < 100.0, "forgotten with time: {idle}");
        latency.failed(10, 60_000_000);
        assert_eq!(latency.expected_us(60_000_000), Some(1_000_000.0));
    }
}

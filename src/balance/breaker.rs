//! The circuit breaker: a service that fails as a whole is left alone for a while.
//!
//! ```text
//! closed ── failures in a row, and each node fails ──▶ open ── its time passes ──▶ half-open ── a success ──▶ closed
//!                                                       ▲                              │
//!                                                       └────────── a failure ─────────┘
//! ```
//! Open, it refuses every request; half-open, it lets one through at a time (Nygard, "Release It!", 2007).

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::clock::millis;
use super::settings::Breaker;

/// What a refused request is told to wait at least: `Retry-After` knows no less.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// A service's breaker.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    failures_in_a_row: AtomicU32,
    /// Until when it is open, on the balancer's clock; 0: closed. Stays after that time, while it is half-open.
    until_ms: AtomicU64,
    /// Somebody was let through a half-open one.
    is_probed: AtomicBool,
}

/// Whether a request may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    Free,
    /// As the one that finds out; [`Circuit::end_probe`] ends it.
    Probe,
    Refused {
        retry_after: Duration,
    },
}

impl Circuit {
    /// How long it is still open; zero while half-open, `None` when closed.
    pub fn open_for(&self, now_ms: impl FnOnce() -> u64) -> Option<Duration> {
        let until = self.until_ms.load(Ordering::Relaxed);
        (until != 0).then(|| Duration::from_millis(until.saturating_sub(now_ms())))
    }

    /// Asks for a request. Looks at the time only where it is not closed.
    pub fn enter(&self, now_ms: impl FnOnce() -> u64) -> Passage {
        match self.open_for(now_ms) {
            None => Passage::Free,
            Some(Duration::ZERO) if !self.is_probed.swap(true, Ordering::Relaxed) => Passage::Probe,
            Some(left) => Passage::Refused { retry_after: left.max(LEAST_WAIT) },
        }
    }

    pub fn end_probe(&self) {
        self.is_probed.store(false, Ordering::Relaxed);
    }

    /// Notes a success; whether that closed it.
    pub fn succeeded(&self, now_ms: impl FnOnce() -> u64) -> bool {
        if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
        // an answer to what was sent before it opened says little
        self.open_for(now_ms) == Some(Duration::ZERO) && self.until_ms.swap(0, Ordering::Relaxed) != 0
    }

    /// Notes a failure; whether that opened it.
    pub fn failed(&self, settings: &Breaker, now_ms: u64, every_node_fails: impl FnOnce() -> bool) -> bool {
        let in_a_row = self.failures_in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let before = self.until_ms.load(Ordering::Relaxed);
        let opens = match before {
            0 => in_a_row >= settings.failures && every_node_fails(),
            until => now_ms >= until,
        };
        let until = now_ms.saturating_add(millis(settings.open)).max(1);
        opens && self.until_ms.compare_exchange(before, until, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

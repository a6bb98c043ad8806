//! The time as the balancer's atomics keep it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tells milliseconds since the balancer began; tests give it a time of their own.
#[derive(Clone)]
pub(super) struct Clock {
    began: Instant,
    now: Arc<dyn Fn() -> Instant + Send + Sync>,
}

impl Clock {
    pub fn new(now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self { began: now(), now: Arc::new(now) }
    }

    pub fn now_ms(&self) -> u64 {
        millis((self.now)().saturating_duration_since(self.began))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Clock").field("began", &self.began).finish_non_exhaustive()
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

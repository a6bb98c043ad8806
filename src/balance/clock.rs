//! The time as the balancer's atomics keep it.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

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
        let since = (self.now)().saturating_duration_since(self.began);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Clock").field("began", &self.began).finish_non_exhaustive()
    }
}

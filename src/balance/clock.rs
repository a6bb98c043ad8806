//! The time as the balancer's atomics keep it.

use std::cell::Cell;
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

    pub fn now(&self) -> Now<'_> {
        Now { clock: self, read: Cell::new(None) }
    }

    pub fn now_ms(&self) -> u64 {
        self.now().ms()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Clock").field("began", &self.began).finish_non_exhaustive()
    }
}

/// The present moment, read when it is first asked for: most picks need no time.
pub(super) struct Now<'a> {
    clock: &'a Clock,
    read: Cell<Option<u64>>,
}

impl Now<'_> {
    /// Microseconds since the balancer began.
    pub fn us(&self) -> u64 {
        self.read.get().unwrap_or_else(|| {
            let since = (self.clock.now)().saturating_duration_since(self.clock.began);
            let now = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
            self.read.set(Some(now));
            now
        })
    }

    /// Milliseconds since then.
    pub fn ms(&self) -> u64 {
        self.us() / 1_000
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

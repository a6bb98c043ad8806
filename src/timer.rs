//! A timer for waits that nearly always end in time.
//!
//! Setting a timer and taking it back costs two turns at the runtime's wheel of timers, more than a short wait itself. This
//! one stays set when a wait is over, and the next wait uses it: gone off too early, it is set again, for the right time.
//!
//! May import: nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// Wakes the task that polled it last, now and then once too often.
#[derive(Debug)]
pub struct Timer {
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    /// A timer for a first wait until `end`. Must be made within a tokio runtime.
    #[must_use]
    pub fn new(end: Instant) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(end)) }
    }

    /// Ready once it is `end`, which may be another one each time.
    pub fn poll(&mut self, end: Instant, task: &mut Context<'_>) -> Poll<()> {
        if self.sleep.deadline() > end {
            self.sleep.as_mut().reset(end);
        }
        loop {
            ready!(self.sleep.as_mut().poll(task));
            if self.sleep.deadline() >= end {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(end);
        }
    }

    /// Ready once it is what it was made for.
    pub fn poll_set(&mut self, task: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(task)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn each_wait_ends_at_its_own_time() {
        let hour = Instant::now() + Duration::from_secs(3600);
        let mut timer = Timer::new(Instant::now()); // gone off before its first wait
        for ms in [5, 20, 1, 0, 10] {
            let end = Instant::now() + Duration::from_millis(ms);
            let mut timer_is_over = std::pin::pin!(std::future::poll_fn(|task| timer.poll(end, task)));
            timer_is_over.as_mut().await;
            assert!(Instant::now() >= end, "{ms} ms");
        }
        // set for too late, by a wait that was over early
        let mut early = std::pin::pin!(std::future::poll_fn(|task| timer.poll(hour, task)));
        assert!(futures_util::poll!(early.as_mut()).is_pending());
        let end = Instant::now() + Duration::from_millis(5);
        std::future::poll_fn(|task| timer.poll(end, task)).await;
        assert!(Instant::now() >= end);
    }
}

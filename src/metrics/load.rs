//! The live load of a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The live load of one node: requests running and answered.
#[derive(Clone, Debug, Default)]
pub struct Load {
    counts: Arc<LoadCounts>,
}

#[derive(Debug, Default)]
struct LoadCounts {
    in_flight: AtomicU64,
    answered: AtomicU64,
}

/// One running request; counts as answered when dropped.
#[derive(Debug)]
pub struct LoadGuard {
    counts: Arc<LoadCounts>,
}

impl Load {
    /// Counts a request as running until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> LoadGuard {
        self.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        LoadGuard { counts: self.counts.clone() }
    }

    /// Requests that are running now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.counts.in_flight.load(Ordering::Relaxed)
    }

    /// Requests that were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.counts.answered.fetch_add(1, Ordering::Relaxed);
    }
}

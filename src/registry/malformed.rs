//! Keys and files that are no node's: one warning each, counted, never fatal.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use prometheus::IntCounter;

use crate::metrics::Metrics;

/// How many keys are remembered as warned of. Past that a key is only counted, so that junk without end fills neither
/// memory nor the log.
const MAX_REMEMBERED: usize = 1000;

/// What was set aside so far.
#[derive(Debug)]
pub(super) struct Malformed {
    seen: Mutex<HashSet<String>>,
    count: IntCounter,
}

impl Malformed {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let count = metrics.counter("registry_malformed_total", "Registry keys or files set aside as no node's", &[]);
        Self { seen: Mutex::default(), count: count.with_label_values(&[] as &[&str]) }
    }

    /// Sets a key aside; a second time is silent.
    pub(super) fn skip(&self, key: &str, reason: &dyn Display) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(key) {
            return;
        }
        self.count.inc();
        if seen.len() < MAX_REMEMBERED {
            seen.insert(key.to_owned());
            log::warn!("registry key `{}` is skipped: {reason}", key.escape_debug());
        }
    }
}

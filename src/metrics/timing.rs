//! Durations that can name an example: the trace of a request that took so long.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::Histogram;

use super::LATENCY_BUCKETS;

/// One series of a histogram of seconds.
#[derive(Clone, Debug)]
pub struct Timing {
    histogram: Histogram,
    examples: Arc<Series>,
}

/// The examples of a process's timings.
#[derive(Clone, Debug, Default)]
pub(super) struct Examples {
    /// By the metric's name and its labels, in the order of their names.
    series: Arc<Mutex<HashMap<Key, Arc<Series>>>>,
    is_wanted: Arc<AtomicBool>,
}

type Key = (String, Vec<(String, String)>);

/// The examples of one series: the last one of each bucket, `+Inf` too.
#[derive(Debug, Default)]
pub(super) struct Series {
    is_wanted: Arc<AtomicBool>,
    buckets: [Mutex<Option<Example>>; LATENCY_BUCKETS.len() + 1],
}

/// A request that took so long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Example {
    /// Which.
    pub trace_id: u128,
    /// How long it took.
    pub seconds: f64,
    /// When it ended, in milliseconds of Unix time.
    pub time_ms: i64,
}

impl Timing {
    pub(super) fn new(histogram: Histogram, examples: Arc<Series>) -> Self {
        Self { histogram, examples }
    }

    /// Counts what took so long; `trace_id` where the trace is kept, so that somebody can look at it.
    pub fn observe(&self, took: Duration, trace_id: Option<u128>) {
        let seconds = took.as_secs_f64();
        self.histogram.observe(seconds);
        let Some(trace_id) = trace_id else { return };
        if self.examples.is_wanted.load(Ordering::Relaxed) {
            self.examples.keep(trace_id, seconds);
        }
    }
}

impl Examples {
    /// The series of a name and labels; made when it is new.
    pub fn of(&self, name: &str, labels: &[(&str, &str)]) -> Arc<Series> {
        let mut labels: Vec<_> = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        labels.sort();
        let mut known = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(Series { is_wanted: self.is_wanted.clone(), buckets: Default::default() });
        known.entry((name.to_owned(), labels)).or_insert_with(made).clone()
    }

    /// The series of a name and labels in the order of their names, if there is one.
    pub fn find(&self, key: &Key) -> Option<Arc<Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Somebody reads examples, so they are kept from now on.
    pub fn want(&self) {
        self.is_wanted.store(true, Ordering::Relaxed);
    }
}

impl Series {
    fn keep(&self, trace_id: u128, seconds: f64) {
        let place = LATENCY_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(LATENCY_BUCKETS.len());
        // a worker that finds another one here has nothing to add
        if let Ok(mut slot) = self.buckets[place].try_lock() {
            *slot = Some(Example { trace_id, seconds, time_ms: jiff::Timestamp::now().as_millisecond() });
        }
    }

    /// The example of the bucket at this place of the histogram.
    pub fn at(&self, place: usize) -> Option<Example> {
        *self.buckets.get(place)?.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

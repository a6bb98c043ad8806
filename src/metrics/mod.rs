//! The process's counters, at `/metrics` of the admin port: in Prometheus's text format, or in OpenMetrics, which tells
//! an example's trace beside a count of durations.
//!
//! May import: nothing.
//!
//! Each room makes its own instruments once, when it starts, with the functions here, and keeps the handles;
//! nothing is looked up by name while a request runs.

mod load;
mod open_metrics;
mod timing;

pub use load::{Load, LoadGuard};
pub use timing::Timing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, TextEncoder};

/// One registry of instruments a process (`goms up` shares it among its nodes).
#[derive(Clone, Default)]
pub struct Metrics {
    registry: prometheus::Registry,
    made: Arc<Mutex<HashMap<String, Instrument>>>,
    examples: timing::Examples,
}

#[derive(Clone)]
enum Instrument {
    Counter(IntCounterVec),
    Gauge(IntGaugeVec),
    Seconds(HistogramVec),
}

/// Seconds. Prometheus's usual 5 ms to 10 s plus finer ones below: a proxied request takes well under 1 ms.
const LATENCY_BUCKETS: [f64; 16] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 7.5, 10.0];

impl Metrics {
    /// What every process tells: `goms_build_info`, and `process_…` of Linux's procfs.
    ///
    /// # Panics
    /// Never: the names are literals of this crate and of `prometheus`.
    #[must_use]
    #[allow(clippy::expect_used)] // see above
    pub fn new() -> Self {
        let metrics = Self::default();
        let build = metrics.gauge("build_info", "always 1; which goms this is", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.registry.register(Box::new(ProcessCollector::for_self())).expect("nobody else tells of the process");
        metrics
    }

    /// A counter `goms_<name>` (end it with `_total`). A second call with the same name and kind gives the same counter.
    ///
    /// # Panics
    /// When a name or label is not valid in Prometheus, or a name comes again as another kind: both are literals of
    /// this crate.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let options = Opts::new(format!("goms_{name}"), help);
        match self.keep(name, || IntCounterVec::new(options, labels).map(Instrument::Counter)) {
            Instrument::Counter(counter) => counter,
            _ => panic!("goms_{name} is no counter"),
        }
    }

    /// A gauge `goms_<name>`.
    ///
    /// # Panics
    /// As [`Metrics::counter`].
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        let options = Opts::new(format!("goms_{name}"), help);
        match self.keep(name, || IntGaugeVec::new(options, labels).map(Instrument::Gauge)) {
            Instrument::Gauge(gauge) => gauge,
            _ => panic!("goms_{name} is no gauge"),
        }
    }

    /// A histogram of seconds `goms_<name>` (end it with `_seconds`).
    ///
    /// # Panics
    /// As [`Metrics::counter`].
    #[must_use]
    pub fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let options = HistogramOpts::new(format!("goms_{name}"), help).buckets(LATENCY_BUCKETS.to_vec());
        match self.keep(name, || HistogramVec::new(options, labels).map(Instrument::Seconds)) {
            Instrument::Seconds(histogram) => histogram,
            _ => panic!("goms_{name} is no histogram"),
        }
    }

    /// One series of a histogram of seconds `goms_<name>` whose values can name their traces.
    ///
    /// # Panics
    /// As [`Metrics::counter`].
    #[must_use]
    pub fn timing(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Timing {
        let (names, values): (Vec<_>, Vec<_>) = labels.iter().copied().unzip();
        let histogram = self.seconds(name, help, &names).with_label_values(&values);
        Timing::new(histogram, self.examples.of(&format!("goms_{name}"), labels))
    }

    /// Everything, in OpenMetrics 1.0 (<https://prometheus.io/docs/specs/om/open_metrics_spec/>). From the first call on
    /// a [`Timing`] keeps an example for each bucket.
    #[must_use]
    pub fn render_open_metrics(&self) -> String {
        self.examples.want();
        open_metrics::render(&self.registry.gather(), &self.examples)
    }

    /// Everything, in the text exposition format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("# cannot render the metrics: {error}\n"),
        }
    }

    /// Everything as it is now, for who shows some of it.
    #[must_use]
    pub fn read(&self) -> Reading {
        Reading { families: self.registry.gather() }
    }

    #[allow(clippy::expect_used)] // names are literals of this crate
    fn keep(&self, name: &str, make: impl FnOnce() -> prometheus::Result<Instrument>) -> Instrument {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(name) {
            return known.clone();
        }
        let instrument = make().expect("instrument names and labels are valid");
        let collector: Box<dyn prometheus::core::Collector> = match &instrument {
            Instrument::Counter(counter) => Box::new(counter.clone()),
            Instrument::Gauge(gauge) => Box::new(gauge.clone()),
            Instrument::Seconds(histogram) => Box::new(histogram.clone()),
        };
        self.registry.register(collector).expect("each name is registered once");
        made.insert(name.to_owned(), instrument.clone());
        instrument
    }
}

/// What all counters and gauges said at one moment.
pub struct Reading {
    families: Vec<prometheus::proto::MetricFamily>,
}

impl Reading {
    /// The sum of `goms_<name>` over all its label values; `None` where this process has no such counter or gauge.
    #[must_use]
    pub fn sum(&self, name: &str) -> Option<f64> {
        let parts = self.by(name, "");
        (!parts.is_empty()).then(|| parts.iter().map(|(_, value)| value).sum())
    }

    /// The sum of those of `goms_<name>` that have all of these labels.
    #[must_use]
    pub fn matching(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let is_meant = |family: &&prometheus::proto::MetricFamily| family.name().strip_prefix("goms_") == Some(name);
        let metrics = self.families.iter().filter(is_meant).flat_map(|family| family.get_metric());
        let fits = |metric: &&prometheus::proto::Metric| {
            let has = |(label, value): &(&str, &str)| {
                metric.get_label().iter().any(|pair| pair.name() == *label && pair.value() == *value)
            };
            labels.iter().all(has)
        };
        // one of the two is 0
        metrics.filter(fits).map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
    }

    /// The value of each metric of `goms_<name>`, with what its label says (empty where it has none of that name).
    #[must_use]
    pub fn by(&self, name: &str, label: &str) -> Vec<(&str, f64)> {
        let is_meant = |family: &&prometheus::proto::MetricFamily| {
            family.name().strip_prefix("goms_").is_some_and(|found| found == name)
        };
        let metrics = self.families.iter().filter(is_meant).flat_map(|family| family.get_metric());
        let labelled = metrics.map(|metric| {
            let of = metric.get_label().iter().find(|pair| pair.name() == label);
            // one of the two is 0
            (of.map_or("", |pair| pair.value()), metric.get_counter().get_value() + metric.get_gauge().get_value())
        });
        labelled.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_is_the_same_counter() {
        let metrics = Metrics::new();
        metrics.counter("requests_total", "requests", &["service"]).with_label_values(&["user"]).inc();
        metrics.counter("requests_total", "requests", &["service"]).with_label_values(&["user"]).inc();
        assert!(metrics.render().contains("goms_requests_total{service=\"user\"} 2"), "{}", metrics.render());
    }

    #[test]
    fn a_reading_sums_what_labels_tell_apart() {
        let metrics = Metrics::new();
        let dropped = metrics.counter("dropped_total", "lost", &["where"]);
        dropped.with_label_values(&["spool"]).inc_by(2);
        dropped.with_label_values(&["queue"]).inc();
        metrics.gauge("bytes", "waiting", &[]).with_label_values::<&str>(&[]).set(7);
        let reading = metrics.read();
        assert_eq!(
            (reading.sum("dropped_total"), reading.sum("bytes"), reading.sum("other")),
            (Some(3.0), Some(7.0), None)
        );
        assert_eq!(reading.matching("dropped_total", &[("where", "spool")]), 2.0);
        assert_eq!(reading.by("dropped_total", "where"), [("queue", 1.0), ("spool", 2.0)]);
    }
}

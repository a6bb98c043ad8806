//! What the spool counts.

use prometheus::{IntCounter, IntGauge};

use crate::metrics::Metrics;

pub(super) struct Instruments {
    pub recorded: IntCounter,
    pub delivered: IntCounter,
    pub dropped: IntCounter,
    pub refused: IntCounter,
    pub damaged: IntCounter,
    pub spooled_bytes: IntGauge,
}

impl Instruments {
    pub fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.counter(name, help, &[]).with_label_values::<&str>(&[]);
        let dropped = metrics.counter("trace_dropped_total", "trace events lost because a queue was full", &["where"]);
        Self {
            recorded: counter("trace_recorded_total", "trace events recorded"),
            delivered: counter("trace_delivered_total", "trace events whose delivery was confirmed"),
            dropped: dropped.with_label_values(&["spool"]),
            refused: dropped.with_label_values(&["refused"]),
            damaged: counter("trace_spool_bad_files_total", "spool files set aside because they are damaged"),
            spooled_bytes: metrics
                .gauge("trace_spooled_bytes", "bytes of trace events waiting on disk", &[])
                .with_label_values::<&str>(&[]),
        }
    }
}

//! The consumer's figures at `/metrics`.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::metrics::Metrics;

/// Made once a consumer. Stored events and bytes divided by writes give the size of a batch.
#[derive(Clone)]
pub(super) struct Instruments {
    pub stored: IntCounter,
    pub refused: IntCounter,
    pub retried: IntCounter,
    pub writes: IntCounter,
    pub written_events: IntCounter,
    pub written_bytes: IntCounter,
    pub write_seconds: Histogram,
    pub writes_in_flight: IntGauge,
    pub waiting_events: IntGauge,
    pub waiting_bytes: IntGauge,
    pub unacknowledged_messages: IntGauge,
    pub unacknowledged_bytes: IntGauge,
    pub given_up: IntCounter,
    /// Of other programs, by `protocol` (`otlp`, `zipkin`) and `outcome` (`taken`, `refused`, `own`: those of this cluster, which it has already).
    pub spans: IntCounterVec,
}

impl Instruments {
    pub fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.counter(name, help, &[]).with_label_values::<&str>(&[]);
        let gauge = |name, help| metrics.gauge(name, help, &[]).with_label_values::<&str>(&[]);
        let seconds = metrics.seconds("consumer_write_seconds", "how long a write to the trace store took", &[]);
        Self {
            stored: counter("consumer_stored_total", "trace events stored"),
            refused: counter("consumer_refused_total", "trace events that the store can never keep"),
            retried: counter(
                "consumer_retried_total",
                "trace events written again because the store could not keep them",
            ),
            writes: counter("consumer_writes_total", "writes to the trace store"),
            written_events: counter("consumer_written_events_total", "trace events in all writes, repeated ones too"),
            written_bytes: counter("consumer_written_bytes_total", "bytes of JSON in all writes, repeated ones too"),
            write_seconds: seconds.with_label_values::<&str>(&[]),
            writes_in_flight: gauge("consumer_writes_in_flight", "writes that the trace store works on"),
            waiting_events: gauge("consumer_waiting_events", "trace events taken and neither stored nor refused yet"),
            waiting_bytes: gauge("consumer_waiting_bytes", "memory of these, about"),
            unacknowledged_messages: gauge(
                "consumer_unacknowledged_messages",
                "messages taken from RabbitMQ and not acknowledged yet",
            ),
            unacknowledged_bytes: gauge(
                "consumer_unacknowledged_bytes",
                "memory of those of these that are not settled",
            ),
            given_up: counter(
                "consumer_given_up_messages_total",
                "messages given back to RabbitMQ because there was no room for their bytes",
            ),
            spans: metrics.counter(
                "consumer_spans_total",
                "spans of other programs: stored, refused, or this cluster's own, which it has already",
                &["protocol", "outcome"],
            ),
        }
    }
}

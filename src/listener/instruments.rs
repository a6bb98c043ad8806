//! What the doorstep counts.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::accept::OpenError;
use crate::metrics::Metrics;

/// Instruments of a server's doors.
#[derive(Clone)]
pub(super) struct Instruments {
    open: IntGaugeVec,
    refused: IntCounterVec,
}

impl Instruments {
    pub fn new(metrics: &Metrics) -> Self {
        let open = metrics.gauge("connections", "connections of clients that speak HTTP", &["protocol"]);
        let refused = metrics.counter(
            "connections_refused_total",
            "connections that ended before they spoke HTTP (their TLS or PROXY header was not good, or late)",
            &["reason"],
        );
        Self { open, refused }
    }

    /// Counts a connection as open until what is returned is dropped.
    pub fn opened(&self, is_http2: bool) -> Open {
        let gauge = self.open.with_label_values(&[if is_http2 { "http2" } else { "http1" }]);
        gauge.inc();
        Open(gauge)
    }

    pub fn refused(&self, error: &OpenError) {
        let reason = match error {
            OpenError::Broken(_) => "broken",
            OpenError::Tls(_) => "tls",
            OpenError::Late => "late",
            OpenError::Proxy(_) | OpenError::NotTrusted => "proxy",
        };
        self.refused.with_label_values(&[reason]).inc();
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

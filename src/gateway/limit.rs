//! What one request may use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use actix_web::http::header::HeaderMap;

use super::Limits;
use super::respond::Failure;

/// The requests that this gateway has taken, in all workers.
#[derive(Debug, Default)]
pub(super) struct Flow {
    in_flight: AtomicUsize,
    taken: AtomicU64,
}

/// A request counts until this is dropped, with the last part of its answer.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Flow>);

impl Flow {
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.taken.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests taken since the start.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// # Errors
/// 429 when more requests than allowed are in flight, this one included.
pub(super) fn check_flow(flow: &Flow, limits: &Limits) -> Result<(), Failure> {
    if flow.in_flight() > limits.in_flight { Err(Failure::TooMany { limit: limits.in_flight }) } else { Ok(()) }
}

/// # Errors
/// 431 when names and values of the headers are too long together.
pub(super) fn check_headers(headers: &HeaderMap, limits: &Limits) -> Result<(), Failure> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > limits.header_bytes { Err(Failure::Headers { limit: limits.header_bytes }) } else { Ok(()) }
}

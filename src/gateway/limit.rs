//! What one request may use.

use actix_web::http::header::HeaderMap;

use super::Limits;
use super::respond::Failure;
use crate::metrics::Load;

/// # Errors
/// 429 when more requests than allowed are in flight, this one included.
pub(super) fn check_flow(load: &Load, limits: &Limits) -> Result<(), Failure> {
    if load.in_flight() > limits.in_flight as u64 { Err(Failure::TooMany { limit: limits.in_flight }) } else { Ok(()) }
}

/// # Errors
/// 431 when names and values of the headers are too long together.
pub(super) fn check_headers(headers: &HeaderMap, limits: &Limits) -> Result<(), Failure> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > limits.header_bytes { Err(Failure::Headers { limit: limits.header_bytes }) } else { Ok(()) }
}

//! The guard: only callers that hold the call key get in.

use actix_web::http::header::HeaderMap;
use subtle::{Choice, ConstantTimeEq};

use crate::trace::CALL_KEY_HEADER;

/// The keys that open a node; any of them does (two are valid during a rotation).
#[derive(Clone, Debug)]
pub(super) struct Guard {
    keys: Vec<String>,
}

impl Guard {
    /// No keys: no guard.
    pub(super) fn new(keys: &[String]) -> Self {
        Self { keys: keys.iter().filter(|key| !key.is_empty()).cloned().collect() }
    }

    /// Whether callers must prove themselves at all.
    pub(super) fn is_on(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whether the caller brought exactly one key, and a valid one. Every key is compared, in constant time.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        if !self.is_on() {
            return true;
        }
        let mut brought = headers.get_all(CALL_KEY_HEADER);
        match (brought.next(), brought.next()) {
            (Some(value), None) => {
                let matches =
                    self.keys.iter().fold(Choice::from(0), |found, key| found | key.as_bytes().ct_eq(value.as_bytes()));
                matches.into()
            }
            _ => false,
        }
    }
}

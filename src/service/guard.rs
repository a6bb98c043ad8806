//! The guard: only callers that hold the call key get in.

use actix_web::http::header::HeaderMap;

use crate::call_key::CallKeys;
use crate::trace::CALL_KEY_HEADER;

/// The keys that open a node; any of them does (two are valid during a rotation).
#[derive(Clone, Debug)]
pub(super) struct Guard {
    keys: CallKeys,
}

impl Guard {
    /// No keys: no guard.
    pub(super) fn new(keys: &CallKeys) -> Self {
        Self { keys: keys.clone() }
    }

    /// Whether callers must prove themselves at all.
    pub(super) fn is_on(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whether the caller brought exactly one key, and a valid one.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        self.admits_one_of(headers.get_all(CALL_KEY_HEADER).map(|value| value.as_bytes()))
    }

    /// The same, of the keys that a caller brought.
    pub(super) fn admits_one_of<'a>(&self, mut brought: impl Iterator<Item = &'a [u8]>) -> bool {
        if !self.is_on() {
            return true;
        }
        match (brought.next(), brought.next()) {
            (Some(key), None) => self.keys.knows(key),
            _ => false,
        }
    }
}

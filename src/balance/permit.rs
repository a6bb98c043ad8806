//! The right to send one try to a node.

use std::cell::Cell;
use std::sync::Arc;

use super::breaker::Passage;
use super::endpoint::Endpoint;
use super::service::Service;
use crate::registry::Node;

/// The right to send one try to a node; counts as in flight until it is dropped, so it travels with the answer's body.
#[derive(Debug)]
pub struct Permit {
    service: Arc<Service>,
    /// Which of the service's endpoints.
    index: usize,
    /// How it passed the service's breaker.
    passage: Passage,
    /// It is the one request that a node on trial gets.
    is_trial: bool,
    outcome: Cell<Outcome>,
}

/// What became of the try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Unknown,
    /// The answer began; its body may still break off.
    Begun,
    Told,
    Failed,
}

impl Permit {
    pub(super) fn new(service: Arc<Service>, index: usize, passage: Passage, is_trial: bool) -> Self {
        service.endpoint(index).enter();
        Self { service, index, passage, is_trial, outcome: Cell::new(Outcome::Unknown) }
    }

    fn endpoint(&self) -> &Endpoint {
        self.service.endpoint(self.index)
    }

    /// Where to send it.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        self.endpoint().node()
    }

    /// Takes a retry out of what the service may get: one for five requests, and some hundreds after a quiet time. `false`:
    /// there is none left, and the request should fail.
    #[must_use]
    pub fn take_retry(&self) -> bool {
        self.service.take_retry()
    }

    /// The node answered with this status; the body may be still to come.
    pub fn answered(&self, status: u16) {
        self.endpoint().note_answer();
        if self.service.is_failure(status) {
            self.failed();
        } else if self.service.waits_for(self.index) {
            self.outcome.set(Outcome::Told);
            self.service.succeeded(self.index);
        } else {
            self.outcome.set(Outcome::Begun);
        }
    }

    /// Nobody listens there: a node that is only `stale` gets nothing more.
    pub fn refused(&self) {
        self.endpoint().note_refusal();
        self.failed();
    }

    /// The node did not answer in time, or its answer broke off or is none.
    pub fn failed(&self) {
        if self.outcome.replace(Outcome::Failed) != Outcome::Failed {
            self.service.failed(self.index);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.outcome.get() == Outcome::Begun {
            self.service.succeeded(self.index);
        }
        if self.is_trial {
            self.endpoint().health().end_trial();
        }
        self.service.end_probe(self.passage);
        self.endpoint().leave();
    }
}

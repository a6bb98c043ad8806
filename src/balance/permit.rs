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
    /// What it still has to find out for the service's breaker.
    passage: Cell<Passage>,
    /// It still has to find out for a node on trial.
    is_trial: Cell<bool>,
    started_us: Option<u64>,
    outcome: Cell<Outcome>,
}

/// How a try was let through.
#[derive(Debug)]
pub(super) struct Admission {
    /// By the service's breaker.
    pub passage: Passage,
    /// As the one request that a node on trial gets.
    pub is_trial: bool,
    /// When, where the picker wants to know how long answers take.
    pub started_us: Option<u64>,
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
    /// The endpoint was entered.
    pub(super) fn new(service: Arc<Service>, index: usize, admission: Admission) -> Self {
        let Admission { passage, is_trial, started_us } = admission;
        let (passage, is_trial) = (Cell::new(passage), Cell::new(is_trial));
        Self { service, index, passage, is_trial, started_us, outcome: Cell::new(Outcome::Unknown) }
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
        if let Some(started_us) = self.started_us {
            self.service.measure(self.index, started_us, true);
        }
        if self.service.is_failure(status) {
            self.failed();
        } else if self.service.waits_for(self.index) {
            self.outcome.set(Outcome::Told);
            self.service.succeeded(self.index);
            self.found_out();
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
            if let Some(started_us) = self.started_us {
                self.service.measure(self.index, started_us, false);
            }
            self.service.failed(self.index);
            self.found_out();
        }
    }

    /// What was to be tried is known: the next may try, even while the answer's body goes on for hours.
    fn found_out(&self) {
        if self.is_trial.take() {
            self.endpoint().health().end_trial();
        }
        self.service.end_probe(self.passage.replace(Passage::Free));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.outcome.get() == Outcome::Begun {
            self.service.succeeded(self.index);
        }
        self.found_out();
        self.endpoint().leave();
        self.service.one_left();
    }
}

//! The right to send one try to a node.

use std::sync::Arc;

use super::endpoint::Endpoint;
use super::service::Service;
use crate::registry::Node;

/// The right to send one try to a node; counts as in flight until it is dropped, so it travels with the answer's body.
#[derive(Debug)]
pub struct Permit {
    service: Arc<Service>,
    /// Which of the service's endpoints.
    index: usize,
}

impl Permit {
    pub(super) fn new(service: Arc<Service>, index: usize) -> Self {
        service.endpoint(index).enter();
        Self { service, index }
    }

    fn endpoint(&self) -> &Endpoint {
        self.service.endpoint(self.index)
    }

    /// Where to send it.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        self.endpoint().node()
    }

    /// The node answered.
    pub fn answered(&self) {
        self.endpoint().note_answer();
    }

    /// Nobody listens there: a node that is only `stale` gets nothing more.
    pub fn refused(&self) {
        self.endpoint().note_refusal();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.endpoint().leave();
    }
}

//! Why a call failed, whose fault it was, and whether it may be sent again.

use std::sync::Arc;
use std::time::Duration;

use awc::error::{ConnectError, SendRequestError};

use crate::balance::PickError;
use crate::registry::Node;

/// What became of a call that got no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is nobody to call.
    #[error(transparent)]
    NoNode(#[from] PickError),
    /// No connection came about: the request was surely not sent.
    #[error("node `{}` of service `{}` cannot be reached", node.id, node.id.service)]
    Unreachable {
        /// The last node tried.
        node: Arc<Node>,
        /// What went wrong.
        #[source]
        source: SendRequestError,
    },
    /// It was reached, but its answer was cut off or is not HTTP. It may have carried the request out.
    #[error("node `{}` of service `{}` gave no proper answer", node.id, node.id.service)]
    Broken {
        /// The last node tried.
        node: Arc<Node>,
        /// What went wrong.
        #[source]
        source: SendRequestError,
    },
    /// It did not answer in time. It may have carried the request out.
    #[error("node `{}` of service `{}` did not answer within {after:?}", node.id, node.id.service)]
    Deadline {
        /// The last node tried.
        node: Arc<Node>,
        /// How long it had.
        after: Duration,
    },
    /// The client's body ended early while it was passed on.
    #[error("the request's body broke off")]
    Body(#[source] SendRequestError),
    /// Method, path or a header cannot be sent over HTTP.
    #[error("cannot send this request")]
    Request(#[source] SendRequestError),
}

impl CallError {
    /// Sorts what awc reports.
    pub(super) fn from_send(node: Arc<Node>, source: SendRequestError) -> Self {
        match source {
            // awc says `Disconnected` when the connection ends before the answer's head is complete
            SendRequestError::Connect(ConnectError::Disconnected) => Self::Broken { node, source },
            SendRequestError::Connect(_) => Self::Unreachable { node, source },
            SendRequestError::Body(_) => Self::Body(source),
            SendRequestError::Url(_) | SendRequestError::Http(_) => Self::Request(source),
            _ => Self::Broken { node, source },
        }
    }

    /// The request surely did not reach a service, so any method may be sent again.
    #[must_use]
    pub fn was_not_sent(&self) -> bool {
        matches!(self, Self::NoNode(_) | Self::Unreachable { .. } | Self::Request(_))
    }
}

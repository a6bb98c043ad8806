//! Why a call failed, whose fault it was, and whether it may be sent again.

use std::sync::Arc;
use std::time::Duration;

use super::http1::HttpError;
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
        source: HttpError,
    },
    /// It was reached, but its answer was cut off or is not HTTP. It may have carried the request out.
    #[error("node `{}` of service `{}` gave no proper answer", node.id, node.id.service)]
    Broken {
        /// The last node tried.
        node: Arc<Node>,
        /// What went wrong.
        #[source]
        source: HttpError,
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
    Body(#[source] HttpError),
    /// Method, path or a header cannot be sent over HTTP.
    #[error("cannot send this request")]
    Request(#[source] HttpError),
}

impl CallError {
    /// Sorts what became of a try.
    pub(super) fn from_try(node: Arc<Node>, source: HttpError) -> Self {
        match source {
            HttpError::Body(_) => Self::Body(source),
            HttpError::Request(_) => Self::Request(source),
            HttpError::Deadline(after) => Self::Deadline { node, after },
            _ if source.was_not_sent() => Self::Unreachable { node, source },
            _ => Self::Broken { node, source },
        }
    }

    /// The request surely did not reach a service, so any method may be sent again.
    #[must_use]
    pub fn was_not_sent(&self) -> bool {
        matches!(self, Self::NoNode(_) | Self::Unreachable { .. } | Self::Request(_))
    }
}

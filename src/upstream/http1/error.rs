//! What can go wrong on a connection.

use std::io;
use std::time::Duration;

/// Why an exchange gave no answer, or its answer did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection came about; nothing was sent.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// Nobody accepted a connection in time; nothing was sent.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The head of the answer did not come in time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// A kept connection had ended before it took anything of the request.
    #[error("the connection had ended")]
    Stale,
    /// The request could not be written to its end.
    #[error("cannot send")]
    Write(#[source] io::Error),
    /// The connection failed while the answer was read.
    #[error("cannot read the answer")]
    Read(#[source] io::Error),
    /// The connection ended before the answer's head was complete.
    #[error("the connection ended without an answer")]
    Closed,
    /// The connection ended before the answer's body was complete.
    #[error("the connection ended in the middle of the answer")]
    Short,
    /// The answer breaks the rules of HTTP/1.1.
    #[error("the answer is no valid HTTP: {0}")]
    Malformed(&'static str),
    /// The source of the request's body failed.
    #[error("the request's body broke off")]
    Body(#[source] Box<dyn std::error::Error>),
    /// The request cannot be written as HTTP/1.1.
    #[error("the request is no valid HTTP: {0}")]
    Request(&'static str),
}

impl HttpError {
    /// The request surely did not reach the other side, so that any method may be sent again.
    #[must_use]
    pub fn was_not_sent(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::ConnectTimeout(_) | Self::Stale | Self::Request(_))
    }

    /// The connection ended before anything of an answer came, as a kept one does that the other side gave up.
    pub(super) fn had_no_answer(&self) -> bool {
        matches!(self, Self::Stale | Self::Closed | Self::Read(_) | Self::Write(_))
    }
}

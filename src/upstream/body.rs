//! Bodies on their way down and up.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::time::Sleep;

use super::http1::{self, HttpError};
use crate::balance::Permit;

/// What is streamed through.
pub type BodyStream = http1::Parts;

/// A request's body.
pub enum RequestBody {
    /// None, not even a length.
    Empty,
    /// In memory; can be sent again.
    Whole(Bytes),
    /// Passed on as it comes; cannot be sent again once a part of it was taken.
    Stream {
        /// The parts.
        parts: BodyStream,
        /// How many bytes in all, where the client said so.
        length: Option<u64>,
    },
    /// None; the request asks for the WebSocket protocol (RFC 6455), in which this follows.
    Upgrade(BodyStream),
}

/// Why an answer's body did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection failed.
    #[error("the service's answer broke off")]
    Read(#[source] HttpError),
    /// The connection ended before as many bytes had come as were announced.
    #[error("the service's answer ended {0} bytes early")]
    Short(u64),
    /// Nothing more came.
    #[error("the service's answer stood still for {0:?}")]
    Stalled(Duration),
    /// The whole request's deadline passed.
    #[error("the service's answer was not complete within {0:?}")]
    Late(Duration),
    /// It holds more than may be kept in memory.
    #[error("the service's answer has more than {0} bytes")]
    TooLong(usize),
}

/// An answer's body; the node counts as busy until it is dropped.
pub struct AnswerBody {
    parts: Box<http1::Body>,
    /// How long it may stand still.
    stall: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    end: Option<Deadline>,
    permit: Permit,
}

/// When a whole request must be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    pub at: Instant,
    /// So long after its begin.
    pub after: Duration,
}

impl AnswerBody {
    pub(super) fn new(parts: Box<http1::Body>, permit: Permit, stall: Duration, end: Option<Deadline>) -> Self {
        Self { parts, stall, stalled: None, end, permit }
    }

    /// How many bytes are still to come, where the service said so.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.parts.left()
    }

    /// Its end is marked. One that is not ends with its connection, complete or not.
    #[must_use]
    pub fn is_delimited(&self) -> bool {
        self.parts.is_delimited()
    }

    fn poll_part(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        match Pin::new(&mut self.parts).poll_next(task) {
            Poll::Ready(Some(Ok(part))) => {
                self.stalled = None;
                Poll::Ready(Some(Ok(part)))
            }
            Poll::Ready(Some(Err(HttpError::Short))) => Poll::Ready(Some(Err(match self.parts.left() {
                Some(left) => Broken::Short(left),
                None => Broken::Read(HttpError::Short),
            }))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(Broken::Read(error)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if self.parts.is_tunnel() => Poll::Pending, // it keeps a time of its own
            Poll::Pending => {
                let at = Instant::now() + self.stall;
                let (at, broken) = match self.end {
                    Some(end) if end.at < at => (end.at, Broken::Late(end.after)),
                    _ => (at, Broken::Stalled(self.stall)),
                };
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
                stalled.as_mut().poll(task).map(|()| Some(Err(broken)))
            }
        }
    }

    /// All of it in memory.
    ///
    /// # Errors
    /// [`Broken`]; [`Broken::TooLong`] past `limit` bytes.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, Broken> {
        let within = |bytes: usize| if bytes > limit { Err(Broken::TooLong(limit)) } else { Ok(()) };
        let Some(first) = self.next_part().await? else { return Ok(Bytes::new()) };
        within(first.len())?;
        if self.parts.left() == Some(0) {
            return Ok(first); // most answers come in one part, which is not copied
        }
        let mut all = BytesMut::from(first);
        while let Some(part) = self.next_part().await? {
            within(all.len() + part.len())?;
            all.extend_from_slice(&part);
        }
        Ok(all.freeze())
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>, Broken> {
        std::future::poll_fn(|task| Pin::new(&mut *self).poll_next(task)).await.transpose()
    }
}

impl Stream for AnswerBody {
    type Item = Result<Bytes, Broken>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let polled = this.poll_part(task);
        if let Poll::Ready(Some(Err(_))) = &polled {
            this.permit.failed();
        }
        polled
    }
}

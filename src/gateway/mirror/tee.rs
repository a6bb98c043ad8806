//! Keeps what passes of a streamed body, for a copy of its request.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use tokio::sync::oneshot;

use crate::upstream::BodyStream;

/// A longer body is not kept: as many copies may be under way as a route has, each with one.
pub(super) const KEPT_BYTES: usize = 256 << 10;

/// Why a body is not there for a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotKept {
    /// It is longer than [`KEPT_BYTES`].
    Long,
    /// It did not come to its end, or the service did not want all of it.
    Unfinished,
}

/// The whole body, once all of it has passed.
pub(super) type Kept = oneshot::Receiver<Result<Bytes, NotKept>>;

struct Tee {
    parts: BodyStream,
    kept: BytesMut,
    /// `None`: nothing more is kept.
    teller: Option<oneshot::Sender<Result<Bytes, NotKept>>>,
}

/// Has a body kept while it passes. Dropped before its end it is [`NotKept::Unfinished`], which an ended channel says too.
pub(super) fn keep(parts: &mut BodyStream) -> Kept {
    let (teller, kept) = oneshot::channel();
    let inner = std::mem::replace(parts, Box::pin(stream::empty()));
    *parts = Box::pin(Tee { parts: inner, kept: BytesMut::new(), teller: Some(teller) });
    kept
}

impl Tee {
    fn tell(&mut self, what: Result<Bytes, NotKept>) {
        self.kept = BytesMut::new();
        if let Some(teller) = self.teller.take() {
            drop(teller.send(what)); // whoever listened may have ended with its thread
        }
    }
}

impl Stream for Tee {
    type Item = <BodyStream as Stream>::Item;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.parts.as_mut().poll_next(task);
        match &polled {
            Poll::Ready(Some(Ok(part))) if self.teller.is_some() => {
                if self.kept.len() + part.len() > KEPT_BYTES {
                    self.tell(Err(NotKept::Long));
                } else {
                    self.kept.extend_from_slice(part);
                }
            }
            Poll::Ready(None) => {
                let whole = self.kept.split().freeze();
                self.tell(Ok(whole));
            }
            Poll::Ready(Some(Err(_))) => self.tell(Err(NotKept::Unfinished)),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }
}

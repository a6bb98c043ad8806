//! Takes documents from the sources, and tells each source what became of them.
//!
//! ```text
//! source ──Submission(documents, reply)──► queue ──► Writer: batch by count, bytes and time ──► TraceStore::write
//!   ▲                                                  ▲  several at once                             │
//!   │                                                  └── refused for now: again, with backoff ◄──────┤
//!   └────────────────────────────── Verdict a document ◄── stored, or refused for what it is ◄─────────┘
//! ```
//! A source acknowledges only what a [`Verdict`] covers. A reply that is dropped unanswered means: not stored. What is
//! in here is bounded in bytes ([`Pipeline::submit`] waits, [`Pipeline::try_submit`] says so), so while the store is away
//! or refuses everything the sources stand still.

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::Settings;
use super::health::Health;
use super::instruments::Instruments;
use super::writer::Writer;
use crate::shutdown::Shutdown;
use crate::store::{Document, TraceStore};
use crate::trace::event::Parsed;

/// Submissions that may wait for the store, besides those that are being written.
const QUEUE: usize = 1024;
/// What a document takes beside its JSON, about: its fields, its id, and what the allocator keeps.
const DOCUMENT_BYTES: usize = 512;

/// The end of a document's way.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is on disk.
    Stored,
    /// It can never be stored: its JSON and the reason.
    Refused(Box<RawValue>, String),
}

/// Documents of one message, and where to tell what became of them.
pub(super) struct Submission {
    pub documents: Vec<Document>,
    pub reply: oneshot::Sender<Vec<Verdict>>,
    /// Its share of the bytes that may wait, until it is answered or found abandoned.
    pub room: OwnedSemaphorePermit,
}

/// Resolves with one verdict a document, in any order; an error means that they were not all stored.
pub(super) type Reply = oneshot::Receiver<Vec<Verdict>>;

/// A clonable handle of the pipeline.
#[derive(Clone)]
pub(super) struct Pipeline {
    queue: mpsc::Sender<Submission>,
    health: Health,
    room: Arc<Semaphore>,
    room_bytes: usize,
    hurry: Arc<Notify>,
}

/// Why documents were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    /// Too many wait.
    Full,
    /// The consumer ends.
    Closed,
}

impl Pipeline {
    /// Hands documents over; waits while too many are in here. `None` when the consumer ends.
    ///
    /// # Cancel safety
    /// Dropped before it resolves, nothing was handed over.
    pub async fn submit(&self, documents: Vec<Document>) -> Option<Reply> {
        let room = self.room.clone().acquire_many_owned(self.weight(&documents));
        let room = tokio::select! {
            room = room => room.ok()?,
            () = self.queue.closed() => return None,
        };
        let (reply, verdicts) = oneshot::channel();
        self.queue.send(Submission { documents, reply, room }).await.ok()?;
        Some(verdicts)
    }

    /// The same without waiting.
    pub fn try_submit(&self, documents: Vec<Document>) -> Result<Reply, Busy> {
        let room = self.room.clone().try_acquire_many_owned(self.weight(&documents)).map_err(|_| Busy::Full)?;
        let (reply, verdicts) = oneshot::channel();
        match self.queue.try_send(Submission { documents, reply, room }) {
            Ok(()) => Ok(verdicts),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Busy::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Busy::Closed),
        }
    }

    /// Writes what is here without waiting for company: the source has nothing more until some of it is answered.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Whether the last write failed.
    pub fn store_is_away(&self) -> bool {
        self.health.store_is_away()
    }

    /// What these take of the room. What is larger than all of it takes all of it, and so is in here alone.
    fn weight(&self, documents: &[Document]) -> u32 {
        u32::try_from(weight(documents).min(self.room_bytes)).unwrap_or(u32::MAX)
    }
}

/// Bytes of memory, about.
pub(super) fn weight(documents: &[Document]) -> usize {
    documents.iter().map(|document| document.json.get().len() + DOCUMENT_BYTES).sum()
}

/// Starts the task that writes. It ends with `shutdown`, after what was handed over is written or has failed once more.
pub(super) fn start(
    settings: &Settings,
    store: Arc<dyn TraceStore>,
    instruments: &Instruments,
    health: &Health,
    shutdown: &Shutdown,
) -> Pipeline {
    let (queue, submissions) = mpsc::channel(QUEUE);
    let hurry = Arc::new(Notify::new());
    let writer = Writer::new(settings, store, submissions, hurry.clone(), instruments.clone(), health.clone());
    shutdown.spawn(writer.run(shutdown.clone()));
    let room_bytes = settings.parsed_bytes();
    Pipeline { queue, health: health.clone(), room: Arc::new(Semaphore::new(room_bytes)), room_bytes, hurry }
}

/// An event as the store takes it.
pub(super) fn document(event: Parsed) -> Document {
    Document { id: event.id, json: event.json, fields: event.fields }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Fields;

    #[test]
    fn what_waits_is_bounded_in_bytes() {
        let (queue, mut waiting) = mpsc::channel(QUEUE);
        let room = Arc::new(Semaphore::new(10_000));
        let pipeline = Pipeline { queue, health: Health::default(), room, room_bytes: 10_000, hurry: Arc::default() };
        let documents = |bytes: usize| {
            let json = RawValue::from_string(format!("\"{}\"", "x".repeat(bytes - DOCUMENT_BYTES - 2))).unwrap();
            vec![Document { id: "7".to_owned(), json, fields: Fields::default() }]
        };
        let first = pipeline.try_submit(documents(8_000)).unwrap();
        assert_eq!(pipeline.try_submit(documents(2_001)).err(), Some(Busy::Full));
        pipeline.try_submit(documents(2_000)).unwrap();
        drop(first);
        assert_eq!(pipeline.try_submit(documents(8_000)).err(), Some(Busy::Full), "it lies in the queue still");
        assert!(waiting.try_recv().unwrap().reply.is_closed());
        pipeline.try_submit(documents(8_000)).unwrap();
        while waiting.try_recv().is_ok() {}
        // more than fits at all is taken alone, for it could never be stored otherwise
        let huge = pipeline.try_submit(documents(50_000)).unwrap();
        assert_eq!(pipeline.try_submit(documents(1_000)).err(), Some(Busy::Full));
        drop(huge);
    }
}

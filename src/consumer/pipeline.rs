//! Batches what the sources bring, writes it to the store, and tells each source what became of its documents.
//!
//! ```text
//! source ──Submission(documents, reply)──► queue ──► batch ──► TraceStore::write ──► Verdict a document ──► reply
//!                                                      ▲              │
//!                                                      └─ later, away ┘ with backoff
//! ```
//! A source acknowledges only what a [`Verdict`] covers. While the store is away nothing is answered; the queue and each
//! source's own limit (prefetch, 503) bound what waits. A reply that is dropped unanswered means: not stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::IntCounter;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::Settings;
use crate::backoff::Backoff;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::store::{Document, Outcome, TraceStore};
use crate::trace::event::Parsed;

/// Submissions that may wait for the store, besides the batch that is being written.
const QUEUE: usize = 1024;
/// Bytes of events that may wait for the store without a prefetch to bound them: some 50 full deliveries.
const ROOM_BYTES: usize = 256 << 20;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// The end of a document's way.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is on disk.
    Stored,
    /// It can never be stored: its JSON and the reason.
    Refused(Box<RawValue>, String),
}

/// Documents of one message, and where to tell what became of them.
struct Submission {
    documents: Vec<Document>,
    reply: oneshot::Sender<Vec<Verdict>>,
    /// Its share of [`ROOM_BYTES`], until it is answered or found abandoned.
    room: Option<OwnedSemaphorePermit>,
}

/// Resolves with one verdict a document, in order; an error means that they were not stored.
pub(super) type Reply = oneshot::Receiver<Vec<Verdict>>;

/// A clonable handle of the pipeline.
#[derive(Clone)]
pub(super) struct Pipeline {
    queue: mpsc::Sender<Submission>,
    store_away: Arc<AtomicBool>,
    room: Arc<Semaphore>,
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
    /// Hands documents over, which the caller bounds; waits while the queue is full. `None` when the consumer ends.
    pub async fn submit(&self, documents: Vec<Document>) -> Option<Reply> {
        let (reply, verdicts) = oneshot::channel();
        self.queue.send(Submission { documents, reply, room: None }).await.ok()?;
        Some(verdicts)
    }

    /// The same without waiting, and with a bound on the bytes of all that wait.
    pub fn try_submit(&self, documents: Vec<Document>) -> Result<Reply, Busy> {
        let bytes: usize = documents.iter().map(|document| document.json.get().len()).sum();
        let bytes = u32::try_from(bytes).map_err(|_| Busy::Full)?;
        let room = self.room.clone().try_acquire_many_owned(bytes).map_err(|_| Busy::Full)?;
        let (reply, verdicts) = oneshot::channel();
        match self.queue.try_send(Submission { documents, reply, room: Some(room) }) {
            Ok(()) => Ok(verdicts),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Busy::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Busy::Closed),
        }
    }

    /// Whether the last write failed.
    pub fn store_is_away(&self) -> bool {
        self.store_away.load(Ordering::Relaxed)
    }
}

/// Starts the task that writes. It ends with `shutdown`, after what was handed over is written or has failed once more.
pub(super) fn start(
    settings: &Settings,
    store: Arc<dyn TraceStore>,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Pipeline {
    let (queue, submissions) = mpsc::channel(QUEUE);
    let store_away = Arc::new(AtomicBool::new(false));
    let counter = |name, help| metrics.counter(name, help, &[]).with_label_values::<&str>(&[]);
    let writer = Writer {
        store,
        submissions,
        store_away: store_away.clone(),
        batch_events: settings.batch_events.max(1),
        batch_messages: if settings.amqp.is_some() { settings.prefetch.max(1).into() } else { usize::MAX },
        batch_wait: settings.batch_wait,
        source: if settings.amqp.is_some() { "amqp" } else { "direct" },
        shutdown: shutdown.clone(),
        backoff: Backoff::seeded(FIRST_RETRY, LAST_RETRY),
        stored: counter("consumer_stored_total", "trace events stored"),
        refused: counter("consumer_refused_total", "trace events that the store can never keep"),
        retried: counter("consumer_retried_total", "trace events written again because the store could not keep them"),
    };
    shutdown.spawn(writer.run());
    Pipeline { queue, store_away, room: Arc::new(Semaphore::new(ROOM_BYTES)) }
}

struct Writer {
    store: Arc<dyn TraceStore>,
    submissions: mpsc::Receiver<Submission>,
    store_away: Arc<AtomicBool>,
    batch_events: usize,
    /// At the prefetch the broker sends no more until these are acknowledged, so waiting longer brings no company.
    batch_messages: usize,
    batch_wait: Duration,
    source: &'static str,
    shutdown: Shutdown,
    backoff: Backoff,
    stored: IntCounter,
    refused: IntCounter,
    retried: IntCounter,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let first = tokio::select! {
                first = self.submissions.recv() => first,
                () = self.shutdown.begun(), if !self.submissions.is_closed() => {
                    self.submissions.close(); // what is in the queue still comes
                    continue;
                }
            };
            let Some(first) = first else { return };
            let batch = self.collect(first).await;
            self.write(batch).await;
        }
    }

    /// Waits for company until the batch is full or old enough.
    async fn collect(&mut self, first: Submission) -> Vec<Submission> {
        let mut count = first.documents.len();
        let mut batch = vec![first];
        let full_at = tokio::time::Instant::now() + self.batch_wait;
        while count < self.batch_events && batch.len() < self.batch_messages {
            let next = tokio::select! {
                next = self.submissions.recv() => next,
                () = tokio::time::sleep_until(full_at) => None,
                () = self.shutdown.begun(), if !self.submissions.is_closed() => {
                    self.submissions.close();
                    continue;
                }
            };
            let Some(next) = next else { break };
            count += next.documents.len();
            batch.push(next);
        }
        batch
    }

    /// Writes until each document is stored or refused, or nobody waits for it any more, or the end was asked for and
    /// the store is away.
    async fn write(&mut self, batch: Vec<Submission>) {
        let mut open: Vec<Open> = batch.into_iter().map(Open::new).collect();
        loop {
            open.retain(|submission| !submission.is_abandoned());
            let documents: Vec<Document> = open.iter_mut().flat_map(Open::take_left).collect();
            if documents.is_empty() {
                open.into_iter().for_each(Open::answer);
                return;
            }
            match self.store.write(&documents).await {
                Ok(outcomes) => {
                    let later = self.sort_out(&mut open, documents, outcomes);
                    let (done, left): (Vec<_>, Vec<_>) = open.into_iter().partition(Open::is_done);
                    done.into_iter().for_each(Open::answer);
                    open = left;
                    match later {
                        None => {
                            self.set_away(None);
                            self.backoff.reset();
                            return;
                        }
                        Some(reason) => self.set_away(Some(&reason)),
                    }
                }
                Err(error) => {
                    self.retried.inc_by(documents.len() as u64);
                    give_back(&mut open, documents);
                    self.set_away(Some(&crate::trace::transport::chain(&error)));
                }
            }
            if self.shutdown.has_begun() {
                return; // unanswered: the sources do not acknowledge
            }
            let wait = self.backoff.next_wait();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shutdown.begun() => {}
            }
        }
    }

    /// Notes each outcome; gives the reason of one that must be written again.
    fn sort_out(&mut self, open: &mut [Open], documents: Vec<Document>, mut outcomes: Vec<Outcome>) -> Option<String> {
        outcomes.resize_with(documents.len(), || Outcome::Later("the store told no outcome".to_owned()));
        let (mut stored, mut later) = (0, None);
        let mut pairs = documents.into_iter().zip(outcomes);
        for submission in open {
            for slot in submission.slots.iter_mut().filter(|slot| slot.is_taken()) {
                let Some((document, outcome)) = pairs.next() else { break };
                *slot = match outcome {
                    Outcome::Stored => {
                        stored += 1;
                        Slot::Done(Verdict::Stored)
                    }
                    Outcome::Refused(reason) => {
                        self.refused.inc();
                        log::warn!("the store refuses a trace event id={} reason={reason}", document.id);
                        Slot::Done(Verdict::Refused(document.json, reason))
                    }
                    Outcome::Later(reason) => {
                        self.retried.inc();
                        later = Some(reason);
                        Slot::Left(document)
                    }
                };
            }
        }
        if stored > 0 {
            self.stored.inc_by(stored);
            log::info!("{} trace consumer success count={stored}", self.source);
        }
        later
    }

    fn set_away(&self, reason: Option<&str>) {
        let was_away = self.store_away.swap(reason.is_some(), Ordering::Relaxed);
        match reason {
            Some(reason) if !was_away => {
                log::warn!("the trace store takes nothing now, events wait unacknowledged: {reason}");
            }
            None if was_away => log::info!("the trace store takes events again"),
            _ => {}
        }
    }
}

/// A submission that is being written.
struct Open {
    slots: Vec<Slot>,
    reply: oneshot::Sender<Vec<Verdict>>,
    _room: Option<OwnedSemaphorePermit>,
}

enum Slot {
    Left(Document),
    /// In the write that is going on.
    Taken,
    Done(Verdict),
}

impl Slot {
    fn is_taken(&self) -> bool {
        matches!(self, Self::Taken)
    }
}

impl Open {
    fn new(submission: Submission) -> Self {
        let slots = submission.documents.into_iter().map(Slot::Left).collect();
        Self { slots, reply: submission.reply, _room: submission.room }
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn is_done(&self) -> bool {
        self.slots.iter().all(|slot| matches!(slot, Slot::Done(_)))
    }

    fn take_left(&mut self) -> Vec<Document> {
        let mut left = Vec::new();
        for slot in &mut self.slots {
            if matches!(slot, Slot::Left(_))
                && let Slot::Left(document) = std::mem::replace(slot, Slot::Taken)
            {
                left.push(document);
            }
        }
        left
    }

    fn answer(self) {
        let verdicts = self.slots.into_iter().filter_map(|slot| match slot {
            Slot::Done(verdict) => Some(verdict),
            Slot::Left(_) | Slot::Taken => None,
        });
        if self.reply.send(verdicts.collect()).is_err() {
            log::debug!("stored events whose sender did not wait");
        }
    }
}

fn give_back(open: &mut [Open], documents: Vec<Document>) {
    let mut documents = documents.into_iter();
    for slot in open.iter_mut().flat_map(|submission| &mut submission.slots).filter(|slot| slot.is_taken()) {
        if let Some(document) = documents.next() {
            *slot = Slot::Left(document);
        }
    }
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
        let pipeline = Pipeline { queue, store_away: Arc::default(), room: Arc::new(Semaphore::new(100)) };
        let documents = |bytes: usize| {
            let json = RawValue::from_string(format!("\"{}\"", "x".repeat(bytes - 2))).unwrap();
            vec![Document { id: "7".to_owned(), json, fields: Fields::default() }]
        };
        let first = pipeline.try_submit(documents(80)).unwrap();
        assert_eq!(pipeline.try_submit(documents(21)).err(), Some(Busy::Full));
        pipeline.try_submit(documents(20)).unwrap();
        drop(first);
        assert_eq!(pipeline.try_submit(documents(80)).err(), Some(Busy::Full), "it lies in the queue still");
        assert!(waiting.try_recv().map(Open::new).unwrap().is_abandoned());
        pipeline.try_submit(documents(80)).unwrap();
    }
}

//! The task that writes: makes batches, has several on their way at once, and writes again what was refused for now.
//!
//! - A batch goes when it has enough events or bytes, is old enough, or its source has nothing more to bring.
//! - What a store refuses for now while it takes other documents waits aside with a backoff of its own: one write at a
//!   time is for it, the others go on.
//! - A write that fails as a whole, or of which everything is refused for now, pauses all: then one write at a time is
//!   sent as a probe, by turns of what waits aside and of what is new, until the store takes something.
//! - A write that fails as a whole though the store takes others, or that the store rejects as a whole, is divided, until
//!   the document is found that it is about; that one counts as refused. A store that is away divides nothing.
//!
//! What waits is bounded by the pipeline's room.

mod aside;
#[cfg(test)]
mod tests;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::Settings;
use super::batch::{Batch, Ledger, Settled};
use super::health::Health;
use super::instruments::Instruments;
use super::pipeline::{Submission, weight};
use crate::backoff::Backoff;
use crate::causes::chain;
use crate::shutdown::Shutdown;
use crate::store::{Outcome, StoreError, TraceStore};
use aside::{Aside, Tries};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    store: Arc<dyn TraceStore>,
    submissions: mpsc::Receiver<Submission>,
    hurry: Arc<Notify>,
    batch_events: usize,
    batch_bytes: usize,
    batch_wait: Duration,
    most_writes: usize,
    source: &'static str,
    instruments: Instruments,
    health: Health,
    ledger: Ledger,
    fresh: Batch,
    /// When the batch that is being filled goes at the latest.
    fresh_due: Option<Instant>,
    aside: Aside,
    /// Whether it was said that something waits aside.
    aside_told: bool,
    writes: FuturesUnordered<BoxFuture<'static, Written>>,
    /// Whether one of the writes is of what waited aside.
    retrying: bool,
    pause: Option<Pause>,
    /// Writes of which the store took something, since the start.
    taken: u64,
    ending: bool,
}

/// The store takes nothing.
struct Pause {
    until: Instant,
    backoff: Backoff,
    /// Whether the next probe is of new documents.
    fresh_next: bool,
}

/// Why a write is sent.
#[derive(Clone, Copy)]
struct Aim {
    /// How these documents fared before, when they waited aside.
    again: Option<Tries>,
    probe: bool,
}

struct Written {
    batch: Batch,
    aim: Aim,
    took: Duration,
    result: Result<Vec<Outcome>, StoreError>,
}

impl Writer {
    pub fn new(
        settings: &Settings,
        store: Arc<dyn TraceStore>,
        submissions: mpsc::Receiver<Submission>,
        hurry: Arc<Notify>,
        instruments: Instruments,
        health: Health,
    ) -> Self {
        Self {
            store,
            submissions,
            hurry,
            batch_events: settings.batch_events.max(1),
            batch_bytes: settings.batch_bytes.max(1),
            batch_wait: settings.batch_wait,
            most_writes: settings.writes.max(1),
            source: if settings.amqp.is_some() { "amqp" } else { "direct" },
            instruments,
            health,
            ledger: Ledger::default(),
            fresh: Batch::default(),
            fresh_due: None,
            aside: Aside::default(),
            aside_told: false,
            writes: FuturesUnordered::new(),
            retrying: false,
            pause: None,
            taken: 0,
            ending: false,
        }
    }

    /// Until the end is asked for, and what was handed over by then is written or has failed once more.
    pub async fn run(mut self, shutdown: Shutdown) {
        let hurry = Arc::clone(&self.hurry);
        let mut no_more = false;
        loop {
            while self.start_write() {}
            let idle = self.writes.is_empty() && self.fresh.is_empty() && self.aside.is_empty();
            if no_more && idle {
                return;
            }
            let wake = self.next_wake();
            tokio::select! {
                Some(written) = self.writes.next() => self.settle(written),
                submission = self.submissions.recv(), if !no_more && !self.is_full() => match submission {
                    Some(submission) => self.enter(submission),
                    None => (no_more, self.ending) = (true, true),
                },
                () = hurry.notified(), if !self.fresh.is_empty() => self.fresh_due = Some(Instant::now()),
                () = until(wake) => {}
                () = shutdown.begun(), if !self.ending => {
                    self.ending = true;
                    self.submissions.close(); // what is in the queue still comes
                }
            }
        }
    }

    fn is_full(&self) -> bool {
        self.fresh.documents.len() >= self.batch_events || self.fresh.bytes >= self.batch_bytes
    }

    fn enter(&mut self, submission: Submission) {
        self.instruments.waiting_events.add(signed(submission.documents.len()));
        self.instruments.waiting_bytes.add(signed(weight(&submission.documents)));
        self.ledger.enter(submission, &mut self.fresh);
        if self.fresh_due.is_none() && !self.fresh.is_empty() {
            self.fresh_due = Some(Instant::now() + self.batch_wait);
        }
    }

    /// Sends one write if there is one to send now.
    fn start_write(&mut self) -> bool {
        let now = Instant::now();
        let (most, open) = match &self.pause {
            Some(pause) => (1, self.ending || pause.until <= now),
            None => (self.most_writes, true),
        };
        if !open || self.writes.len() >= most {
            return false;
        }
        let Some((batch, again)) = self.next_batch(now) else { return false };
        let before = (batch.documents.len(), weight(&batch.documents));
        let batch = self.ledger.without_abandoned(batch);
        self.count_out(before.0 - batch.documents.len(), before.1 - weight(&batch.documents));
        if batch.is_empty() {
            return true; // look for another
        }
        let (store, aim) = (Arc::clone(&self.store), Aim { again, probe: self.pause.is_some() });
        self.retrying |= again.is_some();
        self.instruments.writes_in_flight.inc();
        self.instruments.writes.inc();
        self.instruments.written_events.inc_by(batch.documents.len() as u64);
        self.instruments.written_bytes.inc_by(batch.bytes as u64);
        self.writes.push(Box::pin(async move {
            let started = Instant::now();
            let result = store.write(&batch.documents).await;
            Written { batch, aim, took: started.elapsed(), result }
        }));
        true
    }

    /// What is to be written now, and how it fared before.
    fn next_batch(&mut self, now: Instant) -> Option<(Batch, Option<Tries>)> {
        let probe = self.pause.is_some();
        let fresh_is_ready = !self.fresh.is_empty()
            && (self.ending || probe || self.is_full() || self.fresh_due.is_some_and(|due| due <= now));
        let fresh_first = self.pause.as_ref().is_some_and(|pause| pause.fresh_next);
        if !(self.retrying || fresh_is_ready && fresh_first) {
            let due = if self.ending || probe { None } else { Some(now) };
            if let Some((batch, tries)) = self.aside.take(due, self.batch_events, self.batch_bytes) {
                return Some((batch, Some(tries)));
            }
        }
        if !fresh_is_ready {
            return None;
        }
        self.fresh_due = None;
        Some((std::mem::take(&mut self.fresh), None))
    }

    /// When there may be something to write though nothing comes in.
    fn next_wake(&self) -> Option<Instant> {
        if let Some(pause) = &self.pause {
            let waits = !self.fresh.is_empty() || !self.aside.is_empty();
            return (waits && self.writes.is_empty()).then_some(pause.until);
        }
        if self.writes.len() >= self.most_writes {
            return None; // the end of one wakes
        }
        let aside = self.aside.next_due().filter(|_| !self.retrying);
        self.fresh_due.into_iter().chain(aside).min()
    }

    fn settle(&mut self, written: Written) {
        let Written { batch, aim, took, result } = written;
        self.instruments.writes_in_flight.dec();
        self.instruments.write_seconds.observe(took.as_secs_f64());
        self.retrying &= aim.again.is_none();
        match result {
            Err(error) => self.failed(batch, aim, &error),
            Ok(outcomes) => self.answered(batch, aim, outcomes),
        }
        if self.aside.is_empty() && !self.retrying && std::mem::take(&mut self.aside_told) {
            log::info!("the trace store has taken the events that it refused before");
        }
    }

    fn answered(&mut self, batch: Batch, aim: Aim, outcomes: Vec<Outcome>) {
        let settled = self.account(batch, outcomes);
        let taken = settled.stored + settled.refused > 0;
        if taken {
            self.taken += 1;
            self.go_on();
        }
        if let Some(reason) = settled.reason {
            // new documents that are all refused tell of the store; those that wait aside only of themselves
            if !taken && (aim.again.is_none() || aim.probe) {
                self.pause(aim, &reason);
            } else if !self.ending && !std::mem::replace(&mut self.aside_told, true) {
                log::warn!("the trace store refuses some events for now, they are written again: {reason}");
            }
            self.put_aside(settled.later, aim.again.unwrap_or_default());
        }
    }

    /// Answers the submissions, counts and tells.
    fn account(&mut self, batch: Batch, outcomes: Vec<Outcome>) -> Settled {
        let before = (batch.documents.len(), weight(&batch.documents));
        let settled = self.ledger.settle(batch, outcomes);
        self.count_out(before.0 - settled.later.documents.len(), before.1 - weight(&settled.later.documents));
        if let Some((id, reason)) = &settled.first_refused {
            self.instruments.refused.inc_by(settled.refused as u64);
            log::warn!("the store refuses trace events count={} id={id} reason={reason}", settled.refused);
        }
        if settled.stored > 0 {
            self.instruments.stored.inc_by(settled.stored as u64);
            log::info!("{} trace consumer success count={}", self.source, settled.stored);
        }
        settled
    }

    /// Finds out whether that is about the store or about what was written.
    fn failed(&mut self, batch: Batch, aim: Aim, error: &StoreError) {
        let mut tries = aim.again.unwrap_or_default();
        let found = tries.failed(matches!(error, StoreError::Rejected { .. }), self.taken);
        let reason = chain(error);
        if !found.others_pass {
            self.pause(aim, &reason);
            // someone must act first, and a server may count wrong passwords
            if let (StoreError::Setting { .. }, Some(pause)) = (error, &mut self.pause) {
                pause.until = pause.until.max(Instant::now() + LAST_RETRY);
            }
        }
        if found.divide && batch.documents.len() > 1 && !self.ending {
            log::debug!("a write of {} trace events is divided: {reason}", batch.documents.len());
            let (first, rest) = batch.halves();
            for half in [first, rest] {
                self.instruments.retried.inc_by(half.documents.len() as u64);
                self.aside.put(half, Instant::now(), tries.of_a_half());
            }
        } else if found.refuse && batch.documents.len() == 1 {
            self.account(batch, vec![Outcome::Refused(reason)]);
        } else {
            self.put_aside(batch, if found.others_pass { tries } else { tries.of_the_innocent() });
        }
    }

    /// Keeps documents for another write; at the end they go back to where they came from, unanswered.
    fn put_aside(&mut self, batch: Batch, mut tries: Tries) {
        if self.ending {
            self.count_out(batch.documents.len(), weight(&batch.documents));
            return;
        }
        self.instruments.retried.inc_by(batch.documents.len() as u64);
        let wait = FIRST_RETRY.saturating_mul(1 << tries.writes.min(10)).min(LAST_RETRY);
        tries.writes += 1;
        self.aside.put(batch, Instant::now() + wait, tries);
    }

    /// Of several writes that fail together only the first, and then each probe, makes the wait longer.
    fn pause(&mut self, aim: Aim, reason: &str) {
        if self.ending {
            // the store is away: nothing more is tried
            let waiting = std::mem::take(&mut self.fresh);
            self.count_out(waiting.documents.len(), weight(&waiting.documents));
            for batch in self.aside.drain().collect::<Vec<_>>() {
                self.count_out(batch.documents.len(), weight(&batch.documents));
            }
            return;
        }
        match &mut self.pause {
            None => {
                let mut backoff = Backoff::seeded(FIRST_RETRY, LAST_RETRY);
                let until = Instant::now() + backoff.next_wait();
                self.pause = Some(Pause { until, backoff, fresh_next: false });
            }
            Some(pause) if aim.probe => {
                pause.until = Instant::now() + pause.backoff.next_wait();
                pause.fresh_next = aim.again.is_some();
            }
            Some(_) => {}
        }
        if self.health.set_store(Some(format!("the trace store takes nothing: {reason}"))) {
            log::warn!("the trace store takes nothing now, events wait unacknowledged: {reason}");
        }
    }

    fn go_on(&mut self) {
        self.pause = None;
        if self.health.set_store(None) {
            log::info!("the trace store takes events again");
        }
    }

    fn count_out(&self, events: usize, bytes: usize) {
        self.instruments.waiting_events.sub(signed(events));
        self.instruments.waiting_bytes.sub(signed(bytes));
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}

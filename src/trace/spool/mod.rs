//! The spool: takes events from the recorder's queue, batches them and has the transport deliver them; on disk what is
//! not confirmed in time.
//!
//! ```text
//! recorder ──► open batch ──sealed──► memory ──► window ──confirmed──► gone
//!                                       │           │
//!                                       └─ too old ─┴──► disk ──► window ──confirmed──► gone
//!
//!            confirmed │ in flight: the window          │ waiting
//! disk       gone      │ d1 d2 d3   (cursor … taken)    │ d4 d5 …   goes on before anything in memory
//! memory               │         m1 m2 m3               │ m4 m5 …   goes on when no d waits
//! ```
//! - A batch is sealed when it is full or half of the flush interval old, and sent at once when the window has room.
//! - The window holds deliveries in the order of sending, so those from disk first. The carrier confirms the oldest ones,
//!   never one before another. When one fails, all fail: each goes back to where it was and is sent again in order.
//!   That doubles nothing, since events have ids.
//! - What is three quarters of the flush interval old and not confirmed is written to disk, also when it is in flight or
//!   not sealed yet. So a killed process loses at most what it recorded in the last flush interval, and nothing is
//!   written while the transport keeps up.
//! - What is in flight and gets too old is written in its order, and before what waits in memory: so disk stays older
//!   than memory, and a confirmation of a place on disk covers all that stands before it.
//! - What is on disk goes only when confirmed, or at the cap (counted).
//! - A delivery that failed is tried again after a wait that grows; a late confirmation counts.

mod delivery;
mod disk;
mod instruments;
mod intake;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::trace::batch::{BATCH_EVENTS, Batch, OpenBatch};
use delivery::Flight;
use disk::Disk;
use instruments::Instruments;
use intake::Intake;

use super::backlog::{Backlog, DropNotice};
use super::dead_letter::DeadLetters;
use super::event::Event;
use super::export::Exporter;
use super::transport::Carrier;
use super::{Settings, TraceError};
use crate::backoff::Backoff;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

/// Bytes that wait in memory: more only while the disk cannot be written, and then the oldest go.
const MEMORY_BYTES: usize = 32 << 20;
/// How long an ending process tries to deliver what it has.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// Between tries to write to a disk that failed.
const DISK_RETRY: Duration = Duration::from_secs(1);

/// How often a process looks for spools of ended ones on the same data folder: a glance at one folder.
const ADOPT_INTERVAL: Duration = Duration::from_secs(2);

/// In the folder of all spools: what no consumer will ever take.
const DEAD_LETTERS: &str = "dead-letters.jsonl";

/// The task's state.
pub(super) struct Spool {
    intake: Intake,
    backlog: Option<Arc<Backlog>>,
    notice: DropNotice,
    open: OpenBatch,
    memory: VecDeque<Batch>,
    memory_bytes: usize,
    disk: Disk,
    disk_broken: Option<Instant>,
    carrier: Carrier,
    /// What is in flight, oldest first.
    window: VecDeque<Flight>,
    window_bytes: usize,
    dead_letters: DeadLetters,
    backoff: Backoff,
    retry_at: Option<Instant>,
    /// When to look for spools of ended processes; `None` while this one ends.
    adopt_at: Option<Instant>,
    /// There is one: nothing is sent until the window is empty.
    adopting: bool,
    away: bool,
    /// That it is away was said.
    told: bool,
    /// That the oldest events go was said.
    full: bool,
    flush_interval: Duration,
    instruments: Instruments,
    gauge_shown: i64,
    /// Gets every event too.
    pub otlp: Option<Exporter>,
}

impl Spool {
    /// Opens the folder and takes over what dead processes left.
    pub fn open(
        settings: &Settings,
        (events, backlog): (mpsc::Receiver<Event>, Option<Arc<Backlog>>),
        carrier: Carrier,
        metrics: &Metrics,
    ) -> Result<Self, TraceError> {
        let disk = Disk::open(&settings.spool_dir, settings.spool_bytes)
            .map_err(|source| TraceError::Spool { dir: settings.spool_dir.clone(), source })?;
        let mut spool = Self {
            intake: Intake::new(events, settings.flush_interval),
            backlog,
            notice: DropNotice::default(),
            open: OpenBatch::default(),
            memory: VecDeque::new(),
            memory_bytes: 0,
            disk,
            disk_broken: None,
            carrier,
            window: VecDeque::new(),
            window_bytes: 0,
            dead_letters: DeadLetters::new(Some(settings.spool_dir.join(DEAD_LETTERS))),
            backoff: Backoff::seeded(Duration::from_millis(100), Duration::from_secs(3)),
            retry_at: None,
            adopt_at: Some(Instant::now() + ADOPT_INTERVAL),
            adopting: false,
            away: false,
            told: false,
            full: false,
            flush_interval: settings.flush_interval,
            instruments: Instruments::new(metrics),
            gauge_shown: 0,
            otlp: None,
        };
        spool.account();
        Ok(spool)
    }

    /// Runs until the end is asked for; then delivers for at most [`FLUSH_LIMIT`] and leaves the rest on disk.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut received = Vec::with_capacity(BATCH_EVENTS);
        let mut give_up_at: Option<Instant> = None;
        loop {
            self.fill_window();
            if give_up_at.is_some_and(|at| self.is_done() || self.away || Instant::now() >= at) {
                break;
            }
            let wake_at = [self.next_deadline(), give_up_at].into_iter().flatten().min();
            tokio::select! {
                biased; // what is handed over goes out at once, and events that never end do not keep the rest waiting
                () = shutdown.begun(), if give_up_at.is_none() => {
                    give_up_at = Some(Instant::now() + FLUSH_LIMIT);
                    // one try now, however long the wait was to be
                    (self.retry_at, self.adopt_at, self.adopting, self.away) = (None, None, false, false);
                    self.intake.close(&mut received);
                    self.take(&mut received);
                    self.seal();
                }
                told = self.carrier.progress(), if !self.window.is_empty() => self.settle(told),
                () = self.intake.receive(&mut received), if give_up_at.is_none() => self.take(&mut received),
                () = until(wake_at) => {}
            }
            self.tick();
        }
        self.seal();
        self.persist(None);
        self.account();
        if self.disk.events() > 0 {
            log::info!("trace events stay on disk for the next start events={}", self.disk.events());
        }
        self.instruments.spooled_bytes.sub(self.gauge_shown);
    }

    fn take(&mut self, received: &mut Vec<Event>) {
        let now = Instant::now();
        self.instruments.recorded.inc_by(received.len() as u64);
        if let Some(backlog) = &self.backlog {
            backlog.taken(received);
        }
        for event in received.drain(..) {
            self.otlp.iter().for_each(|otlp| otlp.offer(&event));
            if self.open.push_with(|json, pages| event.push_json(json, Some(pages)), now) {
                self.seal();
            }
        }
    }

    fn seal(&mut self) {
        if let Some(batch) = self.open.seal() {
            self.memory_bytes += batch.json.len();
            self.memory.push_back(batch);
        }
    }

    fn is_done(&self) -> bool {
        self.window.is_empty() && self.memory.is_empty() && self.open.born().is_none() && self.disk.is_empty()
    }

    fn seal_age(&self) -> Duration {
        self.flush_interval / 2
    }

    fn persist_age(&self) -> Duration {
        self.flush_interval / 4 * 3
    }

    /// The oldest event that is neither confirmed nor on disk.
    fn oldest(&self) -> Option<Instant> {
        let mut loads = self.window.iter().flat_map(|flight| &flight.loads);
        let in_flight = loads.find(|load| load.on_disk.is_none()).map(|load| &load.batch);
        let sealed = in_flight.or(self.memory.front());
        sealed.map(|batch| batch.born).or(self.open.born())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let seal = self.open.born().map(|born| born + self.seal_age());
        let persist = self.oldest().map(|born| born + self.persist_age());
        let persist = match self.disk_broken {
            Some(failed) => persist.map(|at| at.max(failed + DISK_RETRY)),
            None => persist,
        };
        let (retry, adopt) = if self.window.is_empty() { (self.retry_at, self.adopt_at) } else { (None, None) };
        [seal, persist, retry, adopt, self.notice.deadline()].into_iter().flatten().min()
    }

    /// Whatever is due.
    fn tick(&mut self) {
        let now = Instant::now();
        if let Some(backlog) = &self.backlog {
            self.notice.look(backlog.dropped(), now);
        }
        if self.open.born().is_some_and(|born| now >= born + self.seal_age()) {
            self.seal();
        }
        let disk_may_work = self.disk_broken.is_none_or(|failed| now >= failed + DISK_RETRY);
        let too_old = self.oldest().is_some_and(|born| now >= born + self.persist_age());
        if disk_may_work && (too_old || self.memory_bytes > MEMORY_BYTES / 2) {
            self.persist(Some(now));
        }
        let mut dropped = 0;
        while self.memory_bytes > MEMORY_BYTES
            && let Some(batch) = self.memory.pop_front()
        {
            self.memory_bytes -= batch.json.len();
            dropped += batch.events as u64;
        }
        self.instruments.dropped.inc_by(dropped);
        self.account();
    }

    /// Writes what is neither confirmed nor on disk; with `now`, an open batch that is still young stays open.
    fn persist(&mut self, now: Option<Instant>) {
        if now.is_none_or(|now| self.open.born().is_some_and(|born| now >= born + self.persist_age())) {
            self.seal();
        }
        match self.write_all() {
            Ok(()) => {
                if self.disk_broken.take().is_some() {
                    log::info!("trace spool can be written again");
                }
            }
            Err(error) => {
                if self.disk_broken.replace(Instant::now()).is_none() {
                    log::error!("cannot write trace events to disk, they wait in memory: {error}");
                }
            }
        }
    }

    fn write_all(&mut self) -> io::Result<()> {
        // nothing waits on disk when one of these is not there: deliveries from memory begin only then
        for load in self.window.iter_mut().flat_map(|flight| &mut flight.loads) {
            if load.on_disk.is_none() {
                load.on_disk = Some(self.disk.push_in_flight(&load.batch)?);
            }
        }
        while let Some(batch) = self.memory.front() {
            self.disk.push(batch)?;
            self.memory_bytes -= batch.json.len();
            self.memory.pop_front();
        }
        Ok(())
    }

    fn account(&mut self) {
        let losses = self.disk.take_losses();
        if losses.events > 0 && !std::mem::replace(&mut self.full, true) {
            log::error!("trace spool is full, the oldest events go; raise `traces.spoolBytes` or start a consumer");
        }
        self.instruments.dropped.inc_by(losses.events);
        self.instruments.damaged.inc_by(losses.damaged_files);
        self.full &= !self.disk.is_empty();
        let bytes = i64::try_from(self.disk.bytes()).unwrap_or(i64::MAX);
        self.instruments.spooled_bytes.add(bytes - self.gauge_shown);
        self.gauge_shown = bytes;
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

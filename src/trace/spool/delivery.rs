//! The window: what is in flight, oldest first, and what becomes of it.

use std::io;
use std::time::Instant;

use super::disk::Position;
use super::{ADOPT_INTERVAL, DISK_RETRY, Spool};
use crate::trace::batch::Batch;
use crate::trace::transport::{Away, Progress, Refused};

/// A delivery on its way: confirmed as a whole.
pub(super) struct Flight {
    pub loads: Vec<Load>,
}

/// A batch of it.
pub(super) struct Load {
    pub batch: Batch,
    /// Where it ends on disk; `None` while it is only in memory.
    pub on_disk: Option<Position>,
}

impl Flight {
    fn bytes(&self) -> usize {
        self.loads.iter().map(|load| load.batch.json.len()).sum()
    }
}

impl Spool {
    /// Hands the carrier what the window has room for: what waits on disk, then what waits in memory.
    pub(super) fn fill_window(&mut self) {
        self.adopt();
        if self.adopting || self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        // the wait is over, and what it was for may be gone (dropped at the cap, deleted by someone)
        self.retry_at = None;
        let limits = self.carrier.limits();
        while self.window.len() < limits.flights && self.window_bytes < limits.bytes {
            match self.next_flight(limits.flight_batches, limits.flight_bytes) {
                Ok(Some(flight)) => {
                    self.carrier.send(flight.loads.iter().map(|load| load.batch.clone()).collect());
                    self.window_bytes += flight.bytes();
                    self.window.push_back(flight);
                }
                Ok(None) => return,
                Err(error) => {
                    self.retry_at = Some(Instant::now() + DISK_RETRY);
                    if self.disk_broken.replace(Instant::now()).is_none() {
                        log::error!("cannot read trace events from disk, they wait there: {error}");
                    }
                    return;
                }
            }
        }
    }

    fn next_flight(&mut self, max_batches: usize, max_bytes: usize) -> io::Result<Option<Flight>> {
        let mut loads = Vec::new();
        if self.disk.has_waiting() {
            let taken = self.disk.take(max_batches, max_bytes)?;
            loads.extend(taken.into_iter().map(|(batch, end)| Load { batch, on_disk: Some(end) }));
        }
        if loads.is_empty() && !self.disk.has_waiting() {
            let mut bytes = 0;
            while loads.len() < max_batches
                && bytes < max_bytes
                && let Some(batch) = self.memory.pop_front()
            {
                bytes += batch.json.len();
                self.memory_bytes -= batch.json.len();
                loads.push(Load { batch, on_disk: None });
            }
        }
        Ok((!loads.is_empty()).then_some(Flight { loads }))
    }

    /// What the carrier tells: the oldest deliveries are confirmed, or all in flight have failed.
    pub(super) fn settle(&mut self, told: Result<Progress, Away>) {
        match told {
            Ok(Progress { delivered, refused }) => {
                let mut events = 0;
                for flight in self.window.drain(..delivered.min(self.window.len())) {
                    self.window_bytes -= flight.bytes();
                    for Load { batch, on_disk } in flight.loads {
                        events += batch.events as u64;
                        if let Some(end) = on_disk {
                            self.disk.confirm(end, batch.events as u64);
                        }
                    }
                }
                self.instruments.delivered.inc_by(events.saturating_sub(refused.len() as u64));
                self.bury(&refused);
                self.backoff.reset();
                self.away = false;
                if std::mem::take(&mut self.told) {
                    log::info!("trace events are delivered again waiting={}", self.disk.events());
                }
            }
            Err(away) => {
                self.put_back();
                let wait = self.backoff.next_wait().max(away.wait);
                self.retry_at = Some(Instant::now() + wait);
                self.away = true;
                if away.told || std::mem::replace(&mut self.told, true) {
                    log::debug!("trace events still wait on disk: {away}");
                } else {
                    log::warn!("trace events wait on disk: {away}");
                }
            }
        }
    }

    /// Events that no consumer will ever take are kept in a file.
    fn bury(&self, refused: &[Refused]) {
        for Refused { event, reason } in refused {
            match serde_json::from_slice(event) {
                Ok(event) => self.dead_letters.keep(event, reason),
                Err(error) => log::error!("a refused trace event is no JSON and is dropped: {error}"),
            }
        }
        if let Some(Refused { reason, .. }) = refused.first() {
            self.instruments.refused.inc_by(refused.len() as u64);
            log::error!(
                "trace events were refused and are kept apart events={} file={}: {reason}",
                refused.len(),
                self.dead_letters
            );
        }
    }

    /// What is on disk is read from there again; the rest, which is younger, goes back to the front of the memory.
    fn put_back(&mut self) {
        let (mut on_disk, mut in_memory) = (Vec::new(), Vec::new());
        for Load { batch, on_disk: end } in self.window.drain(..).flat_map(|flight| flight.loads) {
            match end {
                Some(end) => on_disk.push((end, batch.events as u64)),
                None => in_memory.push(batch),
            }
        }
        self.window_bytes = 0;
        self.disk.give_back(on_disk);
        for batch in in_memory.into_iter().rev() {
            self.memory_bytes += batch.json.len();
            self.memory.push_front(batch);
        }
    }

    /// Takes over what processes left that ended since the start. Only while nothing is in flight: what is sent from
    /// memory is written behind what is on disk. So where there is something, nothing more is sent until the window is
    /// empty.
    fn adopt(&mut self) {
        let now = Instant::now();
        if self.adopt_at.is_none_or(|at| now < at) {
            return;
        }
        if !self.window.is_empty() {
            self.adopting = self.adopting || self.disk.has_orphan();
            if !self.adopting {
                self.adopt_at = Some(now + ADOPT_INTERVAL);
            }
            return;
        }
        self.adopting = false;
        let more = self.disk.adopt_one().unwrap_or_else(|error| {
            log::debug!("cannot look for spools of ended processes: {error}");
            false
        });
        self.adopt_at = Some(if more { now } else { now + ADOPT_INTERVAL });
    }
}

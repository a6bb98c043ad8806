//! One delivery at a time: what it takes, and what becomes of it when it ends.

use std::time::Instant;

use futures_util::future::LocalBoxFuture;

use super::disk::Position;
use super::{DISK_RETRY, Spool};
use crate::trace::batch::Batch;
use crate::trace::transport::{Away, Carrier, Refused};

/// Batches a delivery: up to 4,096 events a round trip.
const DELIVERY_BATCHES: usize = 16;
/// Bytes a delivery, which a consumer takes in one request.
const DELIVERY_BYTES: usize = 4 << 20;

/// What is being delivered.
pub(super) struct InFlight {
    pub batches: Vec<Batch>,
    /// Where they end on disk; `None` while they are only in memory.
    pub on_disk: Option<Position>,
    done: LocalBoxFuture<'static, (Carrier, Result<Vec<Refused>, Away>)>,
}

impl Spool {
    pub(super) fn start_delivery(&mut self) {
        if self.in_flight.is_some() {
            return;
        }
        self.adopt();
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let (mut batches, mut end) = (Vec::new(), None);
        if !self.disk.is_empty() {
            match self.disk.peek(DELIVERY_BATCHES, DELIVERY_BYTES) {
                Ok((from_disk, position)) => (batches, end) = (from_disk, Some(position)),
                Err(error) => {
                    self.retry_at = Some(Instant::now() + DISK_RETRY);
                    if self.disk_broken.replace(Instant::now()).is_none() {
                        log::error!("cannot read trace events from disk, they wait there: {error}");
                    }
                    return;
                }
            }
        }
        if batches.is_empty() && self.disk.is_empty() {
            end = None;
            let mut bytes = 0;
            while batches.len() < DELIVERY_BATCHES
                && bytes < DELIVERY_BYTES
                && let Some(batch) = self.memory.pop_front()
            {
                bytes += batch.json.len();
                self.memory_bytes -= batch.json.len();
                batches.push(batch);
            }
        }
        if batches.is_empty() {
            // what the wait was for may be gone (dropped at the cap, deleted by someone)
            self.retry_at = None;
            return;
        }
        let Some(mut carrier) = self.carrier.take() else { return };
        let load = batches.clone();
        let done = Box::pin(async move {
            let result = carrier.deliver(&load).await;
            (carrier, result)
        });
        self.in_flight = Some(InFlight { batches, on_disk: end, done });
    }

    pub(super) fn finish_delivery(&mut self, carrier: Carrier, result: Result<Vec<Refused>, Away>) {
        self.carrier = Some(carrier);
        let Some(flight) = self.in_flight.take() else { return };
        let events: u64 = flight.batches.iter().map(|batch| batch.events as u64).sum();
        match result {
            Ok(refused) => {
                self.instruments.delivered.inc_by(events.saturating_sub(refused.len() as u64));
                self.bury(&refused);
                self.forget(flight, events);
                self.backoff.reset();
                self.retry_at = None;
                self.away = false;
                if std::mem::take(&mut self.told) {
                    log::info!("trace events are delivered again waiting={}", self.disk.events());
                }
            }
            Err(away) => {
                self.put_back(flight);
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

    fn forget(&mut self, flight: InFlight, events: u64) {
        if let Some(end) = flight.on_disk {
            self.disk.confirm(end, events);
        }
    }

    /// What is on disk is read from there again; the rest goes back to the front.
    fn put_back(&mut self, flight: InFlight) {
        if flight.on_disk.is_none() {
            for batch in flight.batches.into_iter().rev() {
                self.memory_bytes += batch.json.len();
                self.memory.push_front(batch);
            }
        }
    }
}

/// Resolves when the delivery has ended; never without one.
pub(super) async fn finished(in_flight: &mut Option<InFlight>) -> (Carrier, Result<Vec<Refused>, Away>) {
    match in_flight {
        Some(flight) => (&mut flight.done).await,
        None => std::future::pending().await,
    }
}

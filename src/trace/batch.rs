//! Events on their way, serialised: a JSON array that grows until it is sealed.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::head::Place;

/// Events a batch.
pub(in crate::trace) const BATCH_EVENTS: usize = 256;
/// Bytes a batch, so that no message nears a broker's or a consumer's limit.
pub(in crate::trace) const BATCH_BYTES: usize = 1 << 20;

/// A sealed batch: a JSON array of events.
#[derive(Clone, Debug)]
pub(in crate::trace) struct Batch {
    /// `[{…},{…}]`.
    pub json: Bytes,
    /// How many events it holds.
    pub events: usize,
    /// When its first event was recorded.
    pub born: Instant,
    /// Where in `json` each event stands; `None` for a batch that was read from disk.
    spans: Option<Vec<Range<usize>>>,
}

impl Batch {
    /// A batch that was written to disk before.
    pub fn from_disk(json: Bytes, events: usize) -> Self {
        Self { json, events, born: Instant::now(), spans: None }
    }

    /// Each event on its own; empty where the bytes are no JSON array (they passed a checksum, so they are one).
    pub fn singles(&self) -> Vec<Bytes> {
        match &self.spans {
            Some(spans) => spans.iter().map(|span| self.json.slice(span.clone())).collect(),
            None => serde_json::from_slice::<Vec<&RawValue>>(&self.json)
                .unwrap_or_default()
                .into_iter()
                .map(|event| self.json.slice_ref(event.get().as_bytes()))
                .collect(),
        }
    }
}

/// What was written lately: the batch that is being filled, and the one before. Most requests end within one of both.
#[derive(Debug)]
pub(super) struct Pages {
    number: u64,
    before: Option<(u64, Bytes)>,
}

impl Default for Pages {
    fn default() -> Self {
        Self { number: next_number(), before: None }
    }
}

impl Pages {
    /// The number of the batch that is being filled.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Appends to that batch, `open`, what stands at a place, if it is at hand.
    pub fn copy(&self, place: Option<&Place>, open: &mut Vec<u8>) -> bool {
        let Some(Place { batch, bytes }) = place else { return false };
        match &self.before {
            _ if *batch == self.number && bytes.end <= open.len() => open.extend_from_within(bytes.clone()),
            Some((before, json)) if batch == before && bytes.end <= json.len() => {
                open.extend_from_slice(&json[bytes.clone()]);
            }
            _ => return false,
        }
        true
    }
}

/// No two batches of a process have the same number.
fn next_number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

/// The batch that is being filled.
#[derive(Debug, Default)]
pub(super) struct OpenBatch {
    json: Vec<u8>,
    spans: Vec<Range<usize>>,
    born: Option<Instant>,
    pages: Pages,
}

impl OpenBatch {
    /// Adds an event's JSON, which `write` appends; says whether the batch is full.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>, &Pages), now: Instant) -> bool {
        self.json.push(if self.spans.is_empty() { b'[' } else { b',' });
        let start = self.json.len();
        write(&mut self.json, &self.pages);
        self.spans.push(start..self.json.len());
        self.born.get_or_insert(now);
        self.spans.len() >= BATCH_EVENTS || self.json.len() >= BATCH_BYTES
    }

    /// The same with JSON that is there already.
    #[cfg(test)]
    pub fn push(&mut self, event: &[u8], now: Instant) -> bool {
        self.push_with(|json, _| json.extend_from_slice(event), now)
    }

    /// When its first event was recorded; `None` while it is empty.
    pub fn born(&self) -> Option<Instant> {
        self.born
    }

    /// What was collected, if anything.
    pub fn seal(&mut self) -> Option<Batch> {
        let born = self.born.take()?;
        // the next one will be about as long: it is not to grow, and so be copied, again and again
        let (bytes, events) = (self.json.len(), self.spans.len());
        let mut json = std::mem::replace(&mut self.json, Vec::with_capacity((bytes + bytes / 16).min(BATCH_BYTES)));
        let spans = std::mem::replace(&mut self.spans, Vec::with_capacity(events));
        json.push(b']');
        let json = Bytes::from(json);
        self.pages.before = Some((self.pages.number, json.clone()));
        self.pages.number = next_number();
        Some(Batch { json, events: spans.len(), born, spans: Some(spans) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_an_array_and_gives_its_events_back() {
        let mut open = OpenBatch::default();
        assert!(open.seal().is_none());
        for event in [&b"{\"a\":1}"[..], b"{\"b\":\"]\\n\"}"] {
            assert!(!open.push(event, Instant::now()));
        }
        let batch = open.seal().unwrap();
        assert_eq!(&batch.json[..], b"[{\"a\":1},{\"b\":\"]\\n\"}]");
        let from_disk = Batch::from_disk(batch.json.clone(), batch.events);
        assert_eq!(batch.singles(), from_disk.singles());
        assert_eq!(&batch.singles()[1][..], b"{\"b\":\"]\\n\"}");
        assert!(open.born().is_none());
    }

    #[test]
    fn it_is_full_by_count_and_by_bytes() {
        let mut open = OpenBatch::default();
        let full = (0..BATCH_EVENTS).filter(|_| open.push(b"{}", Instant::now())).count();
        assert_eq!(full, 1);
        assert!(open.seal().is_some());
        assert!(open.push(&vec![b' '; BATCH_BYTES], Instant::now()));
    }
}

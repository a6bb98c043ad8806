//! Events on their way, serialised: a JSON array that grows until it is sealed.

use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use serde_json::value::RawValue;

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

/// The batch that is being filled.
#[derive(Debug, Default)]
pub(super) struct OpenBatch {
    json: Vec<u8>,
    spans: Vec<Range<usize>>,
    born: Option<Instant>,
}

impl OpenBatch {
    /// Adds an event's JSON, which `write` appends; says whether the batch is full.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>), now: Instant) -> bool {
        self.json.push(if self.spans.is_empty() { b'[' } else { b',' });
        let start = self.json.len();
        write(&mut self.json);
        self.spans.push(start..self.json.len());
        self.born.get_or_insert(now);
        self.spans.len() >= BATCH_EVENTS || self.json.len() >= BATCH_BYTES
    }

    /// The same with JSON that is there already.
    #[cfg(test)]
    pub fn push(&mut self, event: &[u8], now: Instant) -> bool {
        self.push_with(|json| json.extend_from_slice(event), now)
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
        Some(Batch { json: Bytes::from(json), events: spans.len(), born, spans: Some(spans) })
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

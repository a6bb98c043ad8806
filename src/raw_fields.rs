//! Header fields as they were read: one buffer, and where names and values stand in it. A proxy that hands them on as they
//! came needs no map of them, and no copy.
//!
//! May import: nothing.

use bytes::Bytes;

/// Where a field stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Begin and end of its name.
    pub name: (u32, u32),
    /// Begin and end of its value, without white space around it.
    pub value: (u32, u32),
}

/// The fields of a head, which was parsed: names are tokens, and no value could break a head.
#[derive(Clone, Debug, Default)]
pub struct RawFields {
    raw: Bytes,
    spans: Vec<Span>,
}

impl RawFields {
    /// The spans are places in `raw`.
    pub(crate) fn new(raw: Bytes, spans: Vec<Span>) -> Self {
        Self { raw, spans }
    }

    /// The head that they stand in.
    pub(crate) fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// All of them in their order.
    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The bytes from one place to another.
    pub(crate) fn bytes(&self, (start, end): (u32, u32)) -> &[u8] {
        &self.raw[start as usize..end as usize]
    }

    /// The same as a buffer that shares the head's memory.
    pub(crate) fn shared(&self, (start, end): (u32, u32)) -> Bytes {
        self.raw.slice(start as usize..end as usize)
    }

    /// Keeps the fields whose names pass.
    pub(crate) fn retain(&mut self, mut passes: impl FnMut(&[u8]) -> bool) {
        let raw = &self.raw;
        self.spans.retain(|&Span { name: (start, end), .. }| passes(&raw[start as usize..end as usize]));
    }

    /// Names as they came and values, in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.spans.iter().map(|span| (self.bytes(span.name), self.bytes(span.value)))
    }
}

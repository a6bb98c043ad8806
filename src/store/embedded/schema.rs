//! How an event lies in tantivy.
//!
//! ```text
//! request                                               hash of the request id as one term; of an event without one
//!                                                       of its own id, behind a zero
//! trace                                                 only where the trace id is not the request id's bits: its
//!                                                       hash as one term, and OTHER_TRACE
//! event, node, url, action                              whole value as one term
//! service, caller                                       so, too, and columns: what is counted by
//! words                                                 its words but ids and times (`text::words_besides_ids`)
//! status, duration_ns, time_ms                          columns: ranges, order, counting
//! tie                                                   column: 48 bits of the id's hash, orders events of one sort key
//! json                                                  the event as it came (`packed`); nothing else is kept
//! ```
//!
//! An event's own id is no term, for it would cost as much as all others together: `request` and `tie` find an event.
//!
//! A folder of another schema is set aside when it is opened, so a change here costs users their old traces.

use tantivy::IndexSettings;
use tantivy::schema::{
    BytesOptions, FAST, Field, IndexRecordOption, NumericOptions, STORED, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::store::{Compressor, ZstdCompressor};

/// tantivy leaves out terms over 65,530 bytes; a value is cut well below, in the index and in a query.
const MAX_TERM_BYTES: usize = 8192;

/// Bytes of JSON that are compressed together. A page reads one block an event at worst (0.1 ms); half of it takes 10%
/// more disk space, twice of it 7% less.
const BLOCK_BYTES: usize = 128 << 10;

/// Higher levels save 10% and cost four times the CPU.
const ZSTD_LEVEL: i32 = 1;

/// Bits of [`tie`]: two events of one millisecond have the same in one of 10^14 cases.
const TIE_BITS: u32 = 48;

/// The term in `trace` of events whose trace id is not that of their request id.
pub(super) const OTHER_TRACE: Key = Key { bytes: [0; KEY_BYTES + 1], len: 1 };

/// Bytes of an id's hash in a term.
const KEY_BYTES: usize = 6;

/// The schema and its fields.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub schema: Schema,
    pub request: Field,
    pub trace: Field,
    pub event: Field,
    pub service: Field,
    pub node: Field,
    pub url: Field,
    pub action: Field,
    pub caller: Field,
    pub words: Field,
    pub status: Field,
    pub duration_ns: Field,
    pub time_ms: Field,
    pub tie: Field,
    pub json: Field,
}

pub(super) const SERVICE: &str = "service";
pub(super) const CALLER: &str = "caller";
pub(super) const STATUS: &str = "status";
pub(super) const TIME_MS: &str = "time_ms";
pub(super) const DURATION_NS: &str = "duration_ns";
pub(super) const TIE: &str = "tie";

impl Layout {
    pub fn new() -> Self {
        let indexed = |tokenizer: &str| {
            TextOptions::default().set_indexing_options(
                TextFieldIndexing::default()
                    .set_tokenizer(tokenizer)
                    .set_index_option(IndexRecordOption::Basic)
                    .set_fieldnorms(false),
            )
        };
        let exact = indexed("raw");
        let counted_by = indexed("raw").set_fast("raw");
        let term = BytesOptions::default().set_indexed();
        let column = NumericOptions::default() | FAST;
        let mut builder = Schema::builder();
        Self {
            request: builder.add_bytes_field("request", term.clone()),
            trace: builder.add_bytes_field("trace", term),
            event: builder.add_text_field("event", exact.clone()),
            service: builder.add_text_field(SERVICE, counted_by.clone()),
            node: builder.add_text_field("node", exact.clone()),
            url: builder.add_text_field("url", exact.clone()),
            action: builder.add_text_field("action", exact),
            caller: builder.add_text_field(CALLER, counted_by),
            words: builder.add_text_field("words", indexed("whitespace")),
            status: builder.add_u64_field(STATUS, column.clone()),
            duration_ns: builder.add_u64_field(DURATION_NS, column.clone()),
            time_ms: builder.add_i64_field(TIME_MS, column.clone()),
            tie: builder.add_u64_field(TIE, column),
            json: builder.add_bytes_field("json", STORED),
            schema: builder.build(),
        }
    }

    /// How a new index is kept on disk.
    pub fn settings() -> IndexSettings {
        IndexSettings {
            docstore_compression: Compressor::Zstd(ZstdCompressor { compression_level: Some(ZSTD_LEVEL) }),
            docstore_blocksize: BLOCK_BYTES,
            ..IndexSettings::default()
        }
    }
}

/// The part of a value that is indexed as one term.
pub(super) fn cut(value: &str) -> &str {
    let mut end = value.len().min(MAX_TERM_BYTES);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

/// A term made of an id's hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Key {
    bytes: [u8; KEY_BYTES + 1],
    len: u8,
}

impl Key {
    /// The term in `request` of an event that has no request id.
    pub fn of_event(id: &str) -> Self {
        let mut key = key_of(id);
        key.bytes.rotate_right(1);
        key.len += 1;
        key
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The term of a request or trace id. Of ten million requests another one has the same in one of 28 million cases: then
/// a search shows its events too. Each byte more costs a byte an event, for such terms have nothing in common.
pub(super) fn key_of(id: &str) -> Key {
    let mut key = Key { len: KEY_BYTES as u8, ..Key::default() };
    key.bytes[..KEY_BYTES].copy_from_slice(&hash(id).to_le_bytes()[..KEY_BYTES]);
    key
}

/// Orders events of one sort key, and tells events of one request apart.
pub(super) fn tie(id: &str) -> u64 {
    hash(id) >> (u64::BITS - TIE_BITS)
}

/// The digits of the trace id with the same bits as a UUID in its usual form.
pub(super) fn as_trace_id(uuid: &str) -> Option<impl Iterator<Item = u8>> {
    let sound = uuid.len() == 36
        && uuid.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    sound.then(|| uuid.bytes().filter(|byte| *byte != b'-'))
}

/// The other way round, for 32 hex digits.
pub(super) fn as_uuid(trace_id: &str) -> Option<String> {
    let part = |range: std::ops::Range<usize>| trace_id.get(range).unwrap_or_default();
    is_hex(trace_id).then(|| [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-"))
}

fn is_hex(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>), then mixed as MurmurHash3 ends
/// (<https://github.com/aappleby/smhasher/wiki/MurmurHash3>), so that each bit counts: the same in every version, for
/// it is on disk.
pub(super) fn hash(id: impl AsRef<[u8]>) -> u64 {
    let mut hash = id
        .as_ref()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_and_its_trace_id_are_told() {
        let (id, hex) = ("cdb08456-d8a7-4d53-93c2-a5e3f01f56d6", "cdb08456d8a74d5393c2a5e3f01f56d6");
        assert!(as_trace_id(id).is_some_and(|digits| digits.eq(hex.bytes())));
        assert_eq!(as_uuid(hex).as_deref(), Some(id));
        for none in ["", hex, "cdb08456-d8a7-4d53-93c2-a5e3f01f56d", "é"] {
            assert!(as_trace_id(none).is_none(), "{none}");
        }
        for none in ["", id, "éé", "cdb08456d8a74d5393c2a5e3f01f56dx"] {
            assert_eq!(as_uuid(none), None, "{none}");
        }
    }

    /// These are on disk.
    #[test]
    fn hashes_stay_what_they_are() {
        assert_eq!((hash(""), hash("a")), (0xefd0_1f60_ba99_2926, 0x82a2_a958_a9be_ce5b));
        assert_eq!(tie("a"), hash("a") >> 16);
    }
}

//! How an event lies in tantivy.
//!
//! ```text
//! id, request_id, event, node, url, trace_id, action    whole value as one term
//! service, caller                                       so, too, and columns: what is counted by
//! words                                                 its words (`text::words_of_json`), for full text
//! status, duration_ns, time_ms                          columns: ranges, order, counting
//! tie                                                   column: hash of the id, orders events of one sort key
//! json                                                  the event as it came, compressed; nothing else is kept
//! ```
//!
//! A folder of another schema is set aside when it is opened, so a change here costs users their old traces.

use tantivy::TantivyDocument;
use tantivy::schema::{FAST, Field, IndexRecordOption, NumericOptions, STORED, Schema, TextFieldIndexing, TextOptions};

use super::super::{Document, text};

/// tantivy leaves out terms over 65,530 bytes; a value is cut well below, in the index and in a query.
const MAX_TERM_BYTES: usize = 8192;

/// The schema and its fields.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub schema: Schema,
    pub id: Field,
    pub request_id: Field,
    pub event: Field,
    pub service: Field,
    pub node: Field,
    pub url: Field,
    pub trace_id: Field,
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
        let column = NumericOptions::default() | FAST;
        let mut builder = Schema::builder();
        Self {
            id: builder.add_text_field("id", exact.clone()),
            request_id: builder.add_text_field("request_id", exact.clone()),
            event: builder.add_text_field("event", exact.clone()),
            service: builder.add_text_field(SERVICE, counted_by.clone()),
            node: builder.add_text_field("node", exact.clone()),
            url: builder.add_text_field("url", exact.clone()),
            trace_id: builder.add_text_field("trace_id", exact.clone()),
            action: builder.add_text_field("action", exact),
            caller: builder.add_text_field(CALLER, counted_by),
            words: builder.add_text_field("words", indexed("whitespace")),
            status: builder.add_u64_field(STATUS, column.clone()),
            duration_ns: builder.add_u64_field(DURATION_NS, column.clone()),
            time_ms: builder.add_i64_field(TIME_MS, column.clone()),
            tie: builder.add_u64_field(TIE, column),
            json: builder.add_text_field("json", STORED),
            schema: builder.build(),
        }
    }

    pub fn document(&self, document: &Document) -> TantivyDocument {
        let fields = &document.fields;
        let mut made = TantivyDocument::default();
        for (field, value) in [
            (self.id, &document.id),
            (self.request_id, &fields.request_id),
            (self.event, &fields.event),
            (self.service, &fields.service),
            (self.node, &fields.node),
            (self.url, &fields.url),
            (self.trace_id, &fields.trace_id),
            (self.action, &fields.action),
            (self.caller, &fields.caller),
        ] {
            if !value.is_empty() {
                made.add_text(field, cut(value));
            }
        }
        made.add_text(self.words, text::words_of_json(document.json.get()));
        if let Some(status) = fields.status {
            made.add_u64(self.status, u64::from(status));
        }
        if let Some(duration_ns) = fields.duration_ns {
            made.add_u64(self.duration_ns, duration_ns);
        }
        made.add_i64(self.time_ms, fields.time_ms);
        made.add_u64(self.tie, tie(&document.id));
        made.add_text(self.json, document.json.get());
        made
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

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): the same in every version, for it is on disk.
fn tie(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

//! An event on its way into the index: copied once, made ready beside the thread that writes, and read by tantivy in
//! place.

use std::ops::Range;
use std::sync::Arc;

use tantivy::schema::Field;
use tantivy::schema::document::{Document as TantivyDocumentTrait, ReferenceValue, ReferenceValueLeaf, Value};

use super::super::words::Words;
use super::super::{Document, flaw, text};
use super::packed;
use super::schema::{self, Key, Layout, OTHER_TRACE, as_trace_id, cut, key_of};

/// What lies behind one another in [`Entry::text`], in this order.
#[derive(Clone, Copy)]
enum Part {
    Id,
    RequestId,
    TraceId,
    Event,
    Service,
    Node,
    Url,
    Action,
    Caller,
    Json,
    Words,
}

const PARTS: usize = Part::Words as usize + 1;

/// Room for the words of a usual event behind its other parts.
const USUAL_WORDS_BYTES: usize = 512;

/// Where an event lies in its commit: events of one node, action and kind of client side by side, and those of one
/// request among them. Then most of an event repeats the one before it, and words stand in long runs of events: a
/// seventh of the disk space less.
pub(super) type Place = (u64, u64, u64);

/// An event with all that tantivy keeps of it.
pub(super) struct Entry {
    layout: Arc<Layout>,
    text: String,
    ends: [usize; PARTS],
    status: Option<u16>,
    duration_ns: Option<u64>,
    pub time_ms: i64,
    /// Whether it tells its time: one that does not is given another each time it is read.
    pub has_time: bool,
    pub key: Key,
    pub tie: u64,
    /// The terms of `trace`.
    trace: [Option<Key>; 2],
    packed: Vec<u8>,
    pub place: Place,
}

impl Entry {
    /// A copy of a document, without what costs time.
    ///
    /// # Errors
    /// Why no store can keep it.
    pub fn new(document: &Document, layout: &Arc<Layout>) -> Result<Self, String> {
        if let Some(flaw) = flaw(document) {
            return Err(flaw);
        }
        let fields = &document.fields;
        let parts = [
            document.id.as_str(),
            &fields.request_id,
            &fields.trace_id,
            cut(&fields.event),
            cut(&fields.service),
            cut(&fields.node),
            cut(&fields.url),
            cut(&fields.action),
            cut(&fields.caller),
            document.json.get(),
        ];
        let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum::<usize>() + USUAL_WORDS_BYTES);
        let mut ends = [0; PARTS];
        for (end, part) in ends.iter_mut().zip(parts) {
            text.push_str(part);
            *end = text.len();
        }
        ends[PARTS - 1] = text.len();
        Ok(Self {
            layout: Arc::clone(layout),
            text,
            ends,
            status: fields.status,
            duration_ns: fields.duration_ns,
            time_ms: fields.time_ms,
            has_time: false,
            key: Key::default(),
            tie: 0,
            trace: [None, None],
            packed: Vec::new(),
            place: Place::default(),
        })
    }

    /// The costly part of indexing that needs no lock. `words` is any scratch space.
    pub fn prepare(&mut self, words: &mut Words) {
        let part = |part| self.part(part);
        let (id, request_id, trace_id, json) =
            (part(Part::Id), part(Part::RequestId), part(Part::TraceId), part(Part::Json));
        let key = if request_id.is_empty() { Key::of_event(id) } else { key_of(request_id) };
        let same_bits = as_trace_id(request_id).is_some_and(|bits| bits.eq(trace_id.bytes()));
        let trace = match trace_id {
            _ if same_bits => [None, None],
            "" => [Some(OTHER_TRACE), None],
            other => [Some(OTHER_TRACE), Some(key_of(other))],
        };
        let packed = packed::pack(json);
        let origin = schema::hash(part(Part::Node)) ^ schema::hash(part(Part::Action)).rotate_left(1);
        let place = (origin, schema::hash(packed::headers(&packed)), schema::hash(key.bytes()));
        let tie = schema::tie(id);
        let (found, has_time) = text::words_besides_ids(json, request_id, trace_id, words);
        self.text.push_str(found);
        self.ends[PARTS - 1] = self.text.len();
        self.has_time = has_time;
        (self.key, self.tie, self.trace, self.packed, self.place) = (key, tie, trace, packed, place);
    }

    fn part(&self, part: Part) -> &str {
        let part = part as usize;
        let from = if part == 0 { 0 } else { self.ends[part - 1] };
        self.text.get(Range { start: from, end: self.ends[part] }).unwrap_or_default()
    }

    pub fn id(&self) -> &str {
        self.part(Part::Id)
    }

    /// Whether a stored event with the same hash is this one. An event that does not tell its id has that of its bytes.
    pub fn is(&self, stored: &str) -> bool {
        stored == self.part(Part::Json) || stored.contains(self.id())
    }

    fn field(&self, which: Which) -> Field {
        let layout = &*self.layout;
        match which {
            Which::Request => layout.request,
            Which::Trace(_) => layout.trace,
            Which::Text(part) => match part {
                Part::Event => layout.event,
                Part::Service => layout.service,
                Part::Node => layout.node,
                Part::Url => layout.url,
                Part::Action => layout.action,
                Part::Caller => layout.caller,
                _ => layout.words,
            },
            Which::Status => layout.status,
            Which::Duration => layout.duration_ns,
            Which::Time => layout.time_ms,
            Which::Tie => layout.tie,
            Which::Json => layout.json,
        }
    }

    fn value(&self, which: Which) -> Option<ReferenceValueLeaf<'_>> {
        match which {
            Which::Request => Some(ReferenceValueLeaf::Bytes(self.key.bytes())),
            Which::Trace(at) => self.trace[at].as_ref().map(|key| ReferenceValueLeaf::Bytes(key.bytes())),
            Which::Text(part) => Some(self.part(part)).filter(|text| !text.is_empty()).map(ReferenceValueLeaf::Str),
            Which::Status => self.status.map(|status| ReferenceValueLeaf::U64(u64::from(status))),
            Which::Duration => self.duration_ns.map(ReferenceValueLeaf::U64),
            Which::Time => Some(ReferenceValueLeaf::I64(self.time_ms)),
            Which::Tie => Some(ReferenceValueLeaf::U64(self.tie)),
            Which::Json => Some(ReferenceValueLeaf::Bytes(&self.packed)),
        }
    }
}

/// What tantivy is told of an event.
#[derive(Clone, Copy)]
enum Which {
    Request,
    /// The first or the second term.
    Trace(usize),
    Text(Part),
    Status,
    Duration,
    Time,
    Tie,
    Json,
}

/// In the order in which a layout has its fields.
const FIELDS: [Which; 15] = [
    Which::Request,
    Which::Trace(0),
    Which::Trace(1),
    Which::Text(Part::Event),
    Which::Text(Part::Service),
    Which::Text(Part::Node),
    Which::Text(Part::Url),
    Which::Text(Part::Action),
    Which::Text(Part::Caller),
    Which::Text(Part::Words),
    Which::Status,
    Which::Duration,
    Which::Time,
    Which::Tie,
    Which::Json,
];

/// The fields that an event has. tantivy goes over them four times an event, each time for a few of the values only.
pub(super) struct FieldsOf<'a> {
    entry: &'a Entry,
    rest: std::slice::Iter<'static, Which>,
}

impl<'a> Iterator for FieldsOf<'a> {
    type Item = (Field, Leaf<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entry;
        self.rest.find_map(|&which| entry.value(which).map(|_| (entry.field(which), Leaf { entry, which })))
    }
}

impl TantivyDocumentTrait for Entry {
    type Value<'a> = Leaf<'a>;
    type FieldsValuesIter<'a> = FieldsOf<'a>;

    fn iter_fields_and_values(&self) -> Self::FieldsValuesIter<'_> {
        FieldsOf { entry: self, rest: FIELDS.iter() }
    }
}

/// A value that lies in an [`Entry`], looked up when it is wanted.
#[derive(Clone)]
pub(super) struct Leaf<'a> {
    entry: &'a Entry,
    which: Which,
}

impl std::fmt::Debug for Leaf<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.entry.value(self.which).fmt(formatter)
    }
}

/// No value is an array or an object.
impl<'a> Value<'a> for Leaf<'a> {
    type ArrayIter = std::iter::Empty<Self>;
    type ObjectIter = std::iter::Empty<(&'a str, Self)>;

    fn as_value(&self) -> ReferenceValue<'a, Self> {
        ReferenceValue::Leaf(self.entry.value(self.which).unwrap_or(ReferenceValueLeaf::Null))
    }
}

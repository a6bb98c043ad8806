//! Which events are stored already: found by the term of their request and the hash of their id, then read and
//! compared, so that neither hash decides. Every function here blocks.

use std::collections::HashMap;
use std::sync::Arc;

use tantivy::columnar::Column;
use tantivy::schema::IndexRecordOption;
use tantivy::{DocAddress, DocSet, InvertedIndexReader, Searcher, SegmentOrdinal, SegmentReader, TERMINATED, Term};

use super::entry::Entry;
use super::reader;
use super::schema::{Key, Layout, TIE, TIME_MS};

/// All that is committed, as one commit sees it.
pub(super) struct Known<'a> {
    searcher: &'a Searcher,
    layout: &'a Layout,
    segments: Vec<Segment<'a>>,
    requests: HashMap<Key, Request>,
}

struct Segment<'a> {
    reader: &'a SegmentReader,
    terms: Arc<InvertedIndexReader>,
    ties: Option<Column<u64>>,
    /// The first and last time in it.
    times: (i64, i64),
}

/// The stored events of one request.
#[derive(Default)]
struct Request {
    /// Segments that were looked into.
    searched: Vec<usize>,
    found: HashMap<u64, Vec<DocAddress>>,
}

impl<'a> Known<'a> {
    pub fn new(searcher: &'a Searcher, layout: &'a Layout) -> tantivy::Result<Self> {
        let segment = |reader: &'a SegmentReader| -> tantivy::Result<Segment<'a>> {
            let times = reader.fast_fields().column_opt::<i64>(TIME_MS)?;
            Ok(Segment {
                reader,
                terms: reader.inverted_index(layout.request)?,
                ties: reader.fast_fields().column_opt(TIE)?,
                times: times.map_or((i64::MIN, i64::MAX), |times| (times.min_value(), times.max_value())),
            })
        };
        let segments = searcher.segment_readers().iter().map(segment).collect::<tantivy::Result<_>>()?;
        Ok(Self { searcher, layout, segments, requests: HashMap::new() })
    }

    /// Whether this event is stored.
    pub fn holds(&mut self, event: &Entry) -> tantivy::Result<bool> {
        if self.segments.is_empty() {
            return Ok(false);
        }
        let request = match self.requests.get_mut(&event.key) {
            Some(request) => request,
            None => self.requests.entry(event.key.clone()).or_default(),
        };
        for (number, segment) in self.segments.iter().enumerate() {
            // most events are new and most segments older, so most are passed over here
            let covers = !event.has_time || (segment.times.0..=segment.times.1).contains(&event.time_ms);
            if covers && !request.searched.contains(&number) {
                request.searched.push(number);
                segment.find(self.layout, event, number, &mut request.found)?;
            }
        }
        let Some(same_tie) = request.found.get(&event.tie) else { return Ok(false) };
        for at in same_tie {
            if reader::json(self.searcher, self.layout, *at)?.is_some_and(|stored| event.is(&stored)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Segment<'_> {
    /// Adds the events of `event`'s request.
    fn find(
        &self,
        layout: &Layout,
        event: &Entry,
        number: usize,
        found: &mut HashMap<u64, Vec<DocAddress>>,
    ) -> tantivy::Result<()> {
        let Some(info) = self.terms.get_term_info(&Term::from_field_bytes(layout.request, event.key.bytes()))? else {
            return Ok(());
        };
        let alive = self.reader.alive_bitset();
        let mut postings = self.terms.read_postings_from_terminfo(&info, IndexRecordOption::Basic)?;
        let mut doc = postings.doc();
        while doc != TERMINATED {
            if alive.is_none_or(|alive| alive.is_alive(doc))
                && let Some(tie) = self.ties.as_ref().and_then(|ties| ties.first(doc))
            {
                let segment = SegmentOrdinal::try_from(number).unwrap_or(SegmentOrdinal::MAX);
                found.entry(tie).or_default().push(DocAddress::new(segment, doc));
            }
            doc = postings.advance();
        }
        Ok(())
    }
}

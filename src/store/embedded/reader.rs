//! Queries of the embedded store; every function here blocks.

use std::ops::Bound;

use serde_json::value::RawValue;
use tantivy::collector::sort_key::SortByStaticFastValue;
use tantivy::collector::{Count, TopDocs};
use tantivy::query::{AllQuery, BooleanQuery, EmptyQuery, Occur, Query as TantivyQuery, RangeQuery, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, Value};
use tantivy::{DocAddress, Searcher, TantivyDocument, Term};

use super::super::cursor::Cursor;
use super::super::text::{self, Wanted};
use super::super::{MAX_LIMIT, Order, Page, Query, StoreError};
use super::packed;
use super::schema::{DURATION_NS, Layout, OTHER_TRACE, TIE, TIME_MS, as_uuid, cut, key_of, tie};

/// Why a search failed.
#[derive(Debug)]
pub(super) enum SearchError {
    /// The query makes no sense.
    Query(StoreError),
    /// The index could not be read.
    Index(tantivy::TantivyError),
}

impl From<StoreError> for SearchError {
    fn from(error: StoreError) -> Self {
        Self::Query(error)
    }
}

impl From<tantivy::TantivyError> for SearchError {
    fn from(error: tantivy::TantivyError) -> Self {
        Self::Index(error)
    }
}

/// An event that was found: its sort key, its tie-break, and where it lies.
type Hit = (i128, u64, DocAddress);

/// Finds one page.
pub(super) fn search(searcher: &Searcher, layout: &Layout, query: &Query) -> Result<Page, SearchError> {
    let after = query.after.as_deref().map(|after| Cursor::decode(after, query.order)).transpose()?;
    let limit = query.limit.min(MAX_LIMIT);
    let mut filters = filters(layout, query);
    let total = searcher.search(&all_of(&filters), &Count)? as u64;
    if limit == 0 || total == 0 {
        return Ok(Page { total, ..Page::default() });
    }
    if let Some(after) = after {
        filters.push(beyond(layout, query.order, &after)?);
    }
    // one more than asked tells whether there is a next page
    let mut hits = top(searcher, &all_of(&filters), query.order, limit + 1)?;
    let more = hits.len() > limit;
    hits.truncate(limit);
    let next = match hits.last() {
        Some((key, tie, _)) if more => Some(Cursor { key: *key, tie: tie.to_string() }.encode(query.order)),
        _ => None,
    };
    let events = hits.iter().map(|hit| event(searcher, layout, hit.2)).collect::<Result<_, _>>()?;
    Ok(Page { total, events, next })
}

/// Events before `cutoff_ms`.
pub(super) fn older_than(layout: &Layout, cutoff_ms: i64) -> Box<dyn TantivyQuery> {
    Box::new(RangeQuery::new(Bound::Unbounded, Bound::Excluded(Term::from_field_i64(layout.time_ms, cutoff_ms))))
}

/// What the parts of a query ask for; all must hold.
pub(super) fn filters(layout: &Layout, query: &Query) -> Vec<Box<dyn TantivyQuery>> {
    let mut filters: Vec<Box<dyn TantivyQuery>> = Vec::new();
    let exact = [
        (layout.service, &query.service),
        (layout.node, &query.node),
        (layout.event, &query.event),
        (layout.url, &query.url),
        (layout.action, &query.action),
        (layout.caller, &query.caller),
    ];
    for (field, value) in exact {
        if let Some(value) = value {
            filters.push(term(field, cut(value)));
        }
    }
    if let Some(id) = &query.request_id {
        filters.push(bytes_term(layout.request, key_of(id).bytes()));
    }
    if let Some(id) = &query.trace_id {
        filters.push(of_trace(layout, id));
    }
    for wanted in query.text.as_deref().map(text::wanted).unwrap_or_default() {
        filters.push(match wanted {
            Wanted::Word(word) => term(layout.words, &word),
            Wanted::Id { hex, words } => of_id(layout, &hex, &words),
        });
    }
    if let Some((low, high)) = query.status {
        let bound = |status: u16| Bound::Included(Term::from_field_u64(layout.status, u64::from(status)));
        filters.push(if low > high {
            Box::new(EmptyQuery)
        } else {
            Box::new(RangeQuery::new(bound(low), bound(high)))
        });
    }
    // only events with a duration have a place in this order
    let least = query.min_duration_ns.or((query.order == Order::Slowest).then_some(0));
    if let Some(least) = least {
        let least = Bound::Included(Term::from_field_u64(layout.duration_ns, least));
        filters.push(Box::new(RangeQuery::new(least, Bound::Unbounded)));
    }
    if query.since_ms.is_some() || query.until_ms.is_some() {
        let time = |ms: i64| Term::from_field_i64(layout.time_ms, ms);
        let since = query.since_ms.map_or(Bound::Unbounded, |ms| Bound::Included(time(ms)));
        let until = query.until_ms.map_or(Bound::Unbounded, |ms| Bound::Excluded(time(ms)));
        let empty = matches!((query.since_ms, query.until_ms), (Some(since), Some(until)) if since >= until);
        filters.push(if empty { Box::new(EmptyQuery) } else { Box::new(RangeQuery::new(since, until)) });
    }
    filters
}

/// Events with exactly this value.
pub(super) fn term(field: Field, value: &str) -> Box<dyn TantivyQuery> {
    Box::new(TermQuery::new(Term::from_field_text(field, value), IndexRecordOption::Basic))
}

fn bytes_term(field: Field, value: &[u8]) -> Box<dyn TantivyQuery> {
    Box::new(TermQuery::new(Term::from_field_bytes(field, value), IndexRecordOption::Basic))
}

/// Events of this trace: those that say so, and those whose request id has the same bits and that say nothing else.
fn of_trace(layout: &Layout, id: &str) -> Box<dyn TantivyQuery> {
    let told = bytes_term(layout.trace, key_of(id).bytes());
    match as_uuid(id) {
        None => told,
        Some(request_id) => {
            let same_bits = BooleanQuery::new(vec![
                (Occur::Must, bytes_term(layout.request, key_of(&request_id).bytes())),
                (Occur::MustNot, bytes_term(layout.trace, OTHER_TRACE.bytes())),
            ]);
            Box::new(BooleanQuery::union(vec![told, Box::new(same_bits)]))
        }
    }
}

/// Events that have this id, as their own, their request's or their trace's, or in a body as words.
fn of_id(layout: &Layout, hex: &str, words: &[String]) -> Box<dyn TantivyQuery> {
    let spelt: Vec<_> = words.iter().map(|word| term(layout.words, word)).collect();
    let mut any = vec![all_of(&spelt), of_trace(layout, hex)];
    if let Some(uuid) = as_uuid(hex) {
        any.push(bytes_term(layout.request, key_of(&uuid).bytes()));
        // goes through the whole column, some ten milliseconds for ten million events
        let own = || Bound::Included(Term::from_field_u64(layout.tie, tie(&uuid)));
        any.push(Box::new(RangeQuery::new(own(), own())));
    }
    Box::new(BooleanQuery::union(any))
}

/// Events for which all hold.
pub(super) fn all_of(filters: &[Box<dyn TantivyQuery>]) -> Box<dyn TantivyQuery> {
    match filters {
        [] => Box::new(AllQuery),
        [one] => one.box_clone(),
        many => Box::new(BooleanQuery::intersection(many.iter().map(|filter| filter.box_clone()).collect())),
    }
}

/// What comes after the cursor: a key further on, or the same key and a higher tie-break.
fn beyond(layout: &Layout, order: Order, after: &Cursor) -> Result<Box<dyn TantivyQuery>, StoreError> {
    let bad = || StoreError::Query("`after` comes from another store; begin again without it".to_owned());
    let tie: u64 = after.tie.parse().map_err(|_| bad())?;
    let key = match order {
        Order::Slowest => Term::from_field_u64(layout.duration_ns, u64::try_from(after.key).map_err(|_| bad())?),
        Order::Newest | Order::Oldest => {
            Term::from_field_i64(layout.time_ms, i64::try_from(after.key).map_err(|_| bad())?)
        }
    };
    let further = match order {
        Order::Oldest => RangeQuery::new(Bound::Excluded(key.clone()), Bound::Unbounded),
        Order::Newest | Order::Slowest => RangeQuery::new(Bound::Unbounded, Bound::Excluded(key.clone())),
    };
    let same = RangeQuery::new(Bound::Included(key.clone()), Bound::Included(key));
    let later = RangeQuery::new(Bound::Excluded(Term::from_field_u64(layout.tie, tie)), Bound::Unbounded);
    let tied = BooleanQuery::intersection(vec![Box::new(same), Box::new(later)]);
    Ok(Box::new(BooleanQuery::union(vec![Box::new(further), Box::new(tied)])))
}

fn top(searcher: &Searcher, query: &dyn TantivyQuery, order: Order, limit: usize) -> tantivy::Result<Vec<Hit>> {
    let by_tie = || (SortByStaticFastValue::<u64>::for_field(TIE), tantivy::Order::Asc);
    let top = TopDocs::with_limit(limit);
    let hits = match order {
        Order::Slowest => {
            let by_key = (SortByStaticFastValue::<u64>::for_field(DURATION_NS), tantivy::Order::Desc);
            let found = searcher.search(query, &top.order_by((by_key, by_tie())))?;
            found.into_iter().map(|((key, tie), at)| (key.map_or(0, i128::from), tie.unwrap_or(0), at)).collect()
        }
        Order::Newest | Order::Oldest => {
            let direction = if order == Order::Oldest { tantivy::Order::Asc } else { tantivy::Order::Desc };
            let by_key = (SortByStaticFastValue::<i64>::for_field(TIME_MS), direction);
            let found = searcher.search(query, &top.order_by((by_key, by_tie())))?;
            found.into_iter().map(|((key, tie), at)| (key.map_or(0, i128::from), tie.unwrap_or(0), at)).collect()
        }
    };
    Ok(hits)
}

fn event(searcher: &Searcher, layout: &Layout, at: DocAddress) -> Result<Box<RawValue>, SearchError> {
    let damaged = |what: String| SearchError::Index(tantivy::TantivyError::InternalError(what));
    let json = json(searcher, layout, at)?.ok_or_else(|| damaged("a stored event is damaged".to_owned()))?;
    RawValue::from_string(json).map_err(|error| damaged(format!("a stored event is no JSON: {error}")))
}

/// The JSON of an event; `None` where it is damaged.
pub(super) fn json(searcher: &Searcher, layout: &Layout, at: DocAddress) -> tantivy::Result<Option<String>> {
    let stored: TantivyDocument = searcher.doc(at)?;
    Ok(stored.get_first(layout.json).and_then(|value| value.as_bytes()).and_then(packed::unpack))
}

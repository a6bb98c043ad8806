//! Counting: a stats query over the columns of each segment; every function here blocks.

use std::collections::HashMap;

use tantivy::columnar::{Column, StrColumn};
use tantivy::query::{BooleanQuery, EnableScoring, Query as TantivyQuery};
use tantivy::{DocId, Searcher, SegmentReader};

use super::super::stats::COUNTED;
use super::super::{
    Bucket, FIRST_ERROR, Group, GroupBy, MAX_GROUPS, Order, Query, Stats, StatsQuery, StoreError, Summary,
};
use super::durations::{Durations, percentiles_of};
use super::reader::{self, SearchError};
use super::schema::{CALLER, DURATION_NS, Layout, SERVICE, STATUS, TIME_MS};

/// What one answer may take while it is counted: some 100 million durations in small buckets, many more in large ones.
const MAX_BYTES: usize = 256 << 20;

/// What a bucket takes beside its durations, about: itself and its place in the tables.
const CELL_BYTES: usize = 128;

/// Stands for a value that an event does not have; no dictionary is as long.
const NONE: u64 = u64::MAX;

const PERCENTS: [u64; 3] = [50, 95, 99];

/// Counts over all segments.
pub(super) fn count(searcher: &Searcher, layout: &Layout, query: &StatsQuery) -> Result<Stats, SearchError> {
    query.buckets()?;
    let filter = Query { order: Order::Newest, ..query.filter.clone() };
    let mut filters = reader::filters(layout, &filter);
    let counted = COUNTED.map(|event| reader::term(layout.event, event)).into();
    filters.push(Box::new(BooleanQuery::union(counted)));
    let weight = reader::all_of(&filters).weight(EnableScoring::disabled_from_searcher(searcher))?;
    let mut found = Found::default();
    for segment in searcher.segment_readers() {
        let mut counting = Counting::new(segment, query, &mut found)?;
        let alive = segment.alive_bitset();
        weight.for_each_no_score(segment, &mut |docs| {
            for doc in docs {
                if alive.is_none_or(|alive| alive.is_alive(*doc)) {
                    counting.add(*doc);
                }
            }
        })?;
        if let Some(error) = counting.error {
            return Err(error);
        }
    }
    answer(found, query)
}

/// What was counted so far, in the segments so far.
#[derive(Default)]
struct Found {
    /// The place of each caller and service in `groups`.
    names: HashMap<(String, String), usize>,
    groups: Vec<Cells>,
    times: Option<(i64, i64)>,
    bytes: usize,
}

/// The buckets of a group; without buckets all is in one.
#[derive(Default)]
struct Cells {
    /// The place of each bucket's start in `cells`.
    starts: HashMap<i64, usize>,
    cells: Vec<(i64, Cell)>,
    /// The last one: events of one time lie together.
    last: usize,
}

#[derive(Default)]
struct Cell {
    count: u64,
    errors: u64,
    took: Durations,
}

/// Goes through one segment.
struct Counting<'a> {
    found: &'a mut Found,
    /// The group of each pair of places in the two dictionaries.
    groups: HashMap<(u64, u64), usize>,
    last: Option<((u64, u64), usize)>,
    callers: Option<StrColumn>,
    services: Option<StrColumn>,
    status: Option<Column<u64>>,
    durations: Option<Column<u64>>,
    times: Option<Column<i64>>,
    step: Option<i64>,
    /// Nothing more is counted once this is there.
    error: Option<SearchError>,
}

impl<'a> Counting<'a> {
    fn new(segment: &SegmentReader, query: &StatsQuery, found: &'a mut Found) -> tantivy::Result<Self> {
        let columns = segment.fast_fields();
        Ok(Self {
            found,
            groups: HashMap::new(),
            last: None,
            callers: if query.by == GroupBy::Edge { columns.str(CALLER)? } else { None },
            services: columns.str(SERVICE)?,
            status: columns.column_opt(STATUS)?,
            durations: columns.column_opt(DURATION_NS)?,
            times: columns.column_opt(TIME_MS)?,
            step: query.bucket_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            error: None,
        })
    }

    fn add(&mut self, doc: DocId) {
        if self.error.is_some() {
            return;
        }
        if let Err(error) = self.try_add(doc) {
            self.error = Some(error);
        }
    }

    fn try_add(&mut self, doc: DocId) -> Result<(), SearchError> {
        let place = |column: &Option<StrColumn>| column.as_ref().and_then(|column| column.ords().first(doc));
        let pair = (place(&self.callers).unwrap_or(NONE), place(&self.services).unwrap_or(NONE));
        let group = match self.last {
            Some((last, group)) if last == pair => group,
            _ => self.group(pair)?,
        };
        self.last = Some((pair, group));
        let value = |column: &Option<Column<u64>>| column.as_ref().and_then(|column| column.first(doc));
        let time = self.times.as_ref().and_then(|times| times.first(doc)).unwrap_or_default();
        let (first, last) = self.found.times.unwrap_or((time, time));
        self.found.times = Some((first.min(time), last.max(time)));
        let start = self.step.map_or(0, |step| time.div_euclid(step).saturating_mul(step));
        let (cell, mut bytes) = self.found.groups[group].at(start);
        cell.count += 1;
        cell.errors += u64::from(value(&self.status).is_some_and(|status| status >= u64::from(FIRST_ERROR)));
        if let Some(ns) = value(&self.durations) {
            bytes += cell.took.record(ns);
        }
        self.found.bytes += bytes;
        if self.found.bytes <= MAX_BYTES {
            return Ok(());
        }
        let mb = MAX_BYTES >> 20;
        let message =
            format!("counting this takes more than {mb} MB; ask for longer buckets, a shorter range or one service");
        Err(StoreError::Query(message).into())
    }

    /// The group of a pair that was not the last one.
    fn group(&mut self, pair: (u64, u64)) -> Result<usize, SearchError> {
        if let Some(group) = self.groups.get(&pair) {
            return Ok(*group);
        }
        let key = (name(self.callers.as_ref(), pair.0)?, name(self.services.as_ref(), pair.1)?);
        let found = &mut *self.found;
        let bytes = key.0.len() + key.1.len();
        let group = *found.names.entry(key).or_insert_with(|| {
            found.bytes += bytes;
            found.groups.push(Cells::default());
            found.groups.len() - 1
        });
        self.groups.insert(pair, group);
        Ok(group)
    }
}

impl Cells {
    /// The bucket that begins at `start`, and the bytes that it took if it is new.
    fn at(&mut self, start: i64) -> (&mut Cell, usize) {
        let mut bytes = 0;
        if self.cells.get(self.last).is_none_or(|cell| cell.0 != start) {
            self.last = *self.starts.entry(start).or_insert_with(|| {
                bytes = CELL_BYTES;
                self.cells.push((start, Cell::default()));
                self.cells.len() - 1
            });
        }
        (&mut self.cells[self.last].1, bytes)
    }

    fn total(&self) -> Summary {
        let (mut count, mut errors, mut took) = (0, 0, Vec::new());
        for (_, cell) in &self.cells {
            count += cell.count;
            errors += cell.errors;
            cell.took.add_to(&mut took);
        }
        summary(count, errors, percentiles_of(&took, PERCENTS))
    }

    fn buckets(self) -> Vec<Bucket> {
        let summed = |(start_ms, cell): (i64, Cell)| Bucket {
            start_ms,
            summary: summary(cell.count, cell.errors, cell.took.percentiles(PERCENTS)),
        };
        let mut buckets: Vec<Bucket> = self.cells.into_iter().map(summed).collect();
        buckets.sort_unstable_by_key(|bucket| bucket.start_ms);
        buckets
    }
}

/// The text of a place in a dictionary.
fn name(column: Option<&StrColumn>, place: u64) -> Result<String, SearchError> {
    let mut name = String::new();
    if let Some(column) = column.filter(|_| place != NONE) {
        column.ord_to_str(place, &mut name).map_err(tantivy::TantivyError::from)?;
    }
    Ok(name)
}

fn answer(found: Found, query: &StatsQuery) -> Result<Stats, SearchError> {
    let Found { names, mut groups, times, .. } = found;
    query.check_cells(groups.len().min(MAX_GROUPS))?;
    let mut stats = Stats { first_ms: times.map(|times| times.0), last_ms: times.map(|times| times.1), groups: vec![] };
    let mut by_count: Vec<(Group, Cells)> = Vec::with_capacity(names.len());
    for ((caller, service), place) in names {
        let cells = std::mem::take(&mut groups[place]);
        let count = cells.cells.iter().map(|(_, cell)| cell.count).sum();
        let total = Summary { count, ..Summary::default() };
        let caller = Some(caller).filter(|caller| !caller.is_empty());
        by_count.push((Group { caller, service, total, buckets: Vec::new() }, cells));
    }
    by_count.sort_by(|one, other| one.0.in_order(&other.0));
    by_count.truncate(MAX_GROUPS);
    for (mut group, cells) in by_count {
        group.total = cells.total();
        if query.bucket_ms.is_some() {
            group.buckets = cells.buckets();
        }
        stats.groups.push(group);
    }
    Ok(stats)
}

fn summary(count: u64, errors: u64, [p50_ns, p95_ns, p99_ns]: [u64; 3]) -> Summary {
    Summary { count, errors, p50_ns, p95_ns, p99_ns }
}

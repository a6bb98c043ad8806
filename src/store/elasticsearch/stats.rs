//! Counting: a stats query as aggregations, in three steps that each bound what the server holds at once.
//!
//! 1. Which groups there are and how many requests each has: a `composite` aggregation, which is exact over any number
//!    of shards and comes in pages.
//! 2. The totals of the groups with the most requests: `terms` with exactly their names, so again exact.
//! 3. Their buckets, a part of the range at a time.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::stats::COUNTED;
use super::super::{
    Bucket, FIRST_ERROR, Group, GroupBy, MAX_GROUPS, Order, Query, Stats, StatsQuery, StoreError, Summary,
};
use super::Elasticsearch;
use super::mapping::Names;
use super::search::{MAX_TIME_MS, filters};

/// Groups of one page; Elasticsearch allows 65,536 (`search.max_buckets`).
const GROUPS_A_PAGE: usize = 10_000;

/// Groups that are looked through for those with the most requests. More are no services, but names made up by a client.
const MOST_GROUPS: usize = 100_000;

/// Percentiles that one request makes the server keep: an HDR histogram of durations between 1 ms and 1 s takes 100 kB,
/// which no circuit breaker of the server counts.
const CELLS_A_REQUEST: u64 = 1_000;

/// Caller, then service; an empty text where there is none.
type Key = (String, String);

/// A part of the groups: every caller with every service.
struct Part {
    callers: Vec<String>,
    services: Vec<String>,
}

impl Elasticsearch {
    /// Answers a stats query.
    pub(super) async fn count(&self, query: &StatsQuery, names: &Names) -> Result<Stats, StoreError> {
        let buckets = query.buckets()?;
        let (mut stats, keys) = self.groups(query, names).await?;
        query.check_cells(keys.len())?;
        let mut found: BTreeMap<Key, Group> = BTreeMap::new();
        for part in parts(&keys, query.by) {
            let answer = self.search(&totals_body(query, names, &part)).await?;
            for (key, cell) in cells(answer, &keys, query.by) {
                found.insert(key.clone(), group(key, &cell));
            }
            if buckets > 0 {
                self.buckets(query, names, &part, &mut found).await?;
            }
        }
        stats.groups = found.into_values().collect();
        stats.groups.sort_by(Group::in_order);
        Ok(stats)
    }

    /// First and last time, and the groups with the most requests.
    async fn groups(&self, query: &StatsQuery, names: &Names) -> Result<(Stats, BTreeSet<Key>), StoreError> {
        let mut counts: BTreeMap<Key, u64> = BTreeMap::new();
        let mut stats = Stats::default();
        let mut after = None;
        loop {
            let answer: GroupsAnswer = self.search(&groups_body(query, names, after.as_ref())).await?;
            let Some(GroupsFound { groups, first, last }) = answer.aggregations else { break };
            if after.is_none() {
                (stats.first_ms, stats.last_ms) = (first.millis(), last.millis());
            }
            for group in &groups.buckets {
                let GroupKey { caller, service } = &group.key;
                let key = (caller.clone().unwrap_or_default(), service.clone().unwrap_or_default());
                *counts.entry(key).or_default() += group.doc_count;
            }
            if counts.len() > MOST_GROUPS {
                let message = format!("more than {MOST_GROUPS} groups; ask for a shorter range or one service");
                return Err(StoreError::Query(message));
            }
            match groups.after_key {
                Some(key) if groups.buckets.len() == GROUPS_A_PAGE => after = Some(key),
                _ => break,
            }
        }
        let mut by_count: Vec<(Key, u64)> = counts.into_iter().collect();
        // the same order as that of the answer, so that the same groups stay
        by_count.sort_by(|((caller, service), count), ((other_caller, other_service), other_count)| {
            other_count.cmp(count).then_with(|| (service, caller).cmp(&(other_service, other_caller)))
        });
        by_count.truncate(MAX_GROUPS);
        Ok((stats, by_count.into_iter().map(|(key, _)| key).collect()))
    }

    /// Adds the buckets of a part of the groups.
    async fn buckets(
        &self,
        query: &StatsQuery,
        names: &Names,
        part: &Part,
        found: &mut BTreeMap<Key, Group>,
    ) -> Result<(), StoreError> {
        let step = bucket_ms(query);
        let (Some(since), Some(until)) = (query.filter.since_ms, query.filter.until_ms) else { return Ok(()) };
        let until = until.min(MAX_TIME_MS);
        let mut from = since.max(0);
        let at_once = (CELLS_A_REQUEST / part.cells()).max(1);
        let span = step.saturating_mul(i64::try_from(at_once).unwrap_or(i64::MAX));
        while from < until {
            // parts end where buckets do
            let to = (from - from % step).saturating_add(span).min(until);
            let filter = Query { since_ms: Some(from), until_ms: Some(to), ..query.filter.clone() };
            let within = StatsQuery { filter, ..query.clone() };
            let answer = self.search(&buckets_body(&within, names, part)).await?;
            for (key, cell) in cells(answer, &found.keys().cloned().collect(), query.by) {
                let Some(group) = found.get_mut(&key) else { continue };
                let times = cell.times.map(|times| times.buckets).unwrap_or_default();
                group
                    .buckets
                    .extend(times.iter().map(|time| Bucket { start_ms: time.key, summary: time.cell.summary() }));
            }
            from = to;
        }
        Ok(())
    }
}

impl Part {
    fn cells(&self) -> u64 {
        (self.callers.len().max(1) * self.services.len().max(1)) as u64
    }
}

/// Splits the groups so that no part has more than [`CELLS_A_REQUEST`] pairs.
fn parts(keys: &BTreeSet<Key>, by: GroupBy) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    if by == GroupBy::Service {
        let services: Vec<String> = keys.iter().map(|(_, service)| service.clone()).collect();
        return (!services.is_empty()).then_some(Part { callers: Vec::new(), services }).into_iter().collect();
    }
    let mut callers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (caller, service) in keys {
        callers.entry(caller).or_default().insert(service);
    }
    let mut services: BTreeSet<&str> = BTreeSet::new();
    let mut together: Vec<&str> = Vec::new();
    let mut close = |together: &mut Vec<&str>, services: &mut BTreeSet<&str>| {
        let owned = |text: &str| text.to_owned();
        parts.push(Part {
            callers: together.drain(..).map(owned).collect(),
            services: std::mem::take(services).into_iter().map(owned).collect(),
        });
    };
    for (caller, called) in callers {
        let union = services.union(&called).count();
        if !together.is_empty() && (union * (together.len() + 1)) as u64 > CELLS_A_REQUEST {
            close(&mut together, &mut services);
        }
        together.push(caller);
        services.extend(called);
    }
    if !together.is_empty() {
        close(&mut together, &mut services);
    }
    parts
}

/// The filters of what is counted.
fn counted(query: &StatsQuery, names: &Names) -> Value {
    // the order would filter, too
    let filter = Query { order: Order::Newest, ..query.filter.clone() };
    let mut filters = filters(&filter, names);
    filters.push(json!({"terms": {&names.event: COUNTED}}));
    json!({"bool": {"filter": filters}})
}

fn groups_body(query: &StatsQuery, names: &Names, after: Option<&Value>) -> Value {
    let source = |field: &String| json!({"terms": {"field": field, "missing_bucket": true}});
    let mut sources = vec![json!({"service": source(&names.service)})];
    if query.by == GroupBy::Edge {
        sources.push(json!({"caller": source(&names.caller)}));
    }
    let mut groups = json!({"composite": {"size": GROUPS_A_PAGE, "sources": sources}});
    if let Some(after) = after {
        groups["composite"]["after"] = after.clone();
    }
    json!({
        "size": 0, "track_total_hits": false, "query": counted(query, names),
        "aggs": {
            "groups": groups,
            "first": {"min": {"field": "timeMs"}},
            "last": {"max": {"field": "timeMs"}},
        },
    })
}

fn totals_body(query: &StatsQuery, names: &Names, part: &Part) -> Value {
    grouped_body(query, names, part, &summary_aggs())
}

fn buckets_body(query: &StatsQuery, names: &Names, part: &Part) -> Value {
    let times = json!({"times": {
        "date_histogram": {"field": "timeMs", "fixed_interval": format!("{}ms", bucket_ms(query)), "min_doc_count": 1},
        "aggs": summary_aggs(),
    }});
    grouped_body(query, names, part, &times)
}

fn bucket_ms(query: &StatsQuery) -> i64 {
    // one that is longer than all time begins at 0 as well
    query.bucket_ms.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(MAX_TIME_MS).clamp(1, MAX_TIME_MS)
}

fn grouped_body(query: &StatsQuery, names: &Names, part: &Part, aggs: &Value) -> Value {
    // as many as are named: exact on every shard
    let terms = |field: &String, values: &[String]| json!({"field": field, "missing": "", "include": values, "size": values.len(), "shard_size": values.len()});
    let services = json!({"services": {"terms": terms(&names.service, &part.services), "aggs": aggs}});
    let aggs = match query.by {
        GroupBy::Service => services,
        GroupBy::Edge => json!({"callers": {"terms": terms(&names.caller, &part.callers), "aggs": services}}),
    };
    json!({"size": 0, "track_total_hits": false, "query": counted(query, names), "aggs": aggs})
}

fn summary_aggs() -> Value {
    json!({
        "errors": {"filter": {"range": {"status": {"gte": FIRST_ERROR}}}},
        "took": {"percentiles": {"field": "durationNs", "percents": [50, 95, 99], "hdr": {"number_of_significant_value_digits": 3}}},
    })
}

fn group((caller, service): Key, cell: &Cell) -> Group {
    let caller = Some(caller).filter(|caller| !caller.is_empty());
    Group { caller, service, total: cell.summary(), buckets: Vec::new() }
}

/// The cells of an answer that were asked for: a part holds every caller with every service.
fn cells(answer: CellsAnswer, keys: &BTreeSet<Key>, by: GroupBy) -> Vec<(Key, Cell)> {
    let Some(found) = answer.aggregations else { return Vec::new() };
    let mut cells = Vec::new();
    let mut add = |caller: &str, services: Option<Terms>| {
        for Term { key, cell, .. } in services.map(|terms| terms.buckets).unwrap_or_default() {
            let key = (caller.to_owned(), key);
            if keys.contains(&key) {
                cells.push((key, cell));
            }
        }
    };
    match by {
        GroupBy::Service => add("", found.services),
        GroupBy::Edge => {
            for term in found.callers.map(|terms| terms.buckets).unwrap_or_default() {
                add(&term.key, term.services);
            }
        }
    }
    cells
}

#[derive(Deserialize)]
struct GroupsAnswer {
    aggregations: Option<GroupsFound>,
}

#[derive(Deserialize)]
struct GroupsFound {
    groups: Groups,
    first: Time,
    last: Time,
}

#[derive(Deserialize)]
struct Time {
    value: Option<f64>,
}

impl Time {
    /// A double holds every millisecond that can be stored ([`MAX_TIME_MS`]).
    fn millis(&self) -> Option<i64> {
        self.value.map(|ms| ms as i64)
    }
}

#[derive(Deserialize)]
struct Groups {
    after_key: Option<Value>,
    buckets: Vec<GroupCount>,
}

#[derive(Deserialize)]
struct GroupCount {
    key: GroupKey,
    doc_count: u64,
}

#[derive(Deserialize)]
struct GroupKey {
    caller: Option<String>,
    service: Option<String>,
}

#[derive(Deserialize)]
struct CellsAnswer {
    aggregations: Option<CellsFound>,
}

#[derive(Deserialize)]
struct CellsFound {
    callers: Option<Terms>,
    services: Option<Terms>,
}

#[derive(Deserialize)]
struct Terms {
    buckets: Vec<Term>,
}

#[derive(Deserialize)]
struct Term {
    key: String,
    services: Option<Terms>,
    #[serde(flatten)]
    cell: Cell,
}

#[derive(Deserialize)]
struct Cell {
    doc_count: u64,
    errors: Option<Errors>,
    took: Option<Took>,
    times: Option<Times>,
}

#[derive(Deserialize)]
struct Errors {
    doc_count: u64,
}

#[derive(Deserialize)]
struct Took {
    values: BTreeMap<String, Option<f64>>,
}

#[derive(Deserialize)]
struct Times {
    buckets: Vec<TimeCell>,
}

#[derive(Deserialize)]
struct TimeCell {
    key: i64,
    #[serde(flatten)]
    cell: Cell,
}

impl Cell {
    fn summary(&self) -> Summary {
        let took = |percent: &str| {
            let value = self.took.as_ref().and_then(|took| *took.values.get(percent)?);
            // nanoseconds of 292 years
            value.filter(|ns| ns.is_finite()).map_or(0, |ns| ns.max(0.0) as u64)
        };
        Summary {
            count: self.doc_count,
            errors: self.errors.as_ref().map_or(0, |errors| errors.doc_count),
            p50_ns: took("50.0"),
            p95_ns: took("95.0"),
            p99_ns: took("99.0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(caller: usize, service: usize) -> Key {
        (format!("c{caller}"), format!("s{service}"))
    }

    #[test]
    fn parts_are_small_and_hold_every_group() {
        let square: BTreeSet<Key> =
            (0..30).flat_map(|caller| (0..30).map(move |service| key(caller, service))).collect();
        let chain: BTreeSet<Key> = (0..1000).map(|at| key(at, at)).collect();
        let star: BTreeSet<Key> = (0..1000).map(|at| key(0, at)).collect();
        for (keys, expected) in [(&square, 1), (&chain, 33), (&star, 1), (&BTreeSet::new(), 0)] {
            let parts = parts(keys, GroupBy::Edge);
            assert_eq!(parts.len(), expected);
            assert!(parts.iter().all(|part| part.cells() <= CELLS_A_REQUEST));
            for (caller, service) in keys {
                let holds = |part: &&Part| part.callers.contains(caller) && part.services.contains(service);
                assert_eq!(parts.iter().filter(holds).count(), 1, "{caller} {service}");
            }
        }
        assert_eq!(parts(&star, GroupBy::Service).len(), 1);
    }
}

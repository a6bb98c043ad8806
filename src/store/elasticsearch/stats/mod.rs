//! Counting: a stats query as aggregations, in steps that each bound what the server holds at once.
//!
//! 1. Which groups there are and how many requests each has: a `composite` aggregation, which is exact over any number
//!    of shards and comes in pages. It only chooses the groups with the most requests.
//! 2. Their totals and buckets, and the first and last time: `terms` with exactly their names, so again exact. All that
//!    is shown comes from this one search, so that it agrees while events come in.
//! 3. Where that would be too much for one search, the totals come first and then the buckets, a part of the range at a
//!    time. Then the counts of the totals are those of the buckets together; only their percentiles are from before.

mod answer;
mod request;

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Bucket, Group, GroupBy, MAX_GROUPS, Query, Stats, StatsQuery, StoreError};
use super::Elasticsearch;
use super::mapping::Names;
use super::search::MAX_TIME_MS;
use answer::{Cell, CellsAnswer, GroupKey, GroupsAnswer, Times, cells};
use request::{GROUPS_A_PAGE, Wanted, bucket_ms, cells_body, groups_body};

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
        let keys = self.groups(query, names).await?;
        query.check_cells(keys.len())?;
        let mut stats = Stats::default();
        let mut found: BTreeMap<Key, Group> = BTreeMap::new();
        for part in parts(&keys, query.by) {
            let wanted = match part.cells().saturating_mul(buckets + 1) {
                _ if buckets == 0 => Wanted::Totals,
                0..=CELLS_A_REQUEST => Wanted::Both,
                _ => Wanted::Totals,
            };
            let answer: CellsAnswer = self.search(&cells_body(query, names, &part, wanted)).await?;
            if let Some(found) = &answer.aggregations {
                stats.first_ms = [stats.first_ms, found.first.millis()].into_iter().flatten().min();
                stats.last_ms = stats.last_ms.max(found.last.millis());
            }
            for (key, cell) in cells(answer, &keys, query.by) {
                found.insert(key.clone(), group(key, cell));
            }
            if buckets > 0 && wanted == Wanted::Totals {
                self.buckets(query, names, &part, &mut found).await?;
            }
        }
        stats.groups = found.into_values().collect();
        stats.groups.sort_by(Group::in_order);
        Ok(stats)
    }

    /// The groups with the most requests.
    async fn groups(&self, query: &StatsQuery, names: &Names) -> Result<BTreeSet<Key>, StoreError> {
        let mut counts: BTreeMap<Key, u64> = BTreeMap::new();
        let mut after = None;
        loop {
            let answer: GroupsAnswer = self.search(&groups_body(query, names, after.as_ref())).await?;
            let Some(groups) = answer.aggregations.map(|found| found.groups) else { break };
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
        Ok(by_count.into_iter().map(|(key, _)| key).collect())
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
            let answer: CellsAnswer = self.search(&cells_body(&within, names, part, Wanted::Buckets)).await?;
            for (key, cell) in cells(answer, &found.keys().cloned().collect(), query.by) {
                let Some(group) = found.get_mut(&key) else { continue };
                group.buckets.extend(buckets_of(cell.times));
            }
            from = to;
        }
        for group in found.values_mut().filter(|group| !group.buckets.is_empty()) {
            group.total.count = group.buckets.iter().map(|bucket| bucket.summary.count).sum();
            group.total.errors = group.buckets.iter().map(|bucket| bucket.summary.errors).sum();
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

fn group((caller, service): Key, cell: Cell) -> Group {
    let caller = Some(caller).filter(|caller| !caller.is_empty());
    Group { caller, service, total: cell.summary(), buckets: buckets_of(cell.times).collect() }
}

fn buckets_of(times: Option<Times>) -> impl Iterator<Item = Bucket> {
    let times = times.map(|times| times.buckets).unwrap_or_default();
    times.into_iter().map(|time| Bucket { start_ms: time.key, summary: time.cell.summary() })
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

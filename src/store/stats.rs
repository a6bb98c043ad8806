//! What is counted over events: requests, errors and durations, per service or per caller and callee, in time buckets.
//!
//! Counted are end events (`request.end`, `service.end`), one for each request that a node answered. Percentiles come
//! from an HDR histogram of three significant digits (<http://hdrhistogram.org>), in every store alike, so they are
//! within 0.1% of the true value and the stores agree. Of `n` durations the p-th percentile is the one of rank
//! `p * n / 100`, rounded to the nearest and at least 1, as Elasticsearch 7.17 (HdrHistogram 2.1.9) has it. (OpenSearch 2
//! with HdrHistogram 2.2.2 rounds up, so its may be the next longer duration.)

use serde::{Deserialize, Serialize};

use super::{Query, StoreError};

/// Groups of one answer at most; those with the most requests stay.
pub const MAX_GROUPS: usize = 1_000;

/// Buckets of one group at most: a day in steps of 10 s, a month in steps of 5 minutes.
pub const MAX_BUCKETS: u64 = 10_000;

/// Buckets of one answer at most, those without a request included: 20 services with as many as they may have. An
/// answer of so many takes some 40 MB on its way.
pub(super) const MAX_CELLS: u64 = 200_000;

/// The events that are counted.
pub(super) const COUNTED: [&str; 2] = ["request.end", "service.end"];

/// The lowest status that counts as an error.
pub const FIRST_ERROR: u16 = 500;

/// What to count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatsQuery {
    /// Which events; `order`, `limit` and `after` count for nothing here.
    pub filter: Query,
    /// What makes a group.
    pub by: GroupBy,
    /// Milliseconds of a bucket; buckets begin at multiples of it since 1970. `None`: no buckets, only totals. Buckets
    /// want [`Query::since_ms`] and [`Query::until_ms`], at most [`MAX_BUCKETS`] apart.
    pub bucket_ms: Option<u64>,
}

impl StatsQuery {
    /// How many buckets each group may have: 0 where none are asked for. Every store asks before it counts.
    ///
    /// # Errors
    /// [`StoreError::Query`] for buckets of no length, in no range, or more than [`MAX_BUCKETS`] of them.
    pub(super) fn buckets(&self) -> Result<u64, StoreError> {
        let Some(bucket_ms) = self.bucket_ms else { return Ok(0) };
        let step = i64::try_from(bucket_ms).unwrap_or(i64::MAX);
        if step == 0 {
            return Err(StoreError::Query("a bucket must be longer than 0 ms".to_owned()));
        }
        let (Some(since), Some(until)) = (self.filter.since_ms, self.filter.until_ms) else {
            return Err(StoreError::Query("buckets need a time range; say since when and until when".to_owned()));
        };
        if since >= until {
            return Ok(0);
        }
        let (first, last) = (since.div_euclid(step), (until - 1).div_euclid(step));
        let buckets = last.abs_diff(first).saturating_add(1);
        if buckets > MAX_BUCKETS {
            return Err(StoreError::Query(format!(
                "{buckets} buckets of {bucket_ms} ms are more than {MAX_BUCKETS}; ask for longer ones or a shorter range"
            )));
        }
        Ok(buckets)
    }

    /// Checks what an answer of so many groups would hold. Every store asks once it knows its groups.
    ///
    /// # Errors
    /// [`StoreError::Query`] for more than [`MAX_CELLS`].
    pub(super) fn check_cells(&self, groups: usize) -> Result<(), StoreError> {
        let buckets = self.buckets()?;
        if buckets.saturating_mul(groups as u64) <= MAX_CELLS {
            return Ok(());
        }
        Err(StoreError::Query(format!(
            "{groups} groups of {buckets} buckets are more than {MAX_CELLS} in all; ask for longer buckets, a shorter range or one service"
        )))
    }
}

impl Group {
    /// The order of [`Stats::groups`].
    pub(super) fn in_order(&self, other: &Self) -> std::cmp::Ordering {
        let key = |group: &Self| std::cmp::Reverse(group.total.count);
        key(self).cmp(&key(other)).then_with(|| (&self.service, &self.caller).cmp(&(&other.service, &other.caller)))
    }
}

/// What makes a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// The service that answered.
    #[default]
    Service,
    /// Who called and who answered: the edges of the service graph.
    Edge,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// The time of the first counted event, in milliseconds of Unix time.
    pub first_ms: Option<i64>,
    /// That of the last one.
    pub last_ms: Option<i64>,
    /// Most requests first, then by name.
    pub groups: Vec<Group>,
}

/// One service, or one caller and callee.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Who called; `None` for a client from outside, and where groups are services.
    pub caller: Option<String>,
    /// Who answered.
    pub service: String,
    /// Over the whole range.
    pub total: Summary,
    /// Those that are not empty, in order of time.
    pub buckets: Vec<Bucket>,
}

/// A part of the range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// Where it begins, in milliseconds of Unix time.
    pub start_ms: i64,
    /// What happened in it.
    #[serde(flatten)]
    pub summary: Summary,
}

/// How many, how many failed, how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Requests.
    pub count: u64,
    /// Those with a status of [`FIRST_ERROR`] and above.
    pub errors: u64,
    /// Half took no longer than this, in nanoseconds; 0 where no event tells a duration.
    pub p50_ns: u64,
    /// 95 of 100 took no longer.
    pub p95_ns: u64,
    /// 99 of 100 took no longer.
    pub p99_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(bucket_ms: Option<u64>, since_ms: Option<i64>, until_ms: Option<i64>) -> Result<u64, String> {
        let filter = Query { since_ms, until_ms, ..Query::default() };
        let query = StatsQuery { filter, bucket_ms, ..StatsQuery::default() };
        query.buckets().map_err(|error| error.to_string())
    }

    #[test]
    fn buckets_are_counted_and_bounded() {
        assert_eq!(buckets(None, None, None), Ok(0));
        assert_eq!(buckets(Some(10), Some(5), Some(25)), Ok(3));
        assert_eq!(buckets(Some(10), Some(0), Some(10)), Ok(1));
        assert_eq!(buckets(Some(10), Some(-1), Some(1)), Ok(2));
        assert_eq!(buckets(Some(10), Some(10), Some(10)), Ok(0));
        assert_eq!(buckets(Some(u64::MAX), Some(i64::MIN), Some(i64::MAX)), Ok(3));
        assert_eq!(buckets(Some(1), Some(0), Some(10_000)), Ok(MAX_BUCKETS));
        for (bucket_ms, since, until, says) in [
            (0, Some(0), Some(1), "longer than 0"),
            (1, None, Some(1), "time range"),
            (1, Some(1), None, "time range"),
            (1, Some(0), Some(10_001), "10001 buckets of 1 ms are more than 10000"),
            (1, Some(i64::MIN), Some(i64::MAX), "shorter range"),
        ] {
            let error = buckets(Some(bucket_ms), since, until).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_answer_has_an_end() {
        let filter = Query { since_ms: Some(0), until_ms: Some(1000), ..Query::default() };
        let query = StatsQuery { filter, bucket_ms: Some(1), ..StatsQuery::default() };
        assert!(query.check_cells(200).is_ok());
        assert!(query.check_cells(201).expect_err("too many").to_string().contains("201 groups of 1000 buckets"));
        assert!(StatsQuery::default().check_cells(usize::MAX).is_ok());
    }
}

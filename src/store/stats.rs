//! What is counted over events: requests, errors and durations, per service or per caller and callee, in time buckets.
//!
//! Counted are end events (`request.end`, `service.end`), one for each request that a node answered. Percentiles come
//! from an HDR histogram of three significant digits (<http://hdrhistogram.org>), in every store alike, so they are
//! within 0.1% of the true value and the stores agree.

use serde::{Deserialize, Serialize};

use super::Query;

/// Groups of one answer at most; those with the most requests stay.
pub const MAX_GROUPS: usize = 1_000;

/// Buckets of one group at most: a day in steps of 10 s, a month in steps of 5 minutes.
pub const MAX_BUCKETS: u64 = 10_000;

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

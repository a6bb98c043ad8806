//! `goms trace stats`: requests, errors and durations in numbers.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{counted_range, duration, grouped, printable, unavailable};
use crate::app::table::render;
use crate::app::{AppError, output};
use crate::cli::{Output, StatsArgs};
use crate::config::format_duration;
pub use crate::figures::rate;
use crate::figures::share;
use crate::store::{Group, MAX_BUCKETS, Stats, StatsQuery, Summary, TraceStore};

const DAY_MS: i64 = 86_400_000;

pub async fn run(store: &dyn TraceStore, args: &StatsArgs) -> Result<(), AppError> {
    let range = counted_range(args.range);
    let bucket_ms = args.bucket.map(|bucket| bucket_ms(bucket, range)).transpose()?;
    let mut filter = args.filter.query();
    (filter.since_ms, filter.until_ms) = (Some(range.0), Some(range.1));
    let query = StatsQuery { filter, by: args.by.into(), bucket_ms };
    let stats = store.stats(&query).await.map_err(unavailable)?;
    match args.output.output {
        Output::Json => output::json(&stats),
        Output::Table => output::text(&table(&stats, range, bucket_ms, &TimeZone::system())),
    }
    Ok(())
}

/// The bucket in whole milliseconds, if the range does not hold too many.
fn bucket_ms(bucket: std::time::Duration, range: (i64, i64)) -> Result<u64, AppError> {
    let ms = u64::try_from(bucket.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return Err(AppError::Usage(format!("`--bucket` is at least 1ms, got `{}`", format_duration(bucket))));
    }
    let range_ms = u64::try_from(range.1 - range.0).unwrap_or(0);
    // buckets begin at multiples of their length, so the range touches one more
    let count = range_ms.div_ceil(ms) + 1;
    if count > MAX_BUCKETS {
        let least = std::time::Duration::from_millis((range_ms / (MAX_BUCKETS - 1)).max(1)).as_secs() + 1;
        return Err(AppError::Usage(format!(
            "`--bucket {}` makes {} buckets of this range, {} at most; take `--bucket {least}s` or more, or a shorter range",
            format_duration(bucket),
            grouped(count),
            grouped(MAX_BUCKETS)
        )));
    }
    Ok(ms)
}

/// A line a group, below it one a bucket.
fn table(stats: &Stats, range: (i64, i64), bucket_ms: Option<u64>, zone: &TimeZone) -> String {
    let seconds = (range.1 - range.0) as f64 / 1e3;
    let time = |ms: i64| moment(ms, range, zone);
    let mut rows = Vec::new();
    for group in &stats.groups {
        rows.push(row(name(group), &group.total, seconds));
        for bucket in &group.buckets {
            let seconds = bucket_ms.map_or(seconds, |ms| ms as f64 / 1e3);
            rows.push(row(format!("  {}", time(bucket.start_ms)), &bucket.summary, seconds));
        }
    }
    let mut text = String::new();
    if !rows.is_empty() {
        text.push_str(&render(&["SERVICE", "REQUESTS", "RATE/S", "ERRORS", "P50", "P95", "P99"], &rows));
    }
    let total: u64 = stats.groups.iter().map(|group| group.total.count).sum();
    text.push_str(&format!("{} requests from {} to {}\n", grouped(total), time(range.0), time(range.1)));
    if total == 0 {
        text.push_str("nothing was counted; widen the range with --since, or see `goms trace search`\n");
    }
    text
}

fn name(group: &Group) -> String {
    match &group.caller {
        Some(caller) => printable(&format!("{caller} -> {}", group.service)),
        None => printable(&group.service),
    }
}

fn row(name: String, summary: &Summary, seconds: f64) -> Vec<String> {
    let took = |ns: u64| if ns == 0 { "-".to_owned() } else { duration(ns) };
    let counts = [grouped(summary.count), rate(summary.count, seconds), errors(summary)];
    let times = [summary.p50_ns, summary.p95_ns, summary.p99_ns].map(took);
    std::iter::once(name).chain(counts).chain(times).collect()
}

/// The share of failed requests.
pub fn errors(summary: &Summary) -> String {
    share(summary.errors, summary.count)
}

/// Local time, with the date where the range is longer than a day or not today's.
pub fn moment(ms: i64, range: (i64, i64), zone: &TimeZone) -> String {
    let at = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone());
    let is_long = range.1 - range.0 > DAY_MS || super::now_ms() - range.0 > DAY_MS;
    let form = if is_long { "%Y-%m-%d %H:%M:%S" } else { "%H:%M:%S" };
    let mut text = at.strftime(form).to_string();
    if ms % 1_000 != 0 && range.1 - range.0 < 10_000 {
        text.push_str(&format!(".{:03}", ms.rem_euclid(1_000)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Bucket;
    use std::time::Duration;

    fn summary(count: u64, errors: u64) -> Summary {
        Summary { count, errors, p50_ns: 1_500_000, p95_ns: 20_000_000, p99_ns: 0 }
    }

    #[test]
    fn a_line_a_group_and_one_a_bucket() {
        let buckets = vec![Bucket { start_ms: 60_000, summary: summary(6, 0) }];
        let group = Group { service: "user".into(), total: summary(1_200, 3), buckets, ..Group::default() };
        let edge =
            Group { caller: Some("gateway".into()), service: "user".into(), total: summary(1, 1), ..Group::default() };
        let stats = Stats { groups: vec![group, edge], ..Stats::default() };
        assert_eq!(
            table(&stats, (0, 120_000), Some(60_000), &TimeZone::UTC),
            "SERVICE                REQUESTS  RATE/S  ERRORS  P50     P95      P99
user                   1,200     10.0    0.25%   1.50ms  20.00ms  -
  1970-01-01 00:01:00  6         0.1000  0%      1.50ms  20.00ms  -
gateway -> user        1         0.0083  100.0%  1.50ms  20.00ms  -
1,201 requests from 1970-01-01 00:00:00 to 1970-01-01 00:02:00
"
        );
        assert!(table(&Stats::default(), (0, 1), None, &TimeZone::UTC).contains("nothing was counted"));
    }

    #[test]
    fn too_many_buckets_are_refused_with_a_way_out() {
        let hour = (0, 3_600_000);
        assert_eq!(bucket_ms(Duration::from_secs(60), hour).ok(), Some(60_000));
        let refused = bucket_ms(Duration::from_millis(100), hour).expect_err("36,000").to_string();
        assert!(refused.contains("36,001 buckets") && refused.contains("`--bucket 1s`"), "{refused}");
        assert!(bucket_ms(Duration::from_micros(5), hour).is_err());
        let month = (0, 30 * 86_400_000);
        let refused = bucket_ms(Duration::from_secs(1), month).expect_err("too many").to_string();
        assert!(refused.contains("`--bucket 260s`"), "{refused}");
        assert!(bucket_ms(Duration::from_secs(260), month).is_ok());
    }
}

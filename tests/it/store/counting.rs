//! What every store must count alike: [`TraceStore::stats`] against figures worked out here.

use std::collections::BTreeMap;

use goms::store::{Bucket, Group, GroupBy, Query, Stats, StatsQuery, StoreError, Summary};

use super::conformance::Subject;
use super::{Sample, all};

/// The time of the first event; no multiple of a bucket.
const BEGIN_MS: i64 = 1_700_000_000_123;

/// Caller and service, and every how many events it is theirs.
const EDGES: [(&str, &str, u64); 4] =
    [("", "gateway", 2), ("gateway", "user", 3), ("user", "order", 5), ("gateway", "order", 1)];

/// 1,000 end events over 100 s in no order of time, every 7th failed, every 11th without a duration; and events that
/// do not count.
fn samples() -> Vec<Sample> {
    let mut samples: Vec<Sample> = (1..=1000_u64)
        .map(|at| {
            let (caller, service, _) = EDGES.into_iter().find(|edge| at % edge.2 == 0).expect("the last is for all");
            let event = if caller.is_empty() { "request.end" } else { "service.end" };
            let time_ms = BEGIN_MS + i64::try_from(at * 7919 % 1000).expect("small") * 100;
            let status = [200, 404, 499, 302, 503, 200, 200][usize::try_from(at % 7).expect("small")];
            // from 2 µs to some minutes
            let mut sample = Sample::new(event, time_ms).end(status, (at * at * at * 331) % 200_000_000_000 + 2000);
            if at % 11 == 0 {
                sample.fields.duration_ns = None;
            }
            sample.fields.caller = caller.to_owned();
            sample.fields.service = service.to_owned();
            sample
        })
        .collect();
    for event in ["request.start", "service.start", "span.end"] {
        samples.push(Sample::new(event, BEGIN_MS - 1000).end(503, 1));
    }
    samples
}

/// Which of `n` sorted durations a percentile is.
#[derive(Clone, Copy)]
enum Rank {
    /// As HdrHistogram 2.1.9 has it (Elasticsearch 7), and the embedded store.
    Nearest,
    /// As HdrHistogram 2.2.2 has it (OpenSearch 2).
    Up,
}

/// What a store must answer; percentiles are exact.
fn expected(samples: &[Sample], query: &StatsQuery, rank: Rank) -> Stats {
    let mut groups: BTreeMap<(&str, &str), Vec<&Sample>> = BTreeMap::new();
    let mut times = Vec::new();
    for sample in samples {
        let fields = &sample.fields;
        let within = query.filter.since_ms.is_none_or(|since| fields.time_ms >= since)
            && query.filter.until_ms.is_none_or(|until| fields.time_ms < until)
            && query.filter.service.as_ref().is_none_or(|service| *service == fields.service);
        if within && ["request.end", "service.end"].contains(&fields.event.as_str()) {
            let caller = if query.by == GroupBy::Edge { fields.caller.as_str() } else { "" };
            groups.entry((&fields.service, caller)).or_default().push(sample);
            times.push(fields.time_ms);
        }
    }
    let group = |((service, caller), of_group): ((&str, &str), Vec<&Sample>)| {
        let mut buckets: BTreeMap<i64, Vec<&Sample>> = BTreeMap::new();
        if let Some(step) = query.bucket_ms.map(|ms| i64::try_from(ms).expect("small")) {
            for sample in &of_group {
                buckets.entry(sample.fields.time_ms / step * step).or_default().push(sample);
            }
        }
        let buckets =
            buckets.into_iter().map(|(start_ms, of_bucket)| Bucket { start_ms, summary: summary(&of_bucket, rank) });
        Group {
            caller: Some(caller.to_owned()).filter(|caller| !caller.is_empty()),
            service: service.to_owned(),
            total: summary(&of_group, rank),
            buckets: buckets.collect(),
        }
    };
    let mut groups: Vec<Group> = groups.into_iter().map(group).collect();
    // stable: those of one count stay in order of their names
    groups.sort_by_key(|group| std::cmp::Reverse(group.total.count));
    Stats { first_ms: times.iter().min().copied(), last_ms: times.iter().max().copied(), groups }
}

fn summary(samples: &[&Sample], rank: Rank) -> Summary {
    let mut took: Vec<u64> = samples.iter().filter_map(|sample| sample.fields.duration_ns).collect();
    took.sort_unstable();
    let percentile = |percent: usize| {
        let rank = match rank {
            Rank::Nearest => (took.len() * percent + 50) / 100,
            Rank::Up => (took.len() * percent).div_ceil(100),
        };
        took.get(rank.max(1) - 1).copied().unwrap_or_default()
    };
    let failed = samples.iter().filter(|sample| sample.fields.status.is_some_and(|status| status >= 500));
    Summary {
        count: samples.len() as u64,
        errors: failed.count() as u64,
        p50_ns: percentile(50),
        p95_ns: percentile(95),
        p99_ns: percentile(99),
    }
}

/// Takes the true percentiles over where the answer's are near enough.
fn settle(found: &mut Summary, expected: &Summary) {
    let near = |found: &mut u64, expected: u64| {
        // three significant digits are 0.1%; twice that is allowed
        if found.abs_diff(expected) <= expected / 500 {
            *found = expected;
        }
    };
    near(&mut found.p50_ns, expected.p50_ns);
    near(&mut found.p95_ns, expected.p95_ns);
    near(&mut found.p99_ns, expected.p99_ns);
}

async fn check(subject: &Subject, samples: &[Sample], query: &StatsQuery) -> Stats {
    let found = subject.store.stats(query).await.expect("counted");
    let settled = |expected: &Stats| {
        let mut found = found.clone();
        for (found, expected) in found.groups.iter_mut().zip(&expected.groups) {
            settle(&mut found.total, &expected.total);
            for (found, expected) in found.buckets.iter_mut().zip(&expected.buckets) {
                settle(&mut found.summary, &expected.summary);
            }
        }
        found
    };
    let up = expected(samples, query, Rank::Up);
    if subject.may_round_up() && settled(&up) == up {
        return up;
    }
    let nearest = expected(samples, query, Rank::Nearest);
    assert_eq!(settled(&nearest), nearest, "{query:?}");
    nearest
}

pub async fn requests_are_counted(subject: &Subject) {
    let samples = samples();
    // several segments, each with dictionaries of its own
    for part in samples.chunks(300) {
        subject.put(part).await;
    }
    let whole = Query { since_ms: Some(BEGIN_MS - 5000), until_ms: Some(BEGIN_MS + 500_000), ..Query::default() };
    let part = Query { since_ms: Some(BEGIN_MS + 10_000), until_ms: Some(BEGIN_MS + 50_000), ..Query::default() };
    let service = Query { service: Some("order".to_owned()), ..whole.clone() };
    for by in [GroupBy::Service, GroupBy::Edge] {
        for filter in [&Query::default(), &whole, &part, &service] {
            let filter = filter.clone();
            check(subject, &samples, &StatsQuery { filter, by, bucket_ms: None }).await;
        }
        for filter in [&whole, &part, &service] {
            for bucket_ms in [700, 10_000, 3_600_000] {
                let filter = filter.clone();
                let found = check(subject, &samples, &StatsQuery { filter, by, bucket_ms: Some(bucket_ms) }).await;
                assert!(found.groups.iter().all(|group| !group.buckets.is_empty()));
            }
        }
    }
    let edges = StatsQuery { by: GroupBy::Edge, ..StatsQuery::default() };
    let edges = subject.store.stats(&edges).await.expect("counted").groups;
    let names: Vec<_> = edges.iter().map(|edge| (edge.caller.as_deref(), edge.service.as_str())).collect();
    assert_eq!(names[0], (None, "gateway"));
    assert_eq!((names.len(), edges[0].total.count), (4, 500));
}

/// Order, limit and page count for nothing, and an event of no service is one of a service without a name.
pub async fn what_is_counted_has_no_pages(subject: &Subject) {
    let mut samples: Vec<Sample> = (0..5).map(|at| Sample::new("request.end", 1000 + at).end(500, 5_000_000)).collect();
    samples[4].fields.service.clear();
    samples[3].fields.duration_ns = None;
    samples[2].fields.status = None;
    subject.put(&samples).await;
    let plain = check(subject, &samples, &StatsQuery::default()).await;
    assert_eq!((plain.groups.len(), plain.groups[0].total.errors), (2, 3));
    let filter = Query { limit: 1, order: goms::store::Order::Slowest, after: Some("nonsense".to_owned()), ..all() };
    check(subject, &samples, &StatsQuery { filter, ..StatsQuery::default() }).await;
}

pub async fn nothing_is_counted_as_nothing(subject: &Subject) {
    let filter = Query { since_ms: Some(0), until_ms: Some(1000), ..Query::default() };
    let query = StatsQuery { filter, bucket_ms: Some(10), by: GroupBy::Edge };
    for query in [&query, &StatsQuery::default()] {
        assert_eq!(subject.store.stats(query).await.expect("an answer"), Stats::default());
    }
    subject.put(&[Sample::new("request.start", 500), Sample::new("request.end", 1000).end(200, 1)]).await;
    assert_eq!(subject.store.stats(&query).await.expect("an answer"), Stats::default());
    let backwards = Query { since_ms: Some(2000), until_ms: Some(1), ..Query::default() };
    let query = StatsQuery { filter: backwards, ..query };
    assert_eq!(subject.store.stats(&query).await.expect("an answer"), Stats::default());
}

pub async fn queries_that_cannot_be_counted_are_refused(subject: &Subject) {
    subject.put(&[Sample::new("request.end", 1000).end(200, 1)]).await;
    let range = |since_ms, until_ms| Query { since_ms, until_ms, ..Query::default() };
    for (filter, bucket_ms) in [
        (range(Some(0), Some(1000)), 0),
        (range(None, Some(1000)), 10),
        (range(Some(0), None), 10),
        (range(Some(0), Some(10_001)), 1),
        (range(Some(i64::MIN), Some(i64::MAX)), 1000),
    ] {
        let query = StatsQuery { filter, bucket_ms: Some(bucket_ms), by: GroupBy::Service };
        let error = subject.store.stats(&query).await.expect_err("cannot be");
        assert!(matches!(error, StoreError::Query(_)), "{query:?} {error:?}");
    }
    let query = StatsQuery { filter: range(Some(0), Some(10_000)), bucket_ms: Some(1), by: GroupBy::Service };
    let found = subject.store.stats(&query).await.expect("as many as there may be");
    assert_eq!(found.groups[0].buckets.len(), 1);
    // 21 groups of 10,000 buckets are more than an answer may hold
    let many = (0..20).map(|at| {
        let mut sample = Sample::new("service.end", 1000).end(200, 1);
        sample.fields.service = format!("made-up-{at}");
        sample
    });
    subject.put(&many.collect::<Vec<_>>()).await;
    let error = subject.store.stats(&query).await.expect_err("too many");
    assert!(error.to_string().contains("21 groups"), "{error}");
    let fewer = StatsQuery { bucket_ms: Some(2), ..query };
    assert_eq!(subject.store.stats(&fewer).await.expect("half of that").groups.len(), 21);
}

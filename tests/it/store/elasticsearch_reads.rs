//! Large answers, and answers while events come in.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use goms::store::{Document, GroupBy, Order, Outcome, Query, StatsQuery, TraceStore};

use super::elasticsearch::TestIndex;
use super::{Sample, all, ids};
use crate::support::goms::{Folder, run};

/// More than one page may hold: Elasticsearch's `index.max_result_window` is 10,000.
const MANY: usize = 10_500;

/// Yesterday's first moment: the events of an hour lie in one daily index.
fn begin_ms() -> i64 {
    let day_ms = 86_400_000;
    (jiff::Timestamp::now().as_millisecond() / day_ms - 1) * day_ms
}

async fn write_many(index: &TestIndex) {
    let store = index.store();
    let begin = begin_ms();
    let samples = (0..MANY).map(|at| {
        let at = i64::try_from(at).expect("small");
        // seven events a millisecond: pages end within one
        let duration = u64::try_from(at % 50).expect("small");
        Sample::new("service.end", begin + at / 7).end(200, duration).document()
    });
    let documents: Vec<Document> = samples.collect();
    for batch in documents.chunks(5_000) {
        let outcomes = store.write(batch).await.expect("written");
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored));
    }
    index.refresh().await;
}

#[tokio::test]
async fn pages_go_beyond_ten_thousand_events() {
    let Some(index) = TestIndex::new() else { return };
    write_many(&index).await;
    let store = index.store();
    for (order, limit, sizes) in [
        (Order::Newest, 10_000, vec![10_000, 500]),
        (Order::Oldest, 4_000, vec![4_000, 4_000, 2_500]),
        (Order::Slowest, 3_500, vec![3_500, 3_500, 3_500]),
    ] {
        let mut query = Query { order, limit, ..all() };
        let (mut seen, mut pages) = (HashSet::new(), Vec::new());
        loop {
            let page = store.query(&query).await.expect("found");
            assert_eq!(page.total, MANY as u64, "{order:?}");
            pages.push(page.events.len());
            seen.extend(ids(&page));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        assert_eq!((pages, seen.len()), (sizes, MANY), "{order:?}");
    }
    // the same by the command
    let folder = Folder::new();
    let config = folder.write("config.yml", &format!("esAddr: \"{}\"\nesIndex: {}\n", index.url, index.name));
    let search = |more: &[&str]| {
        let args = ["trace", "search", "--config", &config, "--limit", "10000", "--since", "3d"];
        let output = run(folder.path(), &[&args[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let first = search(&[]);
    let after = first.split("--after '").nth(1).and_then(|rest| rest.split('\'').next()).expect("there is more");
    let last = search(&["--after", after, "--output", "json"]);
    assert_eq!(last.matches("\"eventId\"").count(), 500);
    index.delete().await;
}

/// What one answer says agrees with itself, though events come in while it is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_agree_while_events_come_in() {
    let Some(index) = TestIndex::new() else { return };
    let (store, begin) = (index.store(), begin_ms());
    let ended = AtomicBool::new(false);
    let write = async {
        let mut at = 0;
        while !ended.load(Ordering::Relaxed) {
            let batch: Vec<Document> = (at..at + 20)
                .map(|at| Sample::new("service.end", begin + at * 50).end(if at % 3 == 0 { 500 } else { 200 }, 1000))
                .map(|sample| sample.document())
                .collect();
            at += 20;
            store.write(&batch).await.expect("written");
            index.refresh().await;
        }
    };
    let read = async {
        let filter = Query { since_ms: Some(begin), until_ms: Some(begin + 3_600_000), ..all() };
        // one search; and so many buckets that it takes several
        for (bucket_ms, rounds) in [(36_000, 20), (1_000, 5)] {
            for by in [GroupBy::Service, GroupBy::Edge] {
                let query = StatsQuery { filter: filter.clone(), bucket_ms: Some(bucket_ms), by };
                for _ in 0..rounds {
                    let stats = store.stats(&query).await.expect("counted");
                    for group in &stats.groups {
                        let buckets = || group.buckets.iter().map(|bucket| &bucket.summary);
                        assert_eq!(group.total.count, buckets().map(|bucket| bucket.count).sum::<u64>(), "{bucket_ms}");
                        assert_eq!(group.total.errors, buckets().map(|bucket| bucket.errors).sum::<u64>());
                    }
                    if bucket_ms == 36_000 && !stats.groups.is_empty() {
                        let count = i64::try_from(stats.groups[0].total.count).expect("small");
                        assert_eq!(stats.first_ms, Some(begin));
                        assert_eq!(stats.last_ms, Some(begin + (count - 1) * 50), "of the same moment as the count");
                    }
                }
            }
        }
        ended.store(true, Ordering::Relaxed);
    };
    tokio::join!(write, read);
    index.delete().await;
}

//! What only the embedded store has to get right.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use goms::store::{Embedded, Order, Outcome, Query, Retain, StoreError, TraceStore};
use serde_json::json;
use uuid::Uuid;

use super::{Sample, TempDir, all, ids, put, until};

const CHILD_DIR: &str = "GOMS_TEST_STORE_CHILD";

fn open(dir: &TempDir) -> Result<Embedded, StoreError> {
    Embedded::open(&dir.0, Retain::default(), &Shutdown::new(), &Metrics::new())
}

fn bytes_in(dir: &TempDir) -> u64 {
    let files = std::fs::read_dir(&dir.0).expect("a folder");
    // a file may go between the two calls
    files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum()
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("fits")
}

/// Not a test by itself: the process that the tests below kill. Prints the ids of each batch that was stored.
#[tokio::test]
async fn child_that_writes() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let store = Embedded::open(dir.as_ref(), Retain::default(), &Shutdown::new(), &Metrics::new()).expect("opened");
    let mut out = std::io::stdout().lock();
    let mut last: Vec<Sample> = Vec::new();
    loop {
        let batch: Vec<Sample> = (0..20).map(|_| Sample::new("request.start", now_ms())).collect();
        // what came before comes again, as from a sender that did not hear the answer, at the same time as new events
        tokio::join!(put(&store, &batch), put(&store, &last));
        let stored: Vec<String> = batch.iter().map(|sample| sample.id.to_string()).collect();
        last = batch;
        writeln!(out, "stored {}", stored.join(" ")).expect("the parent reads");
        out.flush().expect("the parent reads");
    }
}

/// Starts the child above and returns it with its output.
fn child(dir: &TempDir) -> (std::process::Child, impl Iterator<Item = Vec<String>>) {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "store::embedded::child_that_writes", "--nocapture"])
        .env(CHILD_DIR, &dir.0)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let batches = lines.filter_map(|line| {
        // the harness prints its own line first, maybe without an end
        let (_, stored) = line.split_once("stored ")?;
        Some(stored.split(' ').map(str::to_owned).collect())
    });
    (child, batches)
}

#[tokio::test]
async fn kill_9_mid_write_keeps_what_was_stored() {
    let dir = TempDir::new();
    let mut stored: Vec<String> = Vec::new();
    // each round kills after another count of batches, at another point of the next one
    for round in 1..=4 {
        let (mut child, batches) = child(&dir);
        let mut batches = batches.inspect(|batch: &Vec<String>| assert_eq!(batch.len(), 20));
        stored.extend(batches.by_ref().take(round * 2).flatten());
        std::thread::sleep(Duration::from_millis(3 * round as u64)); // not to wait for something: to vary the moment
        child.kill().expect("it runs");
        child.wait().expect("killed");
        // it may have stored more before it died
        stored.extend(batches.flatten());
        let store = open(&dir).expect("opens after a kill");
        let found = ids(&store.query(&Query { limit: 10_000, ..all() }).await.expect("found"));
        let lost = stored.iter().filter(|id| !found.contains(id)).count();
        assert_eq!(lost, 0, "round {round}: {} stored, {} found", stored.len(), found.len());
        assert!(found.len() <= stored.len() + 20 * round, "at most the batch under way besides");
    }
}

/// Every id in the store, in pages.
async fn every_id(store: &Embedded) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let query = Query { order: Order::Oldest, limit: 5000, after, ..Query::default() };
        let page = store.query(&query).await.expect("a page");
        found.extend(ids(&page));
        after = page.next;
        if after.is_none() {
            assert_eq!(found.len() as u64, page.total);
            return found;
        }
    }
}

/// Killed again and again, soon or late: while it opens, indexes, commits, merges or takes a batch a second time.
#[tokio::test]
async fn kill_9_at_any_moment_loses_and_doubles_nothing() {
    const ROUNDS: usize = 25;
    let dir = TempDir::new();
    let mut stored: HashSet<String> = HashSet::new();
    let mut sent = Vec::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64; // xorshift64, the same each time
    for round in 0..ROUNDS {
        for shift in [13_i32, -7, 17] {
            random ^= if shift > 0 { random << shift } else { random >> -shift };
        }
        let (mut child, mut batches) = child(&dir);
        // every third is killed while it starts, the others at work
        let first = if round % 3 == 0 { None } else { batches.next() };
        std::thread::sleep(Duration::from_micros(random % 60_000)); // the moment of the kill, not a wait for something
        child.kill().expect("it runs");
        child.wait().expect("killed");
        for batch in first.into_iter().chain(batches) {
            sent.extend(batch.first().cloned());
            stored.extend(batch);
        }
        let store = open(&dir).expect("opens after a kill");
        let found = every_id(&store).await;
        let different: HashSet<&String> = found.iter().collect();
        assert_eq!(different.len(), found.len(), "round {round}: an event is there twice");
        let lost = stored.iter().filter(|id| !different.contains(id)).count();
        assert_eq!(lost, 0, "round {round}: of {} stored", stored.len());
        for id in &sent {
            // by another way than the columns
            let query = Query { text: Some(id.clone()), ..all() };
            assert_eq!(ids(&store.query(&query).await.expect("found")), [id.clone()]);
        }
        sent.clear();
    }
    assert!(!stored.is_empty(), "no child lived long enough");
}

#[tokio::test]
async fn kill_9_while_opening_leaves_a_good_folder() {
    let dir = TempDir::new();
    for wait_ms in [2, 5, 10, 15, 20, 30, 40, 60] {
        let (mut child, _) = child(&dir);
        std::thread::sleep(Duration::from_millis(wait_ms)); // the moment of the kill, not a wait for something
        child.kill().expect("it runs");
        child.wait().expect("killed");
        let store = open(&dir).expect("opens after a kill");
        put(&store, &[Sample::new("request.start", 1)]).await;
    }
}

#[tokio::test]
async fn a_second_writer_is_told_so() {
    let dir = TempDir::new();
    let store = open(&dir).expect("opened");
    assert!(matches!(open(&dir), Err(StoreError::InUse(at)) if at == dir.0));
    put(&store, &[Sample::new("request.start", 1)]).await;
    drop(store);
    let store = open(&dir).expect("free again");
    assert_eq!(store.query(&all()).await.expect("found").total, 1);
}

#[tokio::test]
async fn another_process_holds_the_folder_until_it_dies() {
    let dir = TempDir::new();
    let (mut child, mut batches) = child(&dir);
    let first = batches.next().expect("a first batch");
    assert!(matches!(open(&dir), Err(StoreError::InUse(_))));
    child.kill().expect("it runs");
    child.wait().expect("killed");
    let store = open(&dir).expect("free at once");
    let found = ids(&store.query(&Query { limit: 10_000, ..all() }).await.expect("found"));
    assert!(first.iter().all(|id| found.contains(id)));
}

#[tokio::test]
async fn rewriting_after_a_restart_changes_nothing() {
    let dir = TempDir::new();
    let samples: Vec<Sample> = (0..50).map(|at| Sample::new("request.start", at)).collect();
    for _ in 0..3 {
        let store = open(&dir).expect("opened");
        put(&store, &samples).await;
        assert_eq!(store.query(&all()).await.expect("found").total, 50);
    }
}

#[tokio::test]
async fn old_events_go() {
    let dir = TempDir::new();
    let hour_ms = 3_600_000;
    let store = open(&dir).expect("opened");
    let old = |at| Sample::new("request.start", now_ms() - 2 * hour_ms + at).body(json!({"n": Uuid::new_v4()}));
    let old: Vec<Sample> = (0..1000).map(old).collect();
    let new = Sample::new("request.start", now_ms());
    put(&store, &old).await;
    put(&store, std::slice::from_ref(&new)).await;
    drop(store);
    let before = bytes_in(&dir);

    let shutdown = Shutdown::new();
    let retain = Retain { age: Some(Duration::from_secs(3600)), bytes: None };
    let store = Embedded::open(&dir.0, retain, &shutdown, &Metrics::new()).expect("opened");
    let page = until("old events are deleted", &store, &all(), |page| page.total == 1).await;
    assert_eq!(ids(&page), [new.id.to_string()]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while bytes_in(&dir) > before / 4 {
        assert!(Instant::now() < deadline, "{} of {before} bytes are left", bytes_in(&dir));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // an id that was deleted may come again
    put(&store, &old[..1]).await;
    shutdown.begin();
    assert!(shutdown.finished(Duration::from_secs(5)).await, "the task of retention ends");
    drop(store);
}

#[tokio::test]
async fn events_go_while_the_store_runs() {
    let dir = TempDir::new();
    let shutdown = Shutdown::new();
    let retain = Retain { age: Some(Duration::from_secs(2)), bytes: None };
    let store = Embedded::open(&dir.0, retain, &shutdown, &Metrics::new()).expect("opened");
    put(&store, &[Sample::new("request.start", now_ms())]).await;
    assert_eq!(store.query(&all()).await.expect("found").total, 1);
    until("the event grows old", &store, &all(), |page| page.total == 0).await;
    shutdown.begin();
}

#[tokio::test]
async fn over_its_bytes_the_oldest_go_and_the_disk_is_free_again() {
    const LIMIT: u64 = 600_000;
    let dir = TempDir::new();
    let shutdown = Shutdown::new();
    let metrics = Metrics::new();
    let retain = Retain { age: None, bytes: Some(LIMIT) };
    let store = Embedded::open(&dir.0, retain, &shutdown, &metrics).expect("opened");
    // nothing in them repeats
    let body = || json!((0..8).map(|_| Uuid::new_v4().simple().to_string()).collect::<Vec<_>>());
    let samples: Vec<Sample> = (0..3000).map(|at| Sample::new("request.start", at).body(body())).collect();
    for part in samples.chunks(500) {
        put(&store, part).await;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while bytes_in(&dir) > LIMIT + 10_000 {
        assert!(Instant::now() < deadline, "{} bytes are left", bytes_in(&dir));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let page = store.query(&Query { order: Order::Oldest, limit: 1, ..Query::default() }).await.expect("found");
    let left = usize::try_from(page.total).expect("few");
    assert!((100..2900).contains(&left), "{left} events are left");
    assert_eq!(ids(&page), [samples[samples.len() - left].id.to_string()], "the oldest that is left");
    let gone = samples.len() - left;
    let expired = metrics.counter("store_expired_total", "Events that retention deleted", &["reason"]);
    assert_eq!(expired.with_label_values(&["bytes"]).get(), gone as u64);
    put(&store, &[Sample::new("request.start", 5000)]).await;
    shutdown.begin();
    assert!(shutdown.finished(Duration::from_secs(5)).await, "the task of retention ends");
}

#[tokio::test]
async fn events_of_one_request_are_told_apart() {
    let dir = TempDir::new();
    let mut samples: Vec<Sample> = (0..300).map(|at| Sample::new("request.start", at)).collect();
    for sample in &mut samples[..200] {
        sample.fields.request_id = "always the same".to_owned();
    }
    for sample in &mut samples[200..] {
        sample.fields.request_id.clear();
    }
    for _ in 0..2 {
        let store = open(&dir).expect("opened");
        for part in samples.chunks(70) {
            put(&store, part).await;
        }
        assert_eq!(store.query(&all()).await.expect("found").total, 300);
        let query = Query { request_id: Some("always the same".to_owned()), ..all() };
        assert_eq!(store.query(&query).await.expect("found").total, 200);
    }
}

#[tokio::test]
async fn a_trace_is_found_by_its_id_whoever_made_it() {
    let dir = TempDir::new();
    let store = open(&dir).expect("opened");
    let ours = |time_ms| {
        let mut sample = Sample::new("request.start", time_ms);
        sample.fields.trace_id = sample.fields.request_id.replace('-', "");
        sample
    };
    let (own, other) = (ours(1), Sample::new("request.start", 2));
    // a client's trace id, on a request whose own bits are another trace's id
    let mut odd = Sample::new("request.start", 3);
    odd.fields.request_id.clone_from(&own.fields.request_id);
    let mut none = Sample::new("request.start", 4);
    none.fields.trace_id.clear();
    put(&store, &[own.clone(), other.clone(), odd.clone(), none.clone()]).await;
    for (sample, id) in [
        (&own, own.fields.trace_id.clone()),
        (&other, other.fields.trace_id.clone()),
        (&odd, odd.fields.trace_id.clone()),
    ] {
        let by_id = Query { trace_id: Some(id.clone()), ..all() };
        assert_eq!(ids(&store.query(&by_id).await.expect("found")), [sample.id.to_string()], "{id}");
    }
    let by_bits = Query { trace_id: Some(none.fields.request_id.replace('-', "")), ..all() };
    assert_eq!(store.query(&by_bits).await.expect("found").total, 0);
    // text finds an event by any id of its own
    for (text, expected) in [
        (own.fields.request_id.clone(), vec![&odd, &own]),
        (other.fields.trace_id.to_uppercase(), vec![&other]),
        (other.id.to_string(), vec![&other]),
        (format!("00-{}-b7ad6b7169203331-01", odd.fields.trace_id), vec![&odd]),
        (format!("curl {}", none.id), vec![&none]),
        (format!("missing {}", none.id), vec![]),
    ] {
        let expected: Vec<String> = expected.into_iter().map(|sample| sample.id.to_string()).collect();
        let query = Query { text: Some(text.clone()), ..all() };
        assert_eq!(ids(&store.query(&query).await.expect("found")), expected, "{text}");
    }
}

/// What a version with another schema left behind is kept, and does not keep this one from starting.
#[tokio::test]
async fn an_index_of_another_version_is_set_aside() {
    let parent = TempDir::new();
    let dir = TempDir(parent.0.join("traces"));
    std::fs::create_dir_all(&dir.0).expect("made");
    let mut schema = tantivy::schema::Schema::builder();
    let only = schema.add_text_field("only", tantivy::schema::STORED);
    let old = tantivy::Index::create_in_dir(&dir.0, schema.build()).expect("made");
    let mut writer = old.writer_with_num_threads::<tantivy::TantivyDocument>(1, 15_000_000).expect("a writer");
    writer.add_document(tantivy::doc!(only => "kept")).expect("added");
    writer.commit().expect("committed");
    drop((writer, old));

    let sample = Sample::new("request.start", 1);
    for _ in 0..2 {
        let store = open(&dir).expect("opened");
        assert!(matches!(open(&dir), Err(StoreError::InUse(_))), "the new folder is locked");
        put(&store, std::slice::from_ref(&sample)).await;
        assert_eq!(ids(&store.query(&all()).await.expect("found")), [sample.id.to_string()]);
    }
    let beside = std::fs::read_dir(&parent.0).expect("a folder").map(|entry| entry.expect("an entry").path());
    let aside: Vec<_> = beside.filter(|path| *path != dir.0).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(aside[0].to_string_lossy().contains("/traces.old-"), "{aside:?}");
    let kept = tantivy::Index::open_in_dir(&aside[0]).expect("still an index");
    assert_eq!(kept.reader().expect("read").searcher().num_docs(), 1);
}

#[tokio::test]
async fn many_writes_at_once_are_each_answered() {
    let dir = TempDir::new();
    let store = open(&dir).expect("opened");
    let batches: Vec<Vec<Sample>> =
        (0..100).map(|at| (0..3).map(|_| Sample::new("request.start", at)).collect()).collect();
    let outcomes = futures_util::future::join_all(batches.iter().map(|batch| {
        let documents: Vec<_> = batch.iter().map(Sample::document).collect();
        let store = &store;
        async move { store.write(&documents).await.expect("written") }
    }))
    .await;
    assert_eq!(outcomes, vec![vec![Outcome::Stored; 3]; 100]);
    assert_eq!(store.query(&all()).await.expect("found").total, 300);
}

#[tokio::test]
async fn writes_again_after_a_disk_error() {
    let dir = TempDir::new();
    let store = open(&dir).expect("opened");
    let samples: Vec<Sample> = (0..3).map(|at| Sample::new("request.start", at)).collect();
    put(&store, &samples[..1]).await;
    let elsewhere = dir.0.with_extension("away");
    std::fs::rename(&dir.0, &elsewhere).expect("moved");
    for _ in 0..2 {
        let error = store.write(&[samples[1].document()]).await.expect_err("there is no folder");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert_eq!(store.query(&all()).await.expect("what is open stays").total, 1);
    }
    std::fs::rename(&elsewhere, &dir.0).expect("moved back");
    put(&store, &samples).await;
    assert_eq!(store.query(&all()).await.expect("found").total, 3);
}

#[tokio::test]
async fn a_folder_that_is_none_is_unavailable() {
    let dir = TempDir::new();
    std::fs::write(&dir.0, "a file").expect("written");
    let error = open(&dir).err().expect("no folder");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    std::fs::remove_file(&dir.0).expect("removed");
}

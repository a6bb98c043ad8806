//! What only the embedded store has to get right.

use std::time::{Duration, Instant, SystemTime};

use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use goms::store::{Embedded, Order, Outcome, Query, Retain, StoreError, TraceStore};
use serde_json::json;
use uuid::Uuid;

use super::{Sample, TempDir, all, ids, put, until};

pub fn open(dir: &TempDir) -> Result<Embedded, StoreError> {
    Embedded::open(&dir.0, Retain::default(), &Shutdown::new(), &Metrics::new())
}

fn bytes_in(dir: &TempDir) -> u64 {
    let files = std::fs::read_dir(&dir.0).expect("a folder");
    // a file may go between the two calls
    files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum()
}

pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("fits")
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

/// Such an event is given the time at which it is read, another at each delivery.
#[tokio::test]
async fn an_event_without_a_time_is_stored_once_too() {
    let dir = TempDir::new();
    let store = open(&dir).expect("opened");
    let sample = Sample::new("request.start", 1000);
    let json =
        format!(r#"{{"requestId":"{}","event":"request.start","eventId":"{}"}}"#, sample.fields.request_id, sample.id);
    for time_ms in [1000, 9000] {
        let mut document = sample.with_json(&json);
        document.fields.time_ms = time_ms;
        assert_eq!(store.write(&[document]).await.expect("written"), [Outcome::Stored]);
        put(&store, &[Sample::new("request.start", time_ms)]).await;
    }
    let query = Query { request_id: Some(sample.fields.request_id.clone()), ..all() };
    assert_eq!(store.query(&query).await.expect("found").total, 1);
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

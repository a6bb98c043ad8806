//! The embedded store of a process that is killed.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use goms::store::{Embedded, Order, Query, Retain, StoreError, TraceStore};

use super::embedded::{now_ms, open};
use super::{Sample, TempDir, all, ids, put};

const CHILD_DIR: &str = "GOMS_TEST_STORE_CHILD";

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
        .args(["--exact", "store::killed::child_that_writes", "--nocapture"])
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
            assert_eq!(ids(&store.query(&query).await.expect("found")), std::slice::from_ref(id));
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

//! The writer before a store that does what each test says.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use super::*;
use crate::consumer::pipeline::{self, Pipeline, Reply, Verdict};
use crate::metrics::Metrics;
use crate::store::{Document, Fields, Page, Query, Stats, StatsQuery};

type Answer = Result<Vec<Outcome>, StoreError>;

/// What a store answers to a write of these ids.
type Script = dyn Fn(&[String]) -> Answer + Send + Sync;

/// Asks a function about every write.
struct Fake {
    answer: Box<Script>,
    /// The ids of each write.
    writes: Mutex<Vec<Vec<String>>>,
    /// A write waits until it gets one of these.
    gate: Semaphore,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl Fake {
    fn new(answer: impl Fn(&[String]) -> Answer + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            answer: Box::new(answer),
            writes: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
        })
    }

    fn writes(&self) -> Vec<Vec<String>> {
        self.writes.lock().unwrap().clone()
    }

    fn sizes(&self) -> Vec<usize> {
        self.writes().iter().map(Vec::len).collect()
    }
}

#[async_trait]
impl TraceStore for Fake {
    async fn write(&self, batch: &[Document]) -> Result<Vec<Outcome>, StoreError> {
        let ids: Vec<String> = batch.iter().map(|document| document.id.clone()).collect();
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(now, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        let answer = (self.answer)(&ids);
        self.writes.lock().unwrap().push(ids);
        answer
    }

    async fn query(&self, _: &Query) -> Result<Page, StoreError> {
        Ok(Page::default())
    }

    async fn stats(&self, _: &StatsQuery) -> Result<Stats, StoreError> {
        Ok(Stats::default())
    }
}

fn stored(ids: &[String]) -> Answer {
    Ok(vec![Outcome::Stored; ids.len()])
}

fn away() -> Answer {
    Err(StoreError::Unavailable { address: "fake".into(), source: "away".into() })
}

fn rejected() -> Answer {
    Err(StoreError::Rejected { address: "fake".into(), source: "413".into() })
}

/// A pipeline into a fake store.
struct Bench {
    store: Arc<Fake>,
    pipeline: Pipeline,
    health: Health,
    shutdown: Shutdown,
}

/// Without reason a batch waits for long: only count and bytes, or a hurry, let it go.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(1);

fn settings(batch_events: usize, batch_wait: Duration) -> Settings {
    Settings {
        amqp: None,
        prefetch: 1,
        max_bytes: 64 << 20,
        batch_events,
        batch_bytes: 4 << 20,
        batch_wait,
        writes: 2,
        call_keys: Vec::new().into(),
        dead_letters: None,
    }
}

impl Bench {
    fn start(settings: &Settings, store: Arc<Fake>) -> Self {
        let (health, shutdown) = (Health::default(), Shutdown::new());
        let instruments = Instruments::new(&Metrics::new());
        let pipeline = pipeline::start(settings, store.clone(), &instruments, &health, &shutdown);
        Self { store, pipeline, health, shutdown }
    }

    /// Hands over documents of these ids, of one message.
    async fn submit(&self, ids: &[&str]) -> Reply {
        let document = |id: &&str| Document {
            id: (*id).to_owned(),
            json: RawValue::from_string(format!("{{\"id\":\"{id}\"}}")).unwrap(),
            fields: Fields::default(),
        };
        self.pipeline.submit(ids.iter().map(document).collect()).await.expect("the pipeline takes it")
    }

    /// The same, a message each, of the ids `<prefix>0`, ….
    async fn submit_each(&self, prefix: &str, count: usize) -> Vec<Reply> {
        let mut replies = Vec::new();
        for number in 0..count {
            replies.push(self.submit(&[&format!("{prefix}{number}")]).await);
        }
        replies
    }

    async fn end(self) {
        self.shutdown.begin();
        assert!(self.shutdown.finished(LONG).await, "the writer ends");
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let give_up = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < give_up, "waited in vain until {what}");
        tokio::time::sleep(SHORT).await;
    }
}

/// Lets every task that can go on do so.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// The only verdict of a reply; `None` for stored, else the reason.
async fn verdict(reply: Reply) -> Option<String> {
    let verdicts = tokio::time::timeout(LONG, reply).await.expect("in time").expect("answered");
    assert_eq!(verdicts.len(), 1);
    match verdicts.into_iter().next() {
        Some(Verdict::Refused(_, reason)) => Some(reason),
        _ => None,
    }
}

async fn all_stored(replies: Vec<Reply>) {
    for reply in replies {
        assert_eq!(verdict(reply).await, None);
    }
}

#[tokio::test]
async fn a_batch_goes_when_it_has_enough_events_or_the_source_is_in_a_hurry() {
    let bench = Bench::start(&settings(3, LONG), Fake::new(stored));
    let mut replies = bench.submit_each("d", 7).await;
    let mut last = replies.pop().unwrap();
    all_stored(replies).await;
    settle().await;
    assert_eq!(bench.store.sizes(), [3, 3]);
    assert!(last.try_recv().is_err(), "the seventh waits for company");
    bench.pipeline.hurry();
    assert_eq!(verdict(last).await, None);
    assert_eq!(bench.store.sizes(), [3, 3, 1]);
    bench.end().await;
}

#[tokio::test]
async fn a_batch_goes_when_it_has_enough_bytes() {
    let bench = Bench::start(&Settings { batch_bytes: 20, ..settings(1000, LONG) }, Fake::new(stored));
    all_stored(bench.submit_each("d", 6).await).await; // 11 bytes each
    assert_eq!(bench.store.sizes(), [2, 2, 2]);
    bench.end().await;
}

#[tokio::test]
async fn a_batch_goes_when_it_has_waited_long_enough() {
    let bench = Bench::start(&settings(1000, SHORT), Fake::new(stored));
    all_stored(bench.submit_each("d", 1).await).await;
    assert!(bench.submit(&[]).await.await.unwrap().is_empty(), "of nothing there is nothing to wait for");
    bench.end().await;
}

#[tokio::test]
async fn as_many_writes_overlap_as_the_settings_say() {
    let fake = Fake::new(stored);
    fake.gate.forget_permits(usize::MAX);
    let bench = Bench::start(&Settings { writes: 3, ..settings(1, LONG) }, fake);
    let replies = bench.submit_each("d", 5).await;
    until("three are under way", || bench.store.in_flight.load(Ordering::SeqCst) == 3).await;
    settle().await;
    bench.store.gate.add_permits(5);
    all_stored(replies).await;
    assert_eq!(bench.store.most_in_flight.load(Ordering::SeqCst), 3);
    bench.end().await;
}

#[tokio::test]
async fn what_is_refused_for_now_is_written_again_and_holds_up_nobody() {
    let busy = Arc::new(AtomicBool::new(true));
    let is_busy = busy.clone();
    let bench = Bench::start(
        &settings(3, SHORT),
        Fake::new(move |ids| {
            let outcome = |id: &String| match id.as_str() {
                "busy" if is_busy.load(Ordering::SeqCst) => Outcome::Later("429".into()),
                _ => Outcome::Stored,
            };
            Ok(ids.iter().map(outcome).collect())
        }),
    );
    let mut replies = bench.submit_each("a", 2).await;
    let mut late = bench.submit(&["busy"]).await;
    all_stored(std::mem::take(&mut replies)).await;
    let tries = || bench.store.writes().iter().filter(|write| write.contains(&"busy".to_owned())).count();
    let mut round = 0;
    while tries() < 4 {
        all_stored(bench.submit_each(&format!("b{round}-"), 1).await).await;
        round += 1;
        assert_eq!(bench.health.trouble(), None, "the store takes others");
    }
    assert!(late.try_recv().is_err());
    assert!(round > 4, "others pass between its tries, which are further and further apart");
    for write in bench.store.writes().iter().skip(1) {
        assert!(write.len() == 1 || !write.contains(&"busy".to_owned()), "it waits alone: {write:?}");
    }
    busy.store(false, Ordering::SeqCst);
    assert_eq!(verdict(late).await, None);
    bench.end().await;
}

#[tokio::test]
async fn what_is_refused_for_what_it_is_comes_back_with_its_reason() {
    let bench = Bench::start(
        &settings(3, LONG),
        Fake::new(|ids| {
            let outcome = |id: &String| match id.as_str() {
                "bad" => Outcome::Refused("mapping conflict".into()),
                _ => Outcome::Stored,
            };
            Ok(ids.iter().map(outcome).collect())
        }),
    );
    let message = bench.submit(&["good", "bad", "fine"]).await;
    let verdicts = message.await.unwrap();
    assert!(
        matches!(&verdicts[..], [Verdict::Stored, Verdict::Refused(json, reason), Verdict::Stored]
            if json.get() == "{\"id\":\"bad\"}" && reason == "mapping conflict"),
        "{verdicts:?}"
    );
    assert_eq!((bench.store.sizes(), bench.health.trouble()), (vec![3], None));
    bench.end().await;
}

#[tokio::test]
async fn a_batch_that_is_rejected_as_a_whole_is_divided_until_the_bad_document_is_found() {
    let poisoned = |ids: &[String]| if ids.contains(&"d77".to_owned()) { rejected() } else { stored(ids) };
    let bench = Bench::start(&settings(100, LONG), Fake::new(poisoned));
    let mut replies = bench.submit_each("d", 100).await;
    let bad = replies.remove(77);
    all_stored(replies).await;
    let reason = verdict(bad).await.expect("it is refused");
    assert_eq!(reason, "trace store at `fake` refuses the whole write: 413");
    assert!(bench.store.writes().len() < 20, "as many as it takes: {:?}", bench.store.sizes());
    assert_eq!(bench.health.trouble(), None);
    bench.end().await;
}

#[tokio::test]
async fn a_batch_that_always_fails_while_others_pass_is_divided_too() {
    let poisoned = |ids: &[String]| if ids.contains(&"d599".to_owned()) { away() } else { stored(ids) };
    let bench = Bench::start(&settings(600, LONG), Fake::new(poisoned));
    let mut replies = bench.submit_each("d", 600).await;
    let bad = replies.pop().unwrap();
    // nothing tells yet that the store is there
    until("the batch was tried again", || bench.store.writes().len() > 2).await;
    let others = bench.submit_each("other", 10).await;
    all_stored(others).await;
    all_stored(replies).await;
    let reason = verdict(bad).await.expect("it is refused");
    assert_eq!(reason, "trace store at `fake` is unavailable: away");
    let stored: Vec<String> = bench.store.writes().concat();
    assert_eq!(stored.iter().collect::<BTreeSet<_>>().len(), 610);
    bench.end().await;
}

#[tokio::test]
async fn a_store_that_is_away_divides_nothing_and_is_said_to_be_away() {
    for answer in [away, || Ok(vec![Outcome::Later("429".into()); 10])] {
        let is_away = Arc::new(AtomicBool::new(true));
        let flag = is_away.clone();
        let fake = Fake::new(move |ids| if flag.load(Ordering::SeqCst) { answer() } else { stored(ids) });
        let bench = Bench::start(&settings(10, LONG), fake);
        assert_eq!(bench.health.trouble(), None);
        let replies = bench.submit_each("d", 30).await;
        until("it was tried five times", || bench.store.writes().len() >= 5).await;
        assert!(bench.store.sizes().iter().all(|size| *size == 10), "{:?}", bench.store.sizes());
        let trouble = bench.health.trouble().expect("not ready");
        assert!(trouble.starts_with("the trace store takes nothing: "), "{trouble}");
        is_away.store(false, Ordering::SeqCst);
        all_stored(replies).await;
        assert_eq!(bench.health.trouble(), None, "ready again");
        bench.end().await;
    }
}

#[tokio::test]
async fn nothing_is_refused_by_a_store_that_rejects_everything() {
    let closed = Arc::new(AtomicBool::new(true));
    let flag = closed.clone();
    let fake = Fake::new(move |ids| if flag.load(Ordering::SeqCst) { rejected() } else { stored(ids) });
    let bench = Bench::start(&settings(2, LONG), fake);
    let replies = bench.submit_each("d", 4).await;
    until("it was tried six times", || bench.store.writes().len() >= 6).await;
    assert!(bench.health.trouble().is_some());
    closed.store(false, Ordering::SeqCst);
    all_stored(replies).await;
    bench.end().await;
}

#[tokio::test]
async fn the_end_writes_what_was_taken_or_gives_it_back() {
    let bench = Bench::start(&settings(1000, LONG), Fake::new(stored));
    let replies = bench.submit_each("d", 5).await;
    bench.end().await;
    all_stored(replies).await;

    let bench = Bench::start(&settings(2, LONG), Fake::new(|_| away()));
    let replies = bench.submit_each("d", 5).await;
    until("it was tried", || !bench.store.writes().is_empty()).await;
    let late = bench.pipeline.clone();
    bench.end().await;
    for reply in replies {
        assert!(reply.await.is_err(), "not stored, so not answered");
    }
    assert!(late.submit(Vec::new()).await.is_none(), "nothing new is taken");
}

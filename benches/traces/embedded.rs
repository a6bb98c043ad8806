//! The embedded store: events a second through `TraceStore::write`, bytes an event on disk, and how long searches,
//! counting and opening take; beside it bare tantivy with three fields.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use goms::store::{Document, Embedded, GroupBy, Outcome, Query, Retain, StatsQuery, TraceStore};
use tantivy::indexer::IndexWriterOptions;
use tantivy::schema::{FAST, INDEXED, STORED, STRING, Schema};

use super::events::Events;
use super::{Args, Figure};

/// Events of one write, as `consumer.batchEvents` is with this store unless someone says otherwise (`batch=`).
const BATCH: usize = 8_000;
/// Writes at once, as `consumer.writes` is (`writes=`).
const WRITES: u64 = 2;
/// Documents of one commit of bare tantivy.
const BARE_COMMIT: usize = 20_000;

/// A folder that goes at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("goms-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        Self(dir)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Events where `events=` does not say how many.
const EVENTS: u64 = 1_000_000;

/// Measures with `events=` events and prints a line of JSON a figure.
pub fn run(args: &Args) {
    let events = args.number("events", EVENTS);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let making = cpu_of_making(events.min(200_000));
    eprintln!("making an event takes {:.2} µs of CPU (taken off below)", making * 1e6);
    let raw = bare(events.min(1_000_000), making);
    let folder = Folder::new("embedded");
    runtime.block_on(async {
        let sizes = (args.number("batch", BATCH as u64) as usize, args.number("writes", WRITES));
        write(&folder.0, events, sizes, making, &raw).await;
        read(&folder.0, events).await;
    });
}

fn figure(name: &str, value: f64, unit: &str) {
    aimed(name, value, unit, None, "");
}

/// A figure that is wanted to reach something, beside bare tantivy's in the same run.
fn aimed(name: &str, value: f64, unit: &str, raw: Option<f64>, aim: &str) {
    let figure = format!("embedded: {name}");
    let raw_figure = if raw.is_some() { "bare tantivy, three fields" } else { "" };
    Figure { figure: &figure, value, unit, raw, raw_figure, aim }.tell();
}

/// What bare tantivy took.
struct Bare {
    events_a_second: f64,
    cpu_us: f64,
    bytes: f64,
}

fn cpu_of_making(events: u64) -> f64 {
    let mut made = Events::new();
    let before = cpu();
    let bytes: usize = (0..events / 500).flat_map(|_| made.documents(500)).map(|one| one.json.get().len()).sum();
    let took = cpu() - before;
    figure("bytes an event", bytes as f64 / events as f64, "B");
    took / events as f64
}

/// What tantivy does with the least that a trace store needs.
fn bare(events: u64, making: f64) -> Bare {
    let folder = Folder::new("bare");
    let mut schema = Schema::builder();
    let request_id = schema.add_text_field("request_id", STRING);
    let time_ms = schema.add_i64_field("time_ms", INDEXED | FAST);
    let json = schema.add_text_field("json", STORED);
    let index = tantivy::Index::create_in_dir(&folder.0, schema.build()).expect("an index");
    let options = IndexWriterOptions::builder().memory_budget_per_thread(64 << 20).num_worker_threads(1).build();
    let mut writer = index.writer_with_options::<tantivy::TantivyDocument>(options).expect("a writer");
    let mut made = Events::new();
    let (start, before) = (Instant::now(), cpu());
    for _ in 0..events / BARE_COMMIT as u64 {
        for one in made.documents(BARE_COMMIT) {
            let mut document = tantivy::TantivyDocument::new();
            document.add_text(request_id, &one.fields.request_id);
            document.add_i64(time_ms, one.fields.time_ms);
            document.add_text(json, one.json.get());
            writer.add_document(document).expect("added");
        }
        writer.commit().expect("committed");
    }
    writer.wait_merging_threads().expect("merged");
    let all = events as f64;
    Bare {
        events_a_second: all / start.elapsed().as_secs_f64(),
        cpu_us: ((cpu() - before) / all - making) * 1e6,
        bytes: bytes_in(&folder.0) as f64 / all,
    }
}

async fn write(dir: &Path, events: u64, (batch_events, writes): (usize, u64), making: f64, raw: &Bare) {
    let store = open(dir);
    let peak = Peak::start();
    let left = AtomicU64::new(events / batch_events as u64);
    let made = std::sync::Mutex::new(Events::new());
    let (start, before) = (Instant::now(), cpu());
    let writers = (0..writes).map(|_| async {
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let batch: Vec<Document> = made.lock().expect("no panic").documents(batch_events);
            let outcomes = store.write(&batch).await.expect("written");
            assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored));
            let left = left.load(Ordering::Relaxed);
            if left % 250 == 249 {
                let done = events - left * batch_events as u64;
                eprintln!("{done} events, {:.0}/s", done as f64 / start.elapsed().as_secs_f64());
            }
        }
    });
    futures_util::future::join_all(writers).await;
    let (took, busy) = (start.elapsed().as_secs_f64(), cpu() - before);
    let all = events as f64;
    aimed("write, events/s", all / took, "1/s", Some(raw.events_a_second), "100,000/s");
    aimed("write, CPU an event", (busy / all - making) * 1e6, "µs", Some(raw.cpu_us), "");
    settle(dir);
    figure("write, CPU an event, with merges to the end", ((cpu() - before) / events as f64 - making) * 1e6, "µs");
    aimed("on disk an event", bytes_in(dir) as f64 / all, "B", Some(raw.bytes), "at most 100 B");
    figure("peak memory (anonymous)", peak.end() as f64 / 1e6, "MB");
    for (extension, bytes) in by_extension(dir) {
        eprintln!("  {extension:10} {:8.2} B an event", bytes as f64 / events as f64);
    }
    fields(dir, events);
    // a redelivery of the latest
    let mut again = Events::new();
    again.skip(events.saturating_sub(BATCH as u64));
    let batch = again.documents(BATCH);
    let start = Instant::now();
    store.write(&batch).await.expect("written");
    figure("the same again, events/s", batch.len() as f64 / start.elapsed().as_secs_f64(), "1/s");
}

async fn read(dir: &Path, events: u64) {
    let start = Instant::now();
    let store = open(dir);
    aimed("open", start.elapsed().as_secs_f64() * 1e3, "ms", None, "1 s with 10 million");
    let (from, until) = Events::span(events);
    let middle = |share: f64| from + ((until - from) as f64 * share) as i64;
    let base = || Query { limit: 100, ..Query::default() };
    let mut some = Events::new();
    some.skip(events / 2);
    let one = some.documents(1).remove(0);
    let some_text = |text: &str| Some(text.to_owned());
    for (name, query) in [
        ("by request id", Query { request_id: Some(one.fields.request_id.clone()), ..base() }),
        ("by trace id", Query { trace_id: Some(one.fields.request_id.replace('-', "")), ..base() }),
        ("by an id as text", Query { text: Some(one.id.clone()), ..base() }),
        ("newest of a service", Query { service: some_text("user"), ..base() }),
        ("slowest of a service", Query { service: some_text("user"), order: goms::store::Order::Slowest, ..base() }),
        ("two words", Query { text: some_text("curl anna"), ..base() }),
        ("errors of a range", {
            Query { status: Some((500, 599)), since_ms: Some(middle(0.4)), until_ms: Some(middle(0.5)), ..base() }
        }),
    ] {
        let (took, total) = best(async || store.query(&query).await.expect("found").total).await;
        let aim = if name == "by request id" { "10 ms with 10 million" } else { "" };
        aimed(&format!("search {name} ({total} found)"), took * 1e3, "ms", None, aim);
    }
    let filter =
        Query { service: some_text("user"), since_ms: Some(middle(0.1)), until_ms: Some(middle(0.9)), ..base() };
    let span = u64::try_from(until - from).expect("forward");
    for (name, query) in [
        ("of a service and range", StatsQuery { filter: filter.clone(), ..StatsQuery::default() }),
        ("of a service and range, 100 buckets", {
            StatsQuery { filter, bucket_ms: Some((span / 100).max(1)), ..StatsQuery::default() }
        }),
        ("by edge, all", StatsQuery { by: GroupBy::Edge, ..StatsQuery::default() }),
    ] {
        if store.stats(&query).await.is_err() {
            continue;
        }
        let count = async || store.stats(&query).await.expect("counted").groups.iter().map(|one| one.total.count).sum();
        let (took, total): (f64, u64) = best(count).await;
        let aim = if name.starts_with("of a service") { "500 ms with 10 million" } else { "" };
        aimed(&format!("percentiles {name} ({total} requests)"), took * 1e3, "ms", None, aim);
    }
}

/// The best of three, for other work goes on beside it.
async fn best(work: impl AsyncFn() -> u64) -> (f64, u64) {
    let mut least = (f64::MAX, 0);
    for _ in 0..3 {
        let start = Instant::now();
        let found = work().await;
        least = (least.0.min(start.elapsed().as_secs_f64()), found);
    }
    least
}

fn open(dir: &Path) -> Embedded {
    Embedded::open(dir, Retain::default(), &Shutdown::new(), &Metrics::new()).expect("opened")
}

/// Waits until merges have ended: nothing changes for two seconds.
fn settle(dir: &Path) {
    let mut last = (0, Instant::now());
    while last.1.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(100));
        let now = bytes_in(dir);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
}

fn bytes_in(dir: &Path) -> u64 {
    by_extension(dir).into_values().sum()
}

fn by_extension(dir: &Path) -> std::collections::BTreeMap<String, u64> {
    let mut found = std::collections::BTreeMap::new();
    for file in std::fs::read_dir(dir).expect("a folder").filter_map(Result::ok) {
        let extension = file.path().extension().map(|one| one.to_string_lossy().into_owned()).unwrap_or_default();
        *found.entry(extension).or_default() += file.metadata().map_or(0, |one| one.len());
    }
    found
}

/// What each field takes in each kind of file, on standard error.
fn fields(dir: &Path, events: u64) {
    let index = tantivy::Index::open_in_dir(dir).expect("an index");
    let reader = index.reader().expect("a reader");
    let mut found = std::collections::BTreeMap::<(String, &str), u64>::new();
    let usage = reader.searcher().space_usage().expect("told");
    let segments = usage.segments();
    for segment in segments {
        for (kind, per_field) in
            [("terms", segment.termdict()), ("postings", segment.postings()), ("column", segment.fast_fields())]
        {
            for usage in per_field.fields() {
                *found.entry((usage.field_name().to_owned(), kind)).or_default() += usage.total().get_bytes();
            }
        }
    }
    eprintln!("  {} segments", segments.len());
    for ((field, kind), bytes) in found {
        eprintln!("  {field:12} {kind:10} {:8.2} B an event", bytes as f64 / events as f64);
    }
}

/// Seconds of CPU of this process, of all threads, also those that ended.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("a number")).sum();
    ticks / 100.0
}

/// The most anonymous memory (mapped files are the kernel's to drop), looked at all 20 ms.
struct Peak {
    ending: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Peak {
    fn start() -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let end = ending.clone();
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            while !end.load(Ordering::Relaxed) {
                let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
                let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
                let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
                most = most.max(kib.unwrap_or(0) * 1024);
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        Self { ending, thread }
    }

    fn end(self) -> u64 {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

//! The recorder, the spool and its transports, against real brokers and consumers.

mod amqp;
mod direct;
mod elasticsearch;
mod faults;
mod otlp;
mod window;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use goms::call_key::SigningKey;
use goms::consumer::{self, Running};
use goms::metrics::Metrics;
use goms::registry::{CatalogWatch, Publisher};
use goms::shutdown::Shutdown;
use goms::store::TraceStore;
use goms::trace::{self, AmqpSettings, Event, Recorder, Settings, Transport};

use crate::support::events::{
    Mood, MoodyStore, amqp_settings, consumer_settings, consumers_at, event, publish_consumers, run, trace_settings,
    until,
};

/// A recorder with its spool, as a node has.
struct Node {
    recorder: Recorder,
    metrics: Metrics,
    shutdown: Shutdown,
    /// What it needs as long as it runs, where it was made for it alone.
    _own: Option<(tempfile::TempDir, Publisher)>,
}

impl Node {
    fn start(settings: &Settings, catalog: CatalogWatch) -> Self {
        let (metrics, shutdown) = (Metrics::new(), Shutdown::new());
        let recorder = trace::start(settings, catalog, &metrics, &shutdown).expect("tracing starts");
        Self { recorder, metrics, shutdown, _own: None }
    }

    /// One with a folder of its own whose events go to a broker.
    fn into_amqp(settings: AmqpSettings) -> Self {
        Self::into_amqp_as(settings, |_| {})
    }

    /// The same with other settings.
    fn into_amqp_as(settings: AmqpSettings, change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (publisher, catalog) = consumers_at(&[]);
        let mut settings = trace_settings(folder.path(), Transport::Amqp(settings));
        change(&mut settings);
        Self { _own: Some((folder, publisher)), ..Self::start(&settings, catalog) }
    }

    /// Records events; gives them back for a look into the store.
    fn record(&self, count: u64) -> Vec<Event> {
        let events: Vec<_> = (0..count).map(event).collect();
        events.iter().for_each(|event| self.recorder.record(event.clone()));
        events
    }

    /// The same in portions that the queue to the spool has room for.
    async fn record_many(&self, portions: u64) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..portions {
            let before = self.metric("goms_trace_recorded_total");
            events.extend(self.record(5000));
            until("they are taken", || self.metric("goms_trace_recorded_total") >= before + 5000).await;
        }
        events
    }

    /// The value of a counter or gauge.
    fn metric(&self, name: &str) -> i64 {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }

    async fn stop(self) {
        self.shutdown.begin();
        assert!(self.shutdown.finished(Duration::from_secs(5)).await, "the spool ends within its bound");
    }
}

/// A consumer from a broker into a store.
fn consumer(amqp: AmqpSettings, store: &Arc<MoodyStore>) -> Running {
    consumer_into(&consumer_settings(Some(amqp)), store.clone(), &Metrics::new())
}

fn consumer_into(settings: &consumer::Settings, store: Arc<dyn TraceStore>, metrics: &Metrics) -> Running {
    consumer::start(settings, store, None, metrics, &Shutdown::new()).expect("a consumer starts")
}

/// A broker that nobody runs.
fn nowhere() -> Transport {
    Transport::Amqp(amqp_settings("amqp://127.0.0.1:1", "trace"))
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_killed_process_loses_only_the_last_flush_interval_and_the_next_one_delivers() {
    let folder = tempfile::tempdir().unwrap();
    let recorded = std::cell::RefCell::new(Vec::new());
    // leaving `run` ends the spool where it stands, as a kill does: nothing is flushed, the lock goes
    run(async {
        let (_publisher, catalog) = consumers_at(&[]);
        let mut settings = trace_settings(folder.path(), nowhere());
        settings.flush_interval = Duration::from_millis(600);
        let node = Node::start(&settings, catalog);
        let events = node.record(1000);
        tokio::time::sleep(settings.flush_interval).await; // the bound itself, not a wait for something
        recorded.replace(events);
    });
    let on_disk: String = files(folder.path())
        .iter()
        .map(|file| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned())
        .collect();
    for event in recorded.borrow().iter() {
        assert!(on_disk.contains(&format!("\"eventId\":\"{}\"", event.id)), "an event is not on disk");
    }
}

#[test]
fn a_graceful_end_leaves_what_cannot_be_delivered_on_disk_and_is_quick() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let (_publisher, catalog) = consumers_at(&[]);
        let node = Node::start(&trace_settings(folder.path(), nowhere()), catalog.clone());
        node.record(10);
        let began = std::time::Instant::now();
        node.stop().await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        // the next process has them again
        let node = Node::start(&trace_settings(folder.path(), nowhere()), catalog);
        assert!(node.metric("goms_trace_spooled_bytes") > 0);
        node.stop().await;
    });
}

#[test]
fn without_any_consumer_the_spool_stays_within_its_cap_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let (_publisher, catalog) = consumers_at(&[]);
        let mut settings = trace_settings(folder.path(), Transport::Direct { call_key: SigningKey::default() });
        settings.spool_bytes = 200_000;
        let node = Node::start(&settings, catalog);
        for round in 1..=20 {
            node.record(100);
            until("they are taken", || node.metric("goms_trace_recorded_total") == round * 100).await;
        }
        until("the cap drops some", || node.metric("goms_trace_dropped_total{where=\"spool\"}") > 0).await;
        until("all is on disk or dropped", || {
            let bytes: u64 = files(folder.path()).iter().map(|file| file.metadata().map_or(0, |file| file.len())).sum();
            assert!(bytes <= 400_000, "{bytes} bytes");
            node.metric("goms_trace_recorded_total") == 2000 && bytes <= 260_000
        })
        .await;
        node.stop().await;
    });
}

#[test]
fn a_full_queue_drops_what_comes_and_counts_it() {
    let folder = tempfile::tempdir().unwrap();
    for (body, recorded, fit) in [(0, 16_384 + 100, 16_384..16_385), (1 << 20, 40, 31..33)] {
        let metrics = Metrics::new();
        let (recorder, mut events) = Recorder::channel(&trace_settings(folder.path(), nowhere()), &metrics);
        for number in 0..recorded {
            let mut event = event(number);
            std::sync::Arc::make_mut(&mut event.request).body = vec![b' '; body].into();
            recorder.record(event);
        }
        let waiting = std::iter::from_fn(|| events.try_recv().ok()).count() as u64;
        assert!(fit.contains(&waiting), "{waiting} events with {body} bytes wait");
        let text = format!("goms_trace_dropped_total{{where=\"recorder\"}} {}", recorded - waiting);
        assert!(metrics.render().contains(&text), "{text}");
    }
}

#[test]
fn when_the_disk_fails_events_wait_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let (publisher, catalog) = consumers_at(&[]);
        let node =
            Node::start(&trace_settings(folder.path(), Transport::Direct { call_key: SigningKey::default() }), catalog);
        std::fs::remove_dir_all(folder.path()).unwrap(); // so that no segment can be made
        let events = node.record(300);
        until("they are taken", || node.metric("goms_trace_recorded_total") == 300).await;
        let store = MoodyStore::new(Mood::Works);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let settings = consumer_settings(None);
        let running = consumer::start(&settings, store.clone(), Some(listener), &Metrics::new(), &Shutdown::new());
        publish_consumers(&publisher, &[address]);
        until("all are stored", || events.iter().all(|event| store.has(event))).await;
        assert_eq!(node.metric("goms_trace_dropped_total"), 0);
        node.stop().await;
        assert!(running.unwrap().stop(Duration::from_secs(10)).await);
    });
}

#[test]
fn sample_zero_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let (_publisher, catalog) = consumers_at(&[]);
        let mut settings = trace_settings(folder.path(), nowhere());
        settings.sample = 0.0;
        let node = Node::start(&settings, catalog);
        assert_eq!(node.recorder.decide(&mut event(1).context), goms::trace::Decision::Off);
        node.record(1);
        assert_eq!(files(folder.path()), Vec::<std::path::PathBuf>::new());
        node.stop().await;
    });
}

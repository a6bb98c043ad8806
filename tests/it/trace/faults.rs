//! What dies or fills up under the spool: recorded = delivered in the end, by id both ways.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goms::call_key::SigningKey;
use goms::consumer::Running;
use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use goms::trace::{Event, Transport};

use super::{Node, consumer, files};
use crate::support::events::{
    Mood, MoodyStore, amqp_settings, consumer_settings, consumers_at, publish_consumers, run, trace_settings, until,
};
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::{Client, RabbitMq};
use crate::support::{servers, slow};

/// Waits until the store has exactly these, as long as it gets more.
pub(super) async fn stored(store: &MoodyStore, events: &[Event]) {
    while store.count() < events.len() {
        let before = store.count();
        until(&format!("more than {before} of {} are stored", events.len()), || store.count() > before).await;
    }
    let missing = events.iter().filter(|event| !store.has(event)).count();
    assert_eq!((store.count(), missing), (events.len(), 0), "stored, and missing of those recorded");
}

/// A consumer over HTTP.
fn direct_consumer(store: &Arc<MoodyStore>) -> (std::net::SocketAddr, Running) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let settings = consumer_settings(None);
    let running = consumer::start(&settings, store.clone(), Some(listener), &Metrics::new(), &Shutdown::new());
    (address, running.expect("a consumer"))
}

#[test]
fn a_connection_cut_between_message_and_confirmation_loses_nothing() {
    run(async {
        let Some(url) = servers::amqp() else { return };
        let target = url.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
        let proxy = Proxy::start(&target);
        let client = Client::connect(&url).await;
        let queue = servers::unique("trace");
        let node = Node::into_amqp(amqp_settings(&url.replace(&target, &proxy.address), &queue));
        let mut events = node.record(50);
        until("the first are confirmed", || node.metric("goms_trace_delivered_total") == 50).await;
        for round in 1..=3 {
            let (before, _) = client.look(&queue).await.unwrap();
            proxy.mute();
            events.extend(node.record(300));
            let give_up = Instant::now() + Duration::from_secs(20);
            while client.look(&queue).await.unwrap().0 <= before {
                assert!(Instant::now() < give_up, "no message arrives");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(node.metric("goms_trace_delivered_total"), 50 + (round - 1) * 300, "none is confirmed yet");
            proxy.away(true);
            proxy.away(false);
            until("they are confirmed", || node.metric("goms_trace_delivered_total") == 50 + round * 300).await;
        }
        assert_eq!(node.metric("goms_trace_dropped_total"), 0);
        node.stop().await;

        let store = MoodyStore::new(Mood::Works);
        let running = consumer(amqp_settings(&url, &queue), &store);
        stored(&store, &events).await;
        until("the queue is empty", || store.again() > 0).await; // the cuts really hit unconfirmed messages
        assert!(running.stop(Duration::from_secs(10)).await);
        client.delete(&queue).await;
    });
}

/// A file system of its own, gone with the value.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` (a loud skip) where mounting is not allowed.
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = format!("size={size}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        if !done.is_ok_and(|done| done.status.success()) {
            eprintln!("SKIPPED: a full disk: this user may not mount a tmpfs");
            return None;
        }
        Some(Self { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // lazily: a test that failed may still have files open
        let done = Command::new("umount").arg("-l").arg(self.folder.path()).status();
        assert!(done.is_ok_and(|done| done.success()) || std::thread::panicking(), "the tmpfs stays mounted");
    }
}

#[test]
fn with_a_full_disk_events_wait_in_memory_and_none_is_lost() {
    let Some(disk) = SmallDisk::mount("1m") else { return };
    run(async {
        let (publisher, catalog) = consumers_at(&[]);
        let node =
            Node::start(&trace_settings(disk.path(), Transport::Direct { call_key: SigningKey::default() }), catalog);
        let mut events = Vec::new();
        for round in 1..=10 {
            events.extend(node.record(500)); // about 3.5 MB in all
            until("they are taken", || node.metric("goms_trace_recorded_total") == round * 500).await;
            tokio::time::sleep(Duration::from_millis(50)).await; // so that there is more than one write
        }
        until("the disk is full", || {
            let bytes: u64 = files(disk.path()).iter().map(|file| file.metadata().map_or(0, |file| file.len())).sum();
            bytes > 500_000
        })
        .await;
        assert!(node.metric("goms_trace_spooled_bytes") < 1 << 20);
        let store = MoodyStore::new(Mood::Works);
        let (address, running) = direct_consumer(&store);
        publish_consumers(&publisher, &[address]);
        stored(&store, &events).await;
        until("all is confirmed", || node.metric("goms_trace_delivered_total") == 5000).await;
        until("the disk is free again", || node.metric("goms_trace_spooled_bytes") == 0).await;
        assert_eq!(node.metric("goms_trace_dropped_total"), 0);
        node.stop().await;
        assert!(running.stop(Duration::from_secs(10)).await);
    });
}

#[test]
fn a_broker_stopped_under_load_gets_everything_when_it_goes_on() {
    run(async {
        let Some(server) = RabbitMq::start() else { return };
        let settings = amqp_settings(&server.url(), "trace");
        let store = MoodyStore::new(Mood::Works);
        let running = consumer(settings.clone(), &store);
        let node = Node::into_amqp(settings);
        let mut events = node.record(100);
        until("the first are stored", || store.count() == 100).await;

        let length = if slow() { 60 } else { 5 };
        server.freeze(true);
        let end = Instant::now() + Duration::from_secs(length);
        while Instant::now() < end {
            events.extend(node.record(50));
            tokio::time::sleep(Duration::from_millis(50)).await; // the load
        }
        assert!(node.metric("goms_trace_spooled_bytes") > 0, "it waits on disk");
        server.freeze(false);
        stored(&store, &events).await;
        until("the disk is free again", || node.metric("goms_trace_spooled_bytes") == 0).await;
        assert_eq!(node.metric("goms_trace_dropped_total"), 0);
        node.stop().await;
        assert!(running.stop(Duration::from_secs(10)).await);
    });
}

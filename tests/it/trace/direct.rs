//! Events directly to consumers over HTTP.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use goms::call_key::SigningKey;
use goms::consumer::{self, Running};
use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use goms::trace::Transport;

use super::Node;
use crate::support::events::{
    Mood, MoodyStore, consumer_settings, consumers_at, publish_consumers, run, trace_settings, until,
};
use crate::support::origin::{Origin, Reply, answer, json};

fn consumer(store: &Arc<MoodyStore>, key: &str) -> (Running, SocketAddr) {
    let mut settings = consumer_settings(None);
    settings.call_keys = vec![key.to_owned()].into();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let running = consumer::start(&settings, store.clone(), Some(listener), &Metrics::new(), &Shutdown::new())
        .expect("a consumer");
    (running, address)
}

fn keyed() -> Transport {
    Transport::Direct { call_key: SigningKey::new(Some(&"key".to_owned())) }
}

#[test]
fn the_next_consumer_takes_over_when_one_dies() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = MoodyStore::new(Mood::Works);
        let (first, first_address) = consumer(&store, "key");
        let (second, second_address) = consumer(&store, "key");
        let (_publisher, catalog) = consumers_at(&[first_address, second_address]);
        let node = Node::start(&trace_settings(folder.path(), keyed()), catalog);
        let mut events = node.record(500);
        until("the first part is stored", || store.count() == 500).await;
        assert!(first.stop(Duration::from_secs(10)).await); // it still stands in the registry
        events.extend(node.record(500));
        until("the second part is stored", || store.count() == 1000).await;
        until("all is confirmed", || node.metric("goms_trace_delivered_total") == 1000).await;
        assert!(events.iter().all(|event| store.has(event)));
        assert!(second.stop(Duration::from_secs(10)).await);
        let events = node.record(10);
        until("it waits on disk", || node.metric("goms_trace_spooled_bytes") > 0).await;
        assert!(!events.iter().any(|event| store.has(event)));
        node.stop().await;
    });
}

#[test]
fn events_wait_for_a_consumer_a_store_and_the_right_key() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = MoodyStore::new(Mood::Away);
        let (publisher, catalog) = consumers_at(&[]);
        let node = Node::start(&trace_settings(folder.path(), keyed()), catalog);
        let events = node.record(300);
        until("they are on disk", || node.metric("goms_trace_spooled_bytes") > 0).await;
        let (wrong, wrong_address) = consumer(&store, "another key");
        let (right, right_address) = consumer(&store, "key");
        publish_consumers(&publisher, &[wrong_address]);
        publish_consumers(&publisher, &[wrong_address, right_address]);
        until("the store was asked", || store.writes() > 0).await;
        assert_eq!(node.metric("goms_trace_delivered_total"), 0);
        store.set(Mood::Works);
        until("all are confirmed", || node.metric("goms_trace_delivered_total") == 300).await;
        assert!(events.iter().all(|event| store.has(event)));
        until("the disk is free again", || node.metric("goms_trace_spooled_bytes") == 0).await;
        assert_eq!(node.metric("goms_trace_dropped_total"), 0);
        node.stop().await;
        assert!(wrong.stop(Duration::from_secs(10)).await);
        assert!(right.stop(Duration::from_secs(10)).await);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "an empty spool leaves nothing behind");
    });
}

#[test]
fn of_a_delivery_that_a_consumer_refuses_only_the_bad_event_is_kept_apart() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::start(|seen, _| {
            let bad = ["\"/api/user/137\"", "\"/api/user/400\""].iter().any(|url| seen.text().contains(url));
            Reply::Bytes(if bad { answer("422 Unprocessable Entity", "", "an odd event") } else { json("{}") })
        })
        .await;
        let (publisher, catalog) = consumers_at(&[]);
        let node = Node::start(&trace_settings(folder.path(), keyed()), catalog);
        let events = node.record(600);
        until("they are on disk", || node.metric("goms_trace_spooled_bytes") > 0).await;
        until("they are taken", || node.metric("goms_trace_recorded_total") == 600).await;
        publish_consumers(&publisher, &[origin.address]);
        until("the rest is delivered", || node.metric("goms_trace_delivered_total") == 598).await;
        until("two are counted", || node.metric("goms_trace_dropped_total{where=\"refused\"}") == 2).await;
        let letters = std::fs::read_to_string(folder.path().join("dead-letters.jsonl")).unwrap();
        assert_eq!(letters.lines().count(), 2, "{letters}");
        for bad in [137, 400] {
            assert!(letters.contains(&format!("\"eventId\":\"{}\"", events[bad].id)), "{letters}");
        }
        let stored: String = origin
            .seen()
            .iter()
            .filter(|seen| !seen.text().contains("/user/137\"") && !seen.text().contains("/user/400\""))
            .map(|seen| seen.text())
            .collect();
        for (number, event) in events.iter().enumerate() {
            let times = stored.matches(&format!("\"eventId\":\"{}\"", event.id)).count();
            assert_eq!(times, usize::from(number != 137 && number != 400), "{number}");
        }
        until("the disk is free again", || node.metric("goms_trace_spooled_bytes") == 0).await;
        node.stop().await;
    });
}

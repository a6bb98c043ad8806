//! Faults while many messages are in flight on one channel: recorded = stored in the end, by id both ways.

use goms::consumer;
use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use goms::trace::{AmqpSettings, Event, Transport};

use super::Node;
use super::faults::stored;
use crate::support::events::{
    Mood, MoodyStore, amqp_settings, consumer_settings, consumers_at, run, trace_settings, until,
};
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::Client;
use crate::support::servers;

/// More than the window takes: 20,000 events are 80 messages and 10 MB.
const PORTIONS: u64 = 4;

async fn delivered(node: &Node, events: usize) {
    until("all are confirmed", || node.metric("goms_trace_delivered_total") >= events as i64).await;
    assert_eq!(node.metric("goms_trace_delivered_total"), events as i64, "something counts twice");
    assert_eq!(node.metric("goms_trace_dropped_total"), 0);
    until("the disk is free again", || node.metric("goms_trace_spooled_bytes") == 0).await;
}

/// Has a consumer store what waits in the queue; says how many events came more than once.
async fn consume(settings: AmqpSettings, events: &[Event]) -> u64 {
    let store = MoodyStore::new(Mood::Works);
    let (queue, url) = (settings.queue.clone(), settings.urls[0].clone());
    let settings = consumer_settings(Some(settings));
    let running = consumer::start(&settings, store.clone(), None, &Metrics::new(), &Shutdown::new()).unwrap();
    stored(&store, events).await;
    assert!(running.stop(std::time::Duration::from_secs(10)).await);
    Client::connect(&url).await.delete(&queue).await;
    store.again()
}

#[test]
fn a_queue_deleted_under_a_full_window_gets_every_event_once_it_is_made_again() {
    run(async {
        let Some(url) = servers::amqp() else { return };
        let client = Client::connect(&url).await;
        let folder = tempfile::tempdir().unwrap();
        let (_publisher, catalog) = consumers_at(&[]);
        let settings = amqp_settings(&url, &servers::unique("trace"));
        let node = Node::start(&trace_settings(folder.path(), Transport::Amqp(settings.clone())), catalog);
        let mut all = node.record(1).len();
        delivered(&node, all).await;
        let mut events = Vec::new();
        for _ in 0..3 {
            client.delete(&settings.queue).await;
            // all of a window comes back, and none of it may count
            events = node.record_many(PORTIONS).await;
            all += events.len();
            delivered(&node, all).await;
        }
        node.stop().await;
        consume(settings, &events).await; // of the last round: the others' went with their queue
    });
}

#[test]
fn messages_that_come_back_from_the_middle_of_a_window_are_sent_again() {
    run(async {
        let Some(url) = servers::amqp() else { return };
        let client = Client::connect(&url).await;
        let folder = tempfile::tempdir().unwrap();
        let (_publisher, catalog) = consumers_at(&[]);
        let mut settings = amqp_settings(&url, &servers::unique("trace"));
        (settings.exchange, settings.routing_key) = (servers::unique("exchange"), "goms".into());
        let node = Node::start(&trace_settings(folder.path(), Transport::Amqp(settings.clone())), catalog);
        let mut events = node.record(1);
        delivered(&node, 1).await;
        for _ in 0..5 {
            let half = events.len() as i64 + 5000;
            events.extend(node.record_many(1).await);
            events.extend(node.record(5000));
            until("some are confirmed", || node.metric("goms_trace_delivered_total") >= half - 4000).await;
            // the queue keeps what it has; what comes now has nowhere to go until the publisher binds the queue again
            client.unbind(&settings.queue, &settings.exchange, &settings.routing_key).await;
            events.extend(node.record_many(1).await);
            delivered(&node, events.len()).await;
        }
        node.stop().await;
        consume(settings, &events).await;
    });
}

#[test]
fn a_connection_cut_with_a_full_window_loses_nothing() {
    run(async {
        let Some(url) = servers::amqp() else { return };
        let target = url.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
        let proxy = Proxy::start(&target);
        let client = Client::connect(&url).await;
        let folder = tempfile::tempdir().unwrap();
        let (_publisher, catalog) = consumers_at(&[]);
        let mut settings = amqp_settings(&url.replace(&target, &proxy.address), &servers::unique("trace"));
        let node = Node::start(&trace_settings(folder.path(), Transport::Amqp(settings.clone())), catalog);
        let mut events = node.record(1);
        delivered(&node, 1).await;
        for _ in 0..2 {
            let before = events.len();
            let (waiting, _) = client.look(&settings.queue).await.unwrap();
            proxy.mute(); // messages arrive, confirmations do not
            events.extend(node.record_many(PORTIONS).await);
            let give_up = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while client.look(&settings.queue).await.unwrap().0 < waiting + 16 {
                assert!(std::time::Instant::now() < give_up, "no messages arrive");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            assert_eq!(node.metric("goms_trace_delivered_total"), before as i64, "none is confirmed");
            until("what is in flight gets old", || node.metric("goms_trace_spooled_bytes") > 0).await;
            proxy.away(true);
            proxy.away(false);
            // and once more while all of it is on its way again
            until("some are confirmed", || node.metric("goms_trace_delivered_total") > before as i64).await;
            proxy.away(true);
            proxy.away(false);
            delivered(&node, events.len()).await;
        }
        node.stop().await;
        settings.urls = vec![url];
        assert!(consume(settings, &events).await > 0, "the cuts hit messages that had arrived");
    });
}

//! Events through RabbitMQ.

use std::sync::Arc;
use std::time::{Duration, Instant};

use goms::trace::{Message, TraceBody, Transport};
use lapin::options::QueueDeclareOptions;

use super::{Node, consumer};
use crate::support::events::{Mood, MoodyStore, amqp_settings, consumers_at, event, run, trace_settings, until};
use crate::support::rabbitmq::{Client, RabbitMq};
use crate::support::servers;

#[test]
fn events_come_through_as_batches_and_as_single_messages() {
    run(async {
        let Some(url) = servers::amqp() else { return };
        let client = Client::connect(&url).await;
        for (message, messages, kind) in [(Message::Batch, 1, "application/json"), (Message::Single, 20, "text/plain")]
        {
            let queue = servers::unique("trace");
            let node = Node::into_amqp_as(amqp_settings(&url, &queue), |settings| settings.message = message);
            let events = node.record(20);
            until("all are confirmed", || node.metric("goms_trace_delivered_total") == 20).await;
            assert_eq!(client.look(&queue).await, Some((messages, 0)));
            let first = client.get(&queue).await.unwrap();
            assert_eq!(first.properties.content_type().as_ref().unwrap().as_str(), kind);
            assert_eq!(*first.properties.delivery_mode(), Some(2));
            let expected = if message == Message::Single {
                events[0].to_json()
            } else {
                [
                    b"[".to_vec(),
                    events.iter().map(|event| event.to_json()).collect::<Vec<_>>().join(&b','),
                    b"]".to_vec(),
                ]
                .concat()
            };
            assert_eq!(first.data, expected);
            assert_eq!(
                node.metric("goms_trace_spooled_bytes"),
                0,
                "nothing touches the disk while the broker keeps up"
            );
            node.stop().await;
            client.delete(&queue).await;
        }
    });
}

#[test]
fn an_existing_queue_with_other_flags_is_used_as_it_is() {
    run(async {
        let Some(url) = servers::amqp() else { return };
        let client = Client::connect(&url).await;
        let queue = servers::unique("trace");
        client.declare(&queue, QueueDeclareOptions::default()).await; // not durable, as the originals declare it
        let settings = amqp_settings(&url, &queue);
        let store = MoodyStore::new(Mood::Works);
        let running = consumer(settings.clone(), &store);
        let node = Node::into_amqp(settings);
        node.record(10);
        until("all are stored", || store.count() == 10).await;
        node.stop().await;
        assert!(running.stop(Duration::from_secs(10)).await);
        client.delete(&queue).await;
    });
}

#[test]
fn a_named_exchange_is_declared_and_bound_and_another_ones_exclusive_queue_published_to() {
    run(async {
        let Some(url) = servers::amqp() else { return };
        let client = Client::connect(&url).await;
        let queue = servers::unique("trace");
        let mut settings = amqp_settings(&url, &queue);
        (settings.exchange, settings.routing_key) = (servers::unique("exchange"), "goms".into());
        let store = MoodyStore::new(Mood::Works);
        let running = consumer(settings.clone(), &store);
        let node = Node::into_amqp(settings);
        node.record(10);
        until("all are stored", || store.count() == 10).await;
        node.stop().await;
        assert!(running.stop(Duration::from_secs(10)).await);
        client.delete(&queue).await;

        client.declare(&queue, QueueDeclareOptions::exclusive()).await;
        let node = Node::into_amqp(amqp_settings(&url, &queue));
        node.record(3);
        until("all are confirmed", || node.metric("goms_trace_delivered_total") == 3).await;
        assert_eq!(Client::connect(&url).await.look(&queue).await, None, "it is another connection's");
        assert!(client.get(&queue).await.is_some());
        node.stop().await;
    });
}

#[test]
fn a_queue_deleted_under_the_publisher_is_made_again() {
    run(async {
        let Some(url) = servers::amqp() else { return };
        let client = Client::connect(&url).await;
        let queue = servers::unique("trace");
        let node = Node::into_amqp(amqp_settings(&url, &queue));
        node.record(1);
        until("the first is confirmed", || node.metric("goms_trace_delivered_total") == 1).await;
        client.delete(&queue).await;
        node.record(1);
        until("the second is confirmed", || node.metric("goms_trace_delivered_total") == 2).await;
        assert_eq!(client.look(&queue).await, Some((1, 0)));
        node.stop().await;
        client.delete(&queue).await;
    });
}

#[test]
fn the_next_address_is_tried_and_a_wrong_password_loses_nothing() {
    run(async {
        let Some(url) = servers::amqp() else { return };
        let client = Client::connect(&url).await;
        let folder = tempfile::tempdir().unwrap();
        let (_publisher, catalog) = consumers_at(&[]);
        let queue = servers::unique("trace");
        let mut settings = amqp_settings(&url.replacen("guest:guest", "guest:wrong", 1), &queue);
        let node = Node::start(&trace_settings(folder.path(), Transport::Amqp(settings.clone())), catalog.clone());
        node.record(5);
        until("they are on disk", || node.metric("goms_trace_spooled_bytes") > 0).await;
        node.stop().await;
        settings.urls.insert(0, "amqp://127.0.0.1:1".into());
        settings.urls.push(url);
        let node = Node::start(&trace_settings(folder.path(), Transport::Amqp(settings)), catalog);
        until("they are delivered", || node.metric("goms_trace_delivered_total") == 5).await;
        until("the disk is free again", || node.metric("goms_trace_spooled_bytes") == 0).await;
        node.stop().await;
        assert_eq!(client.look(&queue).await, Some((1, 0)));
        client.delete(&queue).await;
    });
}

#[test]
fn defect_11_call_key_never_in_trace() {
    run(async {
        let Some(url) = servers::amqp() else { return };
        let client = Client::connect(&url).await;
        let queue = servers::unique("trace");
        let node = Node::into_amqp(amqp_settings(&url, &queue));
        let headers: [(&str, &[u8]); 2] = [("call-service-key", b"hunter2"), ("accept", b"*/*")];
        let ip = "127.0.0.1".to_owned();
        let info = node.recorder.request_info("GET", "/login", "", ip, headers.into_iter(), TraceBody::None);
        let mut recorded = event(1);
        recorded.request = Arc::new(info);
        node.recorder.record(recorded);
        until("it is confirmed", || node.metric("goms_trace_delivered_total") == 1).await;
        let message = String::from_utf8(client.get(&queue).await.unwrap().data).unwrap();
        assert!(!message.contains("hunter2"), "{message}");
        assert!(message.contains("\"Call-Service-Key\":\"[redacted]\""), "{message}");
        node.stop().await;
        client.delete(&queue).await;
    });
}

#[test]
fn defect_04_rabbitmq_down_loses_nothing() {
    run(async {
        let Some(mut server) = RabbitMq::start() else { return };
        let settings = amqp_settings(&server.url(), "trace");
        let store = MoodyStore::new(Mood::Works);
        let running = consumer(settings.clone(), &store);
        let node = Node::into_amqp(settings);
        let mut events = node.record(500);
        until("what was recorded before is stored", || store.count() == 500).await;

        server.kill();
        for _ in 0..5 {
            events.extend(node.record(100));
            tokio::time::sleep(Duration::from_millis(20)).await; // some load while it is away
        }
        until("it waits on disk", || {
            node.metric("goms_trace_recorded_total") == 1000 && node.metric("goms_trace_spooled_bytes") > 0
        })
        .await;
        server.up();
        events.extend(node.record(100));
        until("all is stored", || store.count() == 1100).await;
        assert!(events.iter().all(|event| store.has(event)));
        until("the disk is free again", || node.metric("goms_trace_spooled_bytes") == 0).await;
        assert_eq!(node.metric("goms_trace_dropped_total"), 0);
        node.stop().await;
        assert!(running.stop(Duration::from_secs(10)).await);
    });
}

#[test]
fn defect_04_memory_alarm_does_not_block() {
    run(async {
        let Some(server) = RabbitMq::start() else { return };
        let client = Client::connect(&server.url()).await;
        let settings = amqp_settings(&server.url(), "trace");
        let node = Node::into_amqp(settings.clone());
        node.record(10);
        until("the first are confirmed", || node.metric("goms_trace_delivered_total") == 10).await;

        server.memory_alarm(true);
        for _ in 0..10 {
            let began = Instant::now();
            node.record(100);
            assert!(began.elapsed() < Duration::from_millis(500), "recording waits: {:?}", began.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await; // some load while the alarm lasts
        }
        until("it waits on disk", || {
            node.metric("goms_trace_recorded_total") == 1010 && node.metric("goms_trace_spooled_bytes") > 500_000
        })
        .await;
        assert_eq!(node.metric("goms_trace_delivered_total"), 10);
        server.memory_alarm(false);
        until("all is delivered", || node.metric("goms_trace_delivered_total") == 1010).await;
        assert_eq!(node.metric("goms_trace_dropped_total"), 0);

        let store = MoodyStore::new(Mood::Works);
        let running = consumer(settings, &store);
        until("all is stored", || store.count() == 1010).await;
        assert_eq!(store.again(), 0, "nothing was sent twice");
        node.stop().await;
        assert!(running.stop(Duration::from_secs(10)).await);
        drop(client);
    });
}

/// Longer than the heartbeat: the connection must outlive an alarm, and a frozen broker must be noticed.
#[test]
fn defect_04_a_long_alarm_and_a_freeze_lose_nothing() {
    if !crate::support::slow() {
        return;
    }
    run(async {
        let Some(server) = RabbitMq::start() else { return };
        let settings = amqp_settings(&server.url(), "trace");
        let store = MoodyStore::new(Mood::Works);
        let running = consumer(settings.clone(), &store);
        let node = Node::into_amqp(settings);
        let mut events = node.record(100);
        until("the first are stored", || store.count() == 100).await;

        server.memory_alarm(true);
        events.extend(node.record(100));
        tokio::time::sleep(Duration::from_secs(35)).await; // the length of the fault
        server.memory_alarm(false);
        until("what came during the alarm is stored", || store.count() == 200).await;
        assert_eq!(store.again(), 0, "nothing was sent twice");

        server.freeze(true);
        events.extend(node.record(100));
        tokio::time::sleep(Duration::from_secs(35)).await; // the length of the fault
        events.extend(node.record(100));
        server.freeze(false);
        until("what came during the freeze is stored", || store.count() == 400).await;
        assert!(events.iter().all(|event| store.has(event)));
        assert_eq!(node.metric("goms_trace_dropped_total"), 0);
        until("all is confirmed", || node.metric("goms_trace_spooled_bytes") == 0).await;
        node.stop().await;
        assert!(running.stop(Duration::from_secs(10)).await);
    });
}

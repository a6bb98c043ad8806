//! Faults of Elasticsearch under the whole path, recorder to RabbitMQ to consumer to index: recorded = stored in the end,
//! by id both ways, each once.

use std::sync::Arc;
use std::time::Duration;

use goms::consumer::{self, Running};
use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use goms::store::{self, ElasticsearchSettings, TraceStore};
use goms::trace::{Event, EventKind};
use lapin::options::QueueDeclareOptions;
use serde_json::json;

use super::{Node, consumer_into};
use crate::support::elasticsearch::{Between, Elasticsearch, Trouble, ids, put};
use crate::support::events::{amqp_settings, consumer_settings, event, run, until};
use crate::support::http::post;
use crate::support::rabbitmq::Client;
use crate::support::servers;

/// What comes of a fault is waited for so long: the consumer tries again at least every five seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that records, a consumer that stores, and between them a queue of their own.
struct Path {
    node: Node,
    running: Running,
    settings: consumer::Settings,
    store: Arc<dyn TraceStore>,
    metrics: Metrics,
    client: Client,
    queue: String,
    /// `host:port` of the real server.
    real: String,
    index: String,
    events: Vec<Event>,
}

impl Path {
    /// `seen` is the server as the consumer sees it.
    async fn start(real: &str, seen: &str) -> Option<Self> {
        Self::start_into(real, seen, servers::unique("trace_logs-")).await
    }

    async fn start_into(real: &str, seen: &str, index: String) -> Option<Self> {
        let url = servers::amqp()?;
        let (client, queue, metrics) = (Client::connect(&url).await, servers::unique("trace"), Metrics::new());
        client.declare(&queue, QueueDeclareOptions::durable()).await; // so that a test may publish too
        let settings = ElasticsearchSettings {
            urls: vec![format!("http://{seen}")],
            index: index.clone(),
            ..ElasticsearchSettings::default()
        };
        let store = store::open(&store::Settings::Elasticsearch(settings), &Shutdown::new(), &metrics);
        let store: Arc<dyn TraceStore> = store.expect("a store");
        let mut settings = consumer_settings(Some(amqp_settings(&url, &queue)));
        settings.batch_events = 100; // so that there are many writes
        let running = consumer_into(&settings, store.clone(), &metrics);
        let node = Node::into_amqp(amqp_settings(&url, &queue));
        let (real, events) = (real.to_owned(), Vec::new());
        Some(Self { node, running, settings, store, metrics, client, queue, real, index, events })
    }

    fn record(&mut self, count: u64) {
        self.events.extend(self.node.record(count));
    }

    /// Some load, of 50 events each 50 ms.
    async fn load_for(&mut self, length: Duration) {
        let end = std::time::Instant::now() + length;
        while std::time::Instant::now() < end {
            self.record(50);
            tokio::time::sleep(Duration::from_millis(50)).await; // the load
        }
    }

    /// Another consumer takes over; the first ends.
    async fn swap(&mut self) {
        let next = consumer_into(&self.settings, self.store.clone(), &self.metrics);
        let first = std::mem::replace(&mut self.running, next);
        assert!(first.stop(Duration::from_secs(10)).await, "the first ends in time");
    }

    fn sum(&self, metric: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with(&format!("{metric} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }

    async fn until_trouble(&self, text: &str) {
        let health = self.running.health();
        until("the consumer is not ready", || health.trouble().is_some_and(|trouble| trouble.contains(text))).await;
    }

    /// Waits until exactly these events are in the index, and nothing waits anywhere.
    async fn assert_stored<'e>(&self, events: impl Iterator<Item = &'e Event>) {
        let mut expected: Vec<String> = events.map(|event| event.id.to_string()).collect();
        expected.sort_unstable();
        let give_up = std::time::Instant::now() + PATIENCE;
        let mut found = ids(&self.real, &self.index);
        while found.len() < expected.len() {
            assert!(
                std::time::Instant::now() < give_up,
                "{} of {} stored; the consumer says {:?}",
                found.len(),
                expected.len(),
                self.running.health().trouble()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
            found = ids(&self.real, &self.index);
        }
        assert_eq!(found, expected, "each once and nothing else");
        let health = self.running.health();
        until("the consumer is ready again", || health.trouble().is_none()).await;
        assert_eq!(self.node.metric("goms_trace_dropped_total"), 0);
    }

    async fn assert_all_stored(&self) {
        self.assert_stored(self.events.iter()).await;
    }

    /// The next of the dead letters, with its reason.
    async fn letter(&self) -> (Vec<u8>, String) {
        self.client.letter(&format!("{}.dead", self.queue)).await
    }

    async fn end(self) {
        self.node.stop().await;
        assert!(self.running.stop(Duration::from_secs(10)).await, "the consumer ends in time");
        let (untaken, _) = self.client.look(&self.queue).await.expect("the queue");
        assert_eq!(untaken, 0, "all was acknowledged");
        for queue in [self.queue.clone(), format!("{}.dead", self.queue)] {
            if self.client.look(&queue).await.is_some() {
                self.client.delete(&queue).await;
            }
        }
    }
}

/// `host:port` of the shared server.
fn shared() -> Option<String> {
    Some(servers::elasticsearch()?.trim_start_matches("http://").to_owned())
}

#[test]
fn stopped_and_killed_under_load_it_gets_everything_in_the_end() {
    let Some(server) = Elasticsearch::start() else { return };
    run(async {
        let Some(mut path) = Path::start(&server.address(), &server.address()).await else { return };
        path.record(100);
        path.assert_all_stored().await;

        server.freeze(true);
        path.load_for(Duration::from_secs(3)).await;
        server.freeze(false);
        path.assert_all_stored().await;

        path.record(500);
        server.kill();
        path.load_for(Duration::from_secs(1)).await;
        path.until_trouble("the trace store takes nothing").await;
        server.up();
        path.load_for(Duration::from_secs(1)).await;
        path.assert_all_stored().await;
        path.end().await;
    });
}

#[test]
fn consumers_that_swap_under_load_lose_and_double_nothing() {
    let Some(real) = shared() else { return };
    run(async {
        let Some(mut path) = Path::start(&real, &real).await else { return };
        for _ in 0..5 {
            path.load_for(Duration::from_millis(500)).await;
            path.swap().await;
        }
        path.record(50);
        path.assert_all_stored().await;
        path.end().await;
    });
}

#[test]
fn slow_and_overloaded_it_gets_everything_once() {
    let Some(real) = shared() else { return };
    run(async {
        let between = Between::start(&real).await;
        let Some(mut path) = Path::start(&real, &between.origin.address.to_string()).await else { return };
        for trouble in [Trouble::Slow(Duration::from_millis(700)), Trouble::TooMany, Trouble::SomeTooMany] {
            between.set(trouble);
            path.load_for(Duration::from_secs(2)).await;
            match trouble {
                Trouble::TooMany => path.until_trouble("429").await,
                Trouble::SomeTooMany => {
                    until("some are written again", || path.sum("goms_consumer_retried_total") > 0).await;
                }
                _ => {}
            }
            between.set(Trouble::None);
            path.assert_all_stored().await;
        }
        assert_eq!(path.sum("goms_consumer_refused_total"), 0);
        path.end().await;
    });
}

#[test]
fn what_something_between_dislikes_is_found_and_everything_else_stored() {
    let Some(real) = shared() else { return };
    run(async {
        let between = Between::start(&real).await;
        let Some(mut path) = Path::start(&real, &between.origin.address.to_string()).await else { return };
        let bad = event(0);
        let bad_id = bad.id.to_string();
        between.set(Trouble::Dislikes(Box::leak(bad_id.clone().into_boxed_str())));
        path.record(30);
        path.node.recorder.record(bad);
        path.record(200);
        let (letter, reason) = path.letter().await;
        assert!(String::from_utf8_lossy(&letter).contains(&bad_id));
        assert!(reason.contains("refuses the whole write") && reason.contains("400"), "{reason}");
        path.assert_all_stored().await;
        path.end().await;
    });
}

#[test]
fn an_index_that_is_read_only_gets_everything_when_it_no_longer_is() {
    let Some(real) = shared() else { return };
    run(async {
        let Some(mut path) = Path::start(&real, &real).await else { return };
        path.record(50);
        path.assert_all_stored().await;
        let settings = format!("/{}/_settings", path.index);
        put(&real, &settings, &json!({"index.blocks.write": true}));
        path.load_for(Duration::from_secs(2)).await;
        path.until_trouble("blocked").await;
        put(&real, &settings, &json!({"index.blocks.write": null}));
        path.assert_all_stored().await;
        assert_eq!(path.sum("goms_consumer_refused_total"), 0);
        path.end().await;
    });
}

#[test]
fn a_mapping_conflict_is_a_dead_letter_and_others_are_stored() {
    let Some(real) = shared() else { return };
    run(async {
        let index = servers::unique("trace_logs-");
        put(&real, &format!("/{index}"), &json!({"mappings": {"properties": {"status": {"type": "boolean"}}}}));
        let Some(mut path) = Path::start_into(&real, &real, index).await else { return };
        for number in 0..60 {
            let mut event = event(number);
            if number % 3 != 0 {
                (event.kind, event.status, event.duration) = (EventKind::RequestStart, None, None);
            }
            path.node.recorder.record(event.clone());
            path.events.push(event);
        }
        let mut dead = Vec::new();
        for _ in 0..20 {
            let (letter, reason) = path.letter().await;
            assert!(reason.contains("failed to parse field [status] of type [boolean]"), "{reason}");
            let letter: serde_json::Value = serde_json::from_slice(&letter).expect("the event");
            dead.push(letter["eventId"].as_str().expect("an id").to_owned());
        }
        let mut ended: Vec<String> = path.events.iter().step_by(3).map(|event| event.id.to_string()).collect();
        (dead.sort_unstable(), ended.sort_unstable());
        assert_eq!(dead, ended);
        path.assert_stored(path.events.iter().filter(|event| event.status.is_none())).await;
        path.end().await;
    });
}

#[test]
fn bad_messages_are_dead_letters_and_odd_ones_are_stored() {
    let Some(real) = shared() else { return };
    run(async {
        let Some(mut path) = Path::start(&real, &real).await else { return };
        path.record(50);
        // one bad document in a bulk: a time that is none
        let mut array = b"[".to_vec();
        for number in 0..20 {
            let event = event(number);
            array.extend([event.to_json(), b",".to_vec()].concat());
            path.events.push(event);
        }
        array.extend(b"{\"requestId\":\"bad\",\"event\":\"request.end\",\"timeMs\":{\"a\":1}}]");
        path.client.publish(&path.queue, &array).await;
        let (letter, reason) = path.letter().await;
        assert!(String::from_utf8_lossy(&letter).contains("\"requestId\":\"bad\""));
        assert!(reason.contains("timeMs"), "{reason}");

        path.client.publish(&path.queue, b"no JSON").await;
        let (letter, reason) = path.letter().await;
        assert_eq!(letter, b"no JSON");
        assert!(reason.starts_with("not JSON: "), "{reason}");

        let huge = vec![b' '; 50 << 20];
        path.client.publish(&path.queue, &huge).await;
        let (letter, reason) = path.letter().await;
        assert_eq!(letter.len(), huge.len());
        assert_eq!(reason, "message of 52428800 bytes is over 16777216");

        // fields that nobody knows, and a type that the index does not expect
        let odd = event(1);
        let json = String::from_utf8(odd.to_json()).expect("JSON").replacen('{', "{\"colour\":{\"deep\":[1,null]},", 1);
        path.client.publish(&path.queue, json.as_bytes()).await;
        let query = json!({"query": {"ids": {"values": [odd.id.to_string()]}}}).to_string();
        path.events.push(odd);
        path.record(50);
        path.assert_all_stored().await;
        let found = post(&real, &format!("/{}/_search", path.index), &query).expect("an answer").json();
        assert_eq!(found["hits"]["hits"][0]["_source"]["colour"], json!({"deep": [1, null]}), "{found}");
        path.end().await;
    });
}

//! The trace consumer: RabbitMQ and HTTP in, acknowledged only when stored.

mod intake;
mod large;
mod spans;

use std::time::Duration;

use goms::consumer;
use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use lapin::options::QueueDeclareOptions;

use crate::support::events::{Mood, MoodyStore, amqp_settings, consumer_settings, event, run, until};
use crate::support::rabbitmq::Client;
use crate::support::servers;

const GO_EVENTS: &str = include_str!("../data/go-trace-events.jsonl");

fn json(number: u64) -> Vec<u8> {
    event(number).to_json()
}

/// A test's queue, its store and a consumer of both.
struct Bench {
    client: Client,
    queue: String,
    store: std::sync::Arc<MoodyStore>,
    metrics: Metrics,
    settings: consumer::Settings,
}

impl Bench {
    async fn new(mood: Mood) -> Option<Self> {
        let url = servers::amqp()?;
        let queue = servers::unique("trace");
        let client = Client::connect(&url).await;
        client.declare(&queue, QueueDeclareOptions::durable()).await;
        let settings = consumer_settings(Some(amqp_settings(&url, &queue)));
        Some(Self { client, queue, store: MoodyStore::new(mood), metrics: Metrics::new(), settings })
    }

    fn start(&self) -> consumer::Running {
        consumer::start(&self.settings, self.store.clone(), None, &self.metrics, &Shutdown::new())
            .expect("a consumer starts")
    }

    /// Messages that wait in the queue, untaken.
    async fn ready(&self) -> u32 {
        self.client.look(&self.queue).await.expect("the queue is there").0
    }

    async fn until_ready(&self, expected: u32) {
        for _ in 0..1500 {
            if self.ready().await == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} messages wait in the queue instead of {expected}", self.ready().await);
    }

    /// Ends the consumer, deletes the queues.
    async fn end(self, running: consumer::Running) {
        assert!(running.stop(Duration::from_secs(10)).await, "the consumer ends in time");
        self.client.delete(&self.queue).await;
        if self.client.look(&format!("{}.dead", self.queue)).await.is_some() {
            self.client.delete(&format!("{}.dead", self.queue)).await;
        }
    }
}

#[test]
fn single_and_array_messages_and_go_events_are_read() {
    run(async {
        let Some(bench) = Bench::new(Mood::Works).await else { return };
        let running = bench.start();
        for line in GO_EVENTS.lines() {
            bench.client.publish(&bench.queue, line.as_bytes()).await;
            bench.client.publish(&bench.queue, line.as_bytes()).await; // a redelivery doubles nothing
        }
        bench.client.publish(&bench.queue, &json(1)).await;
        let array = [b"[".to_vec(), json(2), b",".to_vec(), json(3), b"]".to_vec()].concat();
        bench.client.publish(&bench.queue, &array).await;
        until("all are stored", || bench.store.count() == 7).await;
        for stored in bench.store.documents.lock().unwrap().values() {
            for field in ["eventId", "traceId", "node", "timeMs"] {
                assert!(stored.contains(&format!("\"{field}\":")), "{field} is missing in {stored}");
            }
        }
        until("each is counted", || bench.metrics.render().contains("goms_consumer_stored_total 11")).await;
        bench.end(running).await;
    });
}

#[test]
fn junk_goes_to_the_dead_letter_queue_with_its_reason() {
    run(async {
        let Some(bench) = Bench::new(Mood::Works).await else { return };
        let running = bench.start();
        let mixed = [b"[".to_vec(), json(1), b",7]".to_vec()].concat();
        let huge = vec![b' '; (16 << 20) + 1];
        for body in [&b"not json \xff"[..], b"{\"foo\":1}", b"", &mixed, &huge, &json(2)] {
            bench.client.publish(&bench.queue, body).await;
        }
        until("the good ones are stored", || bench.store.count() == 2).await;
        let dead = format!("{}.dead", bench.queue);
        let mut found = Vec::new();
        while found.len() < 5 {
            if bench.client.look(&dead).await.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            if let Some(letter) = bench.client.get(&dead).await {
                let headers = letter.properties.headers().clone().unwrap();
                let reason = headers.inner()["reason"].as_long_string().unwrap().to_string();
                found.push((letter.data.len(), reason));
            }
        }
        found.sort();
        let reasons: Vec<_> = found.iter().map(|(len, reason)| (*len, reason.as_str())).collect();
        assert!(reasons[0].1.starts_with("not JSON: EOF"), "{reasons:?}");
        assert_eq!(reasons[1], (1, "not a JSON object"));
        assert_eq!(reasons[2].1, "no trace event: it has neither `requestId` nor `event`");
        assert!(reasons[3].1.starts_with("not JSON: expected"), "{reasons:?}");
        assert_eq!(reasons[4], ((16 << 20) + 1, "message of 16777217 bytes is over 16777216"));
        until("all are counted", || bench.metrics.render().contains("goms_consumer_refused_total 5")).await;
        bench.end(running).await;
    });
}

#[test]
fn a_dead_letter_queue_that_takes_nothing_holds_up_no_other_message() {
    run(async {
        let Some(bench) = Bench::new(Mood::Works).await else { return };
        let dead = format!("{}.dead", bench.queue);
        bench.client.declare_full(&dead).await;
        let running = bench.start();
        let junk = [b"[".to_vec(), json(0), b",7,8]".to_vec()].concat();
        bench.client.publish(&bench.queue, &junk).await;
        for number in 1..100 {
            bench.client.publish(&bench.queue, &json(number)).await;
        }
        until("all others are stored and acknowledged", || {
            bench.store.count() == 100 && bench.metrics.render().contains("goms_consumer_unacknowledged_messages 1\n")
        })
        .await;
        assert_eq!(bench.store.again(), 0);
        // somebody makes room
        bench.client.delete(&dead).await;
        for expected in [&b"7"[..], b"8"] {
            assert_eq!(bench.client.letter(&dead).await.0, expected);
        }
        bench.until_ready(0).await;
        until("nothing waits", || bench.metrics.render().contains("goms_consumer_unacknowledged_messages 0\n")).await;
        assert!(bench.client.get(&dead).await.is_none(), "each once");
        bench.end(running).await;
    });
}

#[test]
fn defect_05_store_down_or_refusing_is_not_acknowledged() {
    run(async {
        let Some(bench) = Bench::new(Mood::Away).await else { return };
        let refused = String::from_utf8(json(9)).unwrap().replace("/api/user/9", "/refuse");
        for number in 0..10 {
            bench.client.publish(&bench.queue, &json(number)).await;
        }
        bench.client.publish(&bench.queue, refused.as_bytes()).await;
        let running = bench.start();
        until("the consumer has tried twice", || bench.store.writes() >= 2).await;
        assert_eq!(bench.ready().await, 0, "all are taken");
        // a consumer that ends while the store is away gives everything back
        assert!(running.stop(Duration::from_secs(10)).await);
        bench.until_ready(11).await;

        bench.store.set(Mood::Later);
        let running = bench.start();
        let writes = bench.store.writes();
        until("it has tried again", || bench.store.writes() >= writes + 2).await;
        bench.store.set(Mood::Picky);
        until("what can be stored is", || bench.store.count() == 10).await;
        let dead = format!("{}.dead", bench.queue);
        let letter = loop {
            match bench.client.look(&dead).await {
                Some((1, _)) => break bench.client.get(&dead).await.unwrap(),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let letter = String::from_utf8(letter.data).unwrap();
        assert!(letter.starts_with(refused.trim_end_matches('}')), "{letter}"); // with the fields that it lacked
        assert!(running.stop(Duration::from_secs(10)).await);
        bench.until_ready(0).await; // acknowledged: nothing came back
        assert_eq!((bench.store.count(), bench.store.again()), (10, 0));
        let running = bench.start();
        bench.end(running).await;
    });
}

#[test]
fn defect_05_prefetch_bounds_memory() {
    run(async {
        let Some(bench) = Bench::new(Mood::Away).await else { return };
        for number in 0..200 {
            bench.client.publish(&bench.queue, &json(number)).await;
        }
        let running = bench.start();
        until("the consumer has tried twice", || bench.store.writes() >= 2).await;
        assert_eq!(bench.ready().await, 150, "50 are taken, as the prefetch says, and no more");
        bench.store.set(Mood::Works);
        until("all are stored", || bench.store.count() == 200).await;
        bench.until_ready(0).await;
        bench.end(running).await;
    });
}

#[test]
fn a_graceful_stop_finishes_the_batch() {
    run(async {
        let Some(mut bench) = Bench::new(Mood::Works).await else { return };
        bench.settings.batch_wait = Duration::from_secs(60); // only the stop ends the wait for company
        for number in 0..20 {
            bench.client.publish(&bench.queue, &json(number)).await;
        }
        let running = bench.start();
        bench.until_ready(0).await;
        assert!(running.stop(Duration::from_secs(10)).await);
        let stored = bench.store.count();
        bench.until_ready(20 - u32::try_from(stored).unwrap()).await; // stored or given back, nothing between
        bench.settings.batch_wait = Duration::from_millis(10);
        let running = bench.start();
        until("the rest is stored too", || bench.store.count() == 20).await;
        assert_eq!(bench.store.again(), 0);
        bench.end(running).await;
    });
}

#[test]
fn two_consumers_share_a_queue_and_one_takes_over() {
    run(async {
        let Some(bench) = Bench::new(Mood::Works).await else { return };
        let (first, second) = (bench.start(), bench.start());
        for number in 0..100 {
            bench.client.publish(&bench.queue, &json(number)).await;
        }
        until("the first half is stored", || bench.store.count() == 100).await;
        assert!(first.stop(Duration::from_secs(10)).await);
        for number in 100..200 {
            bench.client.publish(&bench.queue, &json(number)).await;
        }
        until("the second half is stored", || bench.store.count() == 200).await;
        bench.end(second).await;
    });
}

#[test]
fn a_deleted_queue_is_made_again() {
    run(async {
        let Some(bench) = Bench::new(Mood::Works).await else { return };
        let running = bench.start();
        bench.client.publish(&bench.queue, &json(1)).await;
        until("it reads", || bench.store.count() == 1).await;
        bench.client.delete(&bench.queue).await;
        while bench.client.look(&bench.queue).await.is_none_or(|(_, consumers)| consumers == 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bench.client.publish(&bench.queue, &json(2)).await;
        until("it reads again", || bench.store.count() == 2).await;
        bench.end(running).await;
    });
}

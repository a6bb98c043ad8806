//! The consumer, RabbitMQ to a store: into Elasticsearch beside a bare bulk loop of the documents that it stored, into the
//! embedded store beside that store written to directly, and into none, which leaves what the pipeline itself costs.
//!
//! `rabbitmq=URL elasticsearch=URL [events=N] [es_events=N] [batch=N] [writes=N] [only=none|embedded|elasticsearch]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use elasticsearch::http::Method;
use elasticsearch::http::headers::{CONTENT_TYPE, HeaderMap, HeaderValue};
use elasticsearch::http::transport::Transport;
use futures_util::stream::{FuturesUnordered, StreamExt};
use goms::consumer;
use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use goms::store::{self, Document, Embedded, Outcome, Page, Query, Retain, Stats, StatsQuery, StoreError, TraceStore};
use goms::trace::AmqpSettings;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::{Value, json};
use uuid::Uuid;

use super::events::Events;
use super::{Args, Figure, fail};

/// Events a message, as the spool makes them.
const MESSAGE_EVENTS: usize = 256;
/// As `consumer.batchEvents` and `consumer.writes` are unless someone says otherwise.
const BATCH_EVENTS: usize = 1_000;
const WRITES: usize = 2;
/// The same where the store is the embedded one, and `consumer.batchBytes`.
const EMBEDDED_EVENTS: usize = 8_000;
const EMBEDDED_BYTES: usize = 8 << 20;
/// Documents that the bare loop sends, over and over with other ids: the most that one search gives.
const SAMPLE: u64 = 10_000;

/// How the consumer writes.
#[derive(Clone, Copy)]
struct Writes {
    events: usize,
    bytes: usize,
    at_once: usize,
}

/// As the configuration has it unless someone says otherwise.
const USUAL: Writes = Writes { events: BATCH_EVENTS, bytes: 4 << 20, at_once: WRITES };

pub fn run(args: &Args) {
    let url = args.need("rabbitmq").to_owned();
    let events = args.number("events", 500_000);
    let only = args.text("only");
    let wanted = |name| only.is_none_or(|only| only == name);
    let system = actix_web::rt::System::new(); // as a process of goms runs
    system.block_on(async {
        if wanted("none") {
            let run = consume(&url, events, USUAL, Arc::new(Nothing)).await;
            parsing();
            figure("consumer alone: events/s", run.rate, "events/s", None, "");
            figure("consumer alone: CPU an event", run.cpu_us, "µs", None, "");
        }
        if wanted("embedded") {
            let dir = args.dir().join(format!("consumer-{}", Uuid::new_v4().simple()));
            let open = |name: &str| {
                let store = Embedded::open(&dir.join(name), Retain::default(), &Shutdown::new(), &Metrics::new());
                Arc::new(store.unwrap_or_else(|error| fail(&error.to_string())))
            };
            let writes = Writes {
                events: args.number("batch", EMBEDDED_EVENTS as u64) as usize,
                bytes: EMBEDDED_BYTES,
                at_once: args.number("writes", WRITES as u64) as usize,
            };
            let raw = write(events, writes, open("raw")).await;
            let run = consume(&url, events, writes, open("consumer")).await;
            drop(std::fs::remove_dir_all(&dir));
            let raw_of = |value| Some((value, "the store alone"));
            figure("consumer to embedded: events/s", run.rate, "events/s", raw_of(raw.rate), "100,000/s");
            figure("consumer to embedded: CPU an event", run.cpu_us, "µs", raw_of(raw.cpu_us), "");
        }
        if wanted("elasticsearch") {
            let address = args.need("elasticsearch");
            let events = args.number("es_events", events / 5);
            let index = format!("goms-bench-{}", Uuid::new_v4().simple());
            let settings = store::ElasticsearchSettings {
                urls: vec![address.to_owned()],
                index: index.clone(),
                ..store::ElasticsearchSettings::default()
            };
            let open = || {
                let settings = store::Settings::Elasticsearch(settings.clone());
                let store = store::open(&settings, &Shutdown::new(), &Metrics::new());
                store.unwrap_or_else(|error| fail(&error.to_string()))
            };
            let server = Transport::single_node(address).unwrap_or_else(|error| fail(&error.to_string()));
            consume(&url, SAMPLE * 2, USUAL, open()).await; // makes the index, and warms the server up
            let sample = sources(&server, &index).await;
            let before = bare(&server, &sample, events / 2).await;
            let run = consume(&url, events, USUAL, open()).await;
            let after = bare(&server, &sample, events / 2).await;
            let raw = (before.0 + after.0) / 2.0;
            let indices = format!("/{index}-*");
            call(&server, Method::Delete, &indices, String::new()).await;
            let (aim, loop_of) = ("0.9x", |value| Some((value, "bare bulk loop")));
            figure("consumer to Elasticsearch: events/s", run.rate, "events/s", loop_of(raw), aim);
            figure(
                "consumer to Elasticsearch: CPU an event",
                run.cpu_us,
                "µs",
                loop_of((before.1 + after.1) / 2.0),
                "",
            );
        }
    });
}

fn figure(figure: &str, value: f64, unit: &str, raw: Option<(f64, &str)>, aim: &str) {
    let (raw, raw_figure) = raw.map_or((None, ""), |(value, name)| (Some(value), name));
    Figure { figure, value, unit, raw, raw_figure, aim }.tell();
}

struct Run {
    rate: f64,
    cpu_us: f64,
}

/// User and system time of this process, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|&at| fields.get(at)?.parse::<f64>().ok()).sum();
    ticks / 100.0 // USER_HZ, which is 100 on every Linux
}

/// Takes everything and keeps nothing.
struct Nothing;

#[async_trait]
impl TraceStore for Nothing {
    async fn write(&self, batch: &[Document]) -> Result<Vec<Outcome>, StoreError> {
        Ok(vec![Outcome::Stored; batch.len()])
    }

    async fn query(&self, _: &Query) -> Result<Page, StoreError> {
        Ok(Page::default())
    }

    async fn stats(&self, _: &StatsQuery) -> Result<Stats, StoreError> {
        Ok(Stats::default())
    }
}

fn message(documents: &[Document]) -> Vec<u8> {
    let events: Vec<&str> = documents.iter().map(|document| document.json.get()).collect();
    format!("[{}]", events.join(",")).into_bytes()
}

/// What reading a message costs.
fn parsing() {
    let message = message(&Events::new().documents(MESSAGE_EVENTS));
    let (rounds, before) = (400, cpu());
    for _ in 0..rounds {
        let read = goms::trace::event::parse(&message).unwrap_or_else(|error| fail(&error.to_string()));
        assert_eq!(read.events.len(), MESSAGE_EVENTS);
    }
    let events = f64::from(rounds) * MESSAGE_EVENTS as f64;
    figure("reading an event: CPU", (cpu() - before) / events * 1e6, "µs", None, "");
}

/// The time from the start of a consumer before a full queue until all is stored.
async fn consume(url: &str, events: u64, writes: Writes, store: Arc<dyn TraceStore>) -> Run {
    let queue = format!("goms-bench-{}", Uuid::new_v4().simple());
    let events = events / MESSAGE_EVENTS as u64 * MESSAGE_EVENTS as u64;
    let connection = Connection::connect(url, ConnectionProperties::default()).await;
    let connection = connection.unwrap_or_else(|error| fail(&error.to_string()));
    let channel = fill(&connection, &queue, events).await.unwrap_or_else(|error| fail(&error.to_string()));
    let (metrics, shutdown) = (Metrics::new(), Shutdown::new());
    let settings = consumer::Settings {
        amqp: Some(AmqpSettings {
            urls: vec![url.to_owned()],
            exchange: String::new(),
            queue: queue.clone(),
            routing_key: String::new(),
            durable: true,
        }),
        prefetch: 256,
        max_bytes: 128 << 20,
        batch_events: writes.events,
        batch_bytes: writes.bytes,
        batch_wait: Duration::from_millis(200),
        writes: writes.at_once,
        call_keys: Vec::new().into(),
        dead_letters: None,
    };
    let (began, before) = (Instant::now(), cpu());
    let running = consumer::start(&settings, store, None, &metrics, &shutdown);
    let running = running.unwrap_or_else(|error| fail(&error.to_string()));
    let stored = metrics.counter("consumer_stored_total", "", &[]).with_label_values::<&str>(&[]);
    while stored.get() < events {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let run = Run { rate: events as f64 / seconds, cpu_us: (cpu() - before) / events as f64 * 1e6 };
    for line in metrics.render().lines().filter(|line| line.starts_with("goms_consumer") && !line.contains("bucket")) {
        eprintln!("consumer: {line}");
    }
    running.stop(Duration::from_secs(10)).await;
    if let Err(error) = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await {
        eprintln!("consumer: the queue stays: {error}");
    }
    run
}

async fn fill(connection: &Connection, queue: &str, events: u64) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(queue.into(), durable, FieldTable::default()).await?;
    let properties = BasicProperties::default().with_delivery_mode(2);
    let mut made = Events::new();
    let mut confirms = FuturesUnordered::new();
    for _ in 0..events / MESSAGE_EVENTS as u64 {
        let message = message(&made.documents(MESSAGE_EVENTS));
        let options = BasicPublishOptions::default();
        confirms.push(channel.basic_publish("".into(), queue.into(), options, &message, properties.clone()).await?);
        if confirms.len() >= 64 {
            confirms.next().await.transpose()?;
        }
    }
    while confirms.next().await.transpose()?.is_some() {}
    Ok(channel)
}

/// The same writes without anything before them.
async fn write(events: u64, sizes: Writes, store: Arc<dyn TraceStore>) -> Run {
    let mut made = Events::new();
    let mut batches: Vec<_> = (0..events / sizes.events as u64).map(|_| made.documents(sizes.events)).collect();
    let (began, before) = (Instant::now(), cpu());
    let mut writes = FuturesUnordered::new();
    while let Some(batch) = batches.pop() {
        let store = store.clone();
        writes.push(async move { store.write(&batch).await });
        if writes.len() >= sizes.at_once {
            written(writes.next().await);
        }
    }
    while !writes.is_empty() {
        written(writes.next().await);
    }
    let seconds = began.elapsed().as_secs_f64();
    Run { rate: events as f64 / seconds, cpu_us: (cpu() - before) / events as f64 * 1e6 }
}

fn written(result: Option<Result<Vec<Outcome>, StoreError>>) {
    if let Some(Err(error)) = result {
        fail(&error.to_string());
    }
}

async fn call(server: &Transport, method: Method, path: &str, body: String) -> Value {
    let mut headers = HeaderMap::new();
    let bulk = path.ends_with("_bulk");
    headers
        .insert(CONTENT_TYPE, HeaderValue::from_static(if bulk { "application/x-ndjson" } else { "application/json" }));
    let body = (!body.is_empty()).then_some(body);
    let sent = server.send(method, path, headers, None::<&()>, body, None).await;
    let answer = sent.unwrap_or_else(|error| fail(&error.to_string()));
    answer.json().await.unwrap_or_else(|error| fail(&error.to_string()))
}

/// Documents as the consumer has written them, and their index.
async fn sources(server: &Transport, index: &str) -> Vec<(String, String)> {
    call(server, Method::Post, &format!("/{index}/_refresh"), String::new()).await;
    let query = json!({"size": SAMPLE}).to_string();
    let found = call(server, Method::Post, &format!("/{index}/_search"), query).await;
    let hits = found["hits"]["hits"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let sample: Vec<_> = hits.iter().map(|hit| (text(&hit["_index"]), hit["_source"].to_string())).collect();
    if sample.is_empty() {
        fail(&format!("nothing to send: {found}"));
    }
    sample
}

/// Bulk requests of documents made beforehand, as many at once as the consumer has: documents a second, CPU a document.
async fn bare(server: &Transport, sample: &[(String, String)], events: u64) -> (f64, f64) {
    let mut bodies: Vec<String> = (0..events / BATCH_EVENTS as u64)
        .map(|batch| {
            let mut body = String::new();
            for at in 0..BATCH_EVENTS {
                let (index, source) = &sample[(batch as usize * BATCH_EVENTS + at) % sample.len()];
                let id = Uuid::new_v4();
                body += &format!("{{\"index\":{{\"_index\":\"{index}\",\"_id\":\"{id}\"}}}}\n{source}\n");
            }
            body
        })
        .collect();
    let (count, began, before) = (bodies.len() * BATCH_EVENTS, Instant::now(), cpu());
    let mut calls = FuturesUnordered::new();
    while !bodies.is_empty() || !calls.is_empty() {
        while calls.len() < WRITES
            && let Some(body) = bodies.pop()
        {
            calls.push(call(server, Method::Post, "/_bulk", body));
        }
        let answer = calls.next().await.unwrap_or_default();
        if answer["errors"] != false {
            fail(&format!("the bare loop failed: {answer}").chars().take(500).collect::<String>());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    (count as f64 / seconds, (cpu() - before) / count as f64 * 1e6)
}

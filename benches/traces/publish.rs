//! Recorder to RabbitMQ, serialised, confirmed and durable, beside a bare lapin loop that publishes ready-made payloads
//! of the same size with confirms.
//!
//! `rabbitmq=URL [events=N] [seconds=S]`: S seconds at the aimed rate make N unless it is given.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goms::metrics::Metrics;
use goms::registry::Publisher;
use goms::shutdown::Shutdown;
use goms::trace::{
    self, AmqpSettings, Event, EventKind, Message, Origin, Recorder, RequestInfo, Settings, TraceBody, TraceContext,
    Transport,
};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use uuid::Uuid;

use crate::{Args, Figure, fail};

/// Events a second that are wanted; also sizes a run.
const AIM: u64 = 500_000;
/// Events a message, as the spool makes them.
const BATCH_EVENTS: u64 = 256;
/// Events that may be recorded and not confirmed: 15 MB, so that the spool has no reason to write to disk, and 40 ms at
/// the aimed rate.
const OUTSTANDING: u64 = 24_576;
/// Events in the recorder's queue, which takes 16,384.
const QUEUED: u64 = 12_288;
/// Unconfirmed messages of the bare loop: as many bytes as goms has in flight at most.
const WINDOW: usize = 64;

pub fn run(args: &Args) {
    let url = args.need("rabbitmq");
    let events = args.number("events", AIM * args.number("seconds", 10) / 2);
    let folder = args.dir().join(format!("publish-{}", Uuid::new_v4().simple()));
    let requests = requests();
    let bytes = event(&requests, 1).to_json().len();
    eprintln!("publish: {events} events of {bytes} bytes");
    let system = actix_web::rt::System::new();
    let raw = system.block_on(bare(url, events, bytes));
    let ours = system.block_on(recorded(url, events, &folder, &requests));
    drop(std::fs::remove_dir_all(&folder));
    Figure {
        figure: "events/s recorded and confirmed",
        value: ours.rate,
        unit: "events/s",
        raw: Some(raw.rate),
        raw_figure: "bare lapin loop",
        aim: "500,000 and 0.8x",
    }
    .tell();
    Figure {
        figure: "CPU of the publisher an event, with serialisation",
        value: ours.cpu_us,
        unit: "µs",
        raw: Some(raw.cpu_us),
        raw_figure: "bare lapin loop",
        aim: "",
    }
    .tell();
}

struct Run {
    rate: f64,
    cpu_us: f64,
}

/// Measures this process from its start on.
struct Clock {
    began: Instant,
    cpu: f64,
}

impl Clock {
    fn start() -> Self {
        Self { began: Instant::now(), cpu: cpu_seconds() }
    }

    fn stop(&self, events: u64) -> Run {
        let events = events as f64;
        let seconds = self.began.elapsed().as_secs_f64();
        Run { rate: events / seconds, cpu_us: (cpu_seconds() - self.cpu) / events * 1e6 }
    }
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|&at| fields.get(at)?.parse::<f64>().ok()).sum();
    ticks / 100.0 // USER_HZ, which is 100 on every Linux
}

/// The least program that publishes with confirms.
async fn bare(url: &str, events: u64, bytes: usize) -> Run {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap_or_else(|error| fail(&error.to_string()));
    let queue = format!("goms-bench-{}", Uuid::new_v4().simple());
    let channel = open(&connection, &queue).await;
    let payload = vec![b'x'; (bytes + 1) * BATCH_EVENTS as usize + 1];
    let properties = BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let clock = Clock::start();
    let mut waiting = VecDeque::with_capacity(WINDOW);
    for _ in 0..events / BATCH_EVENTS {
        if waiting.len() >= WINDOW
            && let Some(oldest) = waiting.pop_front()
        {
            confirmed(oldest).await;
        }
        let sent = channel.basic_publish("".into(), queue.as_str().into(), options, &payload, properties.clone()).await;
        waiting.push_back(sent.unwrap_or_else(|error| fail(&error.to_string())));
    }
    for last in waiting {
        confirmed(last).await;
    }
    let run = clock.stop(events / BATCH_EVENTS * BATCH_EVENTS);
    delete(&channel, &queue).await;
    run
}

async fn confirmed(confirm: lapin::PublisherConfirm) {
    match confirm.await {
        Ok(answer) if answer.is_ack() => {}
        other => fail(&format!("not confirmed: {other:?}")),
    }
}

async fn open(connection: &Connection, queue: &str) -> Channel {
    let made = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(queue.into(), durable, FieldTable::default()).await?;
        lapin::Result::Ok(channel)
    };
    made.await.unwrap_or_else(|error| fail(&error.to_string()))
}

async fn delete(channel: &Channel, queue: &str) {
    if let Err(error) = channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await {
        eprintln!("publish: the queue stays: {error}");
    }
}

/// The same through goms: recorded on a thread of its own, as a worker does, and counted when confirmed.
async fn recorded(url: &str, events: u64, folder: &Path, requests: &[Arc<RequestInfo>]) -> Run {
    let (metrics, shutdown) = (Metrics::new(), Shutdown::new());
    let queue = format!("goms-bench-{}", Uuid::new_v4().simple());
    let registry = Publisher::new();
    registry.publish(Vec::new());
    let recorder = trace::start(&settings(url, &queue, folder), registry.subscribe(), &metrics, &shutdown)
        .unwrap_or_else(|error| fail(&error.to_string()));
    let counter = |name| metrics.counter(name, "", &[]).with_label_values::<&str>(&[]);
    let (taken, delivered) = (counter("trace_recorded_total"), counter("trace_delivered_total"));
    recorder.record(event(requests, 0)); // connects
    while delivered.get() < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let clock = Clock::start();
    let producer = {
        let (taken, delivered, requests) = (taken.clone(), delivered.clone(), requests.to_vec());
        std::thread::spawn(move || {
            for number in 1..=events {
                while number - taken.get() > QUEUED || number - delivered.get() > OUTSTANDING {
                    std::thread::sleep(Duration::from_micros(500));
                }
                recorder.record(event(&requests, number));
            }
        })
    };
    while delivered.get() <= events {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let run = clock.stop(events);
    if producer.join().is_err() {
        fail("the producer failed");
    }
    for line in metrics.render().lines().filter(|line| line.starts_with("goms_trace") && !line.ends_with(" 0")) {
        eprintln!("publish: {line}");
    }
    shutdown.begin();
    shutdown.finished(Duration::from_secs(5)).await;
    let connection = Connection::connect(url, ConnectionProperties::default()).await;
    if let Ok(connection) = connection
        && let Ok(channel) = connection.create_channel().await
    {
        delete(&channel, &queue).await;
    }
    run
}

fn settings(url: &str, queue: &str, folder: &Path) -> Settings {
    Settings {
        sample: 1.0,
        body_bytes: 16_384,
        slow: Duration::from_secs(1),
        redact: goms::trace::Redact::default(),
        spool_bytes: 256 << 20,
        spool_dir: folder.to_owned(),
        flush_interval: Duration::from_millis(100),
        message: Message::Batch,
        transport: Transport::Amqp(AmqpSettings {
            urls: vec![url.to_owned()],
            exchange: String::new(),
            queue: queue.to_owned(),
            routing_key: String::new(),
            durable: true,
        }),
        otlp: None,
    }
}

/// A thousand requests as a browser behind a gateway makes them.
fn requests() -> Vec<Arc<RequestInfo>> {
    let recorder = Recorder::off();
    (0..1000)
        .map(|number: u32| {
            let length = format!("{}", 40 + number % 10);
            let headers = [
                ("accept", "application/json"),
                ("accept-encoding", "gzip, deflate, br"),
                ("content-type", "application/json"),
                ("content-length", length.as_str()),
                ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
            ];
            let headers = headers.into_iter().map(|(name, value)| (name, value.as_bytes()));
            let query = format!("page={number}&size=20");
            let mut info =
                recorder.request_info("POST", "/api/user/login", &query, "10.1.2.3", headers, TraceBody::None);
            info.body = format!("{{\"user\":\"user{number}\",\"keep\":true}}").into();
            Arc::new(info)
        })
        .collect()
}

fn event(requests: &[Arc<RequestInfo>], number: u64) -> Event {
    thread_local! {
        static ORIGIN: Arc<Origin> = Arc::new(Origin {
            service_name: "gateway".into(),
            service_id: "goms_gateway_10.1.2.4:8180_10.1.2.4:8080".into(),
            project_name: "goms".into(),
            node: "10.1.2.4:8180_10.1.2.4:8080".into(),
        });
    }
    let id = Uuid::new_v4();
    let ended = number % 2 == 1;
    Event {
        kind: if ended { EventKind::RequestEnd } else { EventKind::RequestStart },
        context: TraceContext {
            request_id: id,
            trace_id: id.as_u128(),
            span_id: number + 1,
            parent_id: None,
            sampled: true,
        },
        request: requests[number as usize / 2 % requests.len()].clone(),
        origin: ORIGIN.with(Arc::clone),
        time_ms: trace::event::now_ms(),
        duration: ended.then(|| Duration::from_nanos(1_234_567 + number)),
        status: ended.then_some(200),
        id: Uuid::new_v4(),
    }
}

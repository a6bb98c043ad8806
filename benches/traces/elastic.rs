//! The Elasticsearch store: documents a second through `TraceStore::write`, and the CPU of this process and of the server
//! a document, beside a bare bulk loop with the same documents in requests of as many.
//!
//! `elasticsearch=URL [seconds=S] [documents=N] [batch=N] [writes=N]`. Both go in turns to indices of their own with the
//! mapping that goms makes, so the server does the same for each; what is compared is what the client adds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use elasticsearch::http::Method;
use elasticsearch::http::headers::{CONTENT_TYPE, HeaderMap, HeaderValue};
use elasticsearch::http::transport::Transport;
use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use goms::store::{Document, Elasticsearch, ElasticsearchSettings, Outcome, TraceStore};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::events::Events;
use super::{Args, Figure, fail};

/// Documents of one write: what the consumer's pipeline takes at once by default.
const BATCH: u64 = 1_000;
/// Writes at once, likewise.
const WRITES: u64 = 2;
/// Documents a second that are about what a server does here; sizes a run.
const ABOUT: u64 = 20_000;
/// Turns of each of the two in a round: what else the machine does falls on both alike.
const TURNS: u64 = 4;

pub fn run(args: &Args) {
    let url = args.need("elasticsearch").to_owned();
    let batch = args.number("batch", BATCH);
    let documents = args.number("documents", ABOUT * args.number("seconds", 10) / 2) / TURNS / batch * batch;
    // as in a trace consumer: one thread
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| fail(&error.to_string()));
    let measured = measure(&url, documents.max(batch), batch, args.number("writes", WRITES));
    tokio::task::LocalSet::new().block_on(&runtime, measured);
}

/// What one way of writing has taken so far.
#[derive(Default)]
struct Taken {
    documents: u64,
    seconds: f64,
    client: f64,
    server: f64,
}

async fn measure(url: &str, documents: u64, batch: u64, writes: u64) {
    let server = Server::new(url).await;
    let mut events = Events::new();
    let (mut bare, mut ours) = (Taken::default(), Taken::default());
    // the first turn warms both up and is not counted
    for turn in 0..=TURNS {
        let parts: Vec<Vec<Document>> =
            (0..documents / batch).map(|_| events.documents(usize::try_from(batch).unwrap_or(usize::MAX))).collect();
        for goms in [turn % 2 == 0, turn % 2 != 0] {
            let index = format!("goms-bench-{}", Uuid::new_v4().simple());
            let bodies = if goms { Vec::new() } else { recorded(&index, &parts).await };
            let store = open(&server.url, &index);
            write(&store, &parts[0][..1]).await; // makes the indices
            let taken = match goms {
                true => through_goms(&server, store, parts.clone(), writes).await,
                false => through_bulk(&server, bodies, documents, writes).await,
            };
            server.delete(&index).await;
            let (name, sum) = if goms { ("goms", &mut ours) } else { ("bare", &mut bare) };
            eprintln!("elastic: {name} {:.0} documents/s", taken.rate());
            if turn > 0 {
                sum.add(&taken);
            }
        }
    }
    tell(&ours, &bare);
}

fn tell(ours: &Taken, bare: &Taken) {
    let raw_figure = "bare bulk loop";
    Figure {
        figure: "documents/s through the store",
        value: ours.rate(),
        unit: "documents/s",
        raw: Some(bare.rate()),
        raw_figure,
        aim: "0.9x",
    }
    .tell();
    let micros = |seconds: f64, taken: &Taken| seconds / taken.documents as f64 * 1e6;
    Figure {
        figure: "CPU of the writing process a document",
        value: micros(ours.client, ours),
        unit: "µs",
        raw: Some(micros(bare.client, bare)),
        raw_figure,
        aim: "",
    }
    .tell();
    if bare.server > 0.0 {
        Figure {
            figure: "CPU of writer and server a document",
            value: micros(ours.client + ours.server, ours),
            unit: "µs",
            raw: Some(micros(bare.client + bare.server, bare)),
            raw_figure,
            aim: "",
        }
        .tell();
    }
}

impl Taken {
    fn rate(&self) -> f64 {
        self.documents as f64 / self.seconds
    }

    fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.seconds += other.seconds;
        self.client += other.client;
        self.server += other.server;
    }
}

/// Measures from its start on.
struct Clock {
    began: Instant,
    client: f64,
    server: f64,
    pid: Option<u32>,
}

impl Clock {
    fn start(pid: Option<u32>) -> Self {
        let server = pid.map_or(0.0, |pid| cpu_of(&pid.to_string()));
        Self { began: Instant::now(), client: cpu_of("self"), server, pid }
    }

    fn stop(self, documents: u64) -> Taken {
        let server = self.pid.map_or(0.0, |pid| cpu_of(&pid.to_string()));
        Taken {
            documents,
            seconds: self.began.elapsed().as_secs_f64(),
            client: cpu_of("self") - self.client,
            server: server - self.server,
        }
    }
}

/// Seconds of user and system time of a process.
fn cpu_of(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0 // sysconf(_SC_CLK_TCK) is 100 on Linux
}

fn open(url: &str, index: &str) -> Elasticsearch {
    let settings = ElasticsearchSettings {
        urls: vec![url.to_owned()],
        index: index.to_owned(),
        ..ElasticsearchSettings::default()
    };
    let store = Elasticsearch::open(&settings, &Shutdown::new(), &Metrics::new());
    store.unwrap_or_else(|error| fail(&error.to_string()))
}

async fn through_goms(server: &Server, store: Elasticsearch, parts: Vec<Vec<Document>>, writes: u64) -> Taken {
    let documents = parts.iter().map(|part| part.len() as u64).sum();
    let (store, parts, next) = (Arc::new(store), Arc::new(parts), Arc::new(AtomicUsize::new(0)));
    let clock = Clock::start(server.pid);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..writes {
        let (store, parts, next) = (store.clone(), parts.clone(), next.clone());
        tasks.spawn(async move {
            while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                write(&store, part).await;
            }
        });
    }
    tasks.join_all().await;
    clock.stop(documents)
}

async fn write(store: &Elasticsearch, part: &[Document]) {
    match store.write(part).await {
        Ok(outcomes) if outcomes.iter().all(|outcome| *outcome == Outcome::Stored) => {}
        other => fail(&format!("not stored: {other:?}")),
    }
}

/// Ready-made bulk requests, sent one after another by as many tasks.
async fn through_bulk(server: &Server, bodies: Vec<Bytes>, documents: u64, writes: u64) -> Taken {
    let (bodies, next) = (Arc::new(bodies), Arc::new(AtomicUsize::new(0)));
    let clock = Clock::start(server.pid);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..writes {
        let (transport, bodies, next) = (server.transport.clone(), bodies.clone(), next.clone());
        tasks.spawn(async move {
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                let answer = call(&transport, Method::Post, "/_bulk", body.clone()).await;
                if memchr::memmem::find(&answer, b"\"errors\":false").is_none() {
                    fail(&format!("not stored: {}", String::from_utf8_lossy(&answer)));
                }
            }
        });
    }
    tasks.join_all().await;
    clock.stop(documents)
}

async fn call(transport: &Transport, method: Method, path: &str, body: Bytes) -> Bytes {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    let sent = transport.send(method, path, headers, None::<&()>, Some(body), None).await;
    let answer = sent.unwrap_or_else(|error| fail(&error.to_string()));
    answer.bytes().await.unwrap_or_else(|error| fail(&error.to_string()))
}

/// The real server.
struct Server {
    url: String,
    transport: Transport,
    pid: Option<u32>,
}

impl Server {
    async fn new(url: &str) -> Self {
        let transport = Transport::single_node(url).unwrap_or_else(|error| fail(&error.to_string()));
        let told = call(&transport, Method::Get, "/_nodes/_local/process", Bytes::new()).await;
        let told: Value = serde_json::from_slice(&told).unwrap_or_default();
        let node = told["nodes"].as_object().and_then(|nodes| nodes.values().next());
        let pid = node.and_then(|node| node["process"]["id"].as_u64()).and_then(|pid| u32::try_from(pid).ok());
        // one elsewhere has a number, too, but no process of that number here
        let pid = pid
            .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "java"));
        if pid.is_none() {
            eprintln!("elastic: the server is on another machine, its CPU is not counted");
        }
        Self { url: url.to_owned(), transport, pid }
    }

    async fn delete(&self, index: &str) {
        for path in [format!("/{index}-*"), format!("/_index_template/{index}")] {
            call(&self.transport, Method::Delete, &path, Bytes::new()).await;
        }
    }
}

/// What goms sends for these documents, as recorded by a server that keeps nothing.
async fn recorded(index: &str, parts: &[Vec<Document>]) -> Vec<Bytes> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|error| fail(&error.to_string()));
    let url = format!("http://{}", listener.local_addr().unwrap_or_else(|error| fail(&error.to_string())));
    let (bodies, mut received) = tokio::sync::mpsc::unbounded_channel();
    let server = tokio::task::spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let bodies = bodies.clone();
            tokio::task::spawn_local(async move { record(socket, &bodies).await });
        }
    });
    let store = open(&url, index);
    for part in parts {
        write(&store, part).await;
    }
    server.abort();
    let mut found = Vec::new();
    while let Ok(body) = received.try_recv() {
        found.push(body);
    }
    found
}

/// Answers as a server without indices that stores everything.
async fn record(socket: TcpStream, bodies: &tokio::sync::mpsc::UnboundedSender<Bytes>) -> Option<()> {
    let mut socket = BufReader::new(socket);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        socket.read_line(&mut line).await.ok().filter(|bytes| *bytes > 0)?;
        loop {
            let mut header = String::new();
            socket.read_line(&mut header).await.ok()?;
            match header.trim().to_ascii_lowercase().split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().ok()?,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.ok()?;
        let (status, answer) = if line.contains("/_bulk") {
            let items = vec![r#"{"index":{"status":201}}"#; memchr::memchr_iter(b'\n', &body).count() / 2];
            bodies.send(body.into()).ok()?;
            ("200 OK", format!(r#"{{"items":[{}]}}"#, items.join(",")))
        } else if line.starts_with("GET") {
            ("404 Not Found", "{}".to_owned())
        } else {
            ("200 OK", "{}".to_owned())
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        socket.get_mut().write_all(answer.as_bytes()).await.ok()?;
    }
}

//! Events to record and a store that misbehaves when told to.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use goms::consumer;
use goms::registry::{CatalogWatch, HostPort, Node, NodeId, NodeMeta, Publisher};
use goms::store::{Document, Outcome, Page, Query, Stats, StatsQuery, StoreError, TraceStore};
use goms::trace::{
    AmqpSettings, Event, EventKind, Head, Message, Origin, RequestInfo, Settings, TraceContext, Transport,
};
use uuid::Uuid;

/// Runs a test as a process of goms runs: on a thread with a `LocalSet`.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    // RUST_LOG=goms=debug shows what the parts say; a second test in the process keeps the first one's logger
    drop(env_logger::builder().is_test(true).try_init());
    actix_web::rt::System::new().block_on(test)
}

/// Waits until something is so, 30 s at most.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < give_up, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An event of request number `number`.
pub fn event(number: u64) -> Event {
    let request_id = Uuid::new_v4();
    let mut head = Head::new("POST", &format!("/api/user/{number}"), "", "127.0.0.1", 1);
    head.push_header("Accept", "*/*");
    Event {
        kind: EventKind::RequestEnd,
        context: TraceContext {
            request_id,
            trace_id: request_id.as_u128(),
            span_id: number + 1,
            parent_id: None,
            sampled: true,
        },
        request: Arc::new(RequestInfo { head, body: Bytes::from_static(b"{\"a\":1}"), action: None, caller: None }),
        origin: Arc::new(Origin {
            service_name: "gateway".into(),
            service_id: "goms_gateway_127.0.0.1:1_127.0.0.1:2".into(),
            project_name: "goms".into(),
            node: "127.0.0.1:1_127.0.0.1:2".into(),
        }),
        time_ms: jiff::Timestamp::now().as_millisecond(),
        duration: Some(Duration::from_micros(number)),
        status: Some(200),
        id: Uuid::new_v4(),
    }
}

pub fn amqp_settings(url: &str, queue: &str) -> AmqpSettings {
    AmqpSettings {
        urls: vec![url.to_owned()],
        exchange: String::new(),
        queue: queue.to_owned(),
        routing_key: String::new(),
        durable: true,
    }
}

pub fn trace_settings(spool_dir: &Path, transport: Transport) -> Settings {
    Settings {
        sample: 1.0,
        slow: Duration::from_secs(1),
        body_bytes: 16_384,
        redact: goms::trace::Redact::default(),
        spool_bytes: 64 << 20,
        spool_dir: spool_dir.to_owned(),
        flush_interval: Duration::from_millis(100),
        message: Message::Batch,
        transport,
        otlp: None,
    }
}

pub fn consumer_settings(amqp: Option<AmqpSettings>) -> consumer::Settings {
    consumer::Settings {
        amqp,
        prefetch: 50,
        max_bytes: 64 << 20,
        batch_events: 500,
        batch_bytes: 4 << 20,
        writes: 2,
        batch_wait: Duration::from_millis(20),
        call_keys: Vec::new().into(),
        dead_letters: None,
    }
}

/// A catalog with trace consumers at these HTTP addresses.
pub fn consumers_at(addresses: &[SocketAddr]) -> (Publisher, CatalogWatch) {
    let publisher = Publisher::new();
    publish_consumers(&publisher, addresses);
    let catalog = publisher.subscribe();
    (publisher, catalog)
}

pub fn publish_consumers(publisher: &Publisher, addresses: &[SocketAddr]) {
    let node = |address: &SocketAddr| {
        let id = NodeId {
            service: "traceConsumer".into(),
            rpc: HostPort { ip: address.ip(), port: None },
            http: HostPort::new(address.ip(), address.port()),
        };
        Node::new(id, NodeMeta { takes_events: true, ..NodeMeta::default() })
    };
    publisher.publish(addresses.iter().map(node).collect());
}

/// How the store behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Works,
    /// Every write fails.
    Away,
    /// Every document is to be written again later.
    Later,
    /// Refuses documents of `/refuse` for good.
    Picky,
}

/// Keeps documents in memory, in the mood that the test sets.
pub struct MoodyStore {
    pub mood: Mutex<Mood>,
    pub documents: Mutex<HashMap<String, String>>,
    pub writes: AtomicU64,
    /// Documents that were there already.
    pub again: AtomicU64,
}

impl MoodyStore {
    pub fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::new(mood),
            documents: Mutex::default(),
            writes: AtomicU64::new(0),
            again: AtomicU64::new(0),
        })
    }

    pub fn set(&self, mood: Mood) {
        *self.mood.lock().expect("no test panicked") = mood;
    }

    pub fn count(&self) -> usize {
        self.documents.lock().expect("no test panicked").len()
    }

    pub fn has(&self, event: &Event) -> bool {
        self.documents.lock().expect("no test panicked").contains_key(&event.id.to_string())
    }

    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Documents that came more than once.
    pub fn again(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl TraceStore for MoodyStore {
    async fn write(&self, batch: &[Document]) -> Result<Vec<Outcome>, StoreError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let mood = *self.mood.lock().expect("no test panicked");
        let mut documents = self.documents.lock().expect("no test panicked");
        let mut keep = |document: &Document| {
            if documents.insert(document.id.clone(), document.json.get().to_owned()).is_some() {
                self.again.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Stored
        };
        match mood {
            Mood::Works => Ok(batch.iter().map(keep).collect()),
            Mood::Away => Err(StoreError::Unavailable { address: "test".into(), source: "away".into() }),
            Mood::Later => Ok(batch.iter().map(|_| Outcome::Later("read-only".into())).collect()),
            Mood::Picky => Ok(batch
                .iter()
                .map(|document| match document.fields.url.as_str() {
                    "/refuse" => Outcome::Refused("mapping conflict".into()),
                    _ => keep(document),
                })
                .collect()),
        }
    }

    async fn query(&self, query: &Query) -> Result<Page, StoreError> {
        match (query.after.as_deref(), *self.mood.lock().expect("no test panicked")) {
            (Some(_), _) => Err(StoreError::Query("the cursor is none of this store".into())),
            (None, Mood::Away) => Err(StoreError::Unavailable { address: "test".into(), source: "away".into() }),
            (None, _) => Ok(Page { total: self.count() as u64, events: Vec::new(), next: None }),
        }
    }

    async fn stats(&self, _query: &StatsQuery) -> Result<Stats, StoreError> {
        Ok(Stats::default())
    }
}

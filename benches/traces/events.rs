//! Trace events as goms writes them: four a request, from a gateway and from the service behind it, each node's in its
//! own order. The same number gives the same events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use goms::store::{Document, Fields};
use goms::trace::event::Event;
use goms::trace::{EventKind, Head, Origin, RequestInfo, TraceContext};
use serde_json::value::RawValue;
use uuid::Uuid;

/// Milliseconds of Unix time of the first event.
const BEGIN_MS: i64 = 1_795_000_000_000;
/// Events of one request.
const PER_REQUEST: u64 = 4;
/// Requests a millisecond: 100,000 events a second.
const REQUESTS_A_MS: u64 = 25;
/// Requests whose gateway events come before the events of the services.
const ROUND: u64 = 64;
const SERVICES: [(&str, &str); 4] =
    [("user", "login"), ("user", "register"), ("order", "submit"), ("stock", "reserve")];
const AGENTS: [&str; 3] = [
    "curl/7.88.1",
    "okhttp/4.12.0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
];
const NAMES: [&str; 8] = ["anna", "bert", "carla", "dora", "emil", "frida", "gustav", "hanna"];

/// An endless row of events.
pub struct Events {
    request: u64,
    waiting: VecDeque<Document>,
    gateway: Arc<Origin>,
    nodes: Vec<[Arc<Origin>; 2]>,
}

impl Events {
    pub fn new() -> Self {
        let nodes = SERVICES.map(|(service, _)| [origin(service, 8181), origin(service, 8182)]).to_vec();
        Self { request: 0, waiting: VecDeque::new(), gateway: origin("gateway", 8180), nodes }
    }

    /// Leaves out so many, in whole rounds.
    pub fn skip(&mut self, events: u64) {
        self.request = events / PER_REQUEST / ROUND * ROUND;
        self.waiting.clear();
    }

    /// From the first to behind the last of so many events, in milliseconds of Unix time.
    pub fn span(events: u64) -> (i64, i64) {
        let took = i64::try_from(events / PER_REQUEST / REQUESTS_A_MS).expect("fits");
        (BEGIN_MS, BEGIN_MS + took + 1)
    }

    /// The next events.
    pub fn documents(&mut self, count: usize) -> Vec<Document> {
        while self.waiting.len() < count {
            self.round();
        }
        self.waiting.drain(..count).collect()
    }

    fn round(&mut self) {
        let requests: Vec<[Document; 4]> = (self.request..self.request + ROUND).map(|at| self.events_of(at)).collect();
        self.request += ROUND;
        let mut later = Vec::new();
        for [first, second, third, fourth] in requests {
            self.waiting.extend([first, fourth]);
            later.extend([second, third]);
        }
        self.waiting.extend(later);
    }

    fn events_of(&self, request: u64) -> [Document; 4] {
        // a request's row must not be another's shifted by one
        let mut random = Random(Random(request).next());
        let which = (random.next() % SERVICES.len() as u64) as usize;
        let (service, action) = SERVICES[which];
        let request_id = random.uuid();
        let (gateway_span, service_span) = (random.next() | 1, random.next() | 1);
        let agent = AGENTS[(random.next() % 3) as usize];
        let name = NAMES[(random.next() % 8) as usize];
        let body = format!(r#"{{"user":"{name}","age":{},"note":"from the shop"}}"#, random.next() % 90);
        let mut headers = vec![
            ("Accept", "*/*".to_owned()),
            ("Content-Length", body.len().to_string()),
            ("Content-Type", "application/json".to_owned()),
            ("User-Agent", agent.to_owned()),
        ];
        if agent.len() > 20 {
            headers.push(("Accept-Encoding", "gzip, deflate, br".to_owned()));
            headers.push(("Accept-Language", "en-US,en;q=0.9".to_owned()));
        }
        let client = format!("10.1.{}.{}", random.next() % 4, random.next() % 250);
        let asked = format!("{service}/{action}");
        let at_gateway = info(&format!("/api/{service}/{action}"), &client, &headers, &body, [&asked, ""]);
        let context = |span_id, parent_id| TraceContext {
            request_id,
            trace_id: request_id.as_u128(),
            span_id,
            parent_id,
            sampled: true,
        };
        let (outside, inside) = (context(gateway_span, None), context(service_span, Some(gateway_span)));
        headers.push(("X-Request-Id", request_id.to_string()));
        headers.push(("Traceparent", outside.traceparent()));
        let at_service = info(&format!("/{action}"), "127.0.0.1", &headers, &body, [&asked, "gateway"]);
        let node = &self.nodes[which][(random.next() % 2) as usize];
        let begin_ms = BEGIN_MS + i64::try_from(request / REQUESTS_A_MS).expect("fits");
        let took = 400_000 + random.next() % 9_000_000;
        let took_all = took + 150_000 + random.next() % 400_000;
        let status = if random.next().is_multiple_of(200) { 503 } else { 200 };
        let later = |ns: u64| begin_ms + i64::try_from(ns / 1_000_000).expect("fits");
        let mut make = |kind, context, request: &Arc<RequestInfo>, origin: &Arc<Origin>, at: i64, end: Option<u64>| {
            document(&Event {
                kind,
                context,
                request: request.clone(),
                origin: origin.clone(),
                time_ms: at,
                duration: end.map(Duration::from_nanos),
                status: end.map(|_| status),
                id: random.uuid(),
            })
        };
        [
            make(EventKind::RequestStart, outside, &at_gateway, &self.gateway, begin_ms, None),
            make(EventKind::ServiceStart, inside, &at_service, node, begin_ms, None),
            make(EventKind::ServiceEnd, inside, &at_service, node, later(took), Some(took)),
            make(EventKind::RequestEnd, outside, &at_gateway, &self.gateway, later(took_all), Some(took_all)),
        ]
    }
}

fn info(
    url: &str,
    client: &str,
    headers: &[(&str, String)],
    body: &str,
    [action, caller]: [&str; 2],
) -> Arc<RequestInfo> {
    let mut head = Head::new("POST", url, "", client, headers.len());
    headers.iter().for_each(|(name, value)| head.push_header(name, value));
    Arc::new(RequestInfo {
        head,
        body: body.to_owned().into(),
        action: Some(action.into()),
        caller: Some(caller.into()).filter(|_| !caller.is_empty()),
    })
}

fn origin(service: &str, port: u16) -> Arc<Origin> {
    Arc::new(Origin {
        service_name: service.to_owned(),
        service_id: format!("goms_{service}_127.0.0.1:1{port}_127.0.0.1:{port}"),
        project_name: "goms".to_owned(),
        node: format!("127.0.0.1:1{port}:{port}"),
    })
}

fn document(event: &Event) -> Document {
    let json = String::from_utf8(event.to_json()).expect("UTF-8");
    Document {
        id: event.id.to_string(),
        fields: Fields {
            request_id: event.context.request_id.to_string(),
            event: event.kind.as_str().to_owned(),
            service: event.origin.service_name.clone(),
            node: event.origin.node.clone(),
            url: event.request.head.url().to_owned(),
            status: event.status,
            duration_ns: event.duration.map(|took| u64::try_from(took.as_nanos()).expect("short")),
            time_ms: event.time_ms,
            trace_id: format!("{:032x}", event.context.trace_id),
            action: event.request.action.as_deref().unwrap_or_default().to_owned(),
            caller: event.request.caller.as_deref().unwrap_or_default().to_owned(),
        },
        json: RawValue::from_string(json).expect("JSON"),
    }
}

/// splitmix64 (<https://prng.di.unimi.it/splitmix64.c>), public domain.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn uuid(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(((u128::from(self.next()) << 64) | u128::from(self.next())).to_be_bytes())
            .into_uuid()
    }
}

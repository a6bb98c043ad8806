//! The front door, before scripted origins.
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

mod answers;
mod auth;
mod bodies;
mod breaker;
mod canary;
mod compression;
mod cors;
mod deadlines;
mod drain;
mod ejection;
mod explain;
mod failures;
mod fallback;
mod faults;
mod fields;
mod framing;
mod grpc_web;
mod headers;
mod health;
mod http2;
mod limits;
mod methods;
mod mirror;
mod origins;
mod pickers;
mod protobuf;
mod proxies;
mod published;
mod queue;
mod rates;
mod routes;
mod rules;
mod sampling;
mod shed;
mod streams;
mod strict;
mod tls;
mod traces;
mod turns;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use goms::balance::Balancer;
use goms::gateway::{self, Action, AnswerForm, Encode, Live, Parts, Running, Settings, Terms};
use goms::listener::{Doors, Tls};
use goms::metrics::{Load, Metrics};
use goms::registry::{HostPort, Node, NodeId, NodeMeta, Publisher};
use goms::shutdown::Shutdown;
use goms::trace::{self, Event, Recorder};
use goms::upstream::Policy;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::support::wait_for;
use crate::support::wire::{Got, Reader, Seen, request};

const JSON: &str = "Content-Type: application/json\r\n";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// A gateway with the originals' routes: `user` (login, register) and `order` (submit).
struct Door {
    address: SocketAddr,
    https: Option<(SocketAddr, Tls)>,
    publisher: Publisher,
    balancer: Arc<Balancer>,
    events: mpsc::Receiver<Event>,
    live: Live,
    metrics: Metrics,
    running: Option<Running>,
    background: Shutdown,
}

impl Door {
    async fn open(nodes: &[SocketAddr]) -> Self {
        Self::with(nodes, |_| {}).await
    }

    async fn with(nodes: &[SocketAddr], change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings { call_keys: vec!["the key".into(), "the old key".into()], ..Settings::default() };
        for (service, name, path) in
            [("user", "login", "/login"), ("user", "register", "/register"), ("order", "submit", "/order/submit")]
        {
            settings.services.entry(service.into()).or_default().actions.insert(name.into(), action(path));
        }
        change(&mut settings);
        let publisher = Publisher::new();
        publisher.publish(nodes.iter().map(|&address| node("user", address)).collect());
        Self::with_publisher(publisher, settings)
    }

    fn with_publisher(publisher: Publisher, settings: Settings) -> Self {
        Self::with_traces(publisher, settings, &trace_settings())
    }

    fn with_traces(publisher: Publisher, settings: Settings, traces: &trace::Settings) -> Self {
        let (background, metrics) = (Shutdown::new(), Metrics::new());
        let balancer = Balancer::start(publisher.subscribe(), settings.balance(), &metrics, &background);
        let (recorder, events) = Recorder::channel(traces, &metrics);
        let live = Live::new(settings, &metrics);
        let parts = Parts {
            live: live.clone(),
            balancer: balancer.clone(),
            catalog: publisher.subscribe(),
            broker: None,
            recorder,
            origin: Arc::new(trace::Origin {
                service_name: "gateway".into(),
                service_id: "goms_gateway_127.0.0.1:1_127.0.0.1:2".into(),
                project_name: "goms".into(),
                node: "127.0.0.1:1_127.0.0.1:2".into(),
            }),
            metrics: metrics.clone(),
            load: Load::default(),
            workers: 2,
        };
        let listen = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = live.settings();
        let tls = settings.tls.map(|tls| Tls::open(tls, &metrics).unwrap());
        let https = tls.clone().map(|tls| (listen(), tls));
        let https_address = https.as_ref().map(|(listener, _)| listener.local_addr().unwrap());
        let proxies = settings.proxy_protocol.then_some(settings.trusted_proxies);
        let running = gateway::serve(Doors { http: listen(), https, file: None, proxies }, parts).unwrap();
        let address = running.address();
        Self {
            address,
            https: https_address.zip(tls),
            publisher,
            balancer,
            events,
            live,
            metrics,
            running: Some(running),
            background,
        }
    }

    /// Makes these the nodes of `user` and waits until the balancer knows.
    async fn set_nodes(&self, nodes: &[SocketAddr]) {
        self.publisher.publish(nodes.iter().map(|&address| node("user", address)).collect());
        let known = || {
            let view = self.balancer.view();
            let ports = view.iter().flat_map(|service| &service.nodes).filter_map(|node| node.node.id.http.socket());
            let mut known: Vec<_> = ports.collect();
            let mut nodes = nodes.to_vec();
            known.sort();
            nodes.sort();
            known == nodes
        };
        wait_for("the balancer to know the nodes", known).await;
    }

    async fn connect(&self) -> Reader {
        Reader::connect(self.address).await
    }

    async fn ask(&self, method: &str, target: &str, headers: &str, body: impl AsRef<[u8]>) -> Got {
        self.connect().await.ask(method, target, headers, body).await
    }

    async fn post(&self, headers: &str, body: impl AsRef<[u8]>) -> Got {
        self.ask("POST", "/api/user/login", headers, body).await
    }

    async fn get(&self) -> Got {
        self.ask("GET", "/api/user/login", "", "").await
    }

    async fn event(&mut self) -> Event {
        tokio::time::timeout(Duration::from_secs(10), self.events.recv()).await.unwrap().unwrap()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.background.begin();
    }
}

/// What a service was asked, and the connection.
type Taken = oneshot::Receiver<(Seen, TcpStream)>;

/// A service that takes one request, sends these bytes and leaves the connection to the test.
async fn taking(answer: impl Into<Vec<u8>>) -> (SocketAddr, Taken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, taken) = oneshot::channel();
    let answer = answer.into();
    Shutdown::new().spawn(async move {
        let mut reader = Reader::new(listener.accept().await.unwrap().0);
        let seen = reader.request().await.unwrap();
        reader.send(answer).await;
        drop(sender.send((seen, reader.socket)));
    });
    (address, taken)
}

fn action(path: &str) -> Action {
    Action {
        path: path.into(),
        rpc: None,
        methods: Vec::new(),
        policy: Policy { timeout: Duration::from_secs(5), backoff: Duration::from_millis(2), ..Policy::default() },
        fallback: None,
        mirror: None,
        encode: Encode::Json,
        answer: AnswerForm::Goms,
        terms: Terms::default(),
    }
}

fn login(settings: &mut Settings) -> &mut Action {
    settings.services.get_mut("user").unwrap().actions.get_mut("login").unwrap()
}

fn node(service: &str, address: SocketAddr) -> Node {
    let http = HostPort::new(address.ip(), address.port());
    let rpc = HostPort::new(address.ip(), 1);
    Node::new(NodeId { service: service.into(), rpc, http }, NodeMeta::default())
}

pub(crate) fn trace_settings() -> trace::Settings {
    trace::Settings {
        sample: 1.0,
        slow: Duration::from_secs(1),
        body_bytes: 1000,
        redact: trace::Redact {
            headers: trace::REDACTED_HEADERS.iter().map(ToString::to_string).collect(),
            ..trace::Redact::default()
        },
        spool_bytes: 0,
        spool_dir: std::env::temp_dir(),
        flush_interval: Duration::from_secs(1),
        message: trace::Message::Single,
        transport: trace::Transport::Direct { call_key: goms::call_key::SigningKey::default() },
        otlp: None,
    }
}

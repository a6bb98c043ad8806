//! Spans to an OpenTelemetry collector: a fake one, which reads the standard's protobuf with messages of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use goms::call_key::SigningKey;
use goms::trace::OtlpSettings;
use prost::Message;

use super::*;
use crate::support::goms::{Folder, Goms, command, run as run_goms};
use crate::support::http::{post, wait_for_status};
use crate::support::origin::{Origin, Reply, answer, dead};
use crate::support::tls::{Identity, TlsFront};
use crate::support::wire::Seen;

/// What a collector reads of a request; field numbers as in opentelemetry-proto.
#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<OfNode>,
}

#[derive(Clone, PartialEq, Message)]
struct OfNode {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<Scope>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Text>,
}

#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

fn text_of(attributes: &[Attribute], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    found.and_then(|attribute| attribute.value.clone()).unwrap_or_default().text
}

/// The spans of a request with the service of each.
fn spans(seen: &Seen) -> Vec<(String, Span)> {
    assert_eq!((seen.method.as_str(), seen.header("content-type")), ("POST", Some("application/x-protobuf")));
    let export = Export::decode(&seen.body[..]).expect("protobuf");
    let of_node = |node: OfNode| {
        let service = text_of(&node.resource.unwrap_or_default().attributes, "service.name");
        node.scopes.into_iter().flat_map(|scope| scope.spans).map(move |span| (service.clone(), span))
    };
    export.nodes.into_iter().flat_map(of_node).collect()
}

fn ok(body: &[u8]) -> Reply {
    Reply::Bytes(answer("200 OK", "Content-Type: application/x-protobuf\r\n", body))
}

fn status(line: &str, headers: &str) -> Reply {
    Reply::Bytes(answer(line, headers, "no"))
}

/// A node whose spans go there; its main transport is a consumer with this store.
struct Exporting {
    node: Node,
    store: Arc<MoodyStore>,
    _publisher: goms::registry::Publisher,
    consumer: goms::consumer::Running,
}

impl Exporting {
    fn start(folder: &Path, collector: SocketAddr) -> Self {
        let store = MoodyStore::new(Mood::Works);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let (publisher, catalog) = consumers_at(&[listener.local_addr().expect("an address")]);
        let (metrics, shutdown) = (Metrics::new(), Shutdown::new());
        let consumer =
            goms::consumer::start(&consumer_settings(None), store.clone(), Some(listener), &metrics, &shutdown);
        let mut settings = trace_settings(folder, Transport::Direct { call_key: SigningKey::default() });
        let headers = vec![("authorization".to_owned(), "Bearer t".to_owned())];
        settings.otlp =
            Some(OtlpSettings { url: format!("http://{collector}/v1/traces"), headers, ..OtlpSettings::default() });
        Self {
            node: Node::start(&settings, catalog),
            store,
            _publisher: publisher,
            consumer: consumer.expect("a consumer"),
        }
    }

    async fn stored(&self, events: &[Event]) {
        until("all are stored", || events.iter().all(|event| self.store.has(event))).await;
    }

    fn exported(&self) -> i64 {
        self.node.metric("goms_trace_otlp_spans_total")
    }

    fn dropped(&self) -> i64 {
        self.node.metric("goms_trace_dropped_total{where=\"otlp\"}")
    }

    /// Ends the node within its bound and gives its metrics.
    async fn stop(self) -> String {
        let metrics = self.node.metrics.clone();
        self.node.stop().await;
        assert!(self.consumer.stop(Duration::from_secs(10)).await);
        metrics.render()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_two_spans_with_a_parent_and_the_end_loses_none() {
    let collector = Origin::start(|_, _| ok(b"")).await;
    let folder = Folder::new();
    let mut up = command(folder.path(), &["up", "--http-port", "0", "--rpc-port", "0"]);
    up.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}/", collector.address))
        .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b");
    let up = Goms::spawn(up);
    let address = up.wait_for("  gateway         http://").rsplit('/').next().expect("an address").to_owned();
    wait_for_status(&address, "/api/user/login", 200);
    let id = post(&address, "/api/user/login?x=1", "{}").expect("an answer").header("x-request-id").unwrap().to_owned();
    assert_eq!(up.terminate(), 0);

    let seen = collector.seen();
    assert!(seen.iter().all(|seen| seen.target == "/v1/traces" && seen.header("api-key") == Some("a b")));
    let trace = uuid::Uuid::parse_str(&id).unwrap();
    let found: Vec<_> = seen.iter().flat_map(spans).filter(|(_, span)| span.trace_id == trace.as_bytes()).collect();
    let of = |service: &str| {
        let mut spans = found.iter().filter(|(of, _)| of == service).map(|(_, span)| span);
        (spans.next().expect(service), spans.next())
    };
    let ((root, None), (child, None)) = (of("gateway"), of("user")) else { panic!("more than one span a node") };
    assert_eq!((root.name.as_str(), root.kind, root.parent.len()), ("POST user/login", 2, 0));
    assert_eq!((&child.parent, child.kind, child.trace_state.as_str()), (&root.span_id, 2, "goms=gateway"));
    assert!(root.span_id.len() == 8 && root.span_id != child.span_id);
    assert!(root.start < root.end && child.start < child.end);
    assert_eq!(text_of(&root.attributes, "url.query"), "x=1");
    assert_eq!(text_of(&root.attributes, "goms.request_id"), id);
}

#[test]
fn a_collector_that_stumbles_gets_every_span_once() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let collector = Origin::start(|_, number| match number {
            0 => status("503 Service Unavailable", ""),
            1 => Reply::Reset(Vec::new()),
            2 => status("429 Too Many Requests", "Retry-After: 1\r\n"),
            _ => ok(b""),
        })
        .await;
        let exporting = Exporting::start(folder.path(), collector.address);
        let events = exporting.node.record(1500); // three batches
        until("all are exported", || exporting.exported() == 1500).await;
        let seen = collector.seen();
        assert!(seen.len() >= 6 && seen.iter().all(|seen| seen.header("authorization") == Some("Bearer t")));
        let taken: Vec<_> = seen[3..].iter().flat_map(spans).map(|(_, span)| span.trace_id).collect();
        let expected: BTreeSet<_> = events.iter().map(|event| event.context.trace_id.to_be_bytes().to_vec()).collect();
        assert_eq!((taken.len(), taken.into_iter().collect::<BTreeSet<_>>()), (1500, expected));
        assert_eq!(exporting.dropped(), 0);
        exporting.stored(&events).await;
        exporting.stop().await;
    });
}

#[test]
fn what_a_collector_refuses_is_counted_and_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        // ExportTraceServiceResponse { partial_success: { rejected_spans: 2, error_message: "no" } }
        let partial = [0x0a, 6, 0x08, 2, 0x12, 2, b'n', b'o'];
        let collector = Origin::start(move |_, number| match number {
            0 => status("400 Bad Request", ""),
            1 => ok(&partial),
            _ => ok(b""),
        })
        .await;
        let exporting = Exporting::start(folder.path(), collector.address);
        for (exported, dropped) in [(0, 5), (3, 7), (8, 7)] {
            let events = exporting.node.record(5);
            until("it is settled", || exporting.exported() + exporting.dropped() >= exported + dropped).await;
            assert_eq!((exporting.exported(), exporting.dropped()), (exported, dropped));
            exporting.stored(&events).await;
        }
        assert_eq!(collector.seen().len(), 3);
        exporting.stop().await;
    });
}

#[test]
fn without_a_collector_events_are_stored_and_spans_are_counted() {
    for answers in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        run(async {
            let silent = Origin::start(|_, _| Reply::Never).await;
            let exporting = Exporting::start(folder.path(), if answers { silent.address } else { dead() });
            let mut recorded = 0;
            // more than the queue and the batch in hand hold
            for _ in 0..4 {
                let events = exporting.node.record(5000);
                recorded += 5000;
                exporting.stored(&events).await;
            }
            assert_eq!(exporting.exported(), 0);
            assert!(exporting.dropped() >= recorded - 16_384 - 512, "{}", exporting.dropped());
            let metrics = exporting.stop().await;
            let all = format!("goms_trace_dropped_total{{where=\"otlp\"}} {recorded}\n");
            assert!(metrics.contains(&all), "{metrics}");
        });
    }
}

#[test]
fn a_protocol_that_goms_does_not_speak_is_a_fault_of_the_config() {
    let folder = Folder::new();
    let mut print = command(folder.path(), &["config", "print"]);
    print.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317").env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let mut goms = Goms::spawn(print);
    goms.wait_for("OTEL_EXPORTER_OTLP_PROTOCOL: goms exports spans by `http/protobuf` only");
    assert_eq!(goms.exit_code(), 64, "as any flag or variable that is wrong");
    // not set, it is no matter
    assert!(run_goms(folder.path(), &["config", "print"]).status.success());
}

#[test]
fn config_print_shows_the_collector_without_its_key() {
    let folder = Folder::new();
    let mut print = command(folder.path(), &["config", "print"]);
    print.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318").env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret");
    let mut goms = Goms::spawn(print);
    goms.wait_for("# spans go to: http://c:4318/v1/traces (headers: api-key)");
    assert_eq!(goms.exit_code(), 0);
    assert!(!goms.log().contains("s3cret"), "{}", goms.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tls_the_collector_must_be_vouched_for() {
    let folder = Folder::new();
    let identity = Identity::new();
    let files = identity.files(folder.path());
    let collector = Origin::start(|_, _| ok(b"")).await;
    let front = TlsFront::start(&identity, collector.address).await;
    let up = |certificate: Option<&Path>| {
        let mut up = command(folder.path(), &["up", "--http-port", "0", "--rpc-port", "0"]);
        up.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://{}", front.address));
        if let Some(path) = certificate {
            up.env("OTEL_EXPORTER_OTLP_CERTIFICATE", path);
        }
        Goms::spawn(up)
    };
    let ask = |up: &Goms| {
        let address = up.wait_for("  gateway         http://").rsplit('/').next().expect("an address").to_owned();
        wait_for_status(&address, "/api/user/login", 200);
    };
    let unknown = up(None);
    ask(&unknown);
    unknown.wait_for("takes no spans, they wait in memory: Failed to connect to host");
    assert_eq!(unknown.terminate(), 0);
    assert_eq!(collector.seen().len(), 0);

    let trusting = up(Some(&files.ca));
    ask(&trusting);
    assert_eq!(trusting.terminate(), 0);
    assert!(collector.seen().iter().flat_map(spans).any(|(service, _)| service == "gateway"));

    let mut faulty = up(Some(&folder.path().join("absent.pem")));
    faulty.wait_for("OTEL_EXPORTER_OTLP_CERTIFICATE: cannot use `");
    assert_ne!(faulty.exit_code(), 0);
}

//! Services that take protobuf only, called with JSON.

use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use goms::Service;
use goms::trace::{Event, EventKind};
use prost::Message;
use prost_reflect::prost_types::FileDescriptorProto;
use serde_json::json;
use tokio::sync::mpsc::Receiver;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{FileDescriptorResponse, ServerReflectionRequest, ServerReflectionResponse};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use super::methods::{frame, said, socket};
use super::rules::door;
use super::*;
use crate::rpc::interop::Server;
use crate::rpc::start;
use crate::service::parts;
use crate::support::goms::Folder;
use crate::support::{ports, servers};

const HEALTH: &str = "grpc.health.v1.Health";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const CONFIG: &str = "
callServiceKey: the key
services:
  health:
    check: { rpc: Health.Check, answer: untouched, retry: { attempts: 1 } }
    full: { rpc: /grpc.health.v1.Health/Check, answer: untouched }
    watch: { rpc: /grpc.health.v1.Health/Watch, answer: untouched }
    nothing: { rpc: Health.Nothing }
    reflect: { rpc: ServerReflection.ServerReflectionInfo }
";

/// A service of tonic's, with what tells its messages if anything does.
async fn health(reflection: impl FnOnce(Service) -> Service) -> (Running, Receiver<Event>, Door) {
    health_with(reflection, "").await
}

/// The same, with more of its upstream.
async fn health_with(reflection: impl FnOnce(Service) -> Service, upstream: &str) -> (Running, Receiver<Event>, Door) {
    let (mut parts, events) = parts("health");
    parts.call_keys = vec!["the key".to_owned()].into();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("thing", ServingStatus::Serving).await;
    let service = reflection(Service::new("health").grpc(health));
    let names = service.rpc_services();
    let running = start(service, parts);
    let mut node = crate::rpc::node("health", running.address());
    node.meta.tell_methods(Vec::new(), names);
    let door = door(&format!("{CONFIG}upstreams: {{ health: {{ {upstream} }} }}\n"), &[]);
    door.publisher.publish(vec![node]);
    wait_for("the node", || door.balancer.view().iter().any(|service| !service.nodes.is_empty())).await;
    (running, events, door)
}

fn reflecting(service: Service) -> Service {
    service.reflection(tonic_health::pb::FILE_DESCRIPTOR_SET).unwrap()
}

async fn post(door: &Door, action: &str, body: &str) -> (u16, String) {
    let got = door.ask("POST", &format!("/api/health/{action}"), JSON, body).await;
    (got.status, got.text())
}

fn started(events: &mut Receiver<Event>, path: &str) -> usize {
    let mut count = 0;
    while let Ok(event) = events.try_recv() {
        count += usize::from(event.kind == EventKind::ServiceStart && event.request.head.url() == path);
    }
    count
}

#[tokio::test]
async fn a_service_of_protobuf_is_called_with_json() {
    let (running, mut events, door) = health(reflecting).await;
    // many at once: its messages are asked for once for each worker's first request of all
    let many = (0..20).map(|_| post(&door, "check", r#"{"service":"thing"}"#));
    for got in futures_util::future::join_all(many).await {
        assert_eq!(got, (200, r#"{"status":"SERVING"}"#.to_owned()));
    }
    assert_eq!(post(&door, "check?", r#"{"service":"thing"}"#).await.0, 200);
    assert_eq!(started(&mut events, REFLECTION), 1);
    // a form, the query, no message
    let form = door.ask("POST", "/api/health/check", FORM, "service=thing").await;
    assert_eq!((form.status, form.text().as_str()), (200, r#"{"status":"SERVING"}"#));
    let query = door.ask("GET", "/api/health/full?service=thing", "", "").await;
    assert_eq!((query.status, query.text().as_str()), (200, r#"{"status":"SERVING"}"#));
    // the service's own errors, and messages that are none
    for (action, body, status, wanted) in [
        ("check", r#"{"service":"other"}"#, 404, "service not registered"),
        (
            "check",
            r#"{"servise":"thing"}"#,
            400,
            "cannot read the message as `grpc.health.v1.HealthCheckRequest`: unrecognized field name 'servise'",
        ),
        ("check", r#"{"service":7}"#, 400, "invalid type"),
        ("check", "[]", 400, "invalid type"),
        (
            "nothing",
            "{}",
            501,
            "it has no method `Health.Nothing`; it has grpc.health.v1.Health.Check, grpc.health.v1.Health.Watch",
        ),
        ("watch", r#"{"service":"thing"}"#, 501, "application/x-ndjson"),
    ] {
        let (got, text) = post(&door, action, body).await;
        assert!(got == status && text.contains(wanted), "{action} {body}: {got} {text}");
    }
    assert!(running.stop(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn streams_of_protobuf_are_lines_and_a_websocket() {
    let (running, _events, door) = health(reflecting).await;
    // a stream that goes on: its first line comes at once
    let mut client = door.connect().await;
    let headers = "Accept: application/x-ndjson\r\n";
    client.send(request("GET", "/api/health/watch?service=thing", headers, "")).await;
    let (line, _) = client.head().await.unwrap();
    assert_eq!(line, "HTTP/1.1 200 OK");
    let first = "{\"status\":\"SERVING\"}\n";
    let chunk = format!("{:X}\r\n{first}\r\n", first.len());
    assert_eq!(client.exactly(chunk.len()).await.unwrap(), chunk.into_bytes());
    drop(client);
    let bad = door.ask("GET", "/api/health/watch?servise=thing", headers, "").await;
    assert_eq!(bad.status, 400, "{}", bad.text());
    // both ways: the service that tells messages tells of itself
    let mut client = socket(&door, "/api/health/reflect").await;
    client.send(said(0x81, r#"{"listServices":""}"#)).await;
    let (kind, answer) = frame(&mut client).await;
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let names = json!([{"name": HEALTH}, {"name": "grpc.reflection.v1.ServerReflection"}]);
    assert_eq!((kind, &answer["listServicesResponse"]["service"]), (0x81, &names));
    client.send(said(0x81, r#"{"listServises":""}"#)).await;
    let (kind, close) = frame(&mut client).await;
    assert_eq!((kind, &close[..2]), (0x88, &4003_u16.to_be_bytes()[..]));
    drop(client);
    // the stream that goes on is cut
    assert!(!running.stop(Duration::ZERO).await);
}

#[tokio::test]
async fn the_older_reflection_is_asked_too() {
    // a server that knows nothing of goms
    let set = tonic_health::pb::FILE_DESCRIPTOR_SET;
    let reflection = tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(set);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("thing", ServingStatus::Serving).await;
    let server = tonic::transport::Server::builder().add_service(health);
    let server = server.add_service(reflection.build_v1alpha().unwrap());
    let incoming = TcpIncoming::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = incoming.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    let serving = tokio::spawn(server.serve_with_incoming(incoming));
    // which says nothing of itself, so the config does
    let door = door(&format!("{CONFIG}upstreams: {{ health: {{ descriptors: reflection }} }}"), &[]);
    door.publisher.publish(vec![crate::rpc::node("health", address)]);
    wait_for("the node", || door.balancer.view().iter().any(|service| !service.nodes.is_empty())).await;
    assert_eq!(post(&door, "check", r#"{"service":"thing"}"#).await, (200, r#"{"status":"SERVING"}"#.to_owned()));
    let (status, text) = post(&door, "check", r#"{"servise":"thing"}"#).await;
    assert!(status == 400 && text.contains("'servise'"), "{status} {text}");
    serving.abort();
}

#[tokio::test]
async fn a_service_that_does_not_tell_its_messages_is_told() {
    let (running, mut events, door) = health(|service| service).await;
    let (status, text) = post(&door, "check", r#"{"service":"thing"}"#).await;
    let wanted = "service `health` cannot be called with JSON: it takes protobuf, and its nodes do not tell its messages; \
                  let them serve gRPC reflection, or name a file in `upstreams: { health: { descriptors: FILE } }`";
    assert!(status == 501 && text.contains(wanted), "{status} {text}");
    assert_eq!(started(&mut events, CHECK), 0);
    // nobody answers there any more
    assert!(running.stop(Duration::from_secs(2)).await);
    let (status, text) = post(&door, "full", "{}").await;
    assert!(status == 503 || status == 501, "{status} {text}");
}

/// Another node of the same version that started later tells its messages again; so does an unknown method, after a while.
#[tokio::test]
async fn a_node_that_started_later_is_asked_again() {
    let (running, mut events, door) = health(reflecting).await;
    let body = r#"{"service":"thing"}"#;
    for _ in 0..3 {
        assert_eq!(post(&door, "check", body).await.0, 200);
    }
    assert_eq!(started(&mut events, REFLECTION), 1);
    let mut later = crate::rpc::node("health", running.address());
    later.meta.tell_methods(Vec::new(), vec![HEALTH.to_owned()]);
    later.meta.started_ms = 1;
    for version in ["", "2"] {
        later.meta.version = version.to_owned();
        door.publisher.publish(vec![later.clone()]);
        let known = |door: &Door| {
            let view = door.balancer.view();
            view.iter().any(|service| service.nodes.iter().any(|node| node.node.meta == later.meta))
        };
        wait_for("the other node", || known(&door)).await;
        for _ in 0..3 {
            assert_eq!(post(&door, "check", body).await.0, 200);
        }
        assert_eq!(started(&mut events, REFLECTION), 1, "version {version}");
    }
    assert!(running.stop(Duration::from_secs(2)).await);
}

/// gRPC's own server in Go tells nothing of its messages: a file does.
#[tokio::test]
async fn a_server_in_go_is_called_with_json_by_a_descriptor_file() {
    let Some(programs) = servers::grpc_interop() else { return };
    let folder = Folder::new();
    let file = folder.path().join("test.pb");
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/grpc");
    let mut protoc = Command::new(std::env::var("PROTOC").unwrap_or_else(|_| "protoc".to_owned()));
    let protoc = protoc.arg("-I").arg(sources).arg("--descriptor_set_out").arg(&file).arg("--include_imports");
    assert!(protoc.arg("test.proto").status().expect("protoc, which the build needs too").success());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_port()));
    let mut server = Command::new(format!("{programs}/server"));
    let server = server.arg(format!("--port={}", address.port())).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Server(server.spawn().expect("the server starts"));
    wait_for("the interoperability server", || TcpStream::connect(address).is_ok()).await;
    let config = format!(
        "
services:
  interop:
    empty: {{ rpc: TestService.EmptyCall, answer: untouched }}
    unary: {{ rpc: grpc.testing.TestService/UnaryCall, answer: untouched }}
    stream: {{ rpc: TestService.StreamingOutputCall }}
    duplex: {{ rpc: TestService.FullDuplexCall }}
upstreams: {{ interop: {{ descriptors: '{}' }} }}
",
        file.display()
    );
    let door = door(&config, &[]);
    door.publisher.publish(vec![crate::rpc::node("interop", address)]);
    wait_for("the node", || door.balancer.view().iter().any(|service| !service.nodes.is_empty())).await;
    let post = async |action: &str, headers: &str, body: &str| {
        let got = door.ask("POST", &format!("/api/interop/{action}"), &format!("{JSON}{headers}"), body).await;
        (got.status, got.text())
    };
    assert_eq!(post("empty", "", "").await, (200, "{}".to_owned()));
    let (status, text) = post("unary", "", r#"{"responseSize":6,"payload":{"body":"AAAA"}}"#).await;
    assert_eq!((status, text.as_str()), (200, r#"{"payload":{"body":"AAAAAAAA"}}"#));
    let (status, text) = post("unary", "", r#"{"response_status":{"code":5,"message":"none such"}}"#).await;
    assert!(status == 404 && text.contains("none such"), "{status} {text}");
    let sizes = r#"{"responseParameters":[{"size":3},{"size":6}]}"#;
    let lines = "{\"payload\":{\"body\":\"AAAA\"}}\n{\"payload\":{\"body\":\"AAAAAAAA\"}}\n";
    assert_eq!(post("stream", "Accept: application/x-ndjson\r\n", sizes).await, (200, lines.to_owned()));
    let mut client = socket(&door, "/api/interop/duplex").await;
    for size in [3, 6, 9] {
        client.send(said(0x81, &format!(r#"{{"responseParameters":[{{"size":{size}}}]}}"#))).await;
        let (kind, message) = frame(&mut client).await;
        let wanted = format!(r#"{{"payload":{{"body":"{}"}}}}"#, "AAAA".repeat(size / 3));
        assert_eq!((kind, message), (0x81, wanted.into_bytes()));
    }
    client.send(said(0x81, "")).await;
    assert_eq!(frame(&mut client).await, (0x88, 1000_u16.to_be_bytes().to_vec()));
}

/// What answers a question for messages with whatever it is given; with nothing it never answers.
struct Hostile(Option<Vec<Vec<u8>>>);

#[tonic::async_trait]
impl ServerReflection for Hostile {
    type ServerReflectionInfoStream = BoxStream<'static, Result<ServerReflectionResponse, tonic::Status>>;

    async fn server_reflection_info(
        &self,
        request: tonic::Request<tonic::Streaming<ServerReflectionRequest>>,
    ) -> Result<tonic::Response<Self::ServerReflectionInfoStream>, tonic::Status> {
        let Some(files) = self.0.clone() else { std::future::pending().await };
        let answers = request.into_inner().map(move |question| {
            let files = FileDescriptorResponse { file_descriptor_proto: files.clone() };
            let message_response = Some(MessageResponse::FileDescriptorResponse(files));
            question.map(|_| ServerReflectionResponse { message_response, ..Default::default() })
        });
        Ok(tonic::Response::new(answers.boxed()))
    }
}

#[tokio::test]
async fn a_node_that_tells_nonsense_or_nothing_holds_nobody_up() {
    // a file that needs another one, which is told in its place again and again
    let endless = FileDescriptorProto {
        name: Some("a.proto".to_owned()),
        dependency: vec!["b.proto".to_owned()],
        ..Default::default()
    };
    for (files, status, wanted) in [
        (None, 503, "its messages were not told by reflection within"),
        (Some(vec![b"junk".to_vec()]), 502, "its messages are not known"),
        (Some(vec![endless.encode_to_vec()]), 502, "its messages are not known"),
        (Some(vec![vec![0; 9 << 20]]), 502, "its messages are not known"),
        (Some(Vec::new()), 501, "no method `Health.Check`"),
    ] {
        let shown = files.as_ref().map(|files| files.iter().map(Vec::len).sum::<usize>());
        let hostile = |service: Service| service.grpc(ServerReflectionServer::new(Hostile(files)));
        let (running, mut events, door) = health_with(hostile, "timeout: 1s").await;
        let many = (0..20).map(|_| post(&door, "check", r#"{"service":"thing"}"#));
        for (status_got, text) in futures_util::future::join_all(many).await {
            assert_eq!(status_got, status, "{shown:?}: {text}");
            assert!(text.contains(wanted), "{shown:?}: {text}");
        }
        assert_eq!(started(&mut events, CHECK), 0, "{shown:?}");
        drop(door);
        assert!(running.stop(Duration::from_secs(5)).await);
    }
}

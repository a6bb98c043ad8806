//! Streams of a service of ours, called by clients of Go Micro v5 by mucp, and what else comes to such a port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use goms::metrics::Metrics;
use goms::registry::{Backend, EtcdSettings, Format, HostPort, Node, NodeId, NodeMeta, Registry, open};
use goms::service::{Limits, Running, serve_mucp};
use goms::shutdown::Shutdown;
use goms::{Context, Requests, Service, ServiceError};
use serde::{Deserialize, Serialize};

use super::{Cluster, Version};
use crate::service::{JSON, RUNTIME, ask, listener, parts};

const SERVICE: &str = "go.micro.srv.greeter";

#[derive(Clone, Deserialize)]
struct Request {
    #[serde(default)]
    name: String,
}

#[derive(Serialize)]
struct Response {
    msg: String,
}

fn response(text: String) -> Result<Response, ServiceError> {
    Ok(Response { msg: text })
}

async fn hello(_: Context, asked: Request) -> Result<Response, ServiceError> {
    response(format!("Hello {}", asked.name))
}

async fn count(
    _: Context,
    asked: Request,
) -> Result<impl futures_util::Stream<Item = Result<Response, ServiceError>> + use<>, ServiceError> {
    if asked.name == "teapot" {
        return Err(ServiceError::new(418, "no coffee here"));
    }
    Ok(stream::iter((1..=3).map(move |number| response(format!("Hello {} {number}", asked.name)))))
}

async fn chat(
    _: Context,
    asked: Requests<Request>,
) -> Result<impl futures_util::Stream<Item = Result<Response, ServiceError>>, ServiceError> {
    Ok(stream::unfold(asked, |mut asked| async {
        match asked.next().await {
            Ok(Some(request)) => Some((response(format!("Hello {}", request.name)), asked)),
            Ok(None) => None,
            Err(error) => Some((Err(error), asked)),
        }
    }))
}

/// A service of ours as `--go-micro-protocol mucp` serves it.
fn greeter(keys: &[&str]) -> Running {
    patient(keys, Limits::default())
}

fn patient(keys: &[&str], limits: Limits) -> Running {
    let service = Service::new(SERVICE)
        .route("/plain", hello)
        .rpc("Say.Hello", hello)
        .rpc_server_stream("Say.Stream", count)
        .rpc_stream("Say.Chat", chat);
    let (mut parts, events) = parts(SERVICE);
    parts.call_keys = keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>().into();
    std::mem::forget(events);
    parts.limits = limits;
    let _runtime = RUNTIME.enter();
    serve_mucp(listener(), service, parts).expect("it listens")
}

async fn registered(cluster: &Cluster, address: SocketAddr) -> (Arc<dyn Registry>, Shutdown) {
    let etcd = EtcdSettings { endpoints: vec![cluster.etcd.address()], ..EtcdSettings::default() };
    let mut settings = crate::registry::settings(Backend::Etcd(etcd), "goms");
    settings.format = Format::GoMicro;
    let shutdown = Shutdown::new();
    let registry = open(&settings, &shutdown, &Metrics::new()).expect("it opens");
    let at = |port| HostPort { ip: address.ip(), port };
    let id = NodeId { service: SERVICE.to_owned(), rpc: at(None), http: at(Some(address.port())) };
    let meta = NodeMeta {
        protocols: ["http", "mucp"].map(str::to_owned).to_vec(),
        endpoints: ["Say.Hello", "Say.Stream", "Say.Chat"].map(str::to_owned).to_vec(),
        streams: ["Say.Stream", "Say.Chat"].map(str::to_owned).to_vec(),
        ..NodeMeta::default()
    };
    registry.register(Node::new(id, meta)).await.expect("registered");
    (registry, shutdown)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_v5_call_streams_of_ours() {
    let Some(cluster) = Cluster::start(&[Version::V5]) else { return };
    let greeter = greeter(&[]);
    let (_registry, shutdown) = registered(&cluster, greeter.address()).await;
    for (method, replies) in [
        ("stream", [("Hello John 1", 20), ("Hello John 2", 20), ("Hello John 3", 20)].to_vec()),
        ("chat", vec![("Hello John", 60)]),
        ("hello", vec![("Hello John", 20)]),
    ] {
        let outcome = cluster.go_client(Version::V5, &["-name", SERVICE, "-method", method, "-calls", "20"]);
        assert_eq!((outcome.ok, outcome.failed), (20, 0), "{method} {:?}", outcome.errors);
        let expected: Vec<(String, usize)> = replies.iter().map(|(text, count)| ((*text).to_owned(), *count)).collect();
        assert_eq!(outcome.replies.into_iter().collect::<Vec<_>>(), expected, "{method}");
    }
    let outcome = cluster.go_client(Version::V5, &["-name", SERVICE, "-method", "stream", "-who", "teapot"]);
    assert_eq!((outcome.ok, outcome.failed), (0, 1));
    let told = outcome.errors.keys().next().expect("an error");
    assert!(told.contains("\"code\":418") && told.contains("no coffee here"), "{told}");
    shutdown.begin();
}

/// A head, or a body, that never ends held a connection for ever, before anybody asked who calls.
#[test]
fn a_message_that_is_begun_must_end_in_time() {
    let short = Duration::from_millis(200);
    let greeter = patient(&[], Limits { header_timeout: short, body_timeout: short, ..Limits::default() });
    let opening = message("Micro-Endpoint: Say.Chat\r\n", "{}");
    let mut silent = open_stream(greeter.address(), "");
    for begun in [
        "POST / HTTP/1.1\r\nMicro-Stream: 0\r\n".to_owned(),
        "POST / HTTP/1.1\r\nMicro-Stream: 0\r\nContent-Length: 2\r\n\r\n{".to_owned(),
        opening.clone() + "POST / HTTP/1.1\r\n",
        opening + &message("", "{}")[..message("", "{}").len() - 1],
    ] {
        let mut socket = TcpStream::connect(greeter.address()).expect("connected");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        socket.write_all(begun.as_bytes()).expect("sent");
        assert_eq!(rest(socket), "", "{begun:?}");
    }
    // who said nothing meanwhile, between two messages, stays
    let more = message("", r#"{"name":"Ann"}"#) + &message("Micro-Error: EOS\r\n", "");
    silent.write_all(more.as_bytes()).expect("sent");
    let told = rest(silent);
    assert!(told.contains("Hello Ann") && told.contains("micro-error: EOS"), "{told}");
}

/// A connection that begins a stream.
fn open_stream(address: SocketAddr, more: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    socket.write_all(message(&format!("Micro-Endpoint: Say.Chat\r\n{more}"), "{}").as_bytes()).expect("sent");
    socket
}

fn message(fields: &str, body: &str) -> String {
    let kind = "Content-Type: application/json";
    format!(
        "POST / HTTP/1.1\r\nHost: a\r\nMicro-Stream: 7\r\n{kind}\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn rest(mut socket: TcpStream) -> String {
    let mut all = String::new();
    socket.read_to_string(&mut all).expect("the connection is closed in good order");
    all
}

#[test]
fn messages_may_come_in_parts_and_answers_name_their_stream() {
    let greeter = greeter(&[]);
    let mut socket = TcpStream::connect(greeter.address()).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    socket.set_nodelay(true).expect("set");
    let whole = message("Micro-Endpoint: Say.Chat\r\nMicro-Id: 3\r\n", "{}")
        + &message("", r#"{"name":"Ann"}"#)
        + &message("", r#"{"name":"Bob"}"#)
        + &message("Micro-Error: EOS\r\n", "");
    for part in whole.as_bytes().chunks(37) {
        socket.write_all(part).expect("sent");
    }
    let all = rest(socket);
    let answers: Vec<&str> = all.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
    assert_eq!(answers.len(), 3, "{all}");
    for (answer, end) in answers.iter().zip([r#"{"msg":"Hello Ann"}"#, r#"{"msg":"Hello Bob"}"#, "\r\n\r\n"]) {
        assert!(answer.contains("micro-stream: 7\r\nmicro-id: 3\r\n") && answer.ends_with(end), "{answer}");
    }
    assert!(answers[2].contains("micro-error: EOS\r\n"), "{}", answers[2]);
    // the rest of the port is as ever, on the same server
    let plain = ask(greeter.address(), "POST", "/plain", &[JSON], r#"{"name":"Cy"}"#);
    assert_eq!((plain.status, plain.body.as_str()), (200, r#"{"msg":"Hello Cy"}"#));
}

#[test]
fn what_is_no_stream_is_told_why_or_cut_off() {
    let greeter = greeter(&["secret"]);
    let address = greeter.address();
    let told = rest(open_stream(address, ""));
    assert!(told.contains("micro-error: {") && told.contains("\"code\":403"), "without the key: {told}");
    let key = "Call-Service-Key: secret\r\n";
    let mut unknown = TcpStream::connect(address).expect("connected");
    unknown.write_all(message(&format!("{key}Micro-Endpoint: Say.Nothing\r\n"), "{}").as_bytes()).expect("sent");
    let told = rest(unknown);
    assert!(told.contains("micro-error: {") && told.contains("Say.Chat"), "{told}");
    // another stream, no message at all, and an end without a beginning
    for bad in ["POST / HTTP/1.1\r\nMicro-Stream: 8\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "\0\0\0\0\r\n\r\n"] {
        let mut socket = open_stream(address, key);
        socket.write_all(bad.as_bytes()).expect("sent");
        let mut all = Vec::new();
        match socket.read_to_end(&mut all) {
            Ok(_) => assert!(all.is_empty(), "{bad:?}: {}", String::from_utf8_lossy(&all)),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{bad:?}"),
        }
    }
    // a method that a caller left behind ends, and the port goes on
    drop(open_stream(address, key));
    let mut socket = open_stream(address, key);
    socket.write_all(message("", "{\"name\":").as_bytes()).expect("sent");
    let told = rest(socket);
    assert!(told.contains("micro-error: {") && told.contains("\"code\":400"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_a_stream_and_not_for_who_says_nothing() {
    let greeter = greeter(&[]);
    let silent = TcpStream::connect(greeter.address()).expect("connected");
    let mut talking = open_stream(greeter.address(), "");
    talking.write_all(message("", r#"{"name":"Ann"}"#).as_bytes()).expect("sent");
    let mut first = [0; 15];
    talking.read_exact(&mut first).expect("an answer");
    let stopping = greeter.stop(Duration::from_secs(20));
    let telling = tokio::task::spawn_blocking(move || {
        talking.write_all(message("", r#"{"name":"Bob"}"#).as_bytes()).expect("sent");
        talking.write_all(message("Micro-Error: EOS\r\n", "").as_bytes()).expect("sent");
        rest(talking)
    });
    let (stopped, told) = tokio::join!(stopping, telling);
    let told = told.expect("no panic");
    assert!(told.contains("Hello Bob") && told.contains("micro-error: EOS"), "{told}");
    assert!(stopped, "all were done");
    drop(silent);
}

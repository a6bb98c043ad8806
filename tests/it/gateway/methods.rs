//! Actions that are methods: JSON in, RPC out.

use futures_util::{Stream, StreamExt, stream};
use goms::{Context, Requests, Service, ServiceError};
use serde_json::{Value, json};

use super::rules::door;
use super::*;
use crate::rpc::{Request, Response, start};
use crate::service::parts;

type Numbers = Result<u64, ServiceError>;

async fn hello(ctx: Context, message: Request) -> Result<Response, ServiceError> {
    match message.name.as_str() {
        "" => Err(ServiceError::new(422, "`name` is empty")),
        "go" => Err(ServiceError::new(400, r#"{"id":"greeter","code":418,"detail":"tea","status":"I'm a teapot"}"#)),
        "slow" => std::future::pending().await,
        name => Ok(Response { msg: format!("Hello {name}{}", ctx.header("x-said").unwrap_or_default()) }),
    }
}

async fn count(_ctx: Context, message: Value) -> Result<impl Stream<Item = Numbers>, ServiceError> {
    let to = message["to"].as_u64().or_else(|| message["to"].as_str()?.parse().ok()).unwrap_or(0);
    if to == 99 {
        return Err(ServiceError::new(404, "that far?"));
    }
    let last = if to == 13 { Some(Err(ServiceError::new(409, "thirteen"))) } else { None };
    Ok(stream::iter((1..=to).map(Ok).chain(last)))
}

async fn twice(_ctx: Context, numbers: Requests<u64>) -> Result<impl Stream<Item = Numbers>, ServiceError> {
    Ok(numbers.map(|number| match number {
        Ok(13) => Err(ServiceError::new(409, "thirteen")),
        number => number.map(|number| number * 2),
    }))
}

async fn sum(_ctx: Context, mut numbers: Requests<u64>) -> Numbers {
    let mut sum = 0;
    while let Some(number) = numbers.next().await? {
        sum += number;
    }
    Ok(sum)
}

const CONFIG: &str = "
callServiceKey: the key
services:
  greeter:
    hello: { rpc: Say.Hello, timeout: 300ms, retry: { attempts: 1 } }
    plain: { rpc: Say.Hello, answer: untouched }
    count: { rpc: /greeter.Say/Count, answer: untouched }
    twice: { rpc: Say.Twice }
    sum: { rpc: Say.Sum }
    bye: { rpc: Say.Bye }
routes:
  - { match: { path: /say/hello }, service: greeter, rpc: Say.Hello }
";

async fn greeter() -> (Running, Door) {
    let (mut parts, _) = parts("greeter");
    parts.call_keys = vec!["the key".to_owned()].into();
    let service = Service::new("greeter")
        .rpc("Say.Hello", hello)
        .rpc_server_stream("Say.Count", count)
        .rpc_stream("Say.Twice", twice)
        .rpc_client_stream("Say.Sum", sum);
    let running = start(service, parts);
    let door = door(CONFIG, &[]);
    door.publisher.publish(vec![crate::rpc::node("greeter", running.address())]);
    wait_for("the node", || door.balancer.view().iter().any(|service| !service.nodes.is_empty())).await;
    (running, door)
}

#[tokio::test]
async fn a_method_answers_a_request_of_http() {
    let (greeter, mut door) = greeter().await;
    let got = door.ask("POST", "/api/greeter/hello", &format!("{JSON}X-Said: !\r\n"), r#"{"name":"John"}"#).await;
    assert_eq!((got.status, got.text().as_str()), (200, r#"{"msg":"Hello John!","status":true}"#));
    let events = [door.event().await, door.event().await];
    assert_eq!((events[0].request.action.as_deref(), events[1].status), (Some("greeter/hello"), Some(200)));
    // a form, the query, a route
    for (method, target, headers, body) in [
        ("POST", "/api/greeter/plain", FORM, "name=John"),
        ("GET", "/api/greeter/plain?name=John", "", ""),
        ("POST", "/say/hello", JSON, r#"{"name":"John"}"#),
    ] {
        let got = door.ask(method, target, headers, body).await;
        assert_eq!((got.status, got.text().as_str()), (200, r#"{"msg":"Hello John"}"#), "{target}");
    }
    let told = async |target: &str, body: &str| {
        let got = door.ask("POST", target, JSON, body).await;
        (got.status, got.json()["msg"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(told("/api/greeter/hello", r#"{"name":""}"#).await, (422, "`name` is empty".to_owned()));
    let (status, why) = told("/api/greeter/hello", r#"{"name":7}"#).await;
    assert!(status == 400 && why.contains("at `name`"), "{why}");
    let (status, why) = told("/api/greeter/bye", "{}").await;
    assert!(status == 501 && why.ends_with("it has Say.Count, Say.Hello, Say.Sum, Say.Twice"), "{why}");
    let (status, why) = told("/api/greeter/hello", r#"{"name":"slow"}"#).await;
    assert!(status == 504 && why.contains("300ms"), "{status} {why}");
    let (status, why) = told("/api/greeter/count", r#"{"to":3}"#).await;
    assert!(status == 501 && why.contains("application/x-ndjson"), "{status} {why}");
    // a Go Micro service's own error passes as it is
    let got = door.ask("POST", "/api/greeter/hello", JSON, r#"{"name":"go"}"#).await;
    assert_eq!(
        (got.status, got.json()),
        (418, json!({"id": "greeter", "code": 418, "detail": "tea", "status": "I'm a teapot"}))
    );
    assert!(greeter.stop(Duration::from_secs(2)).await);
    let (status, why) = told("/api/greeter/plain", r#"{"name":"John"}"#).await;
    assert!(status == 503 && why.contains("cannot be reached by rpc"), "{status} {why}");
}

#[tokio::test]
async fn a_stream_is_answered_as_lines_or_as_events() {
    let (greeter, door) = greeter().await;
    let get = async |to: u64, accept: &str| {
        door.ask("GET", &format!("/api/greeter/count?to={to}"), &format!("Accept: {accept}\r\n"), "").await
    };
    let lines = get(3, "application/x-ndjson").await;
    assert_eq!((lines.status, lines.header("content-type")), (200, Some("application/x-ndjson")));
    assert_eq!(lines.text(), "1\n2\n3\n");
    let events = get(2, "text/event-stream").await;
    assert_eq!((events.status, events.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(events.text(), "data: 1\n\ndata: 2\n\n");
    assert_eq!(get(0, "application/x-ndjson").await.text(), "");
    // an error before the first message is an answer of its own, one behind it is the last line
    let none = get(99, "application/x-ndjson").await;
    assert_eq!((none.status, none.json()["msg"].as_str()), (404, Some("that far?")));
    let broken = get(13, "application/x-ndjson").await.text();
    let last: Value = serde_json::from_str(broken.lines().last().unwrap()).unwrap();
    assert_eq!(
        (last["code"].as_u64(), last["msg"].as_str(), broken.lines().count()),
        (Some(409), Some("thirteen"), 14)
    );
    let event = get(13, "text/event-stream").await.text();
    assert!(event.contains("data: 13\n\nevent: error\ndata: {\"status\":false,\"code\":409,"), "{event}");
    assert!(greeter.stop(Duration::from_secs(2)).await);
}

/// The handshake of RFC 6455 section 1.3.
const ASKS: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub(super) async fn socket(door: &Door, target: &str) -> Reader {
    let mut client = door.connect().await;
    client.send(request("GET", target, ASKS, "")).await;
    let (line, fields) = client.head().await.unwrap();
    assert_eq!(line, "HTTP/1.1 101 Switching Protocols");
    let accept = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-accept"));
    assert_eq!(accept.unwrap().1, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    client
}

/// A frame of a client, whose mask changes nothing.
pub(super) fn said(first: u8, payload: &str) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0][..], payload.as_bytes()].concat()
}

/// The next frame: its kind and its payload.
pub(super) async fn frame(client: &mut Reader) -> (u8, Vec<u8>) {
    let head = client.exactly(2).await.unwrap();
    let length = match head[1] {
        126 => u16::from_be_bytes(client.exactly(2).await.unwrap().try_into().unwrap()).into(),
        short => usize::from(short),
    };
    (head[0], client.exactly(length).await.unwrap())
}

#[tokio::test]
async fn streams_both_ways_are_a_websocket() {
    let (greeter, door) = greeter().await;
    let mut client = socket(&door, "/api/greeter/twice").await;
    for number in 1..12_u64 {
        client.send(said(0x81, &number.to_string())).await;
        assert_eq!(frame(&mut client).await, (0x81, (number * 2).to_string().into_bytes()));
    }
    client.send(said(0x89, "there?")).await;
    assert_eq!(frame(&mut client).await, (0x8a, b"there?".to_vec()));
    client.send(said(0x81, "13")).await;
    let (kind, close) = frame(&mut client).await;
    assert_eq!((kind, &close[..]), (0x88, [&4006_u16.to_be_bytes()[..], b"thirteen"].concat().as_slice()));
    // an empty message ends the client's side
    let mut client = socket(&door, "/api/greeter/sum").await;
    for text in ["1", "2", "3", ""] {
        client.send(said(0x81, text)).await;
    }
    assert_eq!(frame(&mut client).await, (0x81, b"6".to_vec()));
    assert_eq!(frame(&mut client).await, (0x88, 1000_u16.to_be_bytes().to_vec()));
    // a client that goes ends the call
    let mut client = socket(&door, "/api/greeter/sum").await;
    client.send(said(0x88, "\u{3}\u{e8}")).await;
    assert_eq!(frame(&mut client).await.0, 0x88);
    // what is no WebSocket
    let refused = door.ask("GET", "/api/greeter/sum", &ASKS.replace("13", "12"), "").await;
    assert_eq!(refused.status, 400);
    drop(client);
    assert!(greeter.stop(Duration::from_secs(2)).await);
}

/// A gateway in the place of `micro api` reaches every service, on the terms of each.
#[tokio::test]
async fn by_the_paths_of_go_micro_a_service_is_reached_on_its_own_terms() {
    const SHUT: &str = "
callServiceKey: the key
micro: { handler: rpc, namespace: go.micro.srv }
auth: { staff: { apiKeys: { keys: { ann: sixteen-or-more-letters } } } }
services: { go.micro.srv.greeter: { hello: { rpc: Say.Hello } } }
upstreams: { go.micro.srv.greeter: { auth: staff, faults: { delay: 1ms, headers: { x-fault: '*' } } } }
";
    let (mut parts, _) = parts("go.micro.srv.greeter");
    parts.call_keys = vec!["the key".to_owned()].into();
    let running = start(Service::new("go.micro.srv.greeter").rpc("Say.Hello", hello), parts);
    let door = door(SHUT, &[]);
    door.publisher.publish(vec![crate::rpc::node("go.micro.srv.greeter", running.address())]);
    wait_for("the node", || door.balancer.view().iter().any(|service| !service.nodes.is_empty())).await;
    let named = r#"{"service":"go.micro.srv.greeter","endpoint":"Say.Hello","request":{"name":"John"}}"#;
    for (path, body) in [("/greeter/say/hello", r#"{"name":"John"}"#), ("/rpc", named)] {
        assert_eq!(door.ask("POST", path, JSON, body).await.status, 401, "{path}");
        let key = format!("{JSON}X-Api-Key: sixteen-or-more-letters\r\n");
        let got = door.ask("POST", path, &key, body).await;
        assert_eq!((got.status, got.text().as_str()), (200, r#"{"msg":"Hello John"}"#), "{path}");
        let got = door.ask("POST", path, &format!("{key}X-Fault: late\r\n"), body).await;
        assert_eq!((got.status, got.header("x-goms-fault")), (200, Some("delay=1ms")), "{path}");
        let hostile = crate::support::json::nested_in_strings();
        for path in [path.to_owned(), format!("{path}?a=1")] {
            let got = door.ask("POST", &path, &key, &hostile).await;
            assert!(got.status == 400 && got.text().contains("rename it"), "{path}: {}", got.text());
        }
    }
    running.stop(Duration::from_secs(2)).await;
}

/// A node of mucp reads in the head which method is meant, and of two fields the first.
#[tokio::test]
async fn nobody_names_another_method_to_a_node_of_mucp() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut node = crate::rpc::node("greeter", listener.local_addr().expect("an address"));
    (node.id.http, node.id.rpc.port) = (node.id.rpc, None);
    node.meta.protocols = vec!["mucp".to_owned()];
    let door = door(CONFIG, &[]);
    door.publisher.publish(vec![node]);
    wait_for("the node", || door.balancer.view().iter().any(|service| !service.nodes.is_empty())).await;
    let answering = async {
        let (mut socket, _) = listener.accept().await.expect("the gateway");
        let mut got = Vec::new();
        while !got.ends_with(b"}") {
            assert_ne!(socket.read_buf(&mut got).await.expect("a request"), 0);
        }
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.expect("an answer");
        String::from_utf8_lossy(&got).to_ascii_lowercase()
    };
    let fields = format!(
        "{JSON}Micro-Endpoint: Admin.Drop\r\nX-Micro-Endpoint: Admin.Drop\r\nMicro_Method: Admin.Drop\r\nMicro-Service: bank\r\nMicro-Stream: 1\r\nMicro-From-Service: me\r\n"
    );
    let asking = door.ask("POST", "/api/greeter/plain", &fields, r#"{"name":"John"}"#);
    let (got, answer) = tokio::join!(answering, asking);
    assert_eq!(answer.status, 200, "{} {got}", answer.text());
    let said: Vec<&str> = got.lines().filter(|line| line.contains("micro")).collect();
    assert_eq!(said, ["micro-from-service: me", "micro-service: greeter", "micro-endpoint: say.hello", "micro-id: 1"]);
}

//! WebSocket through the gateway: the handshake is HTTP, what follows passes untouched, each way at its own pace.

use goms::trace::EventKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::*;
use crate::support::origin::{Origin, Reply, answer};
use crate::support::wire::Seen;

/// The handshake and the frames of RFC 6455 sections 1.3 and 5.7.
const ASKS: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const GRANTS: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const MASKED_HELLO: &[u8] = &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
const HELLO: &[u8] = &[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];

/// A service that grants the first request, with these bytes behind the head.
async fn granting(behind: &[u8]) -> (SocketAddr, Taken) {
    taking([GRANTS.as_bytes(), behind].concat()).await
}

/// A client's connection behind the handshake, the service's, and what the service was asked.
async fn tunnel(door: &Door, service: Taken) -> (Reader, TcpStream, Seen) {
    let mut client = door.connect().await;
    client.send(request("GET", "/api/user/login?room=1", ASKS, "")).await;
    let (line, fields) = client.head().await.unwrap();
    let field = |name: &str| fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    assert_eq!(line, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(field("upgrade").unwrap(), "websocket");
    assert!(field("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    assert_eq!(field("sec-websocket-accept").unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!((field("content-length"), field("transfer-encoding")), (None, None));
    assert!(field("x-request-id").is_some());
    let (seen, service) = service.await.unwrap();
    (client, service, seen)
}

async fn read(socket: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    tokio::time::timeout(Duration::from_secs(20), socket.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

#[tokio::test]
async fn a_websocket_passes_both_ways() {
    let (address, service) = granting(b"first").await;
    let mut door = Door::open(&[address]).await;
    let (mut client, mut service, seen) = tunnel(&door, service).await;
    assert_eq!(seen.target, "/login?room=1");
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("call-service-key", "the key"),
        ("x-forwarded-host", "example.test"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (None, None));
    assert_eq!(client.exactly(5).await.unwrap(), b"first", "what came with the head is the first that comes out");
    client.send(MASKED_HELLO).await;
    assert_eq!(read(&mut service, MASKED_HELLO.len()).await, MASKED_HELLO);
    service.write_all(HELLO).await.unwrap();
    assert_eq!(client.exactly(HELLO.len()).await.unwrap(), HELLO);
    assert_eq!(door.balancer.view()[0].nodes[0].in_flight, 1, "the node is busy with it");
    drop(service);
    assert!(client.closes().await);
    assert_eq!(door.event().await.kind, EventKind::RequestStart);
    let end = door.event().await;
    assert_eq!((end.kind, end.status), (EventKind::RequestEnd, Some(101)));
    wait_for("the node to be free", || door.balancer.view()[0].nodes[0].in_flight == 0).await;
}

#[tokio::test]
async fn a_side_that_does_not_read_is_heard() {
    let (address, service) = granting(b"").await;
    let door = Door::open(&[address]).await;
    let (mut client, service, _) = tunnel(&door, service).await;
    let (mut reading, mut writing) = service.into_split();
    // far more than all buffers between the two hold, and the client reads none of it
    let mut flood = JoinSet::new();
    flood.spawn(async move { writing.write_all(&vec![7; 64 << 20]).await });
    client.send("stop").await;
    let mut heard = [0; 4];
    tokio::time::timeout(Duration::from_secs(20), reading.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"stop");
    assert!(flood.try_join_next().is_none(), "the flood waits for its reader");
    for _ in 0..64 {
        assert!(client.exactly(1 << 20).await.unwrap().iter().all(|&byte| byte == 7));
    }
    flood.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn the_end_of_either_side_reaches_the_other() {
    let (address, service) = granting(b"").await;
    let door = Door::open(&[address]).await;
    let (mut client, mut service, _) = tunnel(&door, service).await;
    client.send("bye").await;
    client.socket.shutdown().await.unwrap();
    let mut all = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), service.read_to_end(&mut all)).await.unwrap().unwrap();
    assert_eq!(all, b"bye");
    drop(service);
    assert!(client.closes().await);

    let (address, service) = granting(b"").await;
    door.set_nodes(&[address]).await;
    let (client, mut service, _) = tunnel(&door, service).await;
    socket2::SockRef::from(&client.socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client); // resets
    let read = tokio::time::timeout(Duration::from_secs(20), service.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn one_that_stands_still_ends() {
    let (address, service) = granting(b"").await;
    let still = Duration::from_millis(300);
    let door = Door::with(&[address], |settings| {
        login(settings).policy.tunnel_timeout = still;
        login(settings).policy.stall_timeout = Duration::from_millis(1); // for bodies only
    })
    .await;
    let (mut client, mut service, _) = tunnel(&door, service).await;
    // alive as long as either side speaks
    let begin = std::time::Instant::now();
    while begin.elapsed() < still * 3 {
        client.send("a").await;
        assert_eq!(read(&mut service, 1).await, b"a");
        tokio::time::sleep(still / 10).await;
    }
    assert!(client.closes().await);
}

#[tokio::test]
async fn a_service_may_refuse() {
    let origin = Origin::answering(answer("403 Forbidden", "", "no")).await;
    let door = Door::open(&[origin.address]).await;
    let mut client = door.connect().await;
    client.send(request("GET", "/api/user/login", ASKS, "")).await;
    let got = client.answer(false).await.unwrap();
    assert_eq!((got.status, got.text().as_str(), got.header("upgrade")), (403, "no", None));
    assert!(client.closes().await, "what follows was meant for another protocol");
    assert_eq!(origin.only().header("upgrade"), Some("websocket"));
}

#[tokio::test]
async fn a_grant_of_something_else_is_a_502() {
    for grant in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let origin = Origin::answering(grant).await;
        let door = Door::with(&[origin.address], |settings| login(settings).policy.attempts = 1).await;
        assert_eq!(door.ask("GET", "/api/user/login", ASKS, "").await.status, 502, "{grant}");
    }
}

#[tokio::test]
async fn what_asks_for_another_protocol_or_in_another_way_is_an_ordinary_request() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    for headers in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Upgrade: websocket\r\n",
        "Connection: close, Upgrade\r\nUpgrade: websocket\r\n",
    ] {
        assert_eq!(door.ask("GET", "/api/user/login", headers, "").await.status, 200, "{headers}");
        let seen = origin.seen().pop().unwrap();
        assert_eq!((seen.header("upgrade"), seen.header("connection")), (None, None), "{headers}");
    }
}

#[tokio::test]
async fn one_that_announces_a_body_is_ambiguous() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    let mut clients = Vec::new();
    for (method, body) in [
        ("GET", "Content-Length: 4\r\n\r\nabcd"),
        ("POST", "Content-Length: 4\r\n\r\nabcd"),
        ("GET", "Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"),
    ] {
        let mut client = door.connect().await;
        client.send(format!("{method} /api/user/login HTTP/1.1\r\nHost: a\r\n{ASKS}{body}")).await;
        assert_eq!(client.answer(false).await.unwrap().status, 400, "{method} {body}");
        clients.push(client);
    }
    for mut client in clients {
        assert!(client.closes().await);
    }
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn a_try_that_fails_goes_to_the_next_node() {
    let broken = Origin::start(|_, _| Reply::Close(Vec::new())).await;
    let (address, service) = granting(b"").await;
    let door = Door::open(&[broken.address, address]).await;
    let (mut client, mut service, _) = tunnel(&door, service).await;
    client.send(MASKED_HELLO).await;
    assert_eq!(read(&mut service, MASKED_HELLO.len()).await, MASKED_HELLO);
}

#[tokio::test]
async fn a_drain_waits_for_it_no_longer_than_it_may() {
    let (address, service) = granting(b"").await;
    let mut door = Door::open(&[address]).await;
    let (mut client, mut service, _) = tunnel(&door, service).await;
    let running = door.running.take().unwrap();
    let mut stopping = JoinSet::new();
    stopping.spawn(running.stop(Duration::from_millis(500)));
    client.send("on").await;
    assert_eq!(read(&mut service, 2).await, b"on", "it goes on while there is time");
    assert!(!stopping.join_next().await.unwrap().unwrap(), "it did not end by itself");
    assert!(client.closes().await);
}

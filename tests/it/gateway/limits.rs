use tokio::io::AsyncWriteExt;

use super::*;
use crate::support::origin::{Origin, Reply, echo};

#[tokio::test]
async fn too_many_in_flight_is_429_with_retry_after() {
    let origin =
        Origin::start(|seen, _| if seen.method == "POST" { Reply::Never } else { Reply::Bytes(echo(seen)) }).await;
    let door = Door::with(&[origin.address], |settings| settings.limits.in_flight = 1).await;
    let mut slow = door.connect().await;
    slow.send(crate::support::wire::request("POST", "/api/user/login", "", "")).await;
    wait_for("the slow request", || origin.seen().len() == 1).await;
    let got = door.get().await;
    assert_eq!((got.status, got.header("retry-after")), (429, Some("1")));
    drop(slow);
    wait_for("the slow one to go", || door.balancer.view()[0].nodes[0].in_flight == 0).await;
    assert_eq!(door.get().await.status, 200);
}

#[tokio::test]
async fn long_headers_are_431() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    let mut client = door.connect().await;
    let got = client.ask("GET", "/api/user/login", &format!("X-Long: {}\r\n", "x".repeat(64 << 10)), "").await;
    assert_eq!((got.status, got.json()["code"].clone()), (431, 431.into()));
    let got = client.ask("GET", "/api/user/login", &format!("X-Long: {}\r\n", "x".repeat(60 << 10)), "").await;
    assert_eq!(got.status, 200, "the connection survives");
    // as much as the config allows to allow
    let mut settings = door.live.settings();
    settings.limits.header_bytes = 112 << 10;
    door.live.replace(settings);
    let mut client = door.connect().await;
    let long = format!("X-Long: {}\r\n", "x".repeat(111 << 10));
    assert_eq!(client.ask("GET", "/api/user/login", &long, "").await.status, 200);
    let many: String = (0..97).map(|n| format!("X-{n}: 1\r\n")).collect();
    let got = client.ask("GET", "/api/user/login", &many, "").await;
    assert!([400, 431].contains(&got.status), "{}", got.status);
}

#[tokio::test]
async fn a_slow_head_is_408() {
    let door = Door::with(&[], |settings| settings.limits.header_timeout = Duration::from_millis(100)).await;
    let mut client = door.connect().await;
    client.send("GET /api/user/login HTTP/1.1\r\nHo").await;
    assert_eq!(client.answer(false).await.unwrap().status, 408);
}

/// actix-http times the first head of a connection only.
#[tokio::test]
async fn a_slow_later_head_is_408_too() {
    let origin = Origin::echo().await;
    let door = Door::with(&[origin.address], |settings| settings.limits.header_timeout = Duration::from_secs(1)).await;
    let mut client = door.connect().await;
    for _ in 0..3 {
        assert_eq!(client.ask("GET", "/api/user/login", "", "").await.status, 200);
        tokio::time::sleep(Duration::from_millis(600)).await; // idle between requests is no slow head
    }
    client.send("GET /api/user/login HTTP/1.1\r\nHo").await;
    let got = client.answer(false).await.unwrap();
    assert_eq!((got.status, got.header("connection")), (408, Some("close")));
    assert!(client.closes().await);
    // nor is a slow body, or a slow answer
    let slow = Origin::start(|seen, _| Reply::Late(Duration::from_millis(1500), echo(seen))).await;
    door.set_nodes(&[slow.address]).await;
    let mut client = door.connect().await;
    assert_eq!(client.ask("GET", "/api/user/login", "", "").await.status, 200);
    client.send(format!("POST /api/user/login HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: 7\r\n\r\n")).await;
    for part in ["{\"a", "\":1", "}"] {
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.send(part).await;
    }
    assert_eq!(client.answer(false).await.unwrap().status, 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let origin = Origin::echo().await;
    let door = Door::with(&[origin.address], |settings| settings.limits.idle_timeout = Duration::from_secs(1)).await;
    let mut client = door.connect().await;
    assert_eq!(client.ask("GET", "/api/user/login", "", "").await.status, 200);
    assert!(client.closes().await);
}

#[tokio::test]
async fn a_refused_body_leaves_the_gateway_well() {
    let origin = Origin::echo().await;
    let door = Door::with(&[origin.address], |settings| settings.limits.body_bytes = 10).await;
    let mut client = door.connect().await;
    let got = client.ask("POST", "/api/user/login", JSON, "x".repeat(100_000)).await;
    assert_eq!(got.status, 413);
    assert_eq!(door.get().await.status, 200);
}

#[tokio::test]
async fn malformed_bytes_harm_nobody() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET\r\n\r\n",
        b"GET /api/user/login HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /api/user/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/user/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/user/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /api/user/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/%00/%ff HTTP/1.1\r\nHost: x\r\nX-Request-Id: \xff\xff\r\nTraceparent: \xff\r\n\r\n",
        b"GET http://[::1/api HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut client = door.connect().await;
        client.send(bytes).await;
        client.socket.shutdown().await.unwrap();
        if let Some(got) = client.answer(false).await {
            assert!((400..500).contains(&got.status), "{} to {}", got.status, String::from_utf8_lossy(bytes));
        }
    }
    assert_eq!(door.get().await.status, 200);
    assert_eq!(origin.seen().len(), 1);
}

//! What the gateway makes of answers by the letter of HTTP/1.1 (RFC 9112), and of the connections that they came on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;

use super::*;
use crate::support::origin::{Origin, Reply, answer, json};

fn untouched(settings: &mut Settings) {
    let login = login(settings);
    (login.answer, login.encode, login.policy.attempts) = (AnswerForm::Untouched, Encode::None, 1);
}

/// What a client gets of these bytes, after which the service closes the connection.
async fn of(method: &str, bytes: impl Into<Vec<u8>>) -> (u16, String) {
    let bytes = bytes.into();
    let origin = Origin::start(move |_, _| Reply::Close(bytes.clone())).await;
    let door = Door::with(&[origin.address], untouched).await;
    let got = door.ask(method, "/api/user/login", "", "").await;
    (got.status, if got.status == 502 { String::new() } else { got.text() })
}

#[tokio::test]
async fn an_answer_is_read_as_its_framing_says() {
    for (bytes, status, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
        ("HTTP/1.1 200 OK\r\ncontent-length:2\r\nContent-Length: 2\r\n\r\nok and more", 200, "ok"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\no\r\n01\r\nk\r\n0\r\nA: b\r\n\r\n", 200, "ok"),
        ("HTTP/1.1 200 OK\r\n\r\nok", 200, "ok"),
        ("HTTP/1.0 200 OK\r\n\r\nok", 200, "ok"),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, ""),
        ("HTTP/1.1 204 No Content\r\n\r\nmore", 204, ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, ""),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            200,
            "ok",
        ),
        ("HTTP/1.1 599 Mine\r\nContent-Length: 2\r\n\r\nok", 599, "ok"),
    ] {
        assert_eq!(of("GET", bytes).await, (status, body.to_owned()), "{bytes:?}");
    }
    let head = of("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await;
    assert_eq!(head, (200, String::new()), "the answer to HEAD has no body");
}

#[tokio::test]
async fn what_violates_http_is_a_502() {
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(200));
    let interims = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(50);
    for bytes in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "{\"no\":\"head\"}\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 99 OK\r\n\r\n",
        "HTTP/1.1 999 OK\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nA: \0\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        &interims,
        &long,
        &many,
    ] {
        let start: String = bytes.chars().take(80).collect();
        assert_eq!(of("GET", bytes).await.0, 502, "{start:?}");
    }
}

#[tokio::test]
async fn nobody_gets_what_belongs_to_another_request() {
    // each answer is followed by a second one that nobody asked for
    let both = |number: usize| [json(&format!(r#"{{"n":{number}}}"#)), json(r#"{"n":"stray"}"#)].concat();
    let origin = Origin::start(move |_, number| Reply::Bytes(both(number))).await;
    let door = Door::with(&[origin.address], untouched).await;
    let mut client = door.connect().await;
    for number in 0..10 {
        let got = client.ask("GET", "/api/user/login", "", "").await;
        assert_eq!(got.text(), format!(r#"{{"n":{number}}}"#));
    }
}

#[tokio::test]
async fn a_connection_is_used_again_and_one_that_ended_costs_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, tasks, accepted) = (listener.local_addr().unwrap(), Shutdown::new(), Arc::new(AtomicUsize::new(0)));
    let (closed, mut is_closed) = mpsc::channel(1);
    let (serving, count) = (tasks.clone(), accepted.clone());
    tasks.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let closed = closed.clone();
            serving.spawn(async move {
                let mut client = Reader::new(socket);
                for _ in 0..5 {
                    client.request().await;
                    client.send(json("{}")).await; // without a word about closing
                }
                drop(client);
                closed.send(()).await.unwrap();
            });
        }
    });
    let door = Door::with(&[address], untouched).await;
    let mut client = door.connect().await; // one connection, so one worker
    for round in 0..4 {
        for _ in 0..5 {
            assert_eq!(client.ask("POST", "/api/user/login", JSON, "{}").await.status, 200, "round {round}");
        }
        is_closed.recv().await.unwrap();
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_body_reaches_the_client() {
    let refusal = answer("413 Content Too Large", "Connection: close\r\n", "too much");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, tasks) = (listener.local_addr().unwrap(), Shutdown::new());
    tasks.spawn(async move {
        let mut client = Reader::new(listener.accept().await.unwrap().0);
        client.head().await.unwrap();
        client.send(refusal).await;
        std::future::pending::<()>().await; // and the body is never read
    });
    let door = Door::with(&[address], untouched).await;
    let mut client = door.connect().await;
    client.send("POST /api/user/login HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nthe beginning").await;
    let got = client.answer(false).await.unwrap();
    assert_eq!((got.status, got.text().as_str()), (413, "too much"));
}

#[tokio::test]
async fn both_ways_may_flow_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, tasks) = (listener.local_addr().unwrap(), Shutdown::new());
    tasks.spawn(async move {
        let mut client = Reader::new(listener.accept().await.unwrap().0);
        client.head().await.unwrap();
        client.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        while let Some(chunk) = client.chunk().await.filter(|chunk| !chunk.is_empty()) {
            client.send(format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(&chunk))).await;
        }
        client.send("0\r\n\r\n").await;
    });
    let door = Door::with(&[address], untouched).await;
    let mut client = door.connect().await;
    client.send("POST /api/user/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let (line, _) = client.head().await.unwrap();
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    for word in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{word}\r\n", word.len())).await;
        assert_eq!(client.chunk().await.as_deref(), Some(word.as_bytes()));
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await, Some(Vec::new()));
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_whole_to_the_service() {
    for head in ["Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door::with(&[address], untouched).await;
        let mut client = door.connect().await;
        client.send(format!("POST /api/user/login HTTP/1.1\r\nHost: a\r\n{head}\r\n3\r\nabc\r\n")).await;
        let mut service = Reader::new(listener.accept().await.unwrap().0);
        drop(client);
        assert!(service.request().await.is_none(), "{head}");
    }
}

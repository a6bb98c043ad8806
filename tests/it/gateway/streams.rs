//! Bodies that are passed on as they come: events of a service (SSE), and how long one may stand still.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::*;
use crate::support::origin::json;

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn each_event_passes_when_it_comes() {
    let (address, taken) = taking(EVENTS).await;
    let door = Door::open(&[address]).await;
    let mut client = door.connect().await;
    client.send(request("GET", "/api/user/login", "Accept: text/event-stream\r\n", "")).await;
    let (line, fields) = client.head().await.unwrap();
    assert_eq!(line, "HTTP/1.1 200 OK");
    assert!(fields.contains(&("content-type".into(), "text/event-stream".into())), "{fields:?}");
    let (_, mut service) = taken.await.unwrap();
    for number in 0..20 {
        // the next one is sent only once this one was seen
        let event = format!("id: {number}\ndata: {{}}\n\n");
        service.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await.unwrap();
        let chunk = tokio::time::timeout(Duration::from_secs(20), client.chunk()).await.unwrap();
        assert_eq!(chunk.unwrap(), event.as_bytes());
    }
    drop(client);
    // a client may end its side and still read, so only what cannot be sent to it tells that it is gone
    let speak = async { while service.write_all(b"1\r\n\n\r\n").await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), speak).await.expect("the service's connection ends too");
}

#[tokio::test]
async fn one_that_stands_still_for_too_long_is_cut() {
    let (address, taken) = taking(EVENTS).await;
    let door = Door::with(&[address], |settings| {
        login(settings).policy.stall_timeout = Duration::from_millis(200);
    })
    .await;
    let mut client = door.connect().await;
    client.send(request("GET", "/api/user/login", "", "")).await;
    let (_, service) = taken.await.unwrap();
    let got = client.answer(false).await.unwrap();
    assert_eq!((got.status, got.complete), (200, false));
    drop(service);
}

#[tokio::test]
async fn a_node_that_accepts_nobody_is_given_up_after_connect_timeout() {
    // a listener whose queue is full: the kernel drops what more comes
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let full = listener.local_addr().unwrap().as_socket().unwrap();
    let _first = TcpStream::connect(full).await.unwrap();
    let origin = crate::support::origin::Origin::answering(json("{}")).await;
    let door = Door::with(&[full, origin.address], |settings| {
        let policy = &mut login(settings).policy;
        (policy.connect_timeout, policy.timeout) = (Duration::from_millis(100), Duration::from_secs(3600));
    })
    .await;
    for _ in 0..2 {
        assert_eq!(door.post(JSON, "{}").await.status, 200, "it was surely not sent, so the other one gets it");
    }
    assert_eq!(origin.seen().len(), 2);
}

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
    // what cannot be sent to it tells at once that it is gone
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

#[tokio::test]
async fn a_client_that_is_gone_frees_the_service_though_nothing_is_sent() {
    const EACH: usize = 10;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ended = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (counted, background) = (ended.clone(), Shutdown::new());
    let tasks = background.clone();
    background.spawn(async move {
        loop {
            let socket = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                () = tasks.begun() => return,
            };
            let (counted, ending) = (counted.clone(), tasks.clone());
            tasks.spawn(async move {
                let mut reader = Reader::new(socket);
                if reader.request().await.is_some() {
                    reader.send(EVENTS).await;
                    tokio::select! {
                        _ = reader.closes() => { counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed); }
                        () = ending.begun() => {}
                    }
                }
            });
        }
    });
    let door = Door::open(&[address]).await;
    let open = async || {
        let mut client = door.connect().await;
        client.send(request("GET", "/api/user/login", "", "")).await;
        assert_eq!(client.head().await.unwrap().0, "HTTP/1.1 200 OK");
        client
    };
    let mut clients = Vec::new();
    for _ in 0..3 * EACH {
        clients.push(open().await);
    }
    let busy = || door.balancer.view()[0].nodes[0].in_flight;
    let gone = || ended.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((busy(), gone()), (3 * EACH, 0));
    for client in clients.drain(..EACH) {
        socket2::SockRef::from(&client.socket).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client); // resets
    }
    wait_for("those that reset to be gone", || busy() == 2 * EACH && gone() == EACH).await;
    clients.drain(..EACH).for_each(drop); // closes, and nothing more comes of it
    wait_for("those that closed to be gone", || busy() == EACH && gone() == 2 * EACH).await;
    // who stays, and listens, is not
    assert_eq!(clients.len(), EACH);
    background.begin();
}

#[tokio::test]
async fn a_client_that_only_ended_its_side_gets_what_comes() {
    let (address, taken) = taking(EVENTS).await;
    let door = Door::open(&[address]).await;
    let mut client = door.connect().await;
    client.send(request("GET", "/api/user/login", "", "")).await;
    client.head().await.unwrap();
    let (_, mut service) = taken.await.unwrap();
    client.socket.shutdown().await.unwrap();
    for _ in 0..3 {
        service.write_all(b"2\r\n:\n\r\n").await.unwrap();
        let chunk = tokio::time::timeout(Duration::from_secs(20), client.chunk()).await.unwrap();
        assert_eq!(chunk.unwrap(), b":\n");
    }
    service.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(client.chunk().await.unwrap(), b"", "the end");
}

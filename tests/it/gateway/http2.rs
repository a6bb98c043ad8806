//! HTTP/2: with TLS by ALPN, without by prior knowledge.

mod hostile;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{Method, Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::*;
use crate::support::origin::{Origin, Reply, answer, echo};
use crate::support::tls::{Identity, client, connect};

/// A client on one connection.
struct Client {
    send: SendRequest<Bytes>,
    tasks: Shutdown,
    /// How the connection ended.
    ended: Arc<std::sync::Mutex<Option<Result<(), h2::Error>>>>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.begin();
    }
}

impl Client {
    async fn plain(door: &Door) -> Self {
        Self::on(tokio::net::TcpStream::connect(door.address).await.unwrap()).await
    }

    async fn on(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        let (tasks, ended) = (Shutdown::new(), Arc::new(std::sync::Mutex::new(None)));
        let (ending, told) = (tasks.clone(), ended.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = ending.begun() => {}
                outcome = connection => *told.lock().unwrap() = Some(outcome),
            }
        });
        Self { send: send.ready().await.unwrap(), tasks, ended }
    }

    async fn ask(
        &mut self,
        request: Request<()>,
        body: Option<&'static [u8]>,
    ) -> Result<(Response<()>, Bytes), h2::Error> {
        std::future::poll_fn(|task| self.send.poll_ready(task)).await?;
        let (answer, mut stream) = self.send.send_request(request, body.is_none())?;
        if let Some(body) = body {
            stream.send_data(Bytes::from_static(body), true)?;
        }
        let (head, body) = answer.await?.into_parts();
        Ok((Response::from_parts(head, ()), whole(body).await?))
    }

    async fn get(&mut self, target: &str) -> Result<(Response<()>, Bytes), h2::Error> {
        self.ask(request(Method::GET, target), None).await
    }
}

async fn whole(mut body: RecvStream) -> Result<Bytes, h2::Error> {
    let mut all = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        all.extend_from_slice(&part);
    }
    Ok(all.into())
}

fn request(method: Method, target: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .version(Version::HTTP_2)
        .uri(format!("http://shop.test{target}"))
        .body(())
        .unwrap()
}

#[tokio::test]
async fn requests_go_the_same_way_as_those_of_http_1() {
    let origin = Origin::echo().await;
    let mut door = Door::open(&[origin.address]).await;
    let mut client = Client::plain(&door).await;
    let mut post = request(Method::POST, "/api/user/login?a=1");
    for (name, value) in [
        ("content-type", "application/json"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x-mine", "1"),
        ("te", "trailers"),
        ("call-service-key", "fake"),
        ("x-forwarded-for", "6.6.6.6"),
    ] {
        post.headers_mut().append(name, value.parse().unwrap());
    }
    // without a length, which HTTP/2 does not need
    let (head, body) = client.ask(post, Some(b"{\"n\":1}")).await.unwrap();
    assert_eq!(head.status(), 200);
    assert!(head.headers().contains_key("x-request-id") && head.headers().contains_key("date"));
    assert!(!head.headers().contains_key("connection") && !head.headers().contains_key("transfer-encoding"));
    assert!(String::from_utf8_lossy(&body).contains("\"body\":{\"n\":1}"), "{body:?}");
    let seen = origin.only();
    assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.text().as_str()), ("POST", "/login?a=1", "{\"n\":1}"));
    for (name, value) in [
        ("cookie", "a=1; b=2"),
        ("x-mine", "1"),
        ("x-forwarded-host", "shop.test"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "127.0.0.1"),
        ("call-service-key", "the key"),
    ] {
        let all: Vec<_> = seen.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value).collect();
        assert_eq!(all, [value], "{name}");
    }
    assert_eq!(seen.header("te"), None);
    let event = door.event().await;
    assert_eq!((event.request.head.method(), event.request.head.client_ip()), ("POST", "127.0.0.1"));
    // and what the gateway answers itself
    assert_eq!(client.get("/nowhere").await.unwrap().0.status(), 404);
    let (head, body) = client.ask(request(Method::HEAD, "/api/user/login"), None).await.unwrap();
    assert_eq!((head.status(), body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn alpn_chooses_it_on_the_https_port() {
    let (origin, folder, identity) = (Origin::echo().await, tempfile::tempdir().unwrap(), Identity::new());
    let paths = identity.files(folder.path());
    let certificate = goms::listener::CertificateFiles { cert: paths.certificate, key: paths.key };
    let door = Door::with(&[origin.address], |settings| {
        settings.tls = Some(goms::listener::TlsSettings { certificates: vec![certificate], ..Default::default() });
    })
    .await;
    let https = door.https.as_ref().unwrap().0;
    for (offered, chosen) in
        [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None), (&["h2"], Some("h2"))]
    {
        let stream = connect(&client(&identity.ca, offered, None), https, "127.0.0.1").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes), "{offered:?}");
        if chosen == Some("h2") {
            let (head, _) = Client::on(stream).await.get("/api/user/login").await.unwrap();
            assert_eq!(head.status(), 200);
        } else {
            assert_eq!(Reader::new(stream).ask("GET", "/api/user/login", "", "").await.status, 200);
        }
        assert_eq!(origin.seen().last().unwrap().header("x-forwarded-proto"), Some("https"));
    }
    assert!(connect(&client(&identity.ca, &["spdy/1"], None), https, "127.0.0.1").await.is_err());
}

#[tokio::test]
async fn both_ways_are_streamed_and_trailers_are_dropped() {
    let parts = Origin::start(|_, _| Reply::Bytes(answer("200 OK", "", vec![b'x'; 3 << 20]))).await;
    let door = Door::with(&[parts.address], |settings| login(settings).encode = Encode::None).await;
    let mut client = Client::plain(&door).await;
    let (answer, mut upload) = client.send.send_request(request(Method::PUT, "/api/user/login"), false).unwrap();
    let mut sent = 0;
    while sent < 2 << 20 {
        upload.reserve_capacity(16 << 10);
        let room = std::future::poll_fn(|task| upload.poll_capacity(task)).await.unwrap().unwrap();
        upload.send_data(vec![b'y'; room].into(), false).unwrap();
        sent += room;
    }
    upload.send_trailers([("x-check".parse().unwrap(), "1".parse().unwrap())].into_iter().collect()).unwrap();
    let (head, mut body) = answer.await.unwrap().into_parts();
    assert_eq!(head.headers["content-length"], (3 << 20).to_string());
    let mut got = 0;
    while let Some(part) = body.data().await {
        let part = part.unwrap();
        got += part.len();
        body.flow_control().release_capacity(part.len()).unwrap();
    }
    assert_eq!((got, body.trailers().await.unwrap()), (3 << 20, None));
    let seen = parts.only();
    assert_eq!((seen.body.len(), seen.header("x-check")), (sent, None));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_reset() {
    let half = [&b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"[..], &[b'x'; 100_000]].concat();
    let origin = Origin::start(move |_, _| Reply::Close(half.clone())).await;
    let door = Door::with(&[origin.address], |settings| login(settings).answer = AnswerForm::Untouched).await;
    let error = Client::plain(&door).await.get("/api/user/login").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
}

#[tokio::test]
async fn a_client_that_gives_up_ends_its_request() {
    let origin = Origin::start(|_, _| Reply::Never).await;
    let door = Door::open(&[origin.address]).await;
    let mut client = Client::plain(&door).await;
    let (answer, mut stream) = client.send.send_request(request(Method::GET, "/api/user/login"), true).unwrap();
    let other = client.send.send_request(request(Method::GET, "/api/user/login"), true).unwrap().0;
    let in_flight = || door.balancer.view()[0].nodes[0].in_flight;
    wait_for("the requests", || in_flight() == 2).await;
    stream.send_reset(Reason::CANCEL);
    drop(answer);
    wait_for("the one that was given up to go", || in_flight() == 1).await;
    drop(other);
    drop(client);
    wait_for("the other to go with its connection", || in_flight() == 0).await;
}

#[tokio::test]
async fn a_client_that_opens_no_window_is_given_up() {
    let origin = Origin::start(|_, _| Reply::Bytes(answer("200 OK", "", vec![b'x'; 3 << 20]))).await;
    let door = Door::with(&[origin.address], |settings| {
        login(settings).answer = AnswerForm::Untouched;
        settings.limits.send_timeout = Duration::from_secs(1);
    })
    .await;
    let mut client = Client::plain(&door).await;
    let answer = client.send.send_request(request(Method::GET, "/api/user/login"), true).unwrap().0;
    let mut body = answer.await.unwrap().into_body();
    let mut got = 0;
    let error = loop {
        match body.data().await.unwrap() {
            Ok(part) => got += part.len(), // and no capacity is released
            Err(error) => break error,
        }
    };
    assert_eq!((got, error.reason()), (65_535, Some(Reason::CANCEL)), "the window that a client begins with");
    wait_for("the request to go", || door.balancer.view()[0].nodes[0].in_flight == 0).await;
    body.flow_control().release_capacity(got).unwrap(); // the window of the connection
    assert_eq!(client.get("/nowhere").await.unwrap().0.status(), 404, "the connection survives");
}

#[tokio::test]
async fn bodies_have_their_limits() {
    let origin = Origin::echo().await;
    let door = Door::with(&[origin.address], |settings| {
        settings.limits.body_bytes = 10;
        settings.limits.body_timeout = Duration::from_secs(1);
    })
    .await;
    let mut client = Client::plain(&door).await;
    let post = || request(Method::POST, "/api/user/login");
    assert_eq!(client.ask(post(), Some(b"{\"a\":\"too long\"}")).await.unwrap().0.status(), 413);
    let (answer, mut upload) = client.send.send_request(post(), false).unwrap();
    upload.send_data(Bytes::from_static(b"{"), false).unwrap();
    assert_eq!(answer.await.unwrap().status(), 408, "it never ends");
    assert_eq!(client.ask(post(), Some(b"{\"a\":1}")).await.unwrap().0.status(), 200, "the connection survives");
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn long_heads_are_431_and_streams_are_limited() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    for length in [70 << 10, 200 << 10] {
        let mut client = Client::plain(&door).await;
        let mut long = request(Method::GET, "/api/user/login");
        long.headers_mut().insert("x-long", "x".repeat(length).parse().unwrap());
        assert_eq!(client.ask(long, None).await.unwrap().0.status(), 431, "{length}");
        assert_eq!(client.get("/api/user/login").await.unwrap().0.status(), 200, "the connection survives");
    }
    let slow = Origin::start(|_, _| Reply::Never).await;
    let door = Door::open(&[slow.address]).await;
    let mut client = Client::plain(&door).await;
    let mut answers = Vec::new();
    for _ in 0..300 {
        if tokio::time::timeout(Duration::from_millis(200), std::future::poll_fn(|task| client.send.poll_ready(task)))
            .await
            .is_err()
        {
            break;
        }
        answers.push(client.send.send_request(request(Method::GET, "/api/user/login"), true).unwrap().0);
    }
    wait_for("the requests", || slow.seen().len() == 128).await;
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go() {
    let origin = Origin::echo().await;
    let door = Door::with(&[origin.address], |settings| settings.limits.idle_timeout = Duration::from_secs(1)).await;
    let mut client = Client::plain(&door).await;
    assert_eq!(client.get("/api/user/login").await.unwrap().0.status(), 200);
    wait_for("the end", || client.ended.lock().unwrap().is_some()).await;
    let ended = client.ended.lock().unwrap().take().unwrap();
    assert!(ended.as_ref().is_ok_and(|()| true) || ended.is_err_and(|error| error.reason() == Some(Reason::NO_ERROR)));
}

#[tokio::test]
async fn no_request_fails_when_a_gateway_ends_under_load() {
    let origin = Origin::start(|seen, _| Reply::Late(Duration::from_millis(5), echo(seen))).await;
    let mut door = Door::open(&[origin.address]).await;
    let address = door.address;
    let answered = std::sync::atomic::AtomicUsize::new(0);
    let count = || answered.load(std::sync::atomic::Ordering::Relaxed);
    let load = async {
        // reconnects when told to go; from the end on, a connect is refused
        while let Ok(socket) = tokio::net::TcpStream::connect(address).await {
            let mut client = Client::on(socket).await;
            loop {
                match client.get("/api/user/login").await {
                    Ok((head, _)) => assert_eq!(head.status(), 200),
                    // not taken any more, and the client is told so: nothing was sent
                    Err(error) if error.is_go_away() && error.reason() == Some(Reason::NO_ERROR) => break,
                    Err(error) if error.reason().is_none() && !error.is_io() => break, // its connection has ended before
                    Err(error) => panic!("{error:?}"),
                }
                answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    };
    let end = async {
        wait_for("the load", || count() > 100).await;
        let began = std::time::Instant::now();
        assert!(door.running.take().unwrap().stop(Duration::from_secs(20)).await);
        assert!(began.elapsed() < Duration::from_secs(8), "held up: {:?}", began.elapsed());
    };
    tokio::join!(load, end);
    assert_eq!(origin.seen().len(), count());
}

/// RFC 8441.
fn websocket(target: &str) -> Request<()> {
    let mut request = request(Method::CONNECT, target);
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    request
}

#[tokio::test]
async fn a_websocket_is_a_stream() {
    let grants = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\nX-Mine: 1\r\n\r\nfirst";
    let (address, taken) = taking(grants).await;
    let door = Door::open(&[address]).await;
    let mut client = Client::plain(&door).await;
    // the setting comes with the first answer at the latest
    assert_eq!(client.get("/nowhere").await.unwrap().0.status(), 404);
    assert!(client.send.is_extended_connect_protocol_enabled());
    let (answer, mut up) = client.send.send_request(websocket("/api/user/login?room=1"), false).unwrap();
    let (head, mut down) = answer.await.unwrap().into_parts();
    assert_eq!(
        (head.status, head.headers.get("x-mine").map(|value| value.as_bytes())),
        (StatusCode::OK, Some(&b"1"[..]))
    );
    for name in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
        assert!(!head.headers.contains_key(name), "{name}");
    }
    let (seen, mut service) = taken.await.unwrap();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/login?room=1"));
    for (name, value) in [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", "13")] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert_eq!(seen.header("sec-websocket-key").map(str::len), Some(24));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.test"));
    assert_eq!(down.data().await.unwrap().unwrap(), "first");
    for round in 0..3u8 {
        up.send_data(Bytes::copy_from_slice(&[round; 5]), false).unwrap();
        let mut heard = [0; 5];
        tokio::time::timeout(Duration::from_secs(20), tokio::io::AsyncReadExt::read_exact(&mut service, &mut heard))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(heard, [round; 5]);
        service.write_all(&heard).await.unwrap();
        assert_eq!(down.data().await.unwrap().unwrap(), &[round; 5][..]);
    }
    assert_eq!(door.balancer.view()[0].nodes[0].in_flight, 1);
    drop(service);
    let mut rest = Vec::new();
    while let Some(part) = down.data().await {
        rest.extend_from_slice(&part.expect("an end, and no reset"));
    }
    assert!(rest.is_empty(), "its end is the stream's");
    wait_for("the node to be free", || door.balancer.view()[0].nodes[0].in_flight == 0).await;
}

#[tokio::test]
async fn what_grants_no_websocket_is_no_success() {
    let origin = Origin::start(|_, number| match number {
        0 => Reply::Bytes(answer("200 OK", "", "hello")),
        _ => Reply::Bytes(answer("403 Forbidden", "", "")),
    })
    .await;
    let door = Door::open(&[origin.address]).await;
    let mut client = Client::plain(&door).await;
    assert_eq!(client.get("/nowhere").await.unwrap().0.status(), 404);
    for status in [502, 403] {
        assert_eq!(client.ask(websocket("/api/user/login"), None).await.unwrap().0.status(), status);
    }
    // a reset frees the service
    let (address, taken) =
        taking("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    door.set_nodes(&[address]).await;
    let (answer, mut up) = client.send.send_request(websocket("/api/user/login"), false).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    let (_, mut service) = taken.await.unwrap();
    up.send_reset(Reason::CANCEL);
    let mut byte = [0; 1];
    let read = tokio::io::AsyncReadExt::read(&mut service, &mut byte);
    let read = tokio::time::timeout(Duration::from_secs(20), read).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    // other tunnels are refused as ever
    let mut other = websocket("/api/user/login");
    other.extensions_mut().insert(h2::ext::Protocol::from_static("connect-udp"));
    assert_eq!(client.ask(other, None).await.unwrap().0.status(), 400);
}

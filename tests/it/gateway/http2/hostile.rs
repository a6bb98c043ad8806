//! What no decent client sends.

use super::*;

#[tokio::test]
async fn what_is_ambiguous_is_refused_and_never_reaches_a_service() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    let target = "/api/user/login";
    let with = |fields: &[(&'static str, &str)]| {
        let mut request = request(Method::POST, target);
        for (name, value) in fields {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        request
    };
    let mut wrong = Vec::new();
    for (what, request, body) in [
        ("another Host", with(&[("host", "evil.test")]), None),
        ("two Hosts", with(&[("host", "shop.test"), ("host", "shop.test")]), None),
        ("a body longer than its length", with(&[("content-length", "2")]), Some(&b"abc"[..])),
        ("a body shorter than its length", with(&[("content-length", "4")]), Some(b"abc")),
        ("two lengths", with(&[("content-length", "3"), ("content-length", "3")]), Some(b"abc")),
        ("a length that is none", with(&[("content-length", "3x")]), Some(b"abc")),
    ] {
        let mut client = Client::plain(&door).await;
        match client.ask(request, body).await {
            Ok((head, _)) if head.status() == 400 => {}
            Err(error) if error.reason() == Some(Reason::PROTOCOL_ERROR) => {}
            other => wrong.push(format!("{what}: {other:?}")),
        }
    }
    // what no decent client can send
    let host = (":authority", "x");
    for (what, fields) in [
        ("no host", &[][..]),
        ("Transfer-Encoding", &[host, ("transfer-encoding", "chunked")]),
        ("Connection", &[host, ("connection", "x-mine")]),
        ("Keep-Alive", &[host, ("keep-alive", "5")]),
        ("Upgrade", &[host, ("upgrade", "websocket")]),
        ("TE", &[host, ("te", "gzip")]),
        ("a name in upper case", &[host, ("X-Mine", "1")]),
        ("an unknown pseudo-field", &[host, (":mine", "1")]),
        ("a pseudo-field after others", &[host, ("x-mine", "1"), (":path", "/")]),
        ("two paths", &[host, (":path", "/a")]),
        ("a line break", &[host, ("x-mine", "1\r\nx-other: 1")]),
    ] {
        let answered = raw(&door, fields).await;
        if !matches!(answered, Answered::Status400 | Answered::Reset(1) | Answered::Ended) {
            wrong.push(format!("{what}: {answered:?}"));
        }
    }
    assert!(matches!(raw(&door, &[host]).await, Answered::Other(_)), "the rest of it is good");
    let reached: Vec<String> = origin.seen().iter().skip(1).map(|seen| format!("{seen:?}")).collect();
    assert!(wrong.is_empty() && reached.is_empty() && origin.seen().len() == 1, "{wrong:#?}\n{reached:#?}");
}

/// What came on a stream.
#[derive(Debug)]
enum Answered {
    Status400,
    /// RST_STREAM with its code.
    Reset(u32),
    /// GOAWAY, or the end.
    Ended,
    /// Another head, packed.
    Other(#[allow(dead_code)] Vec<u8>), // shown
}

/// A GET with these fields besides (their names and values without compression, RFC 7541 section 6.2.2).
async fn raw(door: &Door, fields: &[(&str, &str)]) -> Answered {
    let mut head = vec![0x82, 0x86, 0x04, 15];
    head.extend_from_slice(b"/api/user/login");
    for (name, value) in fields {
        head.push(0);
        for text in [name, value] {
            head.push(text.len() as u8);
            head.extend_from_slice(text.as_bytes());
        }
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend_from_slice(&[0, 0, head.len() as u8, 1, 5, 0, 0, 0, 1]);
    bytes.extend_from_slice(&head);
    let mut reader = door.connect().await;
    reader.send(bytes).await;
    let answered = async {
        while let Some(frame) = reader.exactly(9).await {
            let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize;
            let Some(payload) = reader.exactly(length).await else { return Answered::Ended };
            match frame[3] {
                1 if payload[0] == 0x8c => return Answered::Status400, // of the static table
                1 => return Answered::Other(payload),
                3 => return Answered::Reset(u32::from_be_bytes(payload.try_into().unwrap())),
                7 => return Answered::Ended,
                _ => {}
            }
        }
        Answered::Ended
    };
    tokio::time::timeout(Duration::from_secs(20), answered).await.expect("an answer in 20 s")
}

#[tokio::test]
async fn rapid_resets_end_the_connection_and_harm_nobody() {
    let origin = Origin::start(|_, _| Reply::Never).await;
    let door = Door::open(&[origin.address]).await;
    let mut raw = tokio::net::TcpStream::connect(door.address).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // :method GET, :scheme http, :path /api/user/login and :authority x, as literals of the static table's names
    let head = [&[0x82, 0x86, 0x04, 15][..], b"/api/user/login", &[0x01, 1], b"x"].concat();
    for stream in (1_u32..4001).step_by(2) {
        bytes.extend_from_slice(&[0, 0, head.len() as u8, 1, 5]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&[0, 0, 4, 3, 0]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&8_u32.to_be_bytes());
    }
    // an error is the connection's end
    drop(raw.write_all(&bytes).await);
    let mut reader = Reader::new(raw);
    assert!(tokio::time::timeout(Duration::from_secs(20), reader.exactly(1 << 20)).await.unwrap().is_none(), "it ends");
    wait_for("its requests to go", || door.balancer.view()[0].nodes[0].in_flight == 0).await;
    let healthy = Origin::echo().await;
    door.set_nodes(&[healthy.address]).await;
    assert_eq!(door.get().await.status, 200);
    assert_eq!(Client::plain(&door).await.get("/api/user/login").await.unwrap().0.status(), 200);
}

#[tokio::test]
async fn nobody_opens_a_tunnel_to_a_service() {
    let origin = Origin::echo().await;
    let text = "routes: [{ match: { path: \"/*\" }, service: user }]";
    let door = super::super::rules::door(text, &[("user", origin.address)]);
    let mut client = Client::plain(&door).await;
    let connect = Request::builder().method(Method::CONNECT).uri("shop.test:80").body(()).unwrap();
    let (head, _) = client.ask(connect, Some(b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n")).await.unwrap();
    assert_eq!(head.status(), 400);
    for target in ["shop.test:80", "/x"] {
        assert_eq!(door.ask("CONNECT", target, "", "").await.status, 400, "{target}");
    }
    assert_eq!(client.get("/x").await.unwrap().0.status(), 200, "others are served");
    assert_eq!(origin.only().method, "GET");
}

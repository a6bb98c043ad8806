//! Answers in fewer bytes.

use std::io::Read;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rules::door;
use super::*;
use crate::support::origin::{Origin, Reply, answer, json as json_answer};

const TEXT: &str = r#"
services: { user: { login: { path: /login, compress: true } } }
routes:
  - { match: { path: "/all/*" }, service: user, compress: true }
  - { match: { path: "/two/*" }, service: user, compress: { codings: [gzip, br], minBytes: 10, types: [text/plain] } }
  - { match: { path: "/none/*" }, service: user }
  - { match: { path: /fixed }, respond: { body: "hello hello hello hello" }, compress: { minBytes: 1 } }
"#;

fn decoded(got: &Got) -> Vec<u8> {
    let (mut plain, body) = (Vec::new(), got.body.as_slice());
    match got.header("content-encoding") {
        None => plain = body.to_vec(),
        Some("gzip") => drop(flate2::read::MultiGzDecoder::new(body).read_to_end(&mut plain).unwrap()),
        Some("br") => drop(brotli::Decompressor::new(body, 4096).read_to_end(&mut plain).unwrap()),
        Some("zstd") => plain = zstd::decode_all(body).unwrap(),
        Some(other) => panic!("{other}"),
    }
    plain
}

fn accept(codings: &str) -> String {
    format!("Accept-Encoding: {codings}\r\n")
}

#[tokio::test]
async fn each_coding_gives_the_same_answer() {
    let long = "a line of text that comes again\n".repeat(200);
    let text = answer("200 OK", "Content-Type: text/plain\r\nETag: \"one\"\r\nAccept-Ranges: bytes\r\n", &long);
    let origin = Origin::answering(text).await;
    let door = door(TEXT, &[("user", origin.address)]);
    for (target, accepted, coding) in [
        ("/all/x", "gzip", Some("gzip")),
        ("/all/x", "br", Some("br")),
        ("/all/x", "zstd", Some("zstd")),
        ("/all/x", "gzip, deflate, br, zstd", Some("zstd")),
        ("/two/x", "gzip, deflate, br, zstd", Some("gzip")),
        ("/two/x", "gzip;q=0.1, br", Some("br")),
        ("/two/x", "zstd", None),
        ("/all/x", "", None),
        ("/all/x", "gzip;q=0", None),
        ("/none/x", "gzip", None),
        ("/fixed", "gzip", Some("gzip")),
    ] {
        let got =
            door.ask("GET", target, &if accepted.is_empty() { String::new() } else { accept(accepted) }, "").await;
        assert_eq!((got.status, got.header("content-encoding")), (200, coding), "{target} {accepted}");
        assert_eq!(got.header("vary"), (!target.starts_with("/none")).then_some("accept-encoding"), "{target}");
        if target == "/fixed" {
            assert_eq!(decoded(&got), b"hello hello hello hello");
            continue;
        }
        assert_eq!(decoded(&got), long.as_bytes());
        let tag = if coding.is_some() { "W/\"one\"" } else { "\"one\"" };
        assert_eq!((got.header("etag"), got.header("accept-ranges").is_some()), (Some(tag), coding.is_none()));
        assert_eq!(got.header("content-length"), Some(got.body.len().to_string().as_str()), "known, as it is short");
        assert!(coding.is_none() || got.body.len() < 200);
    }
    let got = door.ask("HEAD", "/all/x", &accept("gzip"), "").await;
    assert_eq!((got.header("content-encoding"), got.header("vary")), (None, Some("accept-encoding")));
}

#[tokio::test]
async fn what_must_not_be_touched_is_not() {
    let long = "a line of text that comes again\n".repeat(200);
    let plain = "Content-Type: text/plain\r\n";
    for (status, headers, body, encoded) in [
        ("200 OK", plain.to_owned(), long.as_str(), true),
        ("404 Not Found", plain.to_owned(), long.as_str(), true),
        ("200 OK", plain.to_owned() + "Content-Encoding: identity\r\n", &long, true),
        ("200 OK", plain.to_owned() + "Content-Encoding: deflate\r\n", &long, false),
        ("200 OK", plain.to_owned() + "Cache-Control: public, No-Transform\r\n", &long, false),
        ("206 Partial Content", plain.to_owned() + "Content-Range: bytes 0-6399/9999\r\n", &long, false),
        ("200 OK", plain.to_owned() + "Repr-Digest: sha-256=:AAAA:\r\n", &long, false),
        ("200 OK", "Content-Type: image/png\r\n".to_owned(), &long, false),
        ("200 OK", String::new(), &long, false),
        ("200 OK", plain.to_owned(), "short", false),
        ("301 Moved", plain.to_owned() + "Location: /\r\n", &long, false),
    ] {
        let origin = Origin::answering(answer(status, &headers, body)).await;
        let door = door(TEXT, &[("user", origin.address)]);
        let got = door.ask("GET", "/all/x", &accept("gzip"), "").await;
        let coding = got.header("content-encoding").map(str::to_owned);
        assert_eq!(coding.as_deref() == Some("gzip"), encoded, "{status} {headers} {got:?}");
        assert_eq!(got.header("vary").is_some(), encoded, "{status} {headers}");
        if !encoded {
            assert_eq!(got.text(), body);
        } else {
            assert_eq!(decoded(&got), body.as_bytes());
        }
    }
}

#[tokio::test]
async fn json_is_completed_before_it_is_compressed() {
    let origin = Origin::answering(json_answer(&format!(r#"{{"data":"{}"}}"#, "x".repeat(5000)))).await;
    let door = door(TEXT, &[("user", origin.address)]);
    let got = door.ask("GET", "/api/user/login", &accept("br"), "").await;
    assert_eq!(got.header("content-encoding"), Some("br"));
    let json: serde_json::Value = serde_json::from_slice(&decoded(&got)).unwrap();
    assert_eq!((json["status"].as_bool(), json["data"].as_str().unwrap().len()), (Some(true), 5000));
}

#[tokio::test]
async fn a_long_answer_passes_in_parts_and_a_broken_one_never_ends() {
    // some of it cannot be made shorter
    let mut noise = 1_u32;
    let mut body = Vec::new();
    while body.len() < 1 << 20 {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        body.extend_from_slice(&noise.to_be_bytes());
        body.extend_from_slice(b"some text");
    }
    let chunked = {
        let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for part in body.chunks(100_000) {
            bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    };
    let sized = answer("200 OK", "Content-Type: text/plain\r\n", &body);
    let cut = sized[..sized.len() - 1000].to_vec();
    let origin = Origin::start(move |seen, _| match seen.target.as_str() {
        "/all/chunked" => Reply::Bytes(chunked.clone()),
        "/all/cut" => Reply::Close(cut.clone()),
        _ => Reply::Bytes(sized.clone()),
    })
    .await;
    let door = door(TEXT, &[("user", origin.address)]);
    for coding in ["gzip", "br", "zstd"] {
        for target in ["/all/chunked", "/all/sized"] {
            let got = door.ask("GET", target, &accept(coding), "").await;
            assert_eq!((got.header("content-encoding"), got.complete), (Some(coding), true));
            assert!(got.body.len() < body.len() * 3 / 4 && decoded(&got) == body, "{coding} {target}");
        }
        let got = door.ask("GET", "/all/cut", &accept(coding), "").await;
        assert_eq!((got.status, got.complete), (200, false), "{coding}");
    }
}

#[tokio::test]
async fn an_event_is_sent_when_it_comes() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (go_on, mut told) = mpsc::channel::<()>(1);
    let tasks = Shutdown::new();
    tasks.spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(socket.read(&mut request).await.unwrap() > 0);
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            socket.write_all(head).await.unwrap();
            for event in ["d\r\ndata: first\n\n\r\n", "e\r\ndata: second\n\n\r\n", "0\r\n\r\n"] {
                socket.write_all(event.as_bytes()).await.unwrap();
                told.recv().await;
            }
        }
    });
    let door = door(TEXT, &[("user", address)]);
    for coding in ["gzip", "br", "zstd"] {
        let mut client = door.connect().await;
        client.send(format!("GET /all/events HTTP/1.1\r\nHost: x\r\n{}\r\n", accept(coding))).await;
        let (_, headers) = client.head().await.unwrap();
        assert!(headers.contains(&("content-encoding".to_owned(), coding.to_owned())), "{headers:?}");
        let mut encoded = Vec::new();
        for event in ["data: first\n\n", "data: first\n\ndata: second\n\n"] {
            while !begins(coding, &encoded, event) {
                let part =
                    tokio::time::timeout(Duration::from_secs(10), client.chunk()).await.expect("in time").unwrap();
                assert!(!part.is_empty(), "the end, without {event:?}");
                encoded.extend_from_slice(&part);
            }
            go_on.send(()).await.unwrap();
        }
        go_on.send(()).await.unwrap();
        while !client.chunk().await.unwrap().is_empty() {}
    }
}

/// Whether what has come so far is at least this text.
fn begins(coding: &str, encoded: &[u8], text: &str) -> bool {
    let reader: Box<dyn Read + '_> = match coding {
        "gzip" => Box::new(flate2::read::MultiGzDecoder::new(encoded)),
        "br" => Box::new(brotli::Decompressor::new(encoded, 4096)),
        _ => match zstd::Decoder::new(encoded) {
            Ok(decoder) => Box::new(decoder),
            Err(_) => return false,
        },
    };
    let mut plain = vec![0; text.len()];
    let mut reader = reader;
    reader.read_exact(&mut plain).is_ok() && plain == text.as_bytes()
}

#[tokio::test]
async fn what_has_not_changed_is_told_as_the_whole_answer_would_be() {
    let same = "HTTP/1.1 304 Not Modified\r\nETag: \"one\"\r\n\r\n";
    let origin = Origin::answering(same).await;
    let door = door(TEXT, &[("user", origin.address)]);
    let tag = "If-None-Match: W/\"one\"\r\n";
    for (target, accepted, vary, told) in [
        ("/all/x", "gzip", Some("accept-encoding"), "W/\"one\""),
        ("/all/x", "identity", Some("accept-encoding"), "\"one\""),
        ("/none/x", "gzip", None, "\"one\""),
    ] {
        let got = door.ask("GET", target, &(accept(accepted) + tag), "").await;
        assert_eq!(
            (got.status, got.header("vary"), got.header("etag")),
            (304, vary, Some(told)),
            "{target} {accepted}"
        );
    }
}

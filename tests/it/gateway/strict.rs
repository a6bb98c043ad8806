//! Requests whose framing two readers could understand in two ways: refused, and the connection ends.

use super::*;
use crate::support::origin::Origin;

#[tokio::test]
async fn what_is_ambiguous_is_400_and_never_reaches_a_service() {
    let origin = Origin::echo().await;
    let door = door(&origin).await;
    let h = "Host: x\r\n";
    let mut wrong = Vec::new();
    for (what, request) in [
        (
            "both lengths",
            format!("POST /a HTTP/1.1\r\n{h}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "both, the other way",
            format!("POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"),
        ),
        (
            "two lengths that differ",
            format!("POST /a HTTP/1.1\r\n{h}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
        ),
        ("a list of lengths", format!("POST /a HTTP/1.1\r\n{h}Content-Length: 3, 4\r\n\r\nabc")),
        ("a signed length", format!("POST /a HTTP/1.1\r\n{h}Content-Length: +3\r\n\r\nabc")),
        ("a negative length", format!("POST /a HTTP/1.1\r\n{h}Content-Length: -3\r\n\r\nabc")),
        ("a length that is none", format!("POST /a HTTP/1.1\r\n{h}Content-Length: 3x\r\n\r\nabc")),
        ("an empty length", format!("POST /a HTTP/1.1\r\n{h}Content-Length: \r\n\r\nabc")),
        ("a huge length", format!("POST /a HTTP/1.1\r\n{h}Content-Length: 99999999999999999999999\r\n\r\nabc")),
        ("an unknown coding", format!("POST /a HTTP/1.1\r\n{h}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        ("chunked not last", format!("POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n")),
        (
            "chunked twice",
            format!("POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        ("chunked in HTTP/1.0", format!("POST /a HTTP/1.0\r\n{h}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("a space before the colon", format!("POST /a HTTP/1.1\r\n{h}Content-Length : 3\r\n\r\nabc")),
        ("a folded line", format!("GET /a HTTP/1.1\r\n{h}X-A: b\r\n c\r\n\r\n")),
        ("a bare CR in a value", format!("GET /a HTTP/1.1\r\n{h}X-A: b\rc\r\n\r\n")),
        ("a NUL in a value", format!("GET /a HTTP/1.1\r\n{h}X-A: b\0c\r\n\r\n")),
        ("no Host", "GET /a HTTP/1.1\r\n\r\n".to_owned()),
        ("two Hosts", format!("GET /a HTTP/1.1\r\n{h}Host: y\r\n\r\n")),
        ("two Hosts alike", format!("GET /a HTTP/1.1\r\n{h}{h}\r\n")),
        ("a Host with a path", "GET /a HTTP/1.1\r\nHost: x/y\r\n\r\n".to_owned()),
        ("an empty name", format!("GET /a HTTP/1.1\r\n{h}: b\r\n\r\n")),
        ("a name with a space", format!("GET /a HTTP/1.1\r\n{h}X A: b\r\n\r\n")),
        ("a line without colon", format!("GET /a HTTP/1.1\r\n{h}XA\r\n\r\n")),
        ("a NUL in the path", format!("GET /a\0b HTTP/1.1\r\n{h}\r\n")),
        ("a space in the path", format!("GET /a b HTTP/1.1\r\n{h}\r\n")),
        ("another version", format!("GET /a HTTP/1.2\r\n{h}\r\n")),
        ("no version", format!("GET /a\r\n{h}\r\n")),
        (
            "a chunk size that is none",
            format!("POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\nx\r\nabc\r\n0\r\n\r\n"),
        ),
        (
            "a chunk size with 0x",
            format!("POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n"),
        ),
        (
            "a signed chunk size",
            format!("POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n"),
        ),
        (
            "a huge chunk size",
            format!("POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ),
        (
            "a chunk longer than its size",
            format!("POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n"),
        ),
        (
            "a chunk that ends with LF",
            format!("POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n"),
        ),
        (
            "a chunk size that ends with LF",
            format!("POST /a HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n"),
        ),
    ] {
        let mut client = door.connect().await;
        client.send(request).await;
        let got = tokio::time::timeout(Duration::from_secs(5), client.answer(false)).await;
        let closed = tokio::time::timeout(Duration::from_secs(2), client.closes()).await.unwrap_or(false);
        let status = got.as_ref().ok().and_then(|got| got.as_ref().map(|got| got.status));
        if status != Some(400) || !closed {
            wrong.push(format!("{what}: {status:?} closed={closed}"));
        }
    }
    let reached: Vec<String> = origin.seen().iter().map(|seen| format!("{seen:?}")).collect();
    assert!(wrong.is_empty() && reached.is_empty(), "{wrong:#?}\n{reached:#?}");
}

async fn door(origin: &Origin) -> Door {
    let rule = goms::config::Config::parse(
        "config.yml",
        "routes: [{ match: { path: '/*' }, service: user, encode: json }]",
        &goms::cli::parse(["goms", "gateway"].map(Into::into)).unwrap().common,
        &goms::config::NodeFlags::default(),
    )
    .unwrap()
    .gateway;
    Door::with(&[origin.address], |settings| settings.routes = rule.routes).await
}

#[tokio::test]
async fn a_host_that_is_no_text_is_refused() {
    let origin = crate::support::origin::Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    let mut connection = door.connect().await;
    connection.send("GET /api/user/login HTTP/1.1\r\nHost: shop.t\u{e4}st\r\n\r\n").await;
    assert_eq!(connection.answer(false).await.unwrap().status, 400);
    assert!(origin.seen().is_empty());
}

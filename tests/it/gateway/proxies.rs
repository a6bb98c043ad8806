//! Load balancers in front of the gateway: whose word counts on for whom they ask.

use goms::listener::{CertificateFiles, Network, Networks, TlsSettings};

use super::*;
use crate::support::origin::Origin;
use crate::support::tls::{Identity, client};
use crate::support::wire::{Seen, request};

const LOGIN: &str = "/api/user/login";

fn networks(list: &[&str]) -> Networks {
    Networks(list.iter().map(|text| Network::parse(text).unwrap()).collect())
}

async fn behind(origin: &Origin, trusted: &[&str], proxy_protocol: bool) -> Door {
    Door::with(&[origin.address], |settings| {
        settings.trusted_proxies = networks(trusted);
        settings.proxy_protocol = proxy_protocol;
    })
    .await
}

fn told(seen: &Seen) -> [Option<&str>; 3] {
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"].map(|name| seen.header(name))
}

#[tokio::test]
async fn a_trusted_proxy_tells_who_asks_and_nobody_else_does() {
    let fields = "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\nX-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: shop.test\r\nX-Forwarded-Port: 1\r\nForwarded: for=6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n";
    let origin = Origin::echo().await;
    let mut door = behind(&origin, &["127.0.0.0/8", "10.0.0.0/8"], false).await;
    door.ask("GET", LOGIN, fields, "").await;
    let seen = origin.seen();
    let chain = "6.6.6.6, 192.0.2.1, 10.0.0.9, 127.0.0.1";
    assert_eq!(told(&seen[0]), [Some(chain), Some("https"), Some("shop.test")]);
    assert_eq!((seen[0].header("x-forwarded-port"), seen[0].header("forwarded")), (None, None));
    assert_eq!(seen[0].headers.iter().filter(|(name, _)| name.starts_with("x-forwarded-for")).count(), 1);
    assert_eq!(door.event().await.request.head.client_ip(), "192.0.2.1");
    // what makes no sense is not passed on
    door.ask("GET", LOGIN, "X-Forwarded-Proto: gopher\r\nX-Forwarded-Host: a/b\r\n", "").await;
    assert_eq!(told(&origin.seen()[1]), [Some("127.0.0.1"), Some("http"), Some("example.test")]);
    // another list, and the same client is nobody
    let mut settings = door.live.settings();
    settings.trusted_proxies = networks(&["10.0.0.0/8", "unix"]);
    door.live.replace(settings);
    door.ask("GET", LOGIN, fields, "").await;
    assert_eq!(told(&origin.seen()[2]), [Some("127.0.0.1"), Some("http"), Some("example.test")]);
}

fn v2(client: [u8; 4]) -> Vec<u8> {
    let [a, b, c, d] = client;
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[a, b, c, d, 127, 0, 0, 1, 0x12, 0x34, 0, 80]].concat()
}

#[tokio::test]
async fn a_proxy_header_tells_the_client_of_a_whole_connection() {
    let origin = Origin::echo().await;
    let mut door = behind(&origin, &["127.0.0.1"], true).await;
    let get = request("GET", LOGIN, "X-Forwarded-For: 6.6.6.6\r\n", "");
    for (header, client) in [
        (b"PROXY TCP4 192.0.2.1 127.0.0.1 4660 80\r\n".to_vec(), "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::1 ::1 4660 80\r\n".to_vec(), "2001:db8::1"),
        (v2([192, 0, 2, 7]), "192.0.2.7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let mut connection = door.connect().await;
        // in two parts, and the second one with the begin of the request
        connection.send(&header[..5]).await;
        connection.send([&header[5..], &get[..10]].concat()).await;
        connection.send(&get[10..]).await;
        assert_eq!(connection.answer(false).await.unwrap().status, 200, "{client}");
        connection.send(&get).await;
        assert_eq!(connection.answer(false).await.unwrap().status, 200, "{client}");
        for seen in origin.seen().iter().rev().take(2) {
            // the proxy itself is trusted in the last case, and what it tells of 6.6.6.6 with it
            let expected = if client == "127.0.0.1" { "6.6.6.6, 127.0.0.1" } else { client };
            assert_eq!(seen.header("x-forwarded-for"), Some(expected));
        }
        let told = door.event().await;
        let expected = if client == "127.0.0.1" { "6.6.6.6" } else { client };
        assert_eq!(told.request.head.client_ip(), expected);
        for _ in 0..3 {
            door.event().await; // the rest of the two requests
        }
    }
    // HTTP/2 behind it, too
    let mut socket = tokio::net::TcpStream::connect(door.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut socket, &v2([192, 0, 2, 8])).await.unwrap();
    let (mut send, connection) = h2::client::handshake(socket).await.unwrap();
    door.background.spawn(async move { drop(connection.await) });
    let head = http::Request::builder().uri(format!("http://x{LOGIN}")).body(()).unwrap();
    assert_eq!(send.send_request(head, true).unwrap().0.await.unwrap().status(), 200);
    assert_eq!(origin.seen().last().unwrap().header("x-forwarded-for"), Some("192.0.2.8"));
}

#[tokio::test]
async fn a_proxy_header_goes_before_tls() {
    let (origin, folder, identity) = (Origin::echo().await, tempfile::tempdir().unwrap(), Identity::new());
    let paths = identity.files(folder.path());
    let door = Door::with(&[origin.address], |settings| {
        let pair = CertificateFiles { cert: paths.certificate, key: paths.key };
        settings.tls = Some(TlsSettings { certificates: vec![pair], ..TlsSettings::default() });
        settings.trusted_proxies = networks(&["127.0.0.1"]);
        settings.proxy_protocol = true;
    })
    .await;
    let mut socket = tokio::net::TcpStream::connect(door.https.as_ref().unwrap().0).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut socket, &v2([192, 0, 2, 1])).await.unwrap();
    let name = tokio_rustls::rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let stream = client(&identity.ca, &["http/1.1"], None).connect(name, socket).await.unwrap();
    assert_eq!(Reader::new(stream).ask("GET", LOGIN, "", "").await.status, 200);
    assert_eq!(told(&origin.only())[..2], [Some("192.0.2.1"), Some("https")]);
}

#[tokio::test]
async fn without_the_header_or_from_others_a_connection_is_closed() {
    let origin = Origin::echo().await;
    let get = request("GET", LOGIN, "", "");
    let door = behind(&origin, &["127.0.0.1"], true).await;
    for bytes in [get.clone(), [b"PROXY TCP4 evil\r\n", &get[..]].concat(), [&v2([1, 2, 3, 4])[..13], &get].concat()] {
        let mut connection = door.connect().await;
        connection.send(bytes).await;
        assert!(connection.closes().await);
    }
    let door = behind(&origin, &["10.0.0.0/8"], true).await;
    let mut connection = door.connect().await;
    connection.send([&v2([192, 0, 2, 1]), &get[..]].concat()).await;
    assert!(connection.closes().await);
    // and where it is off, it is a bad request
    let mut connection = Door::open(&[origin.address]).await.connect().await;
    connection.send([&b"PROXY TCP4 192.0.2.1 127.0.0.1 4660 80\r\n"[..], &get].concat()).await;
    assert_eq!(connection.answer(false).await.unwrap().status, 400);
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
}

#[tokio::test]
async fn a_client_cannot_hide_behind_its_proxy_with_bytes_that_are_no_text() {
    let origin = Origin::echo().await;
    let text = "trustedProxies: [127.0.0.1]\n\
        routes: [{ match: { path: /x }, service: user, allow: { addresses: [127.0.0.1] } }]";
    let door = super::rules::door(text, &[("user", origin.address)]);
    for (told, status) in [("127.0.0.1", 200), ("192.0.2.1", 403), ("\u{e4}, 192.0.2.1", 403)] {
        let got = door.ask("GET", "/x", &format!("X-Forwarded-For: {told}\r\n"), "").await;
        assert_eq!(got.status, status, "{told}");
    }
}

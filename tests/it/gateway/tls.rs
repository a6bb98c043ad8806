//! The HTTPS port.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use goms::listener::{CertificateFiles, ClientAuth, Network, Networks, TlsError, TlsSettings, ToHttps};

use tokio_rustls::TlsConnector;

use super::*;
use crate::support::origin::{Origin, Reply, echo};
use crate::support::tls::{Authority, Identity, client, connect, der, shown};

const HTTP1: &[&str] = &["http/1.1"];

/// Writes a pair into a folder.
fn files(folder: &Path, name: &str, identity: &Identity) -> CertificateFiles {
    let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}-key.pem")));
    std::fs::write(&cert, &identity.certificate).unwrap();
    std::fs::write(&key, &identity.key).unwrap();
    CertificateFiles { cert, key }
}

fn settings(certificates: Vec<CertificateFiles>) -> TlsSettings {
    TlsSettings { certificates, ..TlsSettings::default() }
}

async fn open(origin: &Origin, tls: TlsSettings) -> Door {
    Door::with(&[origin.address], |settings| settings.tls = Some(tls)).await
}

impl Door {
    fn https(&self) -> SocketAddr {
        self.https.as_ref().unwrap().0
    }
}

#[tokio::test]
async fn https_is_served_beside_http_and_the_service_learns_which() {
    let (origin, folder, identity) = (Origin::echo().await, tempfile::tempdir().unwrap(), Identity::new());
    let door = open(&origin, settings(vec![files(folder.path(), "site", &identity)])).await;
    let stream = connect(&client(&identity.ca, HTTP1, None), door.https(), "127.0.0.1").await.unwrap();
    let mut secure = Reader::new(stream);
    for body in ["{\"a\":1}", "{\"a\":2}"] {
        let got = secure.ask("POST", "/api/user/login", JSON, body).await;
        assert_eq!((got.status, got.json()["data"]["body"].to_string()), (200, body.to_owned()));
    }
    assert_eq!(door.get().await.status, 200);
    let protos: Vec<_> =
        origin.seen().iter().map(|seen| seen.header("x-forwarded-proto").unwrap().to_owned()).collect();
    assert_eq!(protos, ["https", "https", "http"]);
    let seen = &origin.seen()[0];
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("client-cert"), None);
    assert!(door.metrics.render().contains("goms_tls_certificate_not_after_timestamp_seconds{certificate="));
}

#[tokio::test]
async fn the_certificate_is_the_one_of_the_name_that_is_asked_for() {
    let (origin, folder, ca) = (Origin::echo().await, tempfile::tempdir().unwrap(), Authority::new());
    let names: [&[&str]; 3] = [&["first.test"], &["*.shop.test", "shop.test"], &["pay.shop.test"]];
    let identities = names.map(|names| ca.vouch(names));
    let pairs: Vec<_> = (0..3).map(|n| files(folder.path(), &n.to_string(), &identities[n])).collect();
    let door = open(&origin, settings(pairs[..2].to_vec())).await;
    let stream = connect(&client(&identities[0].ca, HTTP1, None), door.https(), "pay.shop.test").await.unwrap();
    assert_eq!(shown(&stream), der(&identities[1].certificate), "by its star");
    // the config is followed
    door.https.as_ref().unwrap().1.replace(settings(pairs));
    let client = client(&identities[0].ca, HTTP1, None);
    for (name, expected) in [("first.test", 0), ("a.shop.test", 1), ("SHOP.test", 1), ("pay.shop.test", 2)] {
        let stream = connect(&client, door.https(), name).await.unwrap();
        assert_eq!(shown(&stream), der(&identities[expected].certificate), "{name}");
    }
    // the first is for all others, whose clients will refuse it
    let error = connect(&client, door.https(), "a.b.shop.test").await.unwrap_err().to_string();
    assert!(error.contains("first.test"), "{error}");
}

#[tokio::test]
async fn a_client_must_show_who_it_is_where_that_is_required() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Authority::new());
    let server = ca.vouch(&["127.0.0.1"]);
    let clients = Authority::new();
    let (known, stranger) = (clients.vouch(&["alice"]), Authority::new().vouch(&["mallory"]));
    let client_ca = folder.path().join("clients.pem");
    std::fs::write(&client_ca, &known.ca).unwrap();
    for (auth, without) in [(ClientAuth::Required, false), (ClientAuth::Optional, true)] {
        let tls = TlsSettings {
            certificates: vec![files(folder.path(), "site", &server)],
            client_ca: Some(client_ca.clone()),
            client_auth: auth,
            ..TlsSettings::default()
        };
        let origin = Origin::echo().await;
        let door = open(&origin, tls).await;
        let ask = async |client: &TlsConnector| {
            let stream = connect(client, door.https(), "127.0.0.1").await.ok()?;
            let mut reader = Reader::new(stream);
            let fake = "Client-Cert: :ZmFrZQ==:\r\nclient_cert: fake\r\nClient-Cert-Chain: fake\r\n";
            // in TLS 1.3 a refusal comes only after the client is through
            let sent = crate::support::wire::request("GET", "/api/user/login", fake, "");
            tokio::io::AsyncWriteExt::write_all(&mut reader.socket, &sent).await.ok()?;
            reader.answer(false).await.map(|got| got.status)
        };
        let alice = client(&server.ca, HTTP1, Some(&known));
        assert_eq!(ask(&alice).await, Some(200), "{auth:?}");
        assert_eq!(ask(&alice).await, Some(200), "{auth:?}, with the session resumed");
        assert_eq!(ask(&client(&server.ca, HTTP1, Some(&stranger))).await, None, "{auth:?}");
        assert_eq!(ask(&client(&server.ca, HTTP1, None)).await.is_some(), without, "{auth:?}");
        let own = {
            use base64::Engine;
            format!(":{}:", base64::engine::general_purpose::STANDARD.encode(der(&known.certificate)))
        };
        let seen = origin.seen();
        let told: Vec<Vec<_>> = seen
            .iter()
            .map(|seen| {
                seen.headers.iter().filter(|(name, _)| name.replace('_', "-").starts_with("client-cert")).collect()
            })
            .collect();
        let fields = ("client-cert".to_owned(), own);
        let alice = || vec![&fields];
        let expected = if without { vec![alice(), alice(), vec![]] } else { vec![alice(), alice()] };
        assert_eq!(told, expected, "{auth:?}");
    }
}

#[tokio::test]
async fn websocket_passes_through_tls() {
    let granted = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello";
    let origin = Origin::start(|_, _| Reply::Bytes(granted.to_vec())).await;
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::new());
    let door = Door::with(&[origin.address], |change| {
        change.tls = Some(settings(vec![files(folder.path(), "site", &identity)]));
        login(change).encode = Encode::None;
    })
    .await;
    let stream = connect(&client(&identity.ca, HTTP1, None), door.https(), "127.0.0.1").await.unwrap();
    let mut reader = Reader::new(stream);
    let asked = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n";
    reader.send(crate::support::wire::request("GET", "/api/user/login", asked, "")).await;
    let (line, _) = reader.head().await.unwrap();
    assert!(line.contains("101"), "{line}");
    assert_eq!(reader.exactly(5).await.unwrap(), b"hello");
}

#[tokio::test]
async fn certificates_change_under_load_without_a_failed_request() {
    let (origin, folder, ca) = (Origin::echo().await, tempfile::tempdir().unwrap(), Authority::new());
    let identities: Vec<Identity> = (0..3).map(|_| ca.vouch(&["127.0.0.1"])).collect();
    let pair = files(folder.path(), "site", &identities[0]);
    let same = settings(vec![pair.clone()]);
    let door = open(&origin, same.clone()).await;
    let (address, tls) = door.https.clone().unwrap();
    let client = client(&identities[0].ca, HTTP1, None);
    let (answered, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    // half of the requests on new connections, half on kept ones
    let load = async {
        while !is_over.load(Ordering::Relaxed) {
            let mut reader = Reader::new(connect(&client, address, "127.0.0.1").await.unwrap());
            for _ in 0..2 {
                assert_eq!(reader.ask("GET", "/api/user/login", "", "").await.status, 200);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let shows = async |identity: &Identity| {
        // a client of its own, since one that resumes a session is shown nothing
        let client = crate::support::tls::client(&identity.ca, HTTP1, None);
        shown(&connect(&client, address, "127.0.0.1").await.unwrap()) == der(&identity.certificate)
    };
    let changes = async {
        let more = async |count: usize| {
            let until = answered.load(Ordering::Relaxed) + count;
            wait_for("the load", || answered.load(Ordering::Relaxed) >= until).await;
        };
        more(20).await;
        assert!(shows(&identities[0]).await);
        files(folder.path(), "site", &identities[1]);
        tls.replace(same.clone());
        assert!(shows(&identities[1]).await);
        more(20).await;
        // a certificate without its key, and none at all: what was in force stays
        std::fs::write(&pair.cert, &identities[2].certificate).unwrap();
        tls.replace(same.clone());
        assert!(shows(&identities[1]).await);
        std::fs::write(&pair.cert, "no certificate").unwrap();
        tls.replace(same.clone());
        std::fs::remove_file(&pair.key).unwrap();
        tls.replace(same.clone());
        assert!(shows(&identities[1]).await);
        more(20).await;
        files(folder.path(), "site", &identities[2]);
        tls.replace(same.clone());
        assert!(shows(&identities[2]).await);
        more(20).await;
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, changes);
    assert_eq!(origin.seen().len(), answered.load(Ordering::Relaxed));
}

#[tokio::test]
async fn files_that_change_are_read_again_by_themselves() {
    let (origin, folder, ca) = (Origin::echo().await, tempfile::tempdir().unwrap(), Authority::new());
    let identities = [ca.vouch(&["127.0.0.1"]), ca.vouch(&["127.0.0.1"])];
    let door = open(&origin, settings(vec![files(folder.path(), "site", &identities[0])])).await;
    let (address, tls) = door.https.clone().unwrap();
    tls.follow(&door.background);
    files(folder.path(), "site", &identities[1]);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while shown(&connect(&client(&identities[0].ca, HTTP1, None), address, "127.0.0.1").await.unwrap())
        != der(&identities[1].certificate)
    {
        assert!(std::time::Instant::now() < deadline, "the new certificate is not shown");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_end_waits_for_requests_through_tls() {
    let origin = Origin::start(|seen, _| Reply::Late(Duration::from_millis(300), echo(seen))).await;
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::new());
    let mut door = open(&origin, settings(vec![files(folder.path(), "site", &identity)])).await;
    let client = client(&identity.ca, HTTP1, None);
    let mut idle = Reader::new(connect(&client, door.https(), "127.0.0.1").await.unwrap());
    assert_eq!(idle.ask("GET", "/api/user/login", "", "").await.status, 200);
    let mut busy = Reader::new(connect(&client, door.https(), "127.0.0.1").await.unwrap());
    busy.send(crate::support::wire::request("GET", "/api/user/login", "", "")).await;
    wait_for("the slow request", || origin.seen().len() == 2).await;
    // one that has only begun its handshake when the end comes
    let mut late = tokio::net::TcpStream::connect(door.https()).await.unwrap();
    let began = std::time::Instant::now();
    let stopping = door.running.take().unwrap().stop(Duration::from_secs(20));
    let (finished, got) = tokio::join!(stopping, async { busy.answer(false).await.unwrap() });
    assert!(finished);
    assert_eq!((got.status, got.header("connection")), (200, Some("close")));
    assert!(idle.closes().await);
    let nothing = tokio::io::AsyncReadExt::read(&mut late, &mut [0; 1]).await;
    assert!(matches!(nothing, Ok(0) | Err(_)), "{nothing:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "idle connections held it: {:?}", began.elapsed());
    assert!(tokio::net::TcpStream::connect(door.https()).await.is_err(), "still listening");
}

#[tokio::test]
async fn no_request_fails_when_a_gateway_with_tls_ends_under_load() {
    let (origin, folder, identity) = (Origin::echo().await, tempfile::tempdir().unwrap(), Identity::new());
    let mut door = open(&origin, settings(vec![files(folder.path(), "site", &identity)])).await;
    let (address, client) = (door.https(), client(&identity.ca, HTTP1, None));
    let (answered, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let load = async {
        loop {
            // from the end on, a connect is refused: a balancer in front would have taken another gateway
            let Ok(socket) = tokio::net::TcpStream::connect(address).await else {
                return assert!(stopped.load(Ordering::Relaxed));
            };
            let name = tokio_rustls::rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
            let mut reader = Reader::new(client.connect(name, socket).await.expect("a handshake that began"));
            for _ in 0..5 {
                let got = reader.ask("GET", "/api/user/login", "", "").await;
                assert_eq!(got.status, 200);
                answered.fetch_add(1, Ordering::Relaxed);
                if got.header("connection") == Some("close") {
                    break;
                }
            }
        }
    };
    let end = async {
        wait_for("the load", || answered.load(Ordering::Relaxed) > 50).await;
        stopped.store(true, Ordering::Relaxed);
        assert!(door.running.take().unwrap().stop(Duration::from_secs(20)).await);
    };
    tokio::join!(load, end);
    assert_eq!(origin.seen().len(), answered.load(Ordering::Relaxed));
}

#[tokio::test]
async fn no_tls_on_the_https_port_harms_nobody() {
    let (origin, folder, identity) = (Origin::echo().await, tempfile::tempdir().unwrap(), Identity::new());
    let door = Door::with(&[origin.address], |settings_| {
        settings_.tls = Some(settings(vec![files(folder.path(), "site", &identity)]));
        settings_.limits.header_timeout = Duration::from_secs(2); // actix's clock ticks twice a second
    })
    .await;
    // one says nothing, one stops within its handshake: both are closed after a while
    let mut silent = Reader::connect(door.https()).await;
    let mut half = Reader::connect(door.https()).await;
    half.send(b"\x16\x03\x01\x02\x00\x01\x00").await;
    let mut plain = Reader::connect(door.https()).await;
    plain.send(b"GET /api/user/login HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(plain.answer(false).await.is_none());
    assert!(silent.closes().await && half.closes().await);
    let stream = connect(&client(&identity.ca, HTTP1, None), door.https(), "127.0.0.1").await.unwrap();
    let mut reader = Reader::new(stream);
    assert_eq!(reader.ask("GET", "/api/user/login", "", "").await.status, 200);
    let metrics = door.metrics.render();
    for line in [
        r#"goms_connections{protocol="http1"} 1"#,
        r#"goms_connections_refused_total{reason="late"} 1"#,
        r#"goms_connections_refused_total{reason="tls"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    drop(reader);
    wait_for("the connection to go", || door.metrics.render().contains(r#"goms_connections{protocol="http1"} 0"#))
        .await;
}

#[test]
fn what_cannot_be_used_is_named() {
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::new());
    let good = files(folder.path(), "site", &identity);
    let other = files(folder.path(), "other", &Identity::new());
    let text = folder.path().join("text.pem");
    std::fs::write(&text, "no PEM at all").unwrap();
    let absent = folder.path().join("absent.pem");
    let said = |tls: TlsSettings| -> (TlsError, String) {
        let error = tls.check().expect_err("a fault");
        let chain = goms::causes::chain(&error);
        (error, chain)
    };
    let pair =
        |cert: &Path, key: &Path| settings(vec![CertificateFiles { cert: cert.to_owned(), key: key.to_owned() }]);
    let (error, chain) = said(pair(&absent, &good.key));
    assert!(
        matches!(error, TlsError::File { .. }) && chain.contains("absent.pem") && chain.contains("No such file"),
        "{chain}"
    );
    let (error, chain) = said(pair(&good.cert, &absent));
    assert!(matches!(error, TlsError::File { .. }) && chain.contains("absent.pem"), "{chain}");
    let (error, chain) = said(pair(&text, &good.key));
    assert!(matches!(error, TlsError::NoCertificate(_)) && chain.contains("BEGIN CERTIFICATE"), "{chain}");
    let (error, chain) = said(pair(&good.cert, &text));
    assert!(matches!(error, TlsError::NoKey(_)) && chain.contains("BEGIN PRIVATE KEY"), "{chain}");
    let (error, chain) = said(pair(&good.cert, &other.key));
    assert!(matches!(error, TlsError::Pair { .. }) && chain.contains("is not the one of"), "{chain}");
    let mut with_ca = settings(vec![good.clone()]);
    (with_ca.client_ca, with_ca.client_auth) = (Some(text), ClientAuth::Required);
    assert!(matches!(said(with_ca).0, TlsError::NoCertificate(_)));
    assert!(settings(vec![good, other]).check().is_ok());
}

#[tokio::test]
async fn plain_requests_are_sent_on_to_https() {
    let (origin, folder, identity) = (Origin::echo().await, tempfile::tempdir().unwrap(), Identity::new());
    let pair = files(folder.path(), "site", &identity);
    let tls = |redirect| Some(TlsSettings { redirect, ..settings(vec![pair.clone()]) });
    let door = Door::with(&[origin.address], |all| {
        all.tls = tls(Some(ToHttps::Port(443)));
        all.trusted_proxies = Networks(vec![Network::parse("127.0.0.0/8").unwrap()]);
    })
    .await;
    let ask = async |head: &str| {
        let mut reader = door.connect().await;
        reader.send(format!("{head}\r\n\r\n").into_bytes()).await;
        reader.answer(false).await.unwrap()
    };
    for (head, location) in [
        ("GET /api/user/login?a=%20b&c HTTP/1.1\r\nHost: shop.test:8080", "https://shop.test/api/user/login?a=%20b&c"),
        ("POST /nowhere HTTP/1.1\r\nContent-Length: 0\r\nHost: [::1]:80", "https://[::1]/nowhere"),
        ("GET //evil.test/ HTTP/1.1\r\nHost: shop.test", "https://shop.test//evil.test/"),
        ("GET /cluster HTTP/1.1\r\nHost: shop.test", "https://shop.test/cluster"),
        ("GET /x HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-Proto: http", "https://shop.test/x"),
        ("GET /x HTTP/1.1\r\nHost: inner\r\nX-Forwarded-Host: shop.test:8080", "https://shop.test/x"),
        ("GET /x HTTP/1.1\r\nHost: inner\r\nX-Forwarded-Host: a/b", "https://inner/x"),
    ] {
        let got = ask(head).await;
        assert_eq!((got.status, got.header("location"), got.body.len()), (308, Some(location), 0), "{head}");
        assert!(got.header("x-request-id").is_some());
    }
    for (head, status) in [
        ("GET /.well-known/acme-challenge/token HTTP/1.1\r\nHost: shop.test", 404), // nobody answers it here
        ("GET /.well-known/acme-challenge/../x HTTP/1.1\r\nHost: shop.test", 400),
        ("GET /x HTTP/1.0", 400),
        ("GET /x HTTP/1.1\r\nHost: sh op", 400),
        ("GET /api/user/login HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-Proto: https", 200), // at the proxy
    ] {
        let got = ask(head).await;
        assert_eq!((got.status, got.header("location")), (status, None), "{head}: {}", got.text());
    }
    let secure = connect(&client(&identity.ca, HTTP1, None), door.https(), "127.0.0.1").await.unwrap();
    assert_eq!(Reader::new(secure).ask("GET", "/api/user/login", "", "").await.status, 200);
    let mut now = door.live.settings();
    now.tls = tls(None);
    door.live.replace(now);
    assert_eq!(door.get().await.status, 200, "the config is followed");
}

#[tokio::test]
async fn a_node_that_takes_tls_is_not_called_without_trust() {
    let origin = Origin::echo().await;
    let mut secure = node("user", origin.address);
    secure.meta.tls = vec!["http".into()];
    let publisher = Publisher::new();
    publisher.publish(vec![secure]);
    let mut settings = Settings::default();
    settings.services.entry("user".into()).or_default().actions.insert("login".into(), action("/login"));
    let door = Door::with_publisher(publisher, settings);
    let told = door.ask("GET", "/api/user/login", "X-Goms-Explain: 1\r\n", "").await.json();
    assert_eq!(told["answer"]["status"], 502);
    let result = told["tries"][0]["result"].as_str().unwrap();
    assert!(result.contains("nor `serviceTls.call` says who vouches for it"), "{result}");
    assert!(origin.seen().is_empty());
}

//! TLS on either side of a gateway's RPC port, and on a service's own.

use std::time::Duration;

use clap::Parser;
use goms::cli::Cli;
use goms::config::Config;
use goms::listener::Tls;
use goms::metrics::Metrics;
use goms::{Context, Service, ServiceError};

use super::gateway::{Front, JOHN, greeter, hello, serving};
use super::raw::{Raw, framed};
use super::{Request, node, start};
use crate::service::parts;
use crate::support::tls::{self, Identity, TlsFront};

#[tokio::test]
async fn an_upstream_by_tls_is_called_by_tls_only() {
    let (greeter, _events) = greeter();
    let (identity, folder) = (Identity::new(), tempfile::tempdir().expect("a folder"));
    let files = identity.files(folder.path());
    let secure = TlsFront::asking(&identity, greeter.address()).await; // mutual
    let tls = |more: &str| {
        let ca = files.ca.display();
        format!("services: {{ greeter: {{ a: /a }} }}\nupstreams: {{ greeter: {{ tls: {{ ca: {ca}{more} }} }} }}")
    };
    let own = format!(", cert: {}, key: {}", files.certificate.display(), files.key.display());
    for (config, code) in [
        (tls(&own), 0),
        (tls(&format!("{own}, serverName: other.example")), 14),
        (tls(""), 14), // shows no certificate of its own
        (String::new(), 14),
    ] {
        let front = Front::open(vec![node("greeter", secure.address)], &config);
        let raw = Raw::connect(front.running.address()).await;
        let answer = raw.call("/greeter.Say/Hello", &[], framed(JOHN)).await;
        assert_eq!(answer.code, Some(code), "{config}: {}", answer.message);
        front.end().await;
    }
    assert!(greeter.stop(Duration::from_secs(2)).await);
}

/// A service's own port by TLS, which asks for a certificate of the gateway's.
#[tokio::test]
async fn a_service_takes_tls_on_its_own_port() {
    let (identity, folder) = (Identity::new(), tempfile::tempdir().expect("a folder"));
    let files = identity.files(folder.path());
    let (cert, key, ca) = (files.certificate.display(), files.key.display(), files.ca.display());
    let text = format!(
        "serviceTls: {{ certificates: [{{ cert: {cert}, key: {key} }}], clientCa: {ca}, clientAuth: required }}"
    );
    let cli = Cli::parse_from(["goms", "service", "greeter"]);
    let config = Config::parse("config.yml", &text, &cli.common, &cli.node()).expect("a good config");
    config.check_certificates().expect("good certificates");
    let settings = config.service_tls.expect("settings");
    let (mut parts, _events) = parts("greeter");
    parts.call_keys = vec!["the key".to_owned()].into();
    let tls = Tls::open(settings, &Metrics::new()).expect("TLS");
    let greeter = super::start_by(Service::new("greeter").rpc("Say.Hello", hello), parts, Some(tls));
    let own = format!("cert: {cert}, key: {key}");
    for (tls, code) in [(format!("{{ ca: {ca}, {own} }}"), 0), (format!("{{ ca: {ca} }}"), 14), ("none".to_owned(), 14)]
    {
        let config = format!("services: {{ greeter: {{ a: /a }} }}\nupstreams: {{ greeter: {{ tls: {tls} }} }}");
        let front = Front::open(vec![serving("greeter", &greeter, &["greeter.Say"])], &config);
        let raw = Raw::connect(front.running.address()).await;
        let answer = raw.call("/greeter.Say/Hello", &[], framed(JOHN)).await;
        assert_eq!(answer.code, Some(code), "{config}: {}", answer.message);
        front.end().await;
    }
    assert!(greeter.stop(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn the_port_takes_tls_where_the_config_says_so() {
    async fn shown(ctx: Context, _: Request) -> Result<(String, bool), ServiceError> {
        let certificate = ctx.header("client-cert").is_some_and(|shown| shown.starts_with(':'));
        Ok((ctx.header("x-forwarded-proto").unwrap_or_default().to_owned(), certificate))
    }
    let node_of = start(Service::new("greeter").rpc("Say.Shown", shown), parts("greeter").0);
    let (identity, folder) = (Identity::new(), tempfile::tempdir().expect("a folder"));
    let files = identity.files(folder.path());
    let (cert, key, ca) = (files.certificate.display(), files.key.display(), files.ca.display());
    let config = format!(
        "tls: {{ certificates: [{{ cert: {cert}, key: {key} }}], clientCa: {ca}, clientAuth: optional, rpc: true }}"
    );
    let front = Front::open(vec![node("greeter", node_of.address())], &config);
    for (own, shown) in [(Some(&identity), r#"["https",true]"#), (None, r#"["https",false]"#)] {
        let client = tls::client(&identity.ca, &["h2"], own);
        let socket = tls::connect(&client, front.running.address(), "127.0.0.1").await.expect("TLS");
        let raw = Raw::on(socket).await;
        let answer = raw.call("/greeter.Say/Shown", &[], framed(JOHN)).await;
        assert_eq!((answer.code, answer.body), (Some(0), framed(shown)));
    }
    // plain HTTP/2 is not taken
    let plain = tokio::net::TcpStream::connect(front.running.address()).await.expect("a connection");
    let (mut sender, driver) = h2_v4::client::handshake(plain).await.expect("begun");
    let ended = tokio::time::timeout(Duration::from_secs(5), driver).await.expect("an end in time");
    assert!(ended.is_err() || sender.send_request(http_v1::Request::new(()), true).is_err());
    front.end().await;
    assert!(node_of.stop(Duration::from_secs(2)).await);
}

//! A door with TLS and passwords in front of an Elasticsearch that has neither.
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use goms::shutdown::Shutdown;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::origin::{Origin, Reply, answer};
use super::wire::Seen;

/// Who may do what.
#[derive(Clone, Default)]
pub struct Rules {
    /// Values of `Authorization` that are let in.
    pub known: Vec<String>,
    /// What nobody may ask for: a part of a target.
    pub forbidden: Option<&'static str>,
}

/// A running gate; ends when dropped.
pub struct Gate {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// The CA that vouches for it, as PEM.
    pub ca: String,
    pub rules: Arc<Mutex<Rules>>,
    inner: Origin,
    shutdown: Shutdown,
}

impl Gate {
    /// In front of `http://HOST:PORT`.
    pub async fn start(target: &str, rules: Rules) -> Self {
        let rules = Arc::new(Mutex::new(rules));
        let (host, checked) = (target.trim_start_matches("http://").to_owned(), rules.clone());
        let inner = Origin::start(move |seen, _| {
            let Rules { known, forbidden } = checked.lock().unwrap().clone();
            let who = seen.header("authorization").unwrap_or_default();
            if !known.iter().any(|known| known == who) {
                return Reply::Bytes(refusal("401 Unauthorized", "unable to authenticate"));
            }
            if forbidden.is_some_and(|part| seen.target.contains(part)) {
                return Reply::Bytes(refusal("403 Forbidden", "action is unauthorized"));
            }
            Reply::Close(forward(&host, seen))
        })
        .await;
        let (ca, acceptor) = certified();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (shutdown, behind) = (Shutdown::new(), inner.address);
        let tasks = shutdown.clone();
        shutdown.spawn(async move {
            loop {
                let socket = tokio::select! {
                    () = tasks.begun() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                let (acceptor, ending) = (acceptor.clone(), tasks.clone());
                tasks.spawn(async move {
                    let pipe = async {
                        let mut outer = acceptor.accept(socket).await?; // not when the client trusts nobody
                        let mut inner = TcpStream::connect(behind).await?;
                        tokio::io::copy_bidirectional(&mut outer, &mut inner).await
                    };
                    tokio::select! {
                        () = ending.begun() => {}
                        ended = pipe => drop(ended),
                    }
                });
            }
        });
        Self { url, ca, rules, inner, shutdown }
    }

    /// Every request so far, let in or not.
    pub fn seen(&self) -> Vec<Seen> {
        self.inner.seen()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// As Elasticsearch says it.
fn refusal(status: &str, reason: &str) -> Vec<u8> {
    let code = &status[..3];
    let error = format!(r#"{{"error":{{"type":"security_exception","reason":"{reason}"}},"status":{code}}}"#);
    answer(status, "Content-Type: application/json\r\n", error)
}

/// The server's answer. Blocks, which a test's own thread may.
fn forward(host: &str, seen: &Seen) -> Vec<u8> {
    let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n", seen.method, seen.target);
    if let Some(kind) = seen.header("content-type") {
        head += &format!("Content-Type: {kind}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", seen.body.len());
    let mut socket = std::net::TcpStream::connect(host).unwrap();
    socket.write_all(&[head.as_bytes(), &seen.body].concat()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    answer
}

/// A CA and what serves 127.0.0.1 with a certificate of it.
pub fn certified() -> (String, TlsAcceptor) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (ca.pem(), TlsAcceptor::from(Arc::new(config)))
}

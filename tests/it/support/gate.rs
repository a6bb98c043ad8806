//! A door with TLS and passwords in front of an Elasticsearch that has neither.
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use super::origin::{Origin, Reply, answer};
use super::tls::{Identity, TlsFront};
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
    _front: TlsFront,
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
        let identity = Identity::new();
        let front = TlsFront::start(&identity, inner.address).await;
        Self { url: format!("https://{}", front.address), ca: identity.ca, rules, inner, _front: front }
    }

    /// Every request so far, let in or not.
    pub fn seen(&self) -> Vec<Seen> {
        self.inner.seen()
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

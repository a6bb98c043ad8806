//! The service framework, over real sockets.

#![allow(clippy::unwrap_used)] // helpers of tests; clippy exempts only the tests themselves

mod answers;
mod calls;
mod program;
mod stop;
mod upgrade;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use goms::metrics::{Load, Metrics};
use goms::service::{Limits, Parts, Running, Service, serve};
use goms::trace::{self, Event, Origin, Recorder};
use tokio::sync::mpsc::Receiver;

pub(crate) const ID: &str = "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6";

/// Parts of a node without guard, and the events that it records.
pub(crate) fn parts(service: &str) -> (Parts, Receiver<Event>) {
    parts_with(service, |_| {})
}

/// The same, with other settings of what is recorded.
pub(crate) fn parts_with(service: &str, change: impl FnOnce(&mut trace::Settings)) -> (Parts, Receiver<Event>) {
    let metrics = Metrics::new();
    let mut settings = trace::Settings {
        sample: 1.0,
        slow: Duration::from_secs(1),
        body_bytes: 16384,
        redact: trace::Redact::default(),
        spool_bytes: 0,
        spool_dir: PathBuf::new(),
        flush_interval: Duration::from_millis(10),
        message: trace::Message::Single,
        transport: trace::Transport::Direct { call_key: goms::call_key::SigningKey::default() },
        otlp: None,
    };
    change(&mut settings);
    let (recorder, events) = Recorder::channel(&settings, &metrics);
    let origin = Origin {
        service_name: service.to_owned(),
        service_id: format!("goms_{service}_127.0.0.1:1_127.0.0.1:2"),
        project_name: "goms".to_owned(),
        node: "127.0.0.1:1_127.0.0.1:2".to_owned(),
    };
    let parts = Parts {
        call_keys: Vec::new().into(),
        recorder,
        origin: Arc::new(origin),
        metrics,
        calls: None,
        load: Load::default(),
        workers: 1,
        access_log: false,
        limits: Limits::default(),
        tls: None,
    };
    (parts, events)
}

pub(crate) fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// Runs the servers' own tasks; the tests are plain threads.
pub(crate) static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());

pub(crate) fn start(service: Service, parts: Parts) -> Running {
    let _runtime = RUNTIME.enter();
    serve(listener(), service, parts).unwrap()
}

/// An HTTP/1.1 connection that shows every byte.
struct Client {
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    fn write(&mut self, bytes: &str) {
        self.stream.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.write(&request(method, target, headers, body));
        self.answer()
    }

    fn answer(&mut self) -> Answer {
        self.try_answer().expect("an answer")
    }

    fn try_answer(&mut self) -> std::io::Result<Answer> {
        let broken = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let status = self.line()?.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").ok_or_else(broken)?;
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut answer = Answer { status, headers, body: String::new() };
        if let Some(len) = answer.header("content-length") {
            let mut body = vec![0; len.parse().unwrap()];
            self.stream.read_exact(&mut body)?;
            answer.body = String::from_utf8(body).unwrap();
        } else if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let len = usize::from_str_radix(&self.line()?, 16).map_err(|_| broken())?;
                let mut chunk = vec![0; len + 2];
                self.stream.read_exact(&mut chunk)?;
                if len == 0 {
                    break;
                }
                answer.body.push_str(std::str::from_utf8(&chunk[..len]).unwrap());
            }
        }
        Ok(answer)
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: node\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    format!("{text}\r\n{body}")
}

/// One request on a connection of its own.
pub(crate) fn ask(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    Client::connect(address).send(method, target, headers, body)
}

pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Waits until something holds, without blocking the runtime.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The next event, which must come within a second.
pub(crate) async fn next(events: &mut Receiver<Event>) -> Event {
    tokio::time::timeout(Duration::from_secs(5), events.recv()).await.expect("an event in time").expect("a recorder")
}

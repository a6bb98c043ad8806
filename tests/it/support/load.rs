//! Steady load on keep-alive connections, and an account of every answer.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::http::{PATIENCE, read_answer};

/// Requests that run until [`Load::stop`].
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<BTreeMap<String, u64>>>,
}

impl Load {
    /// `connections` threads, each with one keep-alive connection, send `method` to `path` as fast as they are answered.
    pub fn start(address: &str, method: &'static str, path: &str, connections: usize) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..connections)
            .map(|_| {
                let (address, path) = (address.to_owned(), path.to_owned());
                let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
                std::thread::spawn(move || run(&address, method, &path, &stop, &sent))
            })
            .collect();
        Self { stop, sent, threads }
    }

    /// Waits until so many more requests were answered, well or badly.
    pub fn wait_for(&self, more: u64) {
        let until = self.sent.load(Ordering::Relaxed) + more;
        let deadline = std::time::Instant::now() + PATIENCE * 3;
        while self.sent.load(Ordering::Relaxed) < until {
            assert!(std::time::Instant::now() < deadline, "the load does not go on");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Ends the load: how often each outcome came: `200`, other statuses with their body, `connect: …` for a connection
    /// that never answered anything, `connection: …` for one that broke later.
    pub fn stop(self) -> BTreeMap<String, u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for thread in self.threads {
            for (outcome, count) in thread.join().expect("no load thread panics") {
                *all.entry(outcome).or_insert(0) += count;
            }
        }
        all
    }
}

fn run(address: &str, method: &str, path: &str, stop: &AtomicBool, sent: &AtomicU64) -> BTreeMap<String, u64> {
    let mut outcomes = BTreeMap::new();
    let body = if method == "POST" { "{\"a\":1}" } else { "" };
    let kind = if body.is_empty() { String::new() } else { "Content-Type: application/json\r\n".to_owned() };
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{kind}Content-Length: {}\r\n\r\n{body}", body.len());
    let mut connection: Option<BufReader<TcpStream>> = None;
    while !stop.load(Ordering::Relaxed) {
        let fresh = connection.is_none();
        let mut once = || -> std::io::Result<(String, bool)> {
            let open = match connection.take() {
                Some(open) => open,
                None => {
                    let socket = TcpStream::connect(address)?;
                    socket.set_read_timeout(Some(PATIENCE))?;
                    socket.set_nodelay(true)?;
                    BufReader::new(socket)
                }
            };
            let mut open = open;
            open.get_mut().write_all(request.as_bytes())?;
            let answer = read_answer(&mut open, false)?;
            let close = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            if !close {
                connection = Some(open);
            }
            let outcome =
                if answer.status == 200 { "200".to_owned() } else { format!("{} {}", answer.status, answer.text()) };
            Ok((outcome, close))
        };
        let outcome = match once() {
            Ok((outcome, _)) => outcome,
            Err(error) if fresh => format!("connect: {error}"),
            Err(error) => format!("connection: {error}"),
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
        sent.fetch_add(1, Ordering::Relaxed);
    }
    outcomes
}

//! A fake origin: a plain TCP server that does with each request what its script says, proper HTTP or not.
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use goms::shutdown::Shutdown;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::wire::{Reader, Seen};

/// What to do with a request.
pub enum Reply {
    /// Send these bytes and wait for the next request.
    Bytes(Vec<u8>),
    /// Send these bytes and close.
    Close(Vec<u8>),
    /// Send these bytes and reset the connection.
    Reset(Vec<u8>),
    /// Wait, then send these bytes.
    Late(Duration, Vec<u8>),
    /// Never answer.
    Never,
}

/// A running origin; ends when dropped.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    shutdown: Shutdown,
}

impl Origin {
    /// Runs `script` with each request and its number (from 0).
    pub async fn start(script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, shutdown) = (Arc::new(Mutex::new(Vec::new())), Shutdown::new());
        let (log, script, tasks) = (seen.clone(), Arc::new(script), shutdown.clone());
        shutdown.spawn(async move {
            loop {
                let socket = tokio::select! {
                    () = tasks.begun() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                let (log, script, ending) = (log.clone(), script.clone(), tasks.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        () = ending.begun() => {}
                        () = serve(socket, &log, &*script) => {}
                    }
                });
            }
        });
        Self { address, seen, shutdown }
    }

    /// An origin that answers every request with this.
    pub async fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |_, _| Reply::Bytes(bytes.clone())).await
    }

    /// An origin that answers as the demo service does.
    pub async fn echo() -> Self {
        Self::start(|seen, _| Reply::Bytes(echo(seen))).await
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The only request so far.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.into_iter().next().unwrap()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

async fn serve(socket: TcpStream, log: &Mutex<Vec<Seen>>, script: &(impl Fn(&Seen, usize) -> Reply + ?Sized)) {
    let mut reader = Reader::new(socket);
    while let Some(seen) = reader.request().await {
        let number = {
            let mut log = log.lock().unwrap();
            log.push(seen.clone());
            log.len() - 1
        };
        let sent = match script(&seen, number) {
            Reply::Bytes(bytes) => reader.socket.write_all(&bytes).await,
            Reply::Late(wait, bytes) => {
                tokio::time::sleep(wait).await;
                reader.socket.write_all(&bytes).await
            }
            Reply::Close(bytes) => {
                drop(reader.socket.write_all(&bytes).await);
                return;
            }
            Reply::Reset(bytes) => {
                drop(reader.socket.write_all(&bytes).await);
                drop(socket2::SockRef::from(&reader.socket).set_linger(Some(Duration::ZERO)));
                return;
            }
            Reply::Never => std::future::pending().await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// A whole answer with its length.
pub fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A JSON answer.
pub fn json(body: &str) -> Vec<u8> {
    answer("200 OK", "Content-Type: application/json\r\n", body)
}

/// The demo service's answer.
pub fn echo(seen: &Seen) -> Vec<u8> {
    let body = if seen.body.is_empty() { "{}".into() } else { String::from_utf8_lossy(&seen.body).into_owned() };
    let query = seen.target.find('?').map_or("", |at| &seen.target[at..]);
    let method = &seen.method;
    json(&format!(
        r#"{{"code":0,"data":{{"body":{body},"headers":{{}},"method":"{method}","urlParam":"{query}"}},"msg":"success"}}"#
    ))
}

/// An address where nobody listens.
pub fn dead() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

//! HTTP/1.1 as plain as it gets, for both sides: tests see every byte.
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// An answer that came back.
#[derive(Clone, Debug)]
pub struct Got {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body ended as announced.
    pub complete: bool,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Reads messages from a connection.
pub struct Reader<S = TcpStream> {
    pub socket: S,
    buffer: Vec<u8>,
}

type Head = (String, Vec<(String, String)>);

impl Reader {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reader<S> {
    pub fn new(socket: S) -> Self {
        Self { socket, buffer: Vec::new() }
    }

    /// Sends raw bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a request and reads its answer; it must come within 20 s.
    pub async fn ask(&mut self, method: &str, target: &str, headers: &str, body: impl AsRef<[u8]>) -> Got {
        self.send(request(method, target, headers, body)).await;
        self.answer(method == "HEAD").await.expect("an answer")
    }

    /// The next request; `None` at the end of the connection.
    pub async fn request(&mut self) -> Option<Seen> {
        let (line, headers) = self.head().await?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let body = if is_chunked(&headers) {
            self.chunks().await?
        } else {
            let length = find(&headers, "content-length").map_or(0, |length| length.parse().unwrap());
            self.exactly(length).await?
        };
        Some(Seen { method, target, headers, body })
    }

    /// The next answer; `None` when the connection ends before its head.
    pub async fn answer(&mut self, is_head: bool) -> Option<Got> {
        tokio::time::timeout(Duration::from_secs(20), self.read_answer(is_head)).await.expect("an answer in 20 s")
    }

    async fn read_answer(&mut self, is_head: bool) -> Option<Got> {
        let (line, headers) = self.head().await?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        if status == 100 {
            return Box::pin(self.read_answer(is_head)).await;
        }
        let body = if is_head || status == 204 || status == 304 {
            Some(Vec::new())
        } else if is_chunked(&headers) {
            self.chunks().await
        } else if let Some(length) = find(&headers, "content-length") {
            self.exactly(length.parse().unwrap()).await
        } else {
            self.fill_to_end().await;
            Some(std::mem::take(&mut self.buffer))
        };
        let complete = body.is_some();
        Some(Got { status, headers, body: body.unwrap_or_default(), complete })
    }

    /// The status line of the next interim answer.
    pub async fn interim(&mut self) -> String {
        tokio::time::timeout(Duration::from_secs(20), self.head()).await.expect("an answer in 20 s").unwrap().0
    }

    /// Whether the other side closes, within 20 s.
    pub async fn closes(&mut self) -> bool {
        tokio::time::timeout(Duration::from_secs(20), self.fill_to_end()).await.is_ok() && self.buffer.is_empty()
    }

    async fn fill_to_end(&mut self) {
        while self.fill().await {}
    }

    async fn fill(&mut self) -> bool {
        let mut part = [0; 16 << 10];
        match self.socket.read(&mut part).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&part[..count]);
                true
            }
        }
    }

    /// The first line and the fields of the next message; `None` when the connection ends before.
    pub async fn head(&mut self) -> Option<Head> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at;
            }
            if !self.fill().await {
                return None;
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let first = lines.next()?.to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        Some((first, headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()))
    }

    /// So many bytes; `None` when the connection ends before.
    pub async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// The next chunk; the last one is empty. `None` when the connection ends before it.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            if let Some(at) = self.buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                break at;
            }
            if !self.fill().await {
                return None;
            }
        };
        let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[..end]).ok()?.trim(), 16).ok()?;
        self.buffer.drain(..end + 2);
        let chunk = self.exactly(size).await?;
        self.exactly(2).await?;
        Some(chunk)
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                return Some(body);
            }
            body.extend_from_slice(&chunk);
        }
    }
}

fn is_chunked(headers: &[(String, String)]) -> bool {
    find(headers, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
}

/// A request as bytes; a length is added where there is a body.
pub fn request(method: &str, target: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: example.test\r\n{headers}{length}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

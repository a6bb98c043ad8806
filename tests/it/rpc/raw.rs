//! A client of HTTP/2 that shows every frame, for what no proper client of gRPC would send.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use h2_v4::client::{ResponseFuture, SendRequest};
use h2_v4::{RecvStream, SendStream};
use http_v1::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection of the h2 crate, which sends what it is told.
pub struct Raw {
    sender: SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<()>,
}

/// How an answer ended.
#[derive(Debug)]
pub struct Ended {
    pub http: u16,
    pub body: Bytes,
    /// Of the trailers, or of the head where there are none.
    pub code: Option<u32>,
    pub message: String,
    /// `X-Goms-Fault` of the head.
    pub fault: Option<String>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).await.expect("a connection")).await
    }

    /// On a connection that stands.
    pub async fn on(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, driver) = h2_v4::client::handshake(socket).await.expect("http/2");
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        let driver = tokio::spawn(async move { drop(driver.await) });
        Self { sender, driver }
    }

    /// Begins a call with these fields beside the usual ones.
    pub async fn begin(&self, path: &str, fields: &[(&str, &str)]) -> (ResponseFuture, SendStream<Bytes>) {
        let mut request = Request::post(format!("http://node{path}")).header("te", "trailers");
        if !fields.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc+json");
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut sender = self.sender.clone().ready().await.expect("a stream");
        sender.send_request(request.body(()).expect("a request"), false).expect("a stream")
    }

    /// A call with this body.
    pub async fn call(&self, path: &str, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Ended {
        let (response, mut stream) = self.begin(path, fields).await;
        // the answer may come before all of it was sent
        drop(stream.send_data(body.into(), true));
        ended(response).await
    }

    /// The connection is gone.
    pub fn cut(self) {
        self.driver.abort();
    }
}

/// Reads an answer to its end.
pub async fn ended(response: ResponseFuture) -> Ended {
    let (head, mut body) = response.await.expect("an answer").into_parts();
    let (whole, trailers) = rest(&mut body).await;
    let told = if head.headers.contains_key("grpc-status") { &head.headers } else { &trailers };
    let text = |headers: &HeaderMap, name: &str| {
        headers.get(name).map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default()
    };
    Ended {
        http: head.status.as_u16(),
        body: whole,
        code: text(told, "grpc-status").parse().ok(),
        message: text(told, "grpc-message"),
        fault: Some(text(&head.headers, "x-goms-fault")).filter(|told| !told.is_empty()),
    }
}

/// The rest of a body, and its trailers.
pub async fn rest(body: &mut RecvStream) -> (Bytes, HeaderMap) {
    let mut whole = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part.expect("a part");
        body.flow_control().release_capacity(part.len()).expect("a window");
        whole.extend_from_slice(&part);
    }
    (whole.freeze(), body.trailers().await.expect("an end").unwrap_or_default())
}

/// A message in its frame.
pub fn framed(message: impl AsRef<[u8]>) -> Bytes {
    goms::rpc::frame::framed(message.as_ref())
}

/// Frames of HTTP/2 by hand: the code and the last stream's end that the server sent (`RST_STREAM` or `GOAWAY`, else what the
/// trailers' flags say), for requests whose fields the h2 crate would not send.
pub struct Bare {
    socket: TcpStream,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Bare {
    pub async fn connect(address: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(address).await.expect("a connection");
        socket.write_all(PREFACE).await.expect("sent");
        let mut bare = Self { socket };
        bare.frame(4, 0, 0, &[]).await; // SETTINGS
        bare
    }

    /// Sends a frame.
    pub async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_uint(payload.len() as u64, 3);
        frame.put_u8(kind);
        frame.put_u8(flags);
        frame.put_u32(stream);
        frame.put_slice(payload);
        // a byte at a time would be as good
        for part in frame.chunks(7) {
            self.socket.write_all(part).await.expect("sent");
            self.socket.flush().await.expect("sent");
        }
    }

    /// The frames that come until this stream is over: kinds and flags, and the payloads of DATA together.
    pub async fn answer(&mut self, stream: u32) -> (Vec<(u8, u8)>, Bytes) {
        let (mut seen, mut body) = (Vec::new(), BytesMut::new());
        loop {
            let mut head = [0; 9];
            if self.socket.read_exact(&mut head).await.is_err() {
                return (seen, body.freeze());
            }
            let [a, b, c, kind, flags, s @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.socket.read_exact(&mut payload).await.expect("a payload");
            if u32::from_be_bytes(s) == stream {
                seen.push((kind, flags));
                if kind == 0 {
                    body.extend_from_slice(&payload);
                }
                if kind == 3 || (kind <= 1 && flags & 1 == 1) {
                    return (seen, body.freeze());
                }
            } else if kind == 7 {
                seen.push((kind, flags));
                return (seen, body.freeze());
            }
        }
    }
}

//! A connection as the HTTP dispatchers read and write it. It ends when its client takes nothing for too long.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::Limits;
use super::peer::Peer;
use crate::timer::Timer;

/// An accepted socket.
#[derive(Debug)]
pub(super) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl From<TcpStream> for Wire {
    fn from(socket: TcpStream) -> Self {
        Self::Tcp(socket)
    }
}

impl From<UnixStream> for Wire {
    fn from(socket: UnixStream) -> Self {
        Self::Unix(socket)
    }
}

/// A socket with what was already read of it, to know what it begins with.
#[derive(Debug)]
pub(super) struct Socket {
    wire: Wire,
    ahead: BytesMut,
}

/// Holds most heads, so that they need not be read in two parts.
const READ_AHEAD: usize = 2048;

impl Socket {
    pub fn new(wire: Wire) -> Self {
        Self { wire, ahead: BytesMut::new() }
    }

    /// Resolves when something can be read.
    pub async fn speaks(&self) -> io::Result<()> {
        match &self.wire {
            Wire::Tcp(socket) => socket.readable().await,
            Wire::Unix(socket) => socket.readable().await,
        }
    }

    /// What was read ahead.
    pub fn ahead(&mut self) -> &mut BytesMut {
        &mut self.ahead
    }

    /// Reads more ahead; 0 at the end of the connection.
    pub async fn read_ahead(&mut self) -> io::Result<usize> {
        self.ahead.reserve(READ_AHEAD);
        match &mut self.wire {
            Wire::Tcp(socket) => socket.read_buf(&mut self.ahead).await,
            Wire::Unix(socket) => socket.read_buf(&mut self.ahead).await,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let taken = self.ahead.len().min(into.remaining());
            into.put_slice(&self.ahead[..taken]);
            self.ahead.advance(taken);
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new(); // its memory is not needed again
            }
            return Poll::Ready(Ok(()));
        }
        match &mut self.wire {
            Wire::Tcp(socket) => Pin::new(socket).poll_read(task, into),
            Wire::Unix(socket) => Pin::new(socket).poll_read(task, into),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Tcp(socket) => Pin::new(socket).poll_write(task, bytes),
            Wire::Unix(socket) => Pin::new(socket).poll_write(task, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Tcp(socket) => Pin::new(socket).poll_flush(task),
            Wire::Unix(socket) => Pin::new(socket).poll_flush(task),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Tcp(socket) => Pin::new(socket).poll_shutdown(task),
            Wire::Unix(socket) => Pin::new(socket).poll_shutdown(task),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Tcp(socket) => Pin::new(socket).poll_write_vectored(task, parts),
            Wire::Unix(socket) => Pin::new(socket).poll_write_vectored(task, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// The bytes of HTTP, with or without TLS below.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// Gives the same expression for both.
macro_rules! either {
    ($stream:expr, $inner:ident => $then:expr) => {
        match $stream {
            Stream::Plain($inner) => $then,
            Stream::Tls($inner) => $then,
        }
    };
}

/// What a dispatcher reads and writes.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    peer: Rc<Peer>,
    /// What the client does not take.
    sending: Patience,
}

impl Connection {
    pub fn new(stream: Stream, peer: Rc<Peer>, limits: &Limits) -> Self {
        Self { stream, peer, sending: Patience::new(limits.send_timeout) }
    }

    pub fn peer(&self) -> &Rc<Peer> {
        &self.peer
    }

    fn sent<T>(&mut self, outcome: Poll<io::Result<T>>, task: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.sending.end();
            return outcome;
        }
        self.sending.begin();
        if self.sending.is_over(task) {
            let why = "the client takes nothing of what is there for it";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
        }
        Poll::Pending
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.stream, stream => Pin::new(stream).poll_read(task, into))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = either!(&mut self.stream, stream => Pin::new(stream).poll_write(task, bytes));
        self.sent(outcome, task)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = either!(&mut self.stream, stream => Pin::new(stream).poll_flush(task));
        self.sent(outcome, task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = either!(&mut self.stream, stream => Pin::new(stream).poll_shutdown(task));
        self.sent(outcome, task)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = either!(&mut self.stream, stream => Pin::new(stream).poll_write_vectored(task, parts));
        self.sent(outcome, task)
    }

    fn is_write_vectored(&self) -> bool {
        either!(&self.stream, stream => stream.is_write_vectored())
    }
}

/// A wait that may not be too long. Its timer is made when first needed, so that a wait that ends in time costs a look at
/// the clock.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    since: Option<Instant>,
    timer: Option<Timer>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, since: None, timer: None }
    }

    fn begin(&mut self) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
        }
    }

    fn end(&mut self) {
        self.since = None;
    }

    /// Whether the wait has begun and is too long; if it is not yet, the task is woken when it is.
    fn is_over(&mut self, task: &mut Context<'_>) -> bool {
        self.since.is_some_and(|since| {
            let end = since + self.limit;
            self.timer.get_or_insert_with(|| Timer::new(end)).poll(end, task).is_ready()
        })
    }
}

//! A connection that changed its protocol (RFC 9110 section 7.8): bytes pass both ways, each at its own pace, so that a side
//! that does not read never keeps the other from being heard.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, Sleep};
use tokio_util::io::poll_read_buf;
use tokio_util::task::AbortOnDropHandle;

use super::HttpError;
use super::outgoing::Shared;
use super::socket::Socket;

/// One read.
const READ_BYTES: usize = 16 << 10;

/// What a request brings that asks for another protocol.
#[derive(Clone)]
pub struct Upgrade {
    /// What the client sends once the protocol is changed.
    pub parts: Shared,
    /// After so long without a byte in either direction the tunnel ends.
    pub idle: Duration,
}

/// What comes out of the connection; what goes into it is sent by a task that ends with this.
pub(super) struct Tunnel {
    reading: ReadHalf<Socket>,
    /// What came with the answer's head.
    input: BytesMut,
    /// When a byte last passed, either way.
    last: Rc<Cell<Instant>>,
    idle: Duration,
    sleep: Pin<Box<Sleep>>,
    _sending: AbortOnDropHandle<()>,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Tunnel").field("idle", &self.idle).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// Takes a connection over, with what was read of it and not taken. Must be called within a `LocalSet`.
    #[expect(clippy::disallowed_methods, reason = "it ends with its tunnel, which belongs to a request")]
    pub fn open(socket: Socket, input: BytesMut, upgrade: Upgrade) -> Self {
        let last = Rc::new(Cell::new(Instant::now()));
        let (reading, writing) = tokio::io::split(socket);
        let sending = tokio::task::spawn_local(send(writing, upgrade.parts, last.clone()));
        let sleep = Box::pin(tokio::time::sleep(upgrade.idle));
        Self { reading, input, last, idle: upgrade.idle, sleep, _sending: AbortOnDropHandle::new(sending) }
    }

    /// What comes next; the end when the other side ended it, or nothing passed for too long.
    pub fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Bytes, HttpError>>> {
        if self.input.is_empty() {
            self.input.reserve(READ_BYTES);
            match poll_read_buf(Pin::new(&mut self.reading), task, &mut self.input) {
                Poll::Ready(Ok(0)) => return Poll::Ready(None),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(HttpError::Read(error)))),
                Poll::Pending => return self.poll_idle(task).map(|()| None),
            }
        }
        self.last.set(Instant::now());
        Poll::Ready(Some(Ok(self.input.split().freeze())))
    }

    /// Ready once nothing has passed for too long.
    fn poll_idle(&mut self, task: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(task));
            let end = self.last.get() + self.idle;
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(end);
        }
    }
}

/// Sends what the client brings; the other side hears of its end.
async fn send(mut writing: WriteHalf<Socket>, parts: Shared, last: Rc<Cell<Instant>>) {
    while let Some(Ok(part)) = std::future::poll_fn(|task| parts.poll_next(task)).await {
        if write(&mut writing, part, &last).await.is_err() {
            return; // what is read of it tells the same
        }
    }
    if let Err(error) = writing.shutdown().await {
        log::debug!("cannot end a tunnel: {error}");
    }
}

async fn write(writing: &mut WriteHalf<Socket>, mut part: Bytes, last: &Cell<Instant>) -> io::Result<()> {
    while part.has_remaining() {
        writing.write_buf(&mut part).await?;
        last.set(Instant::now());
    }
    writing.flush().await
}

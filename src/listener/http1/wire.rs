//! A connection as both sides of an exchange use it: who waits for the next request or sends an answer, and the body that a
//! request's handler reads.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::error::PayloadError;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use super::super::connection::Connection;
use crate::framing::{Decoder, Framing, Step};

/// Holds most requests, so that they need not be read in two parts.
const READ_BYTES: usize = 4 << 10;
/// What a client that sends much is read by; as upstream.
const LONG_READ_BYTES: usize = 64 << 10;
/// What may come behind a request while its answer is made: the next ones of a client that does not wait.
const AHEAD_BYTES: usize = 64 << 10;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A connection, what was read of it, and where the request's body ends.
pub(super) struct Wire {
    connection: Connection,
    pub input: BytesMut,
    read_bytes: usize,
    /// Of the request that is answered.
    body: Body,
    /// Which request that is.
    request: u64,
    /// The client sends nothing more.
    pub has_ended: bool,
}

/// What is still to be read of a request.
struct Body {
    decoder: Decoder,
    /// Not a body but another protocol, if its handler grants that.
    is_tunnel: bool,
    is_touched: bool,
    /// How much of the interim answer is sent that the client waits for; `None`: it waits for none.
    told_to_continue: Option<usize>,
    is_broken: bool,
}

impl Body {
    fn new(framing: Framing, is_tunnel: bool, waits: bool) -> Self {
        let decoder = Decoder::new(if is_tunnel { Framing::Close } else { framing });
        Self { decoder, is_tunnel, is_touched: false, told_to_continue: waits.then_some(0), is_broken: false }
    }
}

impl Wire {
    pub fn new(connection: Connection) -> Self {
        let body = Body::new(Framing::NoBody, false, false);
        Self { connection, input: BytesMut::new(), read_bytes: READ_BYTES, body, request: 0, has_ended: false }
    }

    /// A request begins, with this body. Returns the number by which its body is known.
    pub fn begin(&mut self, framing: Framing, is_tunnel: bool, waits: bool) -> u64 {
        self.request += 1;
        self.body = Body::new(framing, is_tunnel, waits);
        self.request
    }

    /// Its answer begins: nobody is to be told to go on any more. Returns whether all of the request was read: what follows a
    /// request for another protocol never is, for it was not meant as a request.
    pub fn answered(&mut self) -> bool {
        self.body.told_to_continue = None;
        if !self.body.is_touched && !self.body.is_tunnel {
            self.skip();
        }
        self.is_read()
    }

    /// Leaves out what is there of a body that nobody wants.
    fn skip(&mut self) {
        while !self.body.is_broken {
            match self.body.decoder.step(&mut self.input) {
                Ok(Step::Part(_)) => {}
                Ok(Step::More | Step::End) => return,
                Err(_) => self.body.is_broken = true,
            }
        }
    }

    /// All of the request was read.
    pub fn is_read(&self) -> bool {
        self.body.decoder.is_end() && !self.body.is_broken
    }

    /// Reads once behind what is there; 0 is the end.
    pub fn poll_read(&mut self, task: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.has_ended {
            return Poll::Ready(Ok(0));
        }
        if self.input.capacity() - self.input.len() < self.read_bytes / 2 {
            self.input.reserve(self.read_bytes);
        }
        let room = self.input.capacity() - self.input.len();
        let read = ready!(poll_read_buf(Pin::new(&mut self.connection), task, &mut self.input))?;
        if read == 0 {
            self.has_ended = true;
        } else if read == room {
            self.read_bytes = LONG_READ_BYTES;
        }
        Poll::Ready(Ok(read))
    }

    /// Looks whether the client is still there while its answer is made. One that has only ended its side still gets it.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn poll_gone(&mut self, task: &mut Context<'_>) -> Poll<io::Error> {
        // a body is read by who wants it, and no faster
        while self.is_read() && !self.has_ended && self.input.len() < AHEAD_BYTES {
            if let Err(error) = ready!(self.poll_read(task)) {
                return Poll::Ready(error);
            }
        }
        Poll::Pending
    }

    /// The client has ended its side, after its request. Not for another protocol, whose sides end one by one.
    pub fn is_half_closed(&self) -> bool {
        self.has_ended && !self.body.is_tunnel
    }

    /// Writes once.
    pub fn poll_write(&mut self, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.connection).poll_write(task, bytes))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => Poll::Ready(Ok(written)),
        }
    }

    /// Sends what TLS still holds.
    pub fn poll_flush(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(task)
    }

    /// The client may be sending what nobody will read.
    pub fn has_more(&self) -> bool {
        !self.has_ended && (!self.is_read() || !self.input.is_empty())
    }

    /// Ends what is sent.
    pub fn poll_shutdown(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(task)
    }

    fn poll_part(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        self.body.is_touched = true;
        loop {
            if self.body.is_broken {
                return Poll::Ready(None);
            }
            match self.body.decoder.step(&mut self.input) {
                Ok(Step::Part(part)) => return Poll::Ready(Some(Ok(part))),
                Ok(Step::End) => return Poll::Ready(None),
                Ok(Step::More) => {}
                Err(why) => {
                    self.body.is_broken = true;
                    let error = io::Error::new(io::ErrorKind::InvalidData, why);
                    return Poll::Ready(Some(Err(PayloadError::Io(error))));
                }
            }
            if let Err(error) = ready!(self.poll_continue(task)) {
                return self.broken(error);
            }
            match ready!(self.poll_read(task)) {
                Ok(0) if self.body.decoder.may_close() => return Poll::Ready(None),
                Ok(0) => {
                    self.body.is_broken = true;
                    return Poll::Ready(Some(Err(PayloadError::Incomplete(None))));
                }
                Ok(_) => {}
                Err(error) => return self.broken(error),
            }
        }
    }

    fn broken(&mut self, error: io::Error) -> Poll<Option<Result<Bytes, PayloadError>>> {
        self.body.is_broken = true;
        Poll::Ready(Some(Err(PayloadError::Incomplete(Some(error)))))
    }

    /// Somebody wants the body: a client that waits for a word hears it (RFC 9110 section 10.1.1).
    fn poll_continue(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(sent) = self.body.told_to_continue {
            if sent == CONTINUE.len() {
                ready!(self.poll_flush(task))?;
                self.body.told_to_continue = None;
            } else {
                let written = ready!(self.poll_write(task, &CONTINUE[sent..]))?;
                self.body.told_to_continue = Some(sent + written);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A request's body, or what follows its head in another protocol.
pub(super) struct Upload {
    pub wire: Rc<RefCell<Wire>>,
    /// Whose body it is.
    pub request: u64,
}

impl Stream for Upload {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut wire = self.wire.borrow_mut();
        if wire.request != self.request {
            return Poll::Ready(Some(Err(PayloadError::Incomplete(None)))); // it was kept for longer than its request
        }
        wire.poll_part(task)
    }
}

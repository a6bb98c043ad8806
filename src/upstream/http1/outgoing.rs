//! A request's body on its way out, and what of a request is still to be written.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::Instant;

use super::HttpError;
use super::connection::Connection;
use super::request::Length;
use super::tunnel::Upgrade;

/// A body up to this is copied behind its head and written with it; a longer one is written from where it is.
const COPIED_BYTES: usize = 4 << 10;

/// The parts of a streamed body.
pub type Parts = Pin<Box<dyn Stream<Item = Result<Bytes, Box<dyn std::error::Error>>>>>;

/// A request's body. A clone of a streamed one is the same stream.
#[derive(Clone)]
pub enum Outgoing {
    /// None, and no length either.
    NoBody,
    /// In memory.
    Whole(Bytes),
    /// As it comes; with a length, exactly so many bytes.
    Stream(Shared, Option<u64>),
    /// None; the request asks for another protocol, in which this follows.
    Upgrade(Upgrade),
}

impl Outgoing {
    pub(super) fn length(&self) -> Length {
        match self {
            Self::NoBody | Self::Upgrade(_) => Length::NoBody,
            Self::Whole(bytes) => Length::Known(bytes.len() as u64),
            Self::Stream(_, length) => length.map_or(Length::Unknown, Length::Known),
        }
    }

    /// It can be sent from its beginning.
    #[must_use]
    pub fn is_replayable(&self) -> bool {
        match self {
            Self::NoBody | Self::Whole(_) => true,
            Self::Stream(parts, _) => !parts.is_touched(),
            Self::Upgrade(upgrade) => !upgrade.parts.is_touched(),
        }
    }
}

/// A streamed body, which outlives a try that never took from it.
#[derive(Clone)]
pub struct Shared(Rc<SharedParts>);

struct SharedParts {
    stream: RefCell<Parts>,
    touched: Cell<bool>,
    last: Cell<Instant>,
}

impl Shared {
    /// A body that nobody has taken from.
    #[must_use]
    pub fn new(stream: Parts) -> Self {
        let (touched, last) = (Cell::new(false), Cell::new(Instant::now()));
        Self(Rc::new(SharedParts { stream: RefCell::new(stream), touched, last }))
    }

    /// A part of it was asked for.
    #[must_use]
    pub fn is_touched(&self) -> bool {
        self.0.touched.get()
    }

    /// When its last part came.
    #[must_use]
    pub fn last(&self) -> Instant {
        self.0.last.get()
    }

    pub(super) fn poll_next(&self, task: &mut Context<'_>) -> Poll<Option<Result<Bytes, Box<dyn std::error::Error>>>> {
        self.0.touched.set(true);
        let polled = self.0.stream.borrow_mut().as_mut().poll_next(task);
        if polled.is_ready() {
            self.0.last.set(Instant::now());
        }
        polled
    }
}

/// What is still to be written of a request.
pub(super) struct Sending {
    /// The head, or a chunk's line.
    before: Vec<u8>,
    /// The body, or a part of it.
    part: Bytes,
    /// The end of a chunk.
    after: &'static [u8],
    /// How many bytes of the three are written.
    written: usize,
    /// The connection took something.
    has_begun: bool,
    rest: Option<Rest>,
}

/// What is still to come of a streamed body.
struct Rest {
    parts: Shared,
    /// Bytes of a body of known length; `None`: it is chunked.
    left: Option<u64>,
}

impl std::fmt::Debug for Sending {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Sending").field("has_begun", &self.has_begun).finish_non_exhaustive()
    }
}

impl Sending {
    /// `head` is complete.
    pub fn new(mut head: Vec<u8>, body: &Outgoing) -> Self {
        let (mut part, mut rest) = (Bytes::new(), None);
        match body {
            Outgoing::NoBody | Outgoing::Upgrade(_) => {}
            Outgoing::Whole(bytes) if bytes.len() <= COPIED_BYTES => head.extend_from_slice(bytes),
            Outgoing::Whole(bytes) => part = bytes.clone(),
            Outgoing::Stream(parts, left) => {
                rest = Some(Rest { parts: parts.clone(), left: *left });
            }
        }
        Self { before: head, part, after: b"", written: 0, has_begun: false, rest }
    }

    /// Whether the connection took something.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Writes all there is and asks for more, until everything is sent.
    ///
    /// # Errors
    /// [`HttpError::Write`], or [`HttpError::Body`] when the body does not come as announced: the connection must then be
    /// cut, so that the other side never takes the request for complete.
    pub fn poll(&mut self, connection: &mut Connection, task: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        loop {
            let total = self.before.len() + self.part.len() + self.after.len();
            while self.written < total {
                let all = [&self.before[..], &self.part[..], self.after];
                self.written += ready!(connection.poll_write(task, all, self.written)).map_err(HttpError::Write)?;
                self.has_begun = true;
            }
            ready!(connection.poll_flush(task)).map_err(HttpError::Write)?;
            let Some(rest) = &mut self.rest else { return Poll::Ready(Ok(())) };
            let part = ready!(rest.parts.poll_next(task)).transpose().map_err(HttpError::Body)?;
            if part.as_ref().is_some_and(Bytes::is_empty) {
                continue; // an empty chunk would be the last one
            }
            self.before.clear();
            self.after = rest.frame(part.as_ref(), &mut self.before)?;
            if part.is_none() {
                self.rest = None;
            }
            (self.written, self.part) = (0, part.unwrap_or_default());
        }
    }

    /// The buffer, for the next one.
    pub fn into_buffer(self) -> Vec<u8> {
        self.before
    }
}

impl Rest {
    /// Writes what stands before the next part, or at the end (`None`), and gives what stands behind it.
    fn frame(&mut self, part: Option<&Bytes>, before: &mut Vec<u8>) -> Result<&'static [u8], HttpError> {
        let bytes = part.map_or(0, Bytes::len);
        let Some(left) = &mut self.left else {
            // writing into a vector never fails
            drop(write!(before, "{bytes:x}\r\n"));
            return Ok(b"\r\n");
        };
        *left = left.checked_sub(bytes as u64).ok_or_else(|| HttpError::Body("it is longer than announced".into()))?;
        if part.is_none() && *left > 0 {
            return Err(HttpError::Body(format!("it ended {left} bytes early").into()));
        }
        Ok(b"")
    }
}

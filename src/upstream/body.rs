//! Bodies on their way down and up.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::dev::Payload;
use awc::error::PayloadError;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::time::{Instant, Sleep};

use crate::balance::Permit;

/// What is streamed through.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, Box<dyn std::error::Error>>>>>;

/// How long an answer's body may stand still; nginx's `proxy_read_timeout`.
const STALL: Duration = Duration::from_secs(60);

/// A request's body.
pub enum RequestBody {
    /// None, not even a length.
    Empty,
    /// In memory; can be sent again.
    Whole(Bytes),
    /// Passed on as it comes; cannot be sent again once a part of it was taken.
    Stream {
        /// The parts.
        parts: BodyStream,
        /// How many bytes in all, where the client said so.
        length: Option<u64>,
    },
}

/// A streamed body that outlives a try which never took from it.
#[derive(Clone)]
pub(super) struct Shared(Rc<Parts>);

struct Parts {
    stream: RefCell<BodyStream>,
    touched: Cell<bool>,
    last: Cell<Instant>,
}

impl Shared {
    pub fn new(stream: BodyStream) -> Self {
        Self(Rc::new(Parts {
            stream: RefCell::new(stream),
            touched: Cell::new(false),
            last: Cell::new(Instant::now()),
        }))
    }

    pub fn is_touched(&self) -> bool {
        self.0.touched.get()
    }

    /// When its last part came.
    pub fn last(&self) -> Instant {
        self.0.last.get()
    }
}

impl Stream for Shared {
    type Item = Result<Bytes, Box<dyn std::error::Error>>;

    fn poll_next(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.touched.set(true);
        let polled = self.0.stream.borrow_mut().as_mut().poll_next(task);
        if polled.is_ready() {
            self.0.last.set(Instant::now());
        }
        polled
    }
}

/// Why an answer's body did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection failed.
    #[error("the service's answer broke off")]
    Read(#[source] PayloadError),
    /// The connection ended before as many bytes had come as were announced.
    #[error("the service's answer ended {0} bytes early")]
    Short(u64),
    /// Nothing more came.
    #[error("the service's answer stood still for {0:?}")]
    Stalled(Duration),
    /// It holds more than may be kept in memory.
    #[error("the service's answer has more than {0} bytes")]
    TooLong(usize),
}

/// An answer's body; the node counts as busy until it is dropped.
pub struct AnswerBody {
    parts: Payload,
    /// Bytes still to come, where the service said how many.
    left: Option<u64>,
    stall: Option<Pin<Box<Sleep>>>,
    _permit: Permit,
}

impl AnswerBody {
    pub(super) fn new(parts: Payload, length: Option<u64>, permit: Permit) -> Self {
        Self { parts, left: length, stall: None, _permit: permit }
    }

    /// How many bytes are still to come, where the service said so.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.left
    }

    /// All of it in memory.
    ///
    /// # Errors
    /// [`Broken`]; [`Broken::TooLong`] past `limit` bytes.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, Broken> {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        loop {
            let part = std::future::poll_fn(|task| Pin::new(&mut self).poll_next(task)).await;
            let Some(part) = part.transpose()? else { break };
            if first.len() + all.len() + part.len() > limit {
                return Err(Broken::TooLong(limit));
            }
            if first.is_empty() && all.is_empty() {
                first = part; // most answers come in one part, which is not copied
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&part);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }
}

impl Stream for AnswerBody {
    type Item = Result<Bytes, Broken>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        match Pin::new(&mut this.parts).poll_next(task) {
            Poll::Ready(Some(Ok(part))) => {
                this.stall = None;
                if let Some(left) = &mut this.left {
                    *left = left.saturating_sub(part.len() as u64);
                }
                Poll::Ready(Some(Ok(part)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(Broken::Read(error)))),
            Poll::Ready(None) => match this.left.take() {
                Some(left) if left > 0 => Poll::Ready(Some(Err(Broken::Short(left)))),
                _ => Poll::Ready(None),
            },
            Poll::Pending => {
                let stall = this.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL)));
                stall.as_mut().poll(task).map(|()| Some(Err(Broken::Stalled(STALL))))
            }
        }
    }
}

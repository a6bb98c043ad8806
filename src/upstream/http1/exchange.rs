//! One request and the head of its answer, on one connection.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::answer::{AnswerHead, Body, Manner};
use super::connection::Connection;
use super::outgoing::Sending;
use super::tunnel::Upgrade;
use super::{HttpError, Pool};

/// The one protocol that a request may ask for. Another (such as `h2c`) would hide requests from who forwards it.
pub const PROTOCOL: &[u8] = b"websocket";

/// Of an answer's head; more than any service should send, and twice what nginx and actix take by default.
const HEAD_BYTES: usize = 64 << 10;
/// Interim answers (RFC 9110 section 15.2) before the final one.
const MAX_INTERIM: u32 = 16;

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Answer {
    /// Status and fields.
    pub head: AnswerHead,
    /// The body; in a box, since an answer goes through many hands.
    pub body: Box<Body>,
}

const TOO_LONG: HttpError = HttpError::Malformed("its head is too long");

/// Sends a request and reads the head of its answer, which may come before all is sent.
pub(super) struct Exchange {
    /// `None` once the answer has it.
    connection: Option<Connection>,
    sending: Option<Sending>,
    /// Why the rest of the request was not sent; the answer may tell more.
    unsent: Option<HttpError>,
    is_head: bool,
    /// The request asks for another protocol.
    upgrade: Option<Upgrade>,
    interim: u32,
    pool: Rc<Pool>,
}

impl Exchange {
    pub fn new(
        connection: Connection,
        sending: Sending,
        is_head: bool,
        upgrade: Option<Upgrade>,
        pool: Rc<Pool>,
    ) -> Self {
        Self { connection: Some(connection), sending: Some(sending), unsent: None, is_head, upgrade, interim: 0, pool }
    }

    fn send(&mut self, task: &mut Context<'_>) -> Result<(), HttpError> {
        let (Some(connection), Some(sending)) = (&mut self.connection, &mut self.sending) else { return Ok(()) };
        match sending.poll(connection, task) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                if let Some(sent) = self.sending.take() {
                    self.pool.recycle(sent.into_buffer());
                }
            }
            Poll::Ready(Err(error @ HttpError::Body(_))) => return Err(error),
            Poll::Ready(Err(_)) if connection.was_kept && !sending.has_begun() => return Err(HttpError::Stale),
            Poll::Ready(Err(error)) => {
                self.unsent = Some(error);
                self.sending = None;
            }
        }
        Ok(())
    }

    fn poll_head(&mut self, task: &mut Context<'_>) -> Poll<Result<(AnswerHead, Manner), HttpError>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Err(HttpError::Closed)) };
        loop {
            if !connection.input().is_empty()
                && let Some((head, manner)) = AnswerHead::take(connection.input(), self.is_head)?
            {
                match head.status() {
                    _ if head.len() > HEAD_BYTES => return Poll::Ready(Err(TOO_LONG)),
                    101 if self.upgrade.is_none() => {
                        return Poll::Ready(Err(HttpError::Malformed("it changes the protocol, which nobody asked")));
                    }
                    101 if !head.values("upgrade").any(|to| to.eq_ignore_ascii_case(PROTOCOL)) => {
                        return Poll::Ready(Err(HttpError::Malformed("it changes to a protocol that nobody asked")));
                    }
                    101 => return Poll::Ready(Ok((head, manner))),
                    100..200 => {
                        self.interim += 1;
                        if self.interim > MAX_INTERIM {
                            return Poll::Ready(Err(HttpError::Malformed("it has too many interim answers")));
                        }
                        continue;
                    }
                    _ => return Poll::Ready(Ok((head, manner))),
                }
            }
            if connection.input().len() > HEAD_BYTES {
                return Poll::Ready(Err(TOO_LONG));
            }
            let unsent = &mut self.unsent;
            match ready!(connection.poll_read(task)) {
                Ok(0) if !connection.input().is_empty() => return Poll::Ready(Err(HttpError::Short)),
                Ok(0) => return Poll::Ready(Err(unsent.take().unwrap_or(HttpError::Closed))),
                Ok(_) => {}
                Err(_) if !connection.input().is_empty() => return Poll::Ready(Err(HttpError::Short)),
                Err(error) => return Poll::Ready(Err(unsent.take().unwrap_or(HttpError::Read(error)))),
            }
        }
    }
}

impl Future for Exchange {
    type Output = Result<Answer, HttpError>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.send(task)?;
        let (head, manner) = ready!(this.poll_head(task))?;
        let Some(connection) = this.connection.take() else { return Poll::Ready(Err(HttpError::Closed)) };
        if head.status() == 101
            && let Some(upgrade) = this.upgrade.take()
        {
            let body = Box::new(Body::tunnel(connection, upgrade, this.pool.clone()));
            return Poll::Ready(Ok(Answer { head, body }));
        }
        let is_kept = manner.is_kept && this.unsent.is_none();
        let manner = Manner { is_kept, ..manner };
        let body = Box::new(Body::new(manner, connection, this.sending.take(), this.pool.clone()));
        Poll::Ready(Ok(Answer { head, body }))
    }
}

//! HTTP/1.1 and 1.0 to a client (RFC 9112), as lean as a proxy needs it: one task a connection, which waits for a request,
//! answers it, and goes on. Nothing is handed from task to task, and a request's body is read by who wants it.
//!
//! ```text
//! head (strict) → the function that answers ⇄ wire::Upload (the body, as it is asked for) → answer (head, parts) → next
//! ```

mod answer;
mod head;
mod spare;
mod wire;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::{BoxedPayloadStream, Payload};
use actix_web::HttpResponse;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::http::{Method, StatusCode};
use bytes::Bytes;
use tokio::time::Instant;

use self::answer::{Besides, To, Transfer};
use self::head::{Head, Places};
pub(super) use self::spare::Spare;
use self::wire::{Upload, Wire};
use super::accept::end_of_silence;
use super::connection::Connection;
use super::incoming::Incoming;
use super::peer::Peer;
use super::{Answered, Answers, LINGER, Limits, Shared};
use crate::timer::Timer;

/// A part of an answer up to this is copied behind what is to be written already; a longer one is written from where it is.
const COPIED_BYTES: usize = 4 << 10;
/// So much is gathered before it is written.
const GATHERED_BYTES: usize = 16 << 10;
/// What was to be written is kept for the next answer up to this, and between requests of a client that is not busy nothing.
const SPARE_BYTES: usize = 32 << 10;

/// How long an answer's body may stand still once its client has ended its side of the connection.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// What comes of waiting for a request.
enum Next {
    Head(Head),
    /// It is answered with this status, and the connection ends.
    Refused(StatusCode),
    /// Nobody asks for more.
    Over,
}

/// Serves a connection to its end.
pub(super) async fn serve<A: Answers>(
    connection: Connection,
    peer: &Rc<Peer>,
    (app, spare): (&A, &Spare<A::Answering>),
    shared: &Shared,
) {
    let wire = Rc::new(RefCell::new(Wire::new(connection)));
    let mut waiting = Waiting::new(&shared.limits);
    let mut stopping = pin!(end_of_silence(shared.stopping.clone()));
    let mut out = Vec::new();
    loop {
        let ended = match poll_fn(|task| waiting.poll(&mut wire.borrow_mut(), stopping.as_mut(), task)).await {
            Next::Head(head) => exchange(head, &wire, peer, (app, spare), &mut out).await,
            Next::Refused(status) => {
                log::debug!("a request was refused client={} status={status}", peer.ip());
                let to = To { version: actix_web::http::Version::HTTP_11, is_head: false, keeps: false };
                let refused = HttpResponse::new(status).set_body(BoxBody::new(Bytes::new()));
                send(refused.into(), to, &wire, &mut out).await
            }
            Next::Over => Ok(false),
        };
        match ended {
            Ok(true) => waiting.again(),
            Ok(false) => break,
            Err(error) => return log::debug!("a connection ended client={} error=\"{error}\"", peer.ip()),
        }
    }
    if let Err(error) = tokio::time::timeout(LINGER, leave(&wire)).await.unwrap_or(Ok(())) {
        log::debug!("a connection was not ended well client={} error=\"{error}\"", peer.ip());
    }
}

/// Answers one request. Returns whether another may follow.
async fn exchange<A: Answers>(
    head: Head,
    wire: &Rc<RefCell<Wire>>,
    peer: &Rc<Peer>,
    (app, spare): (&A, &Spare<A::Answering>),
    out: &mut Vec<u8>,
) -> io::Result<bool> {
    let Head { request, framing, is_upgrade, waits, keeps } = head;
    let number = wire.borrow_mut().begin(framing, is_upgrade, waits);
    let payload = if is_upgrade || !wire.borrow().is_read() {
        Payload::from(Box::pin(Upload { wire: wire.clone(), request: number }) as BoxedPayloadStream)
    } else {
        Payload::None
    };
    let mut request = request;
    request.head_mut().peer_addr = peer.address;
    let to = To { version: request.version(), is_head: request.method() == Method::HEAD, keeps };
    let mut room = spare.take(app.answer(Incoming::new(request, Some(peer.clone())), payload));
    let answered = poll_fn(|task| match room.as_mut().as_pin_mut().map(|answering| answering.poll(task)) {
        Some(Poll::Ready(answered)) => Poll::Ready(Ok(answered)),
        Some(Poll::Pending) | None => wire.borrow_mut().poll_gone(task).map(Err), // never `None`: it was put there
    });
    let answered = answered.await?;
    spare.give(room);
    send(answered, to, wire, out).await
}

/// Sends an answer. Returns whether a request may follow.
async fn send(answered: Answered, to: To, wire: &Rc<RefCell<Wire>>, out: &mut Vec<u8>) -> io::Result<bool> {
    let is_read = wire.borrow_mut().answered();
    let to = To { keeps: to.keeps && is_read, ..to };
    let Answered { response, passed, request_id } = answered;
    let size = response.body().size();
    let besides = Besides { passed: &passed, request_id };
    let (mut transfer, keeps) = answer::begin(out, response.head(), besides, size, to);
    drop(passed); // it holds what was read from the service, and a body may go on for hours
    let mut body = pin!(response.into_body());
    let mut is_over = matches!(transfer, Transfer::Nothing | Transfer::Length(0));
    loop {
        // what is there already goes out together
        while !is_over && out.len() < GATHERED_BYTES {
            let polled = poll_fn(|task| Poll::Ready(body.as_mut().poll_next(task))).await;
            let Poll::Ready(part) = polled else { break };
            is_over = put(part, &mut transfer, wire, out).await?;
        }
        write(wire, out).await?;
        if is_over {
            break;
        }
        let mut silence = None;
        let part = poll_fn(|task| match body.as_mut().poll_next(task) {
            Poll::Ready(part) => Poll::Ready(Ok(part)),
            Poll::Pending => poll_left(&mut wire.borrow_mut(), &mut silence, task).map(Err),
        });
        is_over = put(part.await?, &mut transfer, wire, out).await?;
    }
    if transfer == Transfer::Length(0) {
        // its source may have to do at its end what it does not do when it is dropped
        let rest = poll_fn(|task| Poll::Ready(body.as_mut().poll_next(task))).await;
        drop(rest);
    }
    out.shrink_to(SPARE_BYTES);
    Ok(keeps && wire.borrow().is_read())
}

/// Looks whether the client is still there while its answer stands still since `silence` began.
///
/// A client that has ended its side may still read, or be gone: both look alike until something is sent, which a stream without
/// events never is. RFC 9112 section 9.5 asks to watch for the other's end and leaves open what it means; nginx takes it for gone at once.
fn poll_left(wire: &mut Wire, silence: &mut Option<Timer>, task: &mut Context<'_>) -> Poll<io::Error> {
    if let Poll::Ready(error) = wire.poll_gone(task) {
        return Poll::Ready(error);
    }
    if wire.is_half_closed() {
        let timer = silence.get_or_insert_with(|| Timer::new(Instant::now() + HALF_CLOSED));
        ready!(timer.poll_set(task));
        let why = "the client ended its side, and its answer stands still";
        return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, why));
    }
    Poll::Pending
}

/// Puts a part of a body behind what is to be written, or its end. Returns whether it was that.
async fn put(
    part: Option<Result<Bytes, Box<dyn std::error::Error>>>,
    transfer: &mut Transfer,
    wire: &Rc<RefCell<Wire>>,
    out: &mut Vec<u8>,
) -> io::Result<bool> {
    let cut = |why: &'static str| io::Error::new(io::ErrorKind::InvalidData, why);
    match part {
        Some(Ok(part)) if part.is_empty() => Ok(false), // an empty chunk would be the last one
        Some(Ok(part)) => {
            transfer.before(out, part.len()).ok_or_else(|| cut("an answer is longer than announced"))?;
            if part.len() <= COPIED_BYTES {
                out.extend_from_slice(&part);
            } else {
                write(wire, out).await?;
                write_all(wire, &part).await?;
            }
            out.extend_from_slice(transfer.after());
            Ok(*transfer == Transfer::Length(0))
        }
        // so that it never looks complete, the connection is cut
        Some(Err(error)) => {
            write(wire, out).await?;
            Err(io::Error::other(error.to_string()))
        }
        None => {
            out.extend_from_slice(transfer.end().ok_or_else(|| cut("an answer is shorter than announced"))?);
            Ok(true)
        }
    }
}

/// Writes all that is gathered.
async fn write(wire: &Rc<RefCell<Wire>>, out: &mut Vec<u8>) -> io::Result<()> {
    if !out.is_empty() {
        write_all(wire, out).await?;
        out.clear();
    }
    Ok(())
}

async fn write_all(wire: &Rc<RefCell<Wire>>, bytes: &[u8]) -> io::Result<()> {
    let mut written = 0;
    poll_fn(|task| {
        let mut wire = wire.borrow_mut();
        while written < bytes.len() {
            written += ready!(wire.poll_write(task, &bytes[written..]))?;
        }
        wire.poll_flush(task)
    })
    .await
}

/// Ends a connection. A client that still sends is read for a moment, so that it does not lose its answer to a reset (RFC 9112
/// section 9.6).
async fn leave(wire: &Rc<RefCell<Wire>>) -> io::Result<()> {
    poll_fn(|task| wire.borrow_mut().poll_shutdown(task)).await?;
    if !wire.borrow().has_more() {
        return Ok(());
    }
    poll_fn(|task| {
        let mut wire = wire.borrow_mut();
        loop {
            wire.input.clear();
            if ready!(wire.poll_read(task))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    })
    .await
}

/// Waits for the next request.
struct Waiting<'l> {
    limits: &'l Limits,
    timer: Timer,
    places: Places,
    is_first: bool,
    since: Option<Instant>,
    /// When the head that is not complete began to come.
    begun: Option<Instant>,
}

impl<'l> Waiting<'l> {
    fn new(limits: &'l Limits) -> Self {
        let (now, places) = (Instant::now(), Places::new());
        let timer = Timer::new(now + limits.header_timeout);
        Self { limits, timer, places, is_first: true, since: Some(now), begun: Some(now) }
    }

    fn again(&mut self) {
        self.is_first = false;
        (self.since, self.begun) = (None, None);
    }

    fn poll(
        &mut self,
        wire: &mut Wire,
        stopping: Pin<&mut impl Future<Output = ()>>,
        task: &mut Context<'_>,
    ) -> Poll<Next> {
        loop {
            if !wire.input.is_empty() {
                match head::take(&mut wire.input, &mut self.places) {
                    Ok(Some(head)) => return Poll::Ready(Next::Head(head)),
                    Ok(None) => self.begun = self.begun.or_else(|| Some(Instant::now())),
                    Err(status) => return Poll::Ready(Next::Refused(status)),
                }
            }
            match wire.poll_read(task) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Over),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        let end = match self.begun {
            Some(begun) => begun + self.limits.header_timeout,
            None => *self.since.get_or_insert_with(Instant::now) + self.limits.idle_timeout,
        };
        if self.timer.poll(end, task).is_ready() {
            let is_late = self.begun.is_some();
            return Poll::Ready(if is_late { Next::Refused(StatusCode::REQUEST_TIMEOUT) } else { Next::Over });
        }
        // what has begun to come may end
        if wire.input.is_empty() && stopping.poll(task).is_ready() {
            return Poll::Ready(Next::Over);
        }
        Poll::Pending
    }
}

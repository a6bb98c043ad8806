//! The parts of a call on an HTTP/2 stream: what is sent waits for the receiver's window, what was read opens ours.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2_v4::server::SendResponse;
use h2_v4::{Reason, RecvStream, SendStream};
use http_v1::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http_v1::{Response, StatusCode};

use super::frame::{self, Decoder, FrameError};
use super::status::Status;

/// Messages of a stream are sent together up to so many bytes: a frame of HTTP/2.
pub const TOGETHER: usize = 16 << 10;

/// What is read of a stream.
#[derive(Debug)]
pub struct Messages {
    stream: RecvStream,
    decoder: Decoder,
    is_over: bool,
}

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The other side broke off, or its connection did.
    #[error("the stream broke off")]
    Broken(#[from] h2_v4::Error),
    /// What came is no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Messages {
    /// Messages of up to `limit` bytes.
    #[must_use]
    pub fn new(stream: RecvStream, limit: usize) -> Self {
        Self { stream, decoder: Decoder::new(limit), is_over: false }
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// [`ReadError`], after which nothing more comes.
    pub fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ReadError>> {
        loop {
            if let Some(message) = self.decoder.message()? {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.is_over {
                return Poll::Ready(Ok(None));
            }
            match ready!(poll_part(&mut self.stream, task)) {
                Some(part) => self.decoder.push(part?),
                None => {
                    self.is_over = true;
                    self.decoder.end()?;
                }
            }
        }
    }

    /// The same as a future.
    ///
    /// # Errors
    /// As [`Messages::poll_next`].
    ///
    /// # Cancel safety
    /// Dropped, it has taken no message.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|task| self.poll_next(task)).await
    }

    /// What came after the last message.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>, h2_v4::Error> {
        poll_fn(|task| self.stream.poll_trailers(task)).await
    }
}

/// The next part of a stream; as much may come again.
pub fn poll_part(stream: &mut RecvStream, task: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2_v4::Error>>> {
    stream.poll_data(task).map(|part| {
        part.map(|part| {
            let part = part?;
            stream.flow_control().release_capacity(part.len())?;
            Ok(part)
        })
    })
}

/// Sends all of `part` as the receiver takes it.
///
/// # Errors
/// When the receiver or the connection is gone.
pub async fn send_part(stream: &mut SendStream<Bytes>, mut part: Bytes, is_last: bool) -> Result<(), h2_v4::Error> {
    if part.is_empty() {
        return stream.send_data(part, is_last);
    }
    loop {
        stream.reserve_capacity(part.len());
        let mut room = stream.capacity();
        if room == 0 {
            room = match poll_fn(|task| stream.poll_capacity(task)).await {
                Some(room) => room?,
                None => return Err(Reason::CANCEL.into()),
            };
        }
        let now = part.split_to(room.min(part.len()));
        stream.send_data(now, is_last && part.is_empty())?;
        if part.is_empty() {
            return Ok(());
        }
    }
}

/// The head of an answer of gRPC.
#[must_use]
pub fn answer_head(content_type: HeaderValue, metadata: HeaderMap) -> Response<()> {
    let mut head = Response::new(());
    *head.headers_mut() = metadata;
    head.headers_mut().insert(CONTENT_TYPE, content_type);
    head
}

/// Answers with a status and nothing else ("Trailers-Only").
///
/// # Errors
/// When the caller is gone.
pub fn refuse(
    respond: &mut SendResponse<Bytes>,
    content_type: HeaderValue,
    mut metadata: HeaderMap,
    status: &Status,
) -> Result<(), h2_v4::Error> {
    status.put(&mut metadata);
    respond.send_response(answer_head(content_type, metadata), true).map(drop)
}

/// Answers a request that is not gRPC.
///
/// # Errors
/// When the caller is gone.
pub fn refuse_http(respond: &mut SendResponse<Bytes>, status: StatusCode, text: &str) -> Result<(), h2_v4::Error> {
    let mut head = Response::new(());
    *head.status_mut() = status;
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(Bytes::copy_from_slice(text.as_bytes()), true)
}

/// Puts messages together that come at once, so that a frame carries many small ones.
#[derive(Debug, Default)]
pub struct Batch(BytesMut);

impl Batch {
    /// Adds a message.
    pub fn push(&mut self, message: &[u8]) {
        if self.0.is_empty() {
            self.0.reserve(TOGETHER.min(4 * (message.len() + frame::HEAD_BYTES)));
        }
        frame::encode(message, &mut self.0);
    }

    /// Whether it should be sent before more is added.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.len() >= TOGETHER
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is to be sent.
    pub fn take(&mut self) -> Bytes {
        self.0.split().freeze()
    }
}

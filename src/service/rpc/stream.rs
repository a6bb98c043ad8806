//! Methods with streams: how an author writes them, and how their messages go out.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use h2_v4::SendStream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::rpc::wire::{Batch, Messages, ReadError, send_part};
use crate::rpc::{Codec, Status};
use crate::service::{Context, ServiceError, body};

/// What a method with streams answers.
pub(super) type Replies = Pin<Box<dyn Stream<Item = Result<Bytes, ServiceError>>>>;

/// A method with streams whose types are forgotten.
pub(super) trait Streaming: Send + Sync {
    /// The codecs that it reads and writes.
    fn codecs(&self) -> &'static [Codec];
    /// Runs it on the messages of its caller.
    fn call(&self, ctx: Context, codec: Codec, messages: Messages) -> Replies;
}

/// The messages of a caller, as they come. A handler that takes none holds the caller back.
#[derive(Debug)]
pub struct Requests<T> {
    messages: Messages,
    codec: Codec,
    read: Read<T>,
}

/// Reads a message.
type Read<T> = fn(Codec, &[u8]) -> Result<T, ServiceError>;

/// How messages of these types are read and written.
pub(super) struct Form<B, T> {
    codecs: &'static [Codec],
    read: Read<B>,
    write: fn(Codec, &T) -> Result<Bytes, ServiceError>,
}

impl<B, T> Clone for Form<B, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B, T> Copy for Form<B, T> {}

impl<B: DeserializeOwned, T: Serialize> Form<B, T> {
    /// JSON alone.
    pub fn json() -> Self {
        Self { codecs: &[Codec::Json], read: |_, message| fit(message), write: |_, value| written(value) }
    }
}

impl<B: prost::Message + Default + DeserializeOwned, T: prost::Message + Serialize> Form<B, T> {
    /// Protobuf and JSON, as the caller likes.
    pub fn messages() -> Self {
        Self {
            codecs: &[Codec::Json, Codec::Proto],
            read: |codec, message| match codec {
                Codec::Json => fit(message),
                Codec::Proto => B::decode(message)
                    .map_err(|error| ServiceError::new(400, format!("the message does not fit: {error}"))),
            },
            write: |codec, value| match codec {
                Codec::Json => written(value),
                Codec::Proto => Ok(Bytes::from(value.encode_to_vec())),
            },
        }
    }
}

impl<T> Requests<T> {
    /// The next message; `None` after the last one.
    ///
    /// # Errors
    /// When the caller broke off, or its message does not fit; the handler may go on with the next one then.
    ///
    /// # Cancel safety
    /// Safe in `select!`.
    pub async fn next(&mut self) -> Result<Option<T>, ServiceError> {
        match self.messages.next().await {
            Ok(message) => message.map(|message| (self.read)(self.codec, &message)).transpose(),
            Err(error) => Err(broken(&error)),
        }
    }
}

impl<T> Stream for Requests<T> {
    type Item = Result<T, ServiceError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut std::task::Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(match ready!(self.messages.poll_next(task)) {
            Ok(message) => message.map(|message| (self.read)(self.codec, &message)),
            Err(error) => Some(Err(broken(&error))),
        })
    }
}

fn fit<T: DeserializeOwned>(message: &[u8]) -> Result<T, ServiceError> {
    body::fit(if message.is_empty() { b"{}" } else { message })
}

/// What a handler is told of a stream that ended badly.
fn broken(error: &ReadError) -> ServiceError {
    match error {
        ReadError::Frame(error) => {
            let status = Status::from(error);
            ServiceError::new(status.to_http(), status.message)
        }
        ReadError::Broken(error) => ServiceError::new(499, format!("the caller broke off: {error}")),
    }
}

/// A value as a message.
pub(super) fn written<T: Serialize>(value: &T) -> Result<Bytes, ServiceError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| {
        log::error!("cannot write a method's answer as JSON: {error}");
        ServiceError::new(500, "the answer cannot be written as JSON")
    })
}

/// One message, then a stream.
pub(super) fn server_stream<F, B, R, S, T>(handler: F, form: Form<B, T>) -> impl Streaming
where
    F: Fn(Context, B) -> R + Send + Sync + 'static,
    B: 'static,
    R: Future<Output = Result<S, ServiceError>> + 'static,
    S: Stream<Item = Result<T, ServiceError>> + 'static,
    T: 'static,
{
    let handler = std::sync::Arc::new(handler);
    erased(form, move |ctx, codec, messages| {
        let (handler, mut requests) = (handler.clone(), Requests { messages, codec, read: form.read });
        let begun = async move {
            let message = requests.next().await?;
            let message = message.ok_or_else(|| ServiceError::new(400, "the call has no message; send one"))?;
            // clients of Go Micro never say that no more follows, so nobody waits for that
            if let Poll::Ready(more) = futures_util::poll!(std::pin::pin!(requests.messages.next()))
                && more.map_err(|error| broken(&error))?.is_some()
            {
                return Err(ServiceError::new(400, "the method takes one message, and the call has more"));
            }
            handler(ctx, message).await
        };
        let replies = stream::once(begun).try_flatten();
        Box::pin(replies.map(move |reply| reply.and_then(|reply| (form.write)(codec, &reply)))) as Replies
    })
}

/// A stream, then one message.
pub(super) fn client_stream<F, B, R, T>(handler: F, form: Form<B, T>) -> impl Streaming
where
    F: Fn(Context, Requests<B>) -> R + Send + Sync + 'static,
    B: 'static,
    R: Future<Output = Result<T, ServiceError>> + 'static,
    T: 'static,
{
    let handler = std::sync::Arc::new(handler);
    erased(form, move |ctx, codec, messages| {
        let handler = handler.clone();
        // called when it is polled: a panic may come from the call itself
        let running = async move { handler(ctx, Requests { messages, codec, read: form.read }).await };
        Box::pin(stream::once(running).map(move |reply| reply.and_then(|reply| (form.write)(codec, &reply)))) as Replies
    })
}

/// A stream each way.
pub(super) fn both_streams<F, B, R, S, T>(handler: F, form: Form<B, T>) -> impl Streaming
where
    F: Fn(Context, Requests<B>) -> R + Send + Sync + 'static,
    B: 'static,
    R: Future<Output = Result<S, ServiceError>> + 'static,
    S: Stream<Item = Result<T, ServiceError>> + 'static,
    T: 'static,
{
    let handler = std::sync::Arc::new(handler);
    erased(form, move |ctx, codec, messages| {
        let handler = handler.clone();
        // called when it is polled: a panic may come from the call itself
        let running = async move { handler(ctx, Requests { messages, codec, read: form.read }).await };
        let replies = stream::once(running).try_flatten();
        Box::pin(replies.map(move |reply| reply.and_then(|reply| (form.write)(codec, &reply)))) as Replies
    })
}

struct Erased<F> {
    codecs: &'static [Codec],
    run: F,
}

fn erased<B, T, F>(form: Form<B, T>, run: F) -> Erased<F>
where
    F: Fn(Context, Codec, Messages) -> Replies + Send + Sync,
{
    Erased { codecs: form.codecs, run }
}

impl<F: Fn(Context, Codec, Messages) -> Replies + Send + Sync> Streaming for Erased<F> {
    fn codecs(&self) -> &'static [Codec] {
        self.codecs
    }

    fn call(&self, ctx: Context, codec: Codec, messages: Messages) -> Replies {
        (self.run)(ctx, codec, messages)
    }
}

/// Sends replies as the caller takes them, those together that are there at once, `batch` first. How the method ended.
///
/// # Errors
/// When the caller is gone.
pub(super) async fn pump(
    stream: &mut SendStream<Bytes>,
    replies: &mut (impl Stream<Item = Result<Bytes, ServiceError>> + Unpin),
    batch: &mut Batch,
) -> Result<Status, h2_v4::Error> {
    loop {
        let reply = if batch.is_empty() {
            tokio::select! {
                biased;
                reset = poll_fn(|task| stream.poll_reset(task)) => return Err(reset?.into()),
                reply = replies.next() => reply,
            }
        } else if batch.is_full() {
            send_part(stream, batch.take(), false).await?;
            continue;
        } else {
            match futures_util::poll!(replies.next()) {
                Poll::Ready(reply) => reply,
                Poll::Pending => {
                    send_part(stream, batch.take(), false).await?;
                    continue;
                }
            }
        };
        let status = match reply {
            Some(Ok(message)) => {
                batch.push(&message);
                continue;
            }
            Some(Err(error)) => Status::of_http(error.status(), error.message()),
            None => Status::ok(),
        };
        if !batch.is_empty() {
            send_part(stream, batch.take(), false).await?;
        }
        return Ok(status);
    }
}

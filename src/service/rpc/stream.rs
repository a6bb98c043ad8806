//! Methods with streams: how an author writes them, and how their messages go out.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
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
    /// Runs it on the messages of its caller.
    fn call(&self, ctx: Context, messages: Messages) -> Replies;
}

/// The messages of a caller, as they come. A handler that takes none holds the caller back.
#[derive(Debug)]
pub struct Requests<T> {
    messages: Messages,
    types: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Requests<T> {
    /// The next message; `None` after the last one.
    ///
    /// # Errors
    /// When the caller broke off, or its message does not fit; the handler may go on with the next one then.
    ///
    /// # Cancel safety
    /// Safe in `select!`.
    pub async fn next(&mut self) -> Result<Option<T>, ServiceError> {
        match self.messages.next().await {
            Ok(message) => message.map(|message| fit(&message)).transpose(),
            Err(error) => Err(broken(&error)),
        }
    }
}

impl<T: DeserializeOwned> Stream for Requests<T> {
    type Item = Result<T, ServiceError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut std::task::Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(match ready!(self.messages.poll_next(task)) {
            Ok(message) => message.map(|message| fit(&message)),
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
pub(super) fn server_stream<F, B, R, S, T>(handler: F) -> impl Streaming
where
    F: Fn(Context, B) -> R + Send + Sync + 'static,
    B: DeserializeOwned + 'static,
    R: Future<Output = Result<S, ServiceError>> + 'static,
    S: Stream<Item = Result<T, ServiceError>> + 'static,
    T: Serialize + 'static,
{
    let handler = std::sync::Arc::new(handler);
    Erased(move |ctx, messages: Messages| {
        let (handler, mut requests) = (handler.clone(), Requests { messages, types: PhantomData });
        let begun = async move {
            let message = requests.next().await?;
            let message = message.ok_or_else(|| ServiceError::new(400, "the call has no message; send one"))?;
            if requests.messages.next().await.map_err(|error| broken(&error))?.is_some() {
                return Err(ServiceError::new(400, "the method takes one message, and the call has more"));
            }
            handler(ctx, message).await
        };
        let replies = stream::once(begun).try_flatten();
        Box::pin(replies.map(|reply| reply.and_then(|reply| written(&reply)))) as Replies
    })
}

/// A stream, then one message.
pub(super) fn client_stream<F, B, R, T>(handler: F) -> impl Streaming
where
    F: Fn(Context, Requests<B>) -> R + Send + Sync + 'static,
    B: DeserializeOwned + 'static,
    R: Future<Output = Result<T, ServiceError>> + 'static,
    T: Serialize + 'static,
{
    Erased(move |ctx, messages| {
        let running = handler(ctx, Requests { messages, types: PhantomData });
        Box::pin(stream::once(running).map(|reply| reply.and_then(|reply| written(&reply)))) as Replies
    })
}

/// A stream each way.
pub(super) fn both_streams<F, B, R, S, T>(handler: F) -> impl Streaming
where
    F: Fn(Context, Requests<B>) -> R + Send + Sync + 'static,
    B: DeserializeOwned + 'static,
    R: Future<Output = Result<S, ServiceError>> + 'static,
    S: Stream<Item = Result<T, ServiceError>> + 'static,
    T: Serialize + 'static,
{
    Erased(move |ctx, messages| {
        let running = handler(ctx, Requests { messages, types: PhantomData });
        let replies = stream::once(running).try_flatten();
        Box::pin(replies.map(|reply| reply.and_then(|reply| written(&reply)))) as Replies
    })
}

struct Erased<F>(F);

impl<F: Fn(Context, Messages) -> Replies + Send + Sync> Streaming for Erased<F> {
    fn call(&self, ctx: Context, messages: Messages) -> Replies {
        (self.0)(ctx, messages)
    }
}

/// The codecs of methods with streams.
pub(super) const CODECS: &[Codec] = &[Codec::Json];

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

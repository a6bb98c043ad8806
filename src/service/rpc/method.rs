//! The methods of a service: how an author gives them, and how a call finds one.

use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::server::NamedService;

use super::methods::{Generated, Method, Reply, Unary};
use super::stream::{self, Form, Requests};
use crate::rpc::Codec;
use crate::service::builder::{Handler, erase};
use crate::service::{Context, Service, ServiceError, body};

impl Service {
    /// Serves a method by RPC: `Say.Hello`, which callers reach as `/<any package>.Say/Hello`. A handler is one of HTTP: an
    /// async function of the [`Context`] and a message in JSON (`application/grpc+json`). The same name again replaces it.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Deserialize)] struct Request { name: String }
    /// # #[derive(Serialize)] struct Response { msg: String }
    /// async fn hello(_ctx: goms::Context, message: Request) -> Result<Response, goms::ServiceError> {
    ///     Ok(Response { msg: format!("Hello {}", message.name) })
    /// }
    /// let service = goms::Service::new("greeter").rpc("Say.Hello", hello);
    /// assert_eq!(service.endpoints(), ["Say.Hello"]);
    /// assert_eq!(service.rpc_services(), ["greeter.Say"]);
    /// ```
    #[must_use]
    pub fn rpc<F, B, R, T>(mut self, method: impl AsRef<str>, handler: F) -> Self
    where
        F: Fn(Context, B) -> R + Send + Sync + 'static,
        B: DeserializeOwned + 'static,
        R: Future<Output = Result<T, ServiceError>> + 'static,
        T: Serialize + 'static,
    {
        self.methods.add(method.as_ref(), Method::Unary(Arc::new(OfJson(erase(handler)))));
        self
    }

    /// Serves a method that answers one message with a stream: an async function that returns the stream, or an error before
    /// it begins. What the stream yields is sent as fast as the caller takes it; an error ends it with its status.
    ///
    /// ```
    /// # use futures_util::{Stream, stream};
    /// async fn count(_ctx: goms::Context, to: u32) -> Result<impl Stream<Item = Result<u32, goms::ServiceError>>, goms::ServiceError> {
    ///     Ok(stream::iter((1..=to).map(Ok)))
    /// }
    /// let service = goms::Service::new("counter").rpc_server_stream("Counter.Count", count);
    /// ```
    #[must_use]
    pub fn rpc_server_stream<F, B, R, S, T>(mut self, method: impl AsRef<str>, handler: F) -> Self
    where
        F: Fn(Context, B) -> R + Send + Sync + 'static,
        B: DeserializeOwned + 'static,
        R: Future<Output = Result<S, ServiceError>> + 'static,
        S: Stream<Item = Result<T, ServiceError>> + 'static,
        T: Serialize + 'static,
    {
        self.methods.add(method.as_ref(), Method::Streaming(Arc::new(stream::server_stream(handler, Form::json()))));
        self
    }

    /// Serves a method that answers a stream with one message: an async function of the caller's [`Requests`].
    #[must_use]
    pub fn rpc_client_stream<F, B, R, T>(mut self, method: impl AsRef<str>, handler: F) -> Self
    where
        F: Fn(Context, Requests<B>) -> R + Send + Sync + 'static,
        B: DeserializeOwned + 'static,
        R: Future<Output = Result<T, ServiceError>> + 'static,
        T: Serialize + 'static,
    {
        self.methods.add(method.as_ref(), Method::Streaming(Arc::new(stream::client_stream(handler, Form::json()))));
        self
    }

    /// Serves a method with a stream each way, which do not wait for each other: an async function of the caller's
    /// [`Requests`] that returns the stream of its answers (which may hold the requests).
    #[must_use]
    pub fn rpc_stream<F, B, R, S, T>(mut self, method: impl AsRef<str>, handler: F) -> Self
    where
        F: Fn(Context, Requests<B>) -> R + Send + Sync + 'static,
        B: DeserializeOwned + 'static,
        R: Future<Output = Result<S, ServiceError>> + 'static,
        S: Stream<Item = Result<T, ServiceError>> + 'static,
        T: Serialize + 'static,
    {
        self.methods.add(method.as_ref(), Method::Streaming(Arc::new(stream::both_streams(handler, Form::json()))));
        self
    }

    /// Serves a method in protobuf and in JSON, as its caller likes: a handler of messages that prost derived and that serde
    /// reads and writes, too.
    #[must_use]
    pub fn rpc_message<F, B, R, T>(mut self, method: impl AsRef<str>, handler: F) -> Self
    where
        F: Fn(Context, B) -> R + Send + Sync + 'static,
        B: prost::Message + Default + DeserializeOwned + 'static,
        R: Future<Output = Result<T, ServiceError>> + 'static,
        T: prost::Message + Serialize + 'static,
    {
        let message = OfMessages { handler, types: PhantomData::<fn(B)> };
        self.methods.add(method.as_ref(), Method::Unary(Arc::new(message)));
        self
    }

    /// As [`Service::rpc_server_stream`], in protobuf and in JSON.
    #[must_use]
    pub fn rpc_message_server_stream<F, B, R, S, T>(mut self, method: impl AsRef<str>, handler: F) -> Self
    where
        F: Fn(Context, B) -> R + Send + Sync + 'static,
        B: prost::Message + Default + DeserializeOwned + 'static,
        R: Future<Output = Result<S, ServiceError>> + 'static,
        S: Stream<Item = Result<T, ServiceError>> + 'static,
        T: prost::Message + Serialize + 'static,
    {
        let streaming = Arc::new(stream::server_stream(handler, Form::messages()));
        self.methods.add(method.as_ref(), Method::Streaming(streaming));
        self
    }

    /// As [`Service::rpc_stream`], in protobuf and in JSON.
    #[must_use]
    pub fn rpc_message_stream<F, B, R, S, T>(mut self, method: impl AsRef<str>, handler: F) -> Self
    where
        F: Fn(Context, Requests<B>) -> R + Send + Sync + 'static,
        B: prost::Message + Default + DeserializeOwned + 'static,
        R: Future<Output = Result<S, ServiceError>> + 'static,
        S: Stream<Item = Result<T, ServiceError>> + 'static,
        T: prost::Message + Serialize + 'static,
    {
        let streaming = Arc::new(stream::both_streams(handler, Form::messages()));
        self.methods.add(method.as_ref(), Method::Streaming(streaming));
        self
    }

    /// Serves a service of gRPC that tonic generated, in protobuf, with all its kinds of methods. It gets the trace as a
    /// [`TraceContext`](crate::trace::TraceContext) in the request's extensions.
    #[must_use]
    pub fn grpc<S>(self, service: S) -> Self
    where
        S: tower_service::Service<
                http_v1::Request<tonic::body::Body>,
                Response = http_v1::Response<tonic::body::Body>,
                Error = Infallible,
            > + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.with_grpc(service, false)
    }

    /// Tells clients of gRPC its services and messages (`grpc.reflection.v1`), from what protoc or tonic wrote as a
    /// `FileDescriptorSet`: for those of [`Service::grpc`]. Callers need the call key for it, too.
    ///
    /// # Errors
    /// [`ReflectionError`] where the bytes are no such set.
    pub fn reflection(self, descriptors: &[u8]) -> Result<Self, ReflectionError> {
        let builder = tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(descriptors);
        builder.build_v1().map(|server| self.grpc(server)).map_err(ReflectionError)
    }

    /// The same for everybody, without the call key and without a trace: such as health checks.
    #[must_use]
    pub(crate) fn open_grpc<S>(self, service: S) -> Self
    where
        S: tower_service::Service<
                http_v1::Request<tonic::body::Body>,
                Response = http_v1::Response<tonic::body::Body>,
                Error = Infallible,
            > + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.with_grpc(service, true)
    }

    fn with_grpc<S>(mut self, service: S, is_open: bool) -> Self
    where
        S: tower_service::Service<
                http_v1::Request<tonic::body::Body>,
                Response = http_v1::Response<tonic::body::Body>,
                Error = Infallible,
            > + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let generated = Generated { service: Arc::new(service), name: S::NAME, is_open };
        self.methods.generated.insert(S::NAME.to_owned(), generated);
        self
    }

    /// The methods that it answers by RPC, sorted: `Say.Hello`.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.methods.endpoints()
    }

    /// Those of its methods that are streams, sorted.
    #[must_use]
    pub fn streams(&self) -> Vec<String> {
        self.methods.streams()
    }

    /// The full names of its services of gRPC, sorted: `greeter.Say`.
    #[must_use]
    pub fn rpc_services(&self) -> Vec<String> {
        self.methods.services(self.name())
    }
}

/// Why a service cannot tell its messages.
#[derive(Debug, thiserror::Error)]
#[error(
    "these bytes are no `FileDescriptorSet` of protobuf; give what `protoc --descriptor_set_out --include_imports` writes"
)]
pub struct ReflectionError(#[source] tonic_reflection::server::Error);

/// A handler of JSON.
struct OfJson(Arc<dyn Handler>);

impl Unary for OfJson {
    fn codecs(&self) -> &'static [Codec] {
        &[Codec::Json]
    }

    fn call(&self, ctx: Context, _codec: Codec, message: &Bytes) -> Reply {
        let running = self.0.call(ctx, if message.is_empty() { b"{}" } else { message });
        Box::pin(async move { running.await.map(Bytes::from) })
    }
}

/// A handler of messages that are protobuf and JSON.
struct OfMessages<F, B> {
    handler: F,
    types: PhantomData<fn(B)>,
}

impl<F, B, R, T> Unary for OfMessages<F, B>
where
    F: Fn(Context, B) -> R + Send + Sync + 'static,
    B: prost::Message + Default + DeserializeOwned + 'static,
    R: Future<Output = Result<T, ServiceError>> + 'static,
    T: prost::Message + Serialize + 'static,
{
    fn codecs(&self) -> &'static [Codec] {
        &[Codec::Json, Codec::Proto]
    }

    fn call(&self, ctx: Context, codec: Codec, message: &Bytes) -> Reply {
        let read = match codec {
            Codec::Json => body::fit(if message.is_empty() { b"{}" } else { message }),
            Codec::Proto => B::decode(message.clone())
                .map_err(|error| ServiceError::new(400, format!("the message does not fit: {error}"))),
        };
        let running = match read {
            Ok(message) => (self.handler)(ctx, message),
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        Box::pin(async move {
            let reply = running.await?;
            match codec {
                Codec::Json => stream::written(&reply),
                Codec::Proto => Ok(Bytes::from(reply.encode_to_vec())),
            }
        })
    }
}

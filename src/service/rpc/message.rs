//! Methods whose messages are read and written in protobuf and in JSON alike.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::method::{Method, Reply, Unary};
use crate::rpc::Codec;
use crate::service::{Context, Service, ServiceError, body};

impl Service {
    /// Serves a method as [`Service::rpc`] does, whose messages are those of protobuf too (`application/grpc`), as Go Micro's
    /// clients and programs with a .proto send them. A message is a struct with prost's fields, which serde knows as well.
    ///
    /// ```
    /// #[derive(Clone, PartialEq, prost::Message, serde::Serialize, serde::Deserialize)]
    /// #[serde(default)]
    /// struct Request {
    ///     #[prost(string, tag = "1")]
    ///     name: String,
    /// }
    /// async fn hello(_ctx: goms::Context, message: Request) -> Result<Request, goms::ServiceError> {
    ///     Ok(Request { name: format!("Hello {}", message.name) })
    /// }
    /// let service = goms::Service::new("greeter").rpc_message("Say.Hello", hello);
    /// assert_eq!(service.endpoints(), ["Say.Hello"]);
    /// ```
    #[must_use]
    pub fn rpc_message<F, B, R, T>(mut self, method: impl AsRef<str>, handler: F) -> Self
    where
        F: Fn(Context, B) -> R + Send + Sync + 'static,
        B: Message + Default + DeserializeOwned + 'static,
        R: Future<Output = Result<T, ServiceError>> + 'static,
        T: Message + Serialize + 'static,
    {
        let typed = OfMessage { handler, message: PhantomData::<fn(B)> };
        self.methods.add(method.as_ref(), Method::Unary(Arc::new(typed)));
        self
    }
}

struct OfMessage<F, B> {
    handler: F,
    message: PhantomData<fn(B)>,
}

impl<F, B, R, T> Unary for OfMessage<F, B>
where
    F: Fn(Context, B) -> R + Send + Sync + 'static,
    B: Message + Default + DeserializeOwned + 'static,
    R: Future<Output = Result<T, ServiceError>> + 'static,
    T: Message + Serialize + 'static,
{
    fn codecs(&self) -> &'static [Codec] {
        &[Codec::Json, Codec::Proto]
    }

    fn call(&self, ctx: Context, codec: Codec, message: &Bytes) -> Reply {
        let read = match codec {
            Codec::Json => body::fit::<B>(if message.is_empty() { b"{}" } else { message }),
            Codec::Proto => B::decode(message.as_ref())
                .map_err(|error| ServiceError::new(400, format!("the message cannot be read: {error}"))),
        };
        let running = match read {
            Ok(message) => (self.handler)(ctx, message),
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        Box::pin(async move {
            let answer = running.await?;
            match codec {
                Codec::Proto => Ok(answer.encode_to_vec().into()),
                Codec::Json => serde_json::to_vec(&answer).map(Bytes::from).map_err(|error| {
                    log::error!("cannot write a method's answer as JSON: {error}");
                    ServiceError::new(500, "the answer cannot be written as JSON")
                }),
            }
        })
    }
}

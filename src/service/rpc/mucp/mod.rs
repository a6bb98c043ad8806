//! mucp, the RPC of Go Micro's v4 and v5, on the HTTP port: `POST /` with `Micro-Endpoint: Say.Hello` calls the same methods
//! as the RPC port. The answer is 200 whatever happened; a failure is in `Micro-Error`, and there is no body then.
//!
//! Streams of mucp are several answers to one request, which is no HTTP: where a port serves them (`stream`), they have
//! connections of their own; elsewhere they are refused.

mod asked;
pub(in crate::service) mod stream;

use std::panic::AssertUnwindSafe;

use actix_web::http::Method as HttpMethod;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::FutureExt;

use super::methods::{Found, Method};
use crate::rpc::{Code, Codec, MethodName, Status, timeout};
use crate::service::server::panic_text;
use crate::service::{Context, Service};

const ENDPOINT: &str = "micro-endpoint";
const ERROR: HeaderName = HeaderName::from_static("micro-error");
/// A message of a stream names it.
const STREAM: &str = "micro-stream";
/// What callers find their call by.
const ECHOED: [HeaderName; 4] = [
    HeaderName::from_static("micro-id"),
    HeaderName::from_static("micro-service"),
    HeaderName::from_static("micro-method"),
    HeaderName::from_static(ENDPOINT),
];

/// The method that a request calls by mucp; `None`: it is another request.
pub(in crate::service) fn endpoint(request: &HttpRequest) -> Option<&str> {
    if request.method() != HttpMethod::POST || request.path() != "/" {
        return None;
    }
    request.headers().get(ENDPOINT)?.to_str().ok()
}

/// Calls a method, and gives its answer with the HTTP status that it means.
pub(in crate::service) async fn answer(
    service: &Service,
    request: &HttpRequest,
    endpoint: &str,
    body: Bytes,
    context: Context,
) -> (u16, HttpResponse) {
    match call(service, request, endpoint, body, context).await {
        Ok((codec, message)) => {
            let content_type = HeaderValue::from_static(match codec {
                Codec::Json => "application/json",
                Codec::Proto => "application/protobuf",
            });
            let mut response = HttpResponse::with_body(StatusCode::OK, actix_web::body::BoxBody::new(message));
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            echo(request, &mut response);
            (200, response)
        }
        Err(status) => failure(service, request, status),
    }
}

/// An answer that tells a failure.
pub(in crate::service) fn failure(service: &Service, request: &HttpRequest, status: Status) -> (u16, HttpResponse) {
    let status = status.in_go_form(service.name());
    let mut response = HttpResponse::new(StatusCode::OK);
    if let Some(content_type) = request.headers().get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, content_type.clone());
    }
    // JSON has no control characters
    if let Ok(error) = HeaderValue::from_bytes(status.message.as_bytes()) {
        response.headers_mut().insert(ERROR, error);
    }
    echo(request, &mut response);
    (status.to_http(), response)
}

fn echo(request: &HttpRequest, response: &mut HttpResponse) {
    for name in ECHOED {
        if let Some(value) = request.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
}

async fn call(
    service: &Service,
    request: &HttpRequest,
    endpoint: &str,
    body: Bytes,
    context: Context,
) -> Result<(Codec, Bytes), Status> {
    let codec = codec(request)?;
    let name = MethodName::parse(endpoint).map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
    let unknown = || {
        let known = service.endpoints().join(", ");
        Status::of_http(404, format!("no method `{endpoint}` in service `{}`; it has {known}", service.name()))
    };
    let method = match service.methods.find(&name) {
        Some(Found::Method(Method::Unary(method))) if !request.headers().contains_key(STREAM) => method,
        None => return Err(unknown()),
        Some(_) => {
            let where_to = "a stream is served by gRPC on the RPC port, or with `--go-micro-protocol mucp` on a connection of its own";
            return Err(Status::new(Code::Unimplemented, where_to));
        }
    };
    if !method.codecs().contains(&codec) {
        return Err(Status::new(Code::Unimplemented, format!("method `{endpoint}` takes no message of this type")));
    }
    // a panic may come from the call itself or from any poll of what it returns
    let running = AssertUnwindSafe(async { method.call(context, codec, &body).await }).catch_unwind();
    let limit = request.headers().get("timeout").and_then(|value| timeout::parse_go_micro(value.as_bytes()));
    let outcome = match limit {
        Some(limit) => tokio::time::timeout(limit, running)
            .await
            .map_err(|_| Status::of_http(408, format!("no answer within the {limit:?} that the caller waits")))?,
        None => running.await,
    };
    let message = outcome.map_err(|panic| {
        log::error!("a method panicked endpoint={endpoint} reason={}", panic_text(&*panic));
        Status::of_http(500, "the method failed; its log has the reason")
    })?;
    Ok((codec, message.map_err(|error| Status::of_http(error.status(), error.message().to_owned()))?))
}

fn codec(request: &HttpRequest) -> Result<Codec, Status> {
    codec_of(request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default())
}

/// The codec of a content type.
fn codec_of(kind: &[u8]) -> Result<Codec, Status> {
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    match kind {
        b"" | b"application/json" | b"application/grpc+json" => Ok(Codec::Json),
        b"application/protobuf"
        | b"application/proto"
        | b"application/grpc"
        | b"application/grpc+proto"
        | b"application/octet-stream" => Ok(Codec::Proto),
        other => {
            let other = String::from_utf8_lossy(other);
            let message = format!("no codec for `{other}`; send application/json or application/protobuf");
            Err(Status::of_http(415, message))
        }
    }
}

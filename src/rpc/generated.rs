//! Services that tonic generated: they read and write the stream themselves.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use h2_v4::server::SendResponse;
use h2_v4::{Reason, RecvStream, SendStream};
use http_body::{Body as _, Frame, SizeHint};
use http_v1::{HeaderMap, Method, Request, Response, Uri, Version};
use tonic::body::Body;
use tower_service::Service;

use super::Codec;
use super::port::{Call, gone};
use super::status::{Code, Status};
use super::timeout::End;
use super::wire::{poll_part, refuse, send_part};

/// A service of tonic's whose type is forgotten.
pub trait GrpcService: Send + Sync {
    /// Carries out a call.
    fn carry_out(
        &self,
        request: Request<Body>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;
}

impl<S> GrpcService for S
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    fn carry_out(
        &self,
        request: Request<Body>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>> {
        let mut service = self.clone();
        Box::pin(async move {
            poll_fn(|task| service.poll_ready(task)).await?;
            service.call(request).await
        })
    }
}

/// What a caller sends.
struct Incoming(RecvStream);

/// As tonic takes it.
#[must_use]
pub fn body_of(stream: RecvStream) -> Body {
    Body::new(Incoming(stream))
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let broken = |error: h2_v4::Error| tonic::Status::cancelled(format!("the call broke off: {error}"));
        match ready!(poll_part(&mut self.0, task)) {
            Some(part) => Poll::Ready(Some(part.map(Frame::data).map_err(broken))),
            None => match ready!(self.0.poll_trailers(task)) {
                Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(None) => Poll::Ready(None),
                Err(error) => Poll::Ready(Some(Err(broken(error)))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The request that a service of tonic's gets, under the name that it knows itself by.
#[must_use]
pub fn request(name: &str, path: &str, metadata: HeaderMap, body: RecvStream) -> Request<Body> {
    let mut request = Request::new(body_of(body));
    let method = path.rsplit('/').next().unwrap_or_default();
    // the path came as one, and the name is that of a generated service
    if let Ok(uri) = Uri::try_from(format!("/{name}/{method}")) {
        *request.uri_mut() = uri;
    }
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = metadata;
    request
}

/// Answers a call that no more is to be known of.
pub async fn answer(service: &dyn GrpcService, call: Call) {
    let Call { request, mut respond, .. } = call;
    let request = request.map(body_of);
    tokio::select! {
        biased;
        () = gone(&mut respond) => {}
        answered = carry_out(service, request) => {
            let sent = match answered {
                Ok(answer) => send(&mut respond, answer, HeaderMap::new(), None).await.map(drop),
                Err(status) => refuse(&mut respond, Codec::Proto.content_type(), HeaderMap::new(), &status),
            };
            if let Err(error) = sent {
                log::debug!("an answer by rpc was not sent error=\"{error}\"");
            }
        }
    }
}

/// Carries out a call. The other calls of its connection outlive its panic.
///
/// # Errors
/// `INTERNAL` for a panic, which the log tells of.
pub async fn carry_out(service: &dyn GrpcService, request: Request<Body>) -> Result<Response<Body>, Status> {
    let running = async { service.carry_out(request).await };
    let answered = AssertUnwindSafe(running).catch_unwind().await;
    answered.map(|answer| answer.unwrap_or_else(|never| match never {})).map_err(|_| panicked())
}

fn panicked() -> Status {
    log::error!("a generated method panicked");
    Status::new(Code::Internal, "the method failed; its log has the reason")
}

/// Sends an answer to its end; the status that it tells. `end` is when the caller waits no longer.
///
/// # Errors
/// When the caller is gone.
pub async fn send(
    respond: &mut SendResponse<Bytes>,
    answer: Response<Body>,
    more: HeaderMap,
    end: Option<End>,
) -> Result<Status, h2_v4::Error> {
    let (mut head, body) = answer.into_parts();
    head.headers.extend(more);
    let at_once = Status::from_trailers(&head.headers);
    let is_over = body.is_end_stream();
    let mut stream = respond.send_response(Response::from_parts(head, ()), is_over)?;
    if is_over {
        return Ok(at_once.unwrap_or_else(Status::ok));
    }
    let sent = match end {
        None => return parts(&mut stream, body, at_once).await,
        Some(end) => tokio::time::timeout_at(end.at.into(), parts(&mut stream, body, at_once)).await,
    };
    match (sent, end) {
        (Err(_), Some(end)) => stream.send_trailers(end.status().to_trailers()).map(|()| end.status()),
        (sent, _) => sent.unwrap_or_else(|_| Ok(Status::ok())),
    }
}

async fn parts(stream: &mut SendStream<Bytes>, body: Body, at_once: Option<Status>) -> Result<Status, h2_v4::Error> {
    let mut body = pin!(body);
    loop {
        let frame = tokio::select! {
            biased;
            reset = poll_fn(|task| stream.poll_reset(task)) => return Err(reset?.into()), // the caller wants no more
            frame = AssertUnwindSafe(poll_fn(|task| body.as_mut().poll_frame(task))).catch_unwind() => frame,
        };
        let Ok(frame) = frame else {
            let status = panicked();
            return stream.send_trailers(status.to_trailers()).map(|()| status);
        };
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(part))) => send_part(stream, part, false).await?,
            Some(Ok(Err(frame))) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                let status = Status::from_trailers(&trailers).or(at_once).unwrap_or_else(Status::ok);
                return stream.send_trailers(trailers).map(|()| status);
            }
            Some(Err(error)) => {
                let status = Status::new(Code::Internal, error.message());
                stream.send_reset(Reason::INTERNAL_ERROR); // so that it never looks complete
                return Ok(status);
            }
            None => return stream.send_data(Bytes::new(), true).map(|()| at_once.unwrap_or_else(Status::ok)),
        }
    }
}

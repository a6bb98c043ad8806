//! Carries the two streams of a call: what one side sends, the other gets as fast as it takes it, and no faster is it read.

use std::future::poll_fn;
use std::pin::pin;

use bytes::Bytes;
use h2_v4::client::ResponseFuture;
use h2_v4::server::SendResponse;
use h2_v4::{Reason, RecvStream, SendStream};
use http_v1::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::rpc::port::gone;
use crate::rpc::timeout::End;
use crate::rpc::wire::send_part;
use crate::rpc::{Code, Status};
use crate::upstream::headers;

/// Why a stream broke off.
enum Fault {
    /// The side that it comes from.
    From(h2_v4::Error),
    /// The side that it goes to.
    To(h2_v4::Error),
}

/// Carries a call's streams to their end. The caller's status, and whether the node was at fault.
///
/// # Errors
/// The caller is gone.
pub(super) async fn streams(
    (body, respond): (RecvStream, &mut SendResponse<Bytes>),
    (response, sender): (ResponseFuture, SendStream<Bytes>),
    (marks, end): (Marks, Option<End>),
) -> Result<(Status, bool), h2_v4::Error> {
    let mut up = pin!(upwards(body, sender));
    let mut is_up = true;
    let answered = {
        let mut response = pin!(response);
        let mut late = pin!(until(end));
        loop {
            tokio::select! {
                biased;
                answered = &mut response => break Ok(answered),
                () = &mut up, if is_up => is_up = false,
                () = gone(respond) => return Err(Reason::CANCEL.into()),
                status = &mut late => break Err(status),
            }
        }
    };
    let (mut head, mut answer) = match answered {
        Ok(Ok(answer)) => answer.into_parts(),
        Ok(Err(error)) => return refuse(respond, marks, broken(&error)).map(|status| (status, true)),
        Err(status) => return refuse(respond, marks, status).map(|status| (status, true)),
    };
    let at_once = Status::from_trailers(&head.headers);
    keep_up(&mut head.headers);
    marks.put(&mut head.headers);
    let is_over = answer.is_end_stream();
    let mut stream = respond.send_response(Response::from_parts(head, ()), is_over)?;
    if is_over {
        return Ok((at_once.unwrap_or_else(Status::ok), false));
    }
    let passed = {
        let mut down = pin!(pump(&mut answer, &mut stream));
        let mut late = pin!(until(end));
        loop {
            tokio::select! {
                biased;
                passed = &mut down => break Ok(passed),
                () = &mut up, if is_up => is_up = false,
                status = &mut late => break Err(status),
            }
        }
    };
    match passed {
        Ok(Ok(Some(mut trailers))) => {
            let status = Status::from_trailers(&trailers).or(at_once).unwrap_or_else(Status::ok);
            keep_up(&mut trailers);
            stream.send_trailers(trailers).map(|()| (status, false))
        }
        Ok(Ok(None)) => Ok((at_once.unwrap_or_else(Status::ok), false)),
        Ok(Err(Fault::To(error))) => Err(error),
        Ok(Err(Fault::From(error))) => {
            let status = broken(&error);
            stream.send_trailers(status.to_trailers()).map(|()| (status, true))
        }
        Err(status) => stream.send_trailers(status.to_trailers()).map(|()| (status, true)),
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const GOMS_FAULT: HeaderName = HeaderName::from_static(headers::FAULT);

/// What the gateway says of a call in its answer, whoever gives it.
pub(super) struct Marks {
    pub id: HeaderValue,
    /// What went wrong on purpose.
    pub fault: Option<HeaderValue>,
}

impl Marks {
    fn put(self, fields: &mut HeaderMap) {
        fields.insert(REQUEST_ID, self.id);
        if let Some(fault) = self.fault {
            fields.insert(GOMS_FAULT, fault);
        }
    }
}

/// The caller's stream to the node.
async fn upwards(mut body: RecvStream, mut sender: SendStream<Bytes>) {
    match pump(&mut body, &mut sender).await {
        Ok(Some(trailers)) => drop(sender.send_trailers(trailers)), // a node that is gone says so in its answer
        Ok(None) => {}
        Err(Fault::From(_)) => sender.send_reset(Reason::CANCEL), // so that it never looks complete
        Err(Fault::To(_)) => {}                                   // it wants no more, and its answer tells why
    }
}

/// Carries data and their end; trailers, which are the caller's to send.
async fn pump(from: &mut RecvStream, to: &mut SendStream<Bytes>) -> Result<Option<HeaderMap>, Fault> {
    if from.is_end_stream() {
        return to.send_data(Bytes::new(), true).map(|()| None).map_err(Fault::To);
    }
    loop {
        let part = tokio::select! {
            biased;
            part = poll_fn(|task| from.poll_data(task)) => part,
            reset = poll_fn(|task| to.poll_reset(task)) => {
                return Err(Fault::To(reset.map_or_else(|error| error, h2_v4::Error::from)));
            }
        };
        let Some(part) = part else { break };
        let part = part.map_err(Fault::From)?;
        let (length, is_last) = (part.len(), from.is_end_stream());
        send_part(to, part, is_last).await.map_err(Fault::To)?;
        if is_last {
            return Ok(None);
        }
        from.flow_control().release_capacity(length).map_err(Fault::From)?;
    }
    match poll_fn(|task| from.poll_trailers(task)).await.map_err(Fault::From)? {
        Some(trailers) => Ok(Some(trailers)),
        None => to.send_data(Bytes::new(), true).map(|()| None).map_err(Fault::To),
    }
}

/// Resolves with what the caller is told when it waits no longer.
pub(super) async fn until(end: Option<End>) -> Status {
    match end {
        Some(end) => {
            tokio::time::sleep_until(end.at.into()).await;
            end.status()
        }
        None => std::future::pending().await,
    }
}

/// What the caller is told of a node whose stream broke.
pub(super) fn broken(error: &h2_v4::Error) -> Status {
    Status::new(Code::Unavailable, format!("the service's answer broke off: {error}"))
}

/// Answers with a status alone.
pub(super) fn refuse(respond: &mut SendResponse<Bytes>, marks: Marks, status: Status) -> Result<Status, h2_v4::Error> {
    let mut metadata = HeaderMap::with_capacity(4);
    marks.put(&mut metadata);
    crate::rpc::wire::refuse(respond, HeaderValue::from_static("application/grpc"), metadata, &status)?;
    Ok(status)
}

/// Leaves out of a head or trailers what is not for clients.
pub(super) fn keep_up(fields: &mut HeaderMap) {
    let ends: Vec<HeaderName> =
        fields.keys().filter(|name| !headers::passes_up(name.as_str(), std::iter::empty())).cloned().collect();
    for name in ends {
        fields.remove(name);
    }
}

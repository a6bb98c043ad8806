//! Streams: a call that has begun, whose messages come and go one by one.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use h2_v4::client::ResponseFuture;
use h2_v4::{Reason, RecvStream, SendStream};
use http_v1::{HeaderMap, Response, StatusCode};
use tokio::sync::Notify;

use super::error::RpcError;
use super::head::RpcHead;
use super::pool::Lease;
use super::{RpcRequest, call};
use crate::balance::Permit;
use crate::registry::Node;
use crate::rpc::schema::{MessageError, SchemaMethod};
use crate::rpc::timeout::End;
use crate::rpc::wire::{Messages, ReadError, TOGETHER, send_part};
use crate::rpc::{Code, Status, frame};
use crate::upstream::{Policy, Upstream};

/// A stream that a node has taken; the node counts as busy until it is dropped.
pub struct Opened {
    /// Who.
    pub node: Arc<Node>,
    /// Its answer, as soon as it comes.
    pub response: ResponseFuture,
    /// Where messages go.
    pub sender: SendStream<Bytes>,
    /// Which try it was, from 1.
    pub attempt: u32,
    /// To be told what became of it.
    pub permit: Permit,
    /// The stream's place on its connection.
    pub lease: Lease,
    /// The method, where messages in JSON are to be written in protobuf for the node.
    pub form: Option<SchemaMethod>,
}

/// A call in which messages come and go one by one.
pub struct RpcStream {
    /// What is sent.
    pub sender: RpcSender,
    /// What comes.
    pub receiver: RpcReceiver,
}

/// The caller's half of a stream. Dropping it without [`RpcSender::finish`] cancels the call.
pub struct RpcSender {
    stream: SendStream<Bytes>,
    is_over: bool,
    form: Option<Rc<Form>>,
}

/// The callee's half of a stream; the node counts as busy until it is dropped, which cancels the call.
pub struct RpcReceiver {
    node: Arc<Node>,
    state: State,
    limit: usize,
    end: Option<End>,
    metadata: HeaderMap,
    trailers: HeaderMap,
    permit: Permit,
    form: Option<Rc<Form>>,
    _lease: Lease,
}

/// What both halves of a stream share whose messages are JSON here and protobuf there.
struct Form {
    method: SchemaMethod,
    /// A message of the caller's that is none.
    refused: RefCell<Option<MessageError>>,
    told: Notify,
}

enum State {
    Waiting(ResponseFuture),
    Reading(Messages),
    Over,
}

impl Upstream {
    /// Begins a call on a node of `service`. Tries the next node where one cannot be reached; once a stream is open, nothing is
    /// repeated. The caller's deadline bounds the stream, the policy's only its begin.
    ///
    /// # Errors
    /// [`RpcError`], the last try's.
    pub async fn rpc_stream(
        &self,
        service: &str,
        request: RpcRequest<'_>,
        policy: &Policy,
    ) -> Result<RpcStream, RpcError> {
        let head = RpcHead::of(&request, self.caller.as_deref())?;
        let end = request.timeout.map(End::in_time);
        let client = request.forwarded.map(|forwarded| forwarded.client);
        let opened = self.rpc_open(service, &head, client, policy, end).await?;
        let Opened { node, response, sender, permit, lease, form, .. } = opened;
        let form = form.map(|method| Rc::new(Form { method, refused: RefCell::default(), told: Notify::new() }));
        let receiver = RpcReceiver {
            node,
            state: State::Waiting(response),
            limit: request.answer_bytes,
            end,
            metadata: HeaderMap::new(),
            trailers: HeaderMap::new(),
            permit,
            form: form.clone(),
            _lease: lease,
        };
        Ok(RpcStream { sender: RpcSender { stream: sender, is_over: false, form }, receiver })
    }
}

impl RpcSender {
    /// Sends a message, as soon as the callee takes it.
    ///
    /// # Errors
    /// When the callee wants no more; what it says, the receiver tells. So it is with a message that is none of the method's,
    /// which cancels the call.
    pub async fn send(&mut self, message: &[u8]) -> Result<(), h2_v4::Error> {
        let framed = match &self.form {
            None => frame::framed(message),
            Some(form) => match form.method.to_protobuf(message) {
                Ok(message) => frame::framed(&message),
                Err(error) => {
                    form.refused.replace(Some(error));
                    form.told.notify_one();
                    self.stream.send_reset(Reason::CANCEL);
                    return Err(Reason::CANCEL.into());
                }
            },
        };
        send_part(&mut self.stream, framed, false).await
    }

    /// Sends messages in their frames ([`crate::rpc::wire::Batch`] makes them), so that many small ones travel together. Not
    /// those in JSON, which may have to be written in another form.
    ///
    /// # Errors
    /// As [`RpcSender::send`].
    pub async fn send_frames(&mut self, frames: Bytes) -> Result<(), h2_v4::Error> {
        debug_assert!(frames.len() < usize::MAX - TOGETHER);
        send_part(&mut self.stream, frames, false).await
    }

    /// No more messages follow.
    ///
    /// # Errors
    /// When the callee is gone.
    pub fn finish(&mut self) -> Result<(), h2_v4::Error> {
        self.is_over = true;
        self.stream.send_data(Bytes::new(), true)
    }
}

impl Drop for RpcSender {
    fn drop(&mut self) {
        if !self.is_over {
            self.stream.send_reset(Reason::CANCEL);
        }
    }
}

impl RpcReceiver {
    /// Who answers.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The callee's metadata, known once a message came or the end did.
    #[must_use]
    pub fn metadata(&self) -> &HeaderMap {
        &self.metadata
    }

    /// What came after the last message.
    #[must_use]
    pub fn trailers(&self) -> &HeaderMap {
        &self.trailers
    }

    /// The next message; `None` after the last one, when the callee said that all went well.
    ///
    /// # Errors
    /// [`RpcError`]: the callee's status, or what broke the stream; nothing more comes then.
    ///
    /// # Cancel safety
    /// Safe in `select!`.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RpcError> {
        let got = match self.end {
            None => self.step().await,
            Some(end) => match tokio::time::timeout_at(end.at.into(), self.step()).await {
                Ok(got) => got,
                Err(_) => Err(RpcError::Deadline { node: self.node.clone(), after: end.after }),
            },
        };
        match &got {
            Ok(Some(_)) => {}
            Ok(None) => self.state = State::Over,
            Err(error) => {
                self.state = State::Over;
                call::note(&self.permit, error);
            }
        }
        got
    }

    /// The next message as the caller wants it.
    async fn step(&mut self) -> Result<Option<Bytes>, RpcError> {
        let Some(form) = self.form.clone() else { return self.read().await };
        let read = tokio::select! {
            biased;
            () = form.told.notified() => Ok(None),
            read = self.read() => read,
        };
        if let Some(error) = form.refused.take() {
            return Err(RpcError::Message(error));
        }
        let to_json = |message: Bytes| form.method.to_json(&message);
        read?.map(to_json).transpose().map_err(|source| RpcError::Answer { node: self.node.clone(), source })
    }

    async fn read(&mut self) -> Result<Option<Bytes>, RpcError> {
        let broken = |node: &Arc<Node>, source: ReadError| RpcError::Broken { node: node.clone(), source };
        if let State::Waiting(response) = &mut self.state {
            let response = response.await.map_err(|error| broken(&self.node, error.into()))?;
            let (head, body) = begun(response, &self.node)?;
            self.permit.answered(200);
            self.metadata = head;
            self.state = State::Reading(Messages::new(body, self.limit));
        }
        let State::Reading(messages) = &mut self.state else { return Ok(None) };
        if let Some(message) = messages.next().await.map_err(|error| broken(&self.node, error))? {
            return Ok(Some(message));
        }
        let trailers = messages.trailers().await.map_err(|error| broken(&self.node, error.into()))?;
        self.trailers = trailers.unwrap_or_default();
        // trailers alone may stand in the head
        over(if self.trailers.is_empty() { &self.metadata } else { &self.trailers }, &self.node).map(|()| None)
    }
}

/// Metadata and body of an answer that is gRPC.
///
/// # Errors
/// The status of one that is nothing else.
pub(super) fn begun(response: Response<RecvStream>, node: &Arc<Node>) -> Result<(HeaderMap, RecvStream), RpcError> {
    let (head, body) = response.into_parts();
    if let Some(status) = Status::from_trailers(&head.headers)
        && (status.code != Code::Ok || body.is_end_stream())
    {
        return if status.code == Code::Ok {
            Ok((head.headers, body))
        } else {
            Err(RpcError::Status { node: node.clone(), status })
        };
    }
    let is_grpc = crate::rpc::Codec::of_content_type(
        head.headers.get(http_v1::header::CONTENT_TYPE).map(http_v1::HeaderValue::as_bytes),
    );
    if head.status != StatusCode::OK || is_grpc.is_err() {
        return Err(RpcError::NotRpc { node: node.clone(), http: head.status.as_u16() });
    }
    Ok((head.headers, body))
}

/// What the end of an answer tells.
pub(super) fn over(trailers: &HeaderMap, node: &Arc<Node>) -> Result<(), RpcError> {
    match Status::from_trailers(trailers) {
        Some(status) if status.code == Code::Ok => Ok(()),
        Some(status) => Err(RpcError::Status { node: node.clone(), status }),
        None => Err(RpcError::NotRpc { node: node.clone(), http: 200 }),
    }
}

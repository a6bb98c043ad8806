//! The tries of a call. As over HTTP each goes to the next node, and only what surely was not carried out, or what the policy
//! lets be repeated, is tried again.

use std::cell::LazyCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2_v4::Reason;
use h2_v4::client::SendRequest;

use super::descriptors::Descriptors;
use super::error::RpcError;
use super::head::RpcHead;
use super::open::{Opened, begun, over};
use super::pool::{ConnectError, Lease, Place, bridged};
use super::{RpcAnswer, RpcRequest, descriptors, protocol_of, reflection};
use crate::backoff::Backoff;
use crate::balance::{Kind, Permit};
use crate::causes;
use crate::registry::{Node, NodePort, RpcProtocol};
use crate::rpc::schema::{Schema, SchemaMethod};
use crate::rpc::timeout::End;
use crate::rpc::wire::{Messages, ReadError};
use crate::rpc::{Code, MethodName, Status, frame};
use crate::trace::context::TraceContext;
use crate::upstream::call::{BACKOFF_CAP, Try};
use crate::upstream::mucp::MucpCall;
use crate::upstream::{Policy, Upstream, tls_of};

/// A node that was picked.
struct Picked {
    permit: Permit,
    node: Arc<Node>,
    place: Place,
}

impl Upstream {
    /// Carries out a call that has one message each way: picks a node, sends, retries on the next one where that is safe.
    ///
    /// # Errors
    /// [`RpcError`], the last try's.
    ///
    /// # Cancel safety
    /// Dropping the future ends the try that runs; the service may have carried it out.
    pub async fn rpc(
        &self,
        service: &str,
        request: RpcRequest<'_>,
        message: Bytes,
        policy: &Policy,
    ) -> Result<RpcAnswer, RpcError> {
        let head = RpcHead::of(&request, self.caller.as_deref())?;
        let framed = LazyCell::new(|| frame::framed(&message));
        let end = match (request.timeout, policy.deadline) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let end = end.map(End::in_time);
        let client = request.forwarded.map(|forwarded| forwarded.client);
        let (mut tried, mut attempt, mut before) = (Vec::new(), 1, None);
        let mut waits = Backoff::seeded(policy.backoff, BACKOFF_CAP);
        loop {
            let Picked { permit, node, place } = match self.pick_rpc(service, (client, policy), &mut tried).await {
                Ok(picked) => picked,
                Err(error) => return Err(before.unwrap_or(error)),
            };
            let began = Instant::now();
            let time = end.map_or(policy.timeout, |end| end.left().min(policy.timeout));
            let sent = async {
                match protocol_of(&node) {
                    RpcProtocol::Mucp => {
                        let (head, codec, limit) = (&head, request.codec, request.answer_bytes);
                        self.mucp_once(MucpCall { head, codec, message: &message, policy, time, limit }, &node).await
                    }
                    RpcProtocol::Grpc => {
                        let form = self.rpc_form(&head, (&node, &place), policy).await?;
                        let (framed, bound) = match &form {
                            None => (Bytes::clone(&framed), (time, policy, request.answer_bytes)),
                            Some(method) => (written(method, &message, &node)?, (time, policy, request.answer_bytes)),
                        };
                        self.grpc_once((&head, form.as_ref()), framed, &node, &place, bound).await
                    }
                }
            };
            let answer = match tokio::time::timeout(time, sent).await {
                Ok(answer) => answer,
                Err(_) => Err(RpcError::Deadline { node: node.clone(), after: time }),
            };
            if let Some(tries) = request.tries {
                let result = answer.as_ref().map_or_else(|error| causes::chain(error), |_| "OK".to_owned());
                let (service, node) = (service.to_owned(), Some(node.id.to_string()));
                tries.borrow_mut().push(Try { service, node, result, took: began.elapsed() });
            }
            let error = match answer {
                Ok((message, metadata, trailers)) => {
                    permit.answered(200);
                    return Ok(RpcAnswer { message, metadata, trailers, node, attempt });
                }
                Err(error) => error,
            };
            note(&permit, &error);
            let may_repeat = error.was_not_sent() || (policy.retry_non_idempotent && is_passing(&error, policy));
            let wait = waits.next_wait();
            let in_time = end.is_none_or(|end| end.left() > wait);
            let has_tries = may_repeat && in_time && attempt < policy.attempts.max(1);
            if !has_tries || (!error.was_not_sent() && !self.may_retry(service, &permit)) {
                return Err(error);
            }
            log::debug!("rpc try failed service={service} node={} attempt={attempt} error=\"{error}\"", node.id);
            drop(permit);
            self.retries.with_label_values(&[service]).inc();
            before = Some(error);
            tried.push(node);
            attempt += 1;
            tokio::time::sleep(wait).await;
        }
    }

    /// What a service of gRPC (`greeter.Say`) is made of, as `policy`'s file or else a node of `service` tells now.
    ///
    /// # Errors
    /// [`RpcError::Messages`] where nobody tells; where there is no node.
    pub async fn rpc_schema(
        &self,
        service: &str,
        full: &str,
        (context, call_key): (&TraceContext, Option<&str>),
        policy: &Policy,
    ) -> Result<Arc<Schema>, RpcError> {
        if let Descriptors::File(file) = &policy.descriptors {
            return Ok(file.schema());
        }
        let path = format!("/{full}/-"); // which is asked for no method
        let head = RpcHead::of_own(&path, context, call_key)?;
        let Picked { node, place, .. } = self.pick_rpc(service, (None, policy), &mut Vec::new()).await?;
        let name = MethodName::parse(&path)?;
        let told = reflection::ask(&self.rpc_pool, (&node, &place), &head, &name, policy).await;
        told.map(Arc::new).map_err(|error| RpcError::Messages { node, source: Arc::new(error) })
    }

    /// Begins a stream on a node; tries the next one where one cannot be reached.
    pub(crate) async fn rpc_open(
        &self,
        service: &str,
        head: &RpcHead,
        client: Option<IpAddr>,
        policy: &Policy,
        end: Option<End>,
    ) -> Result<Opened, RpcError> {
        let (mut tried, mut attempt, mut before) = (Vec::new(), 1, None);
        loop {
            let Picked { permit, node, place } = match self.pick_rpc(service, (client, policy), &mut tried).await {
                Ok(picked) => picked,
                Err(error) => return Err(before.unwrap_or(error)),
            };
            let ((lease, mut sender), form) = match self.reach_rpc(head, (&node, &place), policy).await {
                Ok(reached) => reached,
                Err(error) => {
                    note(&permit, &error);
                    if attempt >= policy.attempts.max(1) {
                        return Err(error);
                    }
                    log::debug!("rpc try failed service={service} node={} error=\"{error}\"", node.id);
                    self.retries.with_label_values(&[service]).inc();
                    (before, attempt) = (Some(error), attempt + 1);
                    tried.push(node);
                    continue;
                }
            };
            let time = end.map(End::left);
            let request = head.request(&node, &lease, time, form.as_ref())?;
            let (response, sender) = sender.send_request(request, false).map_err(|error| unsent(&node, error))?;
            return Ok(Opened { node, response, sender, attempt, permit, lease, form });
        }
    }

    /// A connection to a node, and how the messages of a call are written for it.
    async fn reach_rpc(
        &self,
        head: &RpcHead,
        (node, place): (&Arc<Node>, &Place),
        policy: &Policy,
    ) -> Result<((Lease, SendRequest<Bytes>), Option<SchemaMethod>), RpcError> {
        let (form, leased) = match protocol_of(node) {
            RpcProtocol::Grpc => {
                let form = self.rpc_form(head, (node, place), policy).await?;
                (form, self.rpc_pool.lease(place, policy).await)
            }
            RpcProtocol::Mucp => (None, bridged(place, node, policy.connect_timeout).await),
        };
        let leased = leased.map_err(|source| RpcError::Unreachable { node: node.clone(), source })?;
        Ok((leased, form))
    }

    /// How the messages of a call are written for a node.
    pub(super) async fn rpc_form(
        &self,
        head: &RpcHead,
        at: (&Arc<Node>, &Place),
        policy: &Policy,
    ) -> Result<Option<SchemaMethod>, RpcError> {
        descriptors::form(&self.schemas, at, (&self.rpc_pool, head, policy)).await
    }

    /// A node that takes RPC.
    async fn pick_rpc(
        &self,
        service: &str,
        (client, policy): (Option<IpAddr>, &Policy),
        tried: &mut Vec<Arc<Node>>,
    ) -> Result<Picked, RpcError> {
        loop {
            let permit = self.balancer.acquire(service, Kind::Rpc, client, tried).await?;
            let node = permit.node().clone();
            let (port, which) = match protocol_of(&node) {
                RpcProtocol::Mucp => (node.id.http, NodePort::Http),
                RpcProtocol::Grpc => (node.id.rpc, NodePort::Rpc),
            };
            match port.socket() {
                Some(address) => {
                    let tls = tls_of(&node, which, (policy.tls.as_deref(), policy.told_tls.as_deref()));
                    let tls = tls.map_err(|why| Arc::new(ConnectError::Connect(why)));
                    return match tls.and_then(|tls| Place::of(&node, address, tls)) {
                        Ok(place) => Ok(Picked { permit, node, place }),
                        Err(source) => Err(RpcError::Unreachable { node, source }),
                    };
                }
                // none but nodes that were tried are left
                None if tried.contains(&node) => {
                    return Err(RpcError::Unreachable { node, source: Arc::new(ConnectError::NoPort) });
                }
                None => tried.push(node),
            }
        }
    }

    async fn grpc_once(
        &self,
        (head, form): (&RpcHead, Option<&SchemaMethod>),
        framed: Bytes,
        node: &Arc<Node>,
        place: &Place,
        (time, policy, limit): (Duration, &Policy, usize),
    ) -> Result<(Bytes, http_v1::HeaderMap, http_v1::HeaderMap), RpcError> {
        let broken = |source: ReadError| RpcError::Broken { node: node.clone(), source };
        let leased = self.rpc_pool.lease(place, policy).await;
        let (lease, mut sender) = leased.map_err(|source| RpcError::Unreachable { node: node.clone(), source })?;
        let request = head.request(node, &lease, Some(time), form)?;
        let (response, mut stream) = sender.send_request(request, false).map_err(|error| unsent(node, error))?;
        // it is in memory anyway, and h2 sends it as the node takes it; an error will come as the answer, too
        drop(stream.send_data(framed, true));
        let response = response.await.map_err(|error| unsent(node, error))?;
        let (metadata, body) = begun(response, node)?;
        let mut messages = Messages::new(body, limit);
        let message = messages.next().await.map_err(broken)?;
        if message.is_some() && messages.next().await.map_err(broken)?.is_some() {
            return Err(RpcError::Status { node: node.clone(), status: answers_with_stream() });
        }
        let trailers = messages.trailers().await.map_err(|error| broken(error.into()))?.unwrap_or_default();
        match message {
            Some(message) => {
                over(&trailers, node)?;
                let message = match form {
                    None => message,
                    Some(method) => {
                        method.to_json(&message).map_err(|source| RpcError::Answer { node: node.clone(), source })?
                    }
                };
                Ok((message, metadata, trailers))
            }
            // trailers alone say it all, and may stand in the head
            None => {
                over(if trailers.is_empty() { &metadata } else { &trailers }, node)?;
                let status = Status::new(Code::Internal, "the method answered with no message");
                Err(RpcError::Status { node: node.clone(), status })
            }
        }
    }
}

/// A message as a node gets it that takes protobuf only.
fn written(method: &SchemaMethod, message: &[u8], node: &Arc<Node>) -> Result<Bytes, RpcError> {
    if method.streams().1 {
        return Err(RpcError::Status { node: node.clone(), status: answers_with_stream() });
    }
    method.to_protobuf(message).map(|message| frame::framed(&message)).map_err(RpcError::Message)
}

fn answers_with_stream() -> Status {
    Status::new(
        Code::Unimplemented,
        "the method answers with a stream; ask for it with `Accept: application/x-ndjson` or `text/event-stream`",
    )
}

/// A stream's error: refused, or after the last one that a closing node takes, it was surely not carried out.
fn unsent(node: &Arc<Node>, error: h2_v4::Error) -> RpcError {
    let never_taken = error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM));
    if never_taken {
        RpcError::Unreachable { node: node.clone(), source: Arc::new(ConnectError::Http2(error)) }
    } else {
        RpcError::Broken { node: node.clone(), source: error.into() }
    }
}

/// Whether another node may do better.
fn is_passing(error: &RpcError, policy: &Policy) -> bool {
    match error {
        RpcError::Broken { .. } | RpcError::Mucp { .. } | RpcError::NotRpc { .. } => true,
        RpcError::Status { status, .. } => policy.retry_status.contains(&status.to_http()),
        _ => false,
    }
}

/// Tells the balancer what became of a try.
pub(super) fn note(permit: &Permit, error: &RpcError) {
    match error {
        RpcError::Unreachable { .. } => permit.refused(),
        RpcError::Mucp { source, .. } if source.was_not_sent() => permit.refused(),
        RpcError::Broken { .. } | RpcError::Mucp { .. } | RpcError::NotRpc { .. } | RpcError::Deadline { .. } => {
            permit.failed();
        }
        RpcError::Status { status, .. } => permit.answered(status.to_http()),
        RpcError::Answer { .. } => permit.failed(),
        RpcError::NoNode(_) | RpcError::Messages { .. } | RpcError::Message(_) | RpcError::Request(_) => {}
    }
}

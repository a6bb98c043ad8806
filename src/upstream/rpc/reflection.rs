//! Reads the messages of a service from one of its nodes: `grpc.reflection.v1`, or its forerunner `v1alpha`, whose messages
//! are the same (<https://github.com/grpc/grpc/blob/master/doc/server-reflection.md>).
//!
//! Some servers answer with a file and all that it needs, others with the file alone; what is missing is asked for by name.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2_v4::SendStream;
use prost::Message;
use prost_reflect::prost_types::FileDescriptorProto;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::RpcError;
use super::descriptors::UnknownMessages;
use super::head::RpcHead;
use super::open::{begun, over};
use super::pool::{ConnectError, Lease, Place, Pool};
use crate::registry::Node;
use crate::rpc::method::ends_with;
use crate::rpc::schema::Schema;
use crate::rpc::wire::{Messages, ReadError, send_part};
use crate::rpc::{Code, MethodName, Status, frame};
use crate::upstream::Policy;

/// Newest first.
const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// How long a node may take to tell all.
const WITHIN: Duration = Duration::from_secs(5);
/// How long it may take to say that it is done.
const FAREWELL: Duration = Duration::from_millis(200);
/// Files that a service may be made of, and bytes of them all.
const FILES: usize = 2_000;
const BYTES: usize = 8 << 20;

/// What a node tells of the service of a method. `head` is the call that needs it: the node hears the same key and trace.
///
/// # Errors
/// [`UnknownMessages`].
pub(super) async fn ask(
    pool: &Rc<Pool>,
    (node, place): (&Arc<Node>, &Place),
    head: &RpcHead,
    name: &MethodName<'_>,
    policy: &Policy,
) -> Result<Schema, UnknownMessages> {
    // so that whoever asks has time left to hear of it
    let within = WITHIN.min(policy.timeout - policy.timeout / 4);
    let asked = async {
        for path in PATHS {
            let told = Talk::open(pool, (node, place), &head.of_reflection(path), policy).await;
            let told = match told {
                Ok(mut talk) => {
                    let told = talk.service(name).await;
                    talk.end().await;
                    told
                }
                Err(error) => Err(error),
            };
            match told {
                Err(UnknownMessages::Away(error)) if error.is_unimplemented() => {}
                other => return other,
            }
        }
        Err(UnknownMessages::Untold(node.id.service.clone()))
    };
    tokio::time::timeout(within, asked).await.unwrap_or(Err(UnknownMessages::Late(within)))
}

/// Why a node told nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReflectionError {
    /// No connection came about.
    #[error("the node cannot be reached")]
    Unreachable(#[source] Arc<ConnectError>),
    /// The stream broke off, or what came is not gRPC.
    #[error("its answer broke off")]
    Broken(#[source] ReadError),
    /// It refused.
    #[error("it refused: {0}")]
    Refused(Status),
    /// It answered with HTTP, but not with gRPC.
    #[error("it answered {0} without a grpc-status")]
    NotRpc(u16),
}

impl ReflectionError {
    fn is_unimplemented(&self) -> bool {
        match self {
            Self::Refused(status) => status.code == Code::Unimplemented,
            // a server that knows no such path may answer by HTTP
            Self::NotRpc(http) => *http == 404,
            Self::Unreachable(_) | Self::Broken(_) => false,
        }
    }
}

impl From<RpcError> for UnknownMessages {
    fn from(error: RpcError) -> Self {
        Self::Away(match error {
            RpcError::Unreachable { source, .. } => ReflectionError::Unreachable(source),
            RpcError::Broken { source, .. } => ReflectionError::Broken(source),
            RpcError::NotRpc { http, .. } => ReflectionError::NotRpc(http),
            other => ReflectionError::Refused(other.status()),
        })
    }
}

fn broke(error: h2_v4::Error) -> UnknownMessages {
    UnknownMessages::Away(ReflectionError::Broken(error.into()))
}

/// A stream of reflection.
struct Talk {
    node: Arc<Node>,
    sender: SendStream<Bytes>,
    state: State,
    /// Of all messages so far.
    bytes: usize,
    _lease: Lease,
}

enum State {
    Waiting(h2_v4::client::ResponseFuture),
    Reading(http_v1::HeaderMap, Messages),
}

impl Talk {
    async fn open(
        pool: &Rc<Pool>,
        (node, place): (&Arc<Node>, &Place),
        head: &RpcHead,
        policy: &Policy,
    ) -> Result<Self, UnknownMessages> {
        let leased = pool.lease(place, policy).await;
        let (lease, mut sender) =
            leased.map_err(|source| UnknownMessages::Away(ReflectionError::Unreachable(source)))?;
        let request = head.request(node, &lease, Some(WITHIN), None).map_err(RpcError::from)?;
        let (response, sender) = sender.send_request(request, false).map_err(broke)?;
        Ok(Self { node: node.clone(), sender, state: State::Waiting(response), bytes: 0, _lease: lease })
    }

    /// The service of this name and all that it is made of.
    async fn service(&mut self, name: &MethodName<'_>) -> Result<Schema, UnknownMessages> {
        let symbol = self.full_name(name).await?;
        let mut files: Vec<FileDescriptorProto> = Vec::new();
        let (mut known, mut missing) = (HashSet::new(), vec![MessageRequest::FileContainingSymbol(symbol)]);
        while let Some(next) = missing.pop() {
            if let MessageRequest::FileByFilename(name) = &next
                && known.contains(name)
            {
                continue;
            }
            let is_well_known =
                matches!(&next, MessageRequest::FileByFilename(name) if name.starts_with("google/protobuf/"));
            let told = match self.files(next, name).await {
                Err(UnknownMessages::Method { .. }) if is_well_known => continue, // goms has them
                told => told?,
            };
            for file in told {
                if !known.insert(file.name().to_owned()) {
                    continue;
                }
                let needed = file.dependency.iter().filter(|name| !known.contains(*name));
                missing.extend(needed.cloned().map(MessageRequest::FileByFilename));
                files.push(file);
            }
            if files.len() > FILES {
                return Err(UnknownMessages::TooMany(FILES, BYTES));
            }
        }
        Schema::of_files(files).map_err(UnknownMessages::Senseless)
    }

    /// The service's full name: as asked, as the node's record tells, or as the node itself does.
    async fn full_name(&mut self, name: &MethodName<'_>) -> Result<String, UnknownMessages> {
        if !name.package.is_empty() {
            return Ok(name.full_service());
        }
        if let Some(full) = self.node.meta.rpc_services.iter().find(|full| ends_with(full, name.service)) {
            return Ok(full.clone());
        }
        let told = self.ask(MessageRequest::ListServices(String::new())).await?;
        let Some(MessageResponse::ListServicesResponse(list)) = told.message_response else {
            return Err(UnknownMessages::Untold(self.node.id.service.clone()));
        };
        let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
        match names.iter().position(|full| ends_with(full, name.service)) {
            Some(place) => Ok(names.swap_remove(place)),
            None => Err(UnknownMessages::Method { method: name.endpoint(), known: names.join(", ") }),
        }
    }

    async fn files(
        &mut self,
        wanted: MessageRequest,
        name: &MethodName<'_>,
    ) -> Result<Vec<FileDescriptorProto>, UnknownMessages> {
        match self.ask(wanted).await?.message_response {
            Some(MessageResponse::FileDescriptorResponse(told)) => {
                let decode = |file: Vec<u8>| FileDescriptorProto::decode(&*file).map_err(UnknownMessages::Malformed);
                told.file_descriptor_proto.into_iter().map(decode).collect()
            }
            Some(MessageResponse::ErrorResponse(error)) => {
                let known = format!("what its node says: {}", error.error_message);
                Err(UnknownMessages::Method { method: name.endpoint(), known })
            }
            _ => Err(UnknownMessages::Untold(self.node.id.service.clone())),
        }
    }

    /// Takes leave, so that the node does not see a caller that went away.
    async fn end(&mut self) {
        if self.sender.send_data(Bytes::new(), true).is_ok()
            && let State::Reading(_, messages) = &mut self.state
        {
            // it has told all; how it ends changes nothing
            drop(tokio::time::timeout(FAREWELL, messages.next()).await);
        }
    }

    /// One question and its answer.
    async fn ask(&mut self, wanted: MessageRequest) -> Result<ServerReflectionResponse, UnknownMessages> {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(wanted) };
        // an error will come as the answer, too
        drop(send_part(&mut self.sender, frame::framed(&request.encode_to_vec()), false).await);
        if let State::Waiting(response) = &mut self.state {
            let response = response.await.map_err(broke)?;
            let (metadata, body) = begun(response, &self.node)?;
            self.state = State::Reading(metadata, Messages::new(body, BYTES));
        }
        let State::Reading(metadata, messages) = &mut self.state else {
            return Err(UnknownMessages::Untold(self.node.id.service.clone()));
        };
        let node = &self.node;
        let read = messages.next().await.map_err(|error| UnknownMessages::Away(ReflectionError::Broken(error)))?;
        let Some(message) = read else {
            let trailers = messages.trailers().await.map_err(broke)?.unwrap_or_default();
            over(if trailers.is_empty() { metadata } else { &trailers }, node)?;
            return Err(UnknownMessages::Untold(node.id.service.clone()));
        };
        self.bytes += message.len();
        if self.bytes > BYTES {
            return Err(UnknownMessages::TooMany(FILES, BYTES));
        }
        ServerReflectionResponse::decode(message).map_err(UnknownMessages::Malformed)
    }
}

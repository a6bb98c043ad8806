//! Why a call by RPC failed, and whether it may be sent again.

use std::sync::Arc;
use std::time::Duration;

use super::descriptors::UnknownMessages;
use super::pool::ConnectError;
use super::reflection::ReflectionError;
use crate::balance::PickError;
use crate::registry::Node;
use crate::rpc::method::MethodError;
use crate::rpc::schema::MessageError;
use crate::rpc::wire::ReadError;
use crate::rpc::{Code, Status};
use crate::upstream::HttpError;

/// What became of a call that gave no message.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// There is nobody to call.
    #[error(transparent)]
    NoNode(#[from] PickError),
    /// No connection came about, or the node took no new call: it was surely not carried out.
    #[error("node `{}` of service `{}` cannot be reached by rpc", node.id, node.id.service)]
    Unreachable {
        /// The last node tried.
        node: Arc<Node>,
        /// What went wrong.
        #[source]
        source: Arc<ConnectError>,
    },
    /// The stream broke off, or what came is not gRPC. The call may have been carried out.
    #[error("node `{}` of service `{}` gave no proper answer by rpc", node.id, node.id.service)]
    Broken {
        /// The last node tried.
        node: Arc<Node>,
        /// What went wrong.
        #[source]
        source: ReadError,
    },
    /// Over mucp nobody took the call, its answer broke off, or it is no proper one.
    #[error("node `{}` of service `{}` gave no proper answer by mucp", node.id, node.id.service)]
    Mucp {
        /// The last node tried.
        node: Arc<Node>,
        /// What went wrong.
        #[source]
        source: HttpError,
    },
    /// It answered with HTTP, but not with gRPC.
    #[error("node `{}` of service `{}` answered {http} without a grpc-status", node.id, node.id.service)]
    NotRpc {
        /// The last node tried.
        node: Arc<Node>,
        /// The HTTP status.
        http: u16,
    },
    /// It did not answer in time.
    #[error("node `{}` of service `{}` did not answer within {after:?}", node.id, node.id.service)]
    Deadline {
        /// The last node tried.
        node: Arc<Node>,
        /// How long it had.
        after: Duration,
    },
    /// It answered with another status than OK.
    #[error("{status}")]
    Status {
        /// Who.
        node: Arc<Node>,
        /// Its answer.
        status: Status,
    },
    /// The service takes protobuf, and what its messages look like is not known: the call was not sent.
    #[error("cannot call service `{}` with JSON", node.id.service)]
    Messages {
        /// The last node tried.
        node: Arc<Node>,
        /// Why.
        #[source]
        source: Arc<UnknownMessages>,
    },
    /// The message is none of the method's: it was not sent.
    #[error(transparent)]
    Message(MessageError),
    /// What came is no message of the method's, or none that JSON can tell.
    #[error("node `{}` of service `{}` gave no proper answer by rpc", node.id, node.id.service)]
    Answer {
        /// Who answered.
        node: Arc<Node>,
        /// What is wrong with it.
        #[source]
        source: MessageError,
    },
    /// The method has no name that can be called.
    #[error("cannot send this call")]
    Request(#[from] MethodError),
}

impl RpcError {
    /// The call surely did not reach a service, so it may be sent again.
    #[must_use]
    pub fn was_not_sent(&self) -> bool {
        match self {
            Self::Mucp { source, .. } => source.was_not_sent(),
            other => {
                matches!(other, Self::NoNode(_) | Self::Unreachable { .. } | Self::Messages { .. } | Self::Request(_))
            }
        }
    }

    /// What a caller by RPC is told; its `to_http` is for one by HTTP.
    #[must_use]
    pub fn status(&self) -> Status {
        let told = |code| Status::new(code, crate::causes::chain(self));
        match self {
            Self::Status { status, .. } => status.clone(),
            Self::NoNode(PickError::UnknownService(_) | PickError::NoNode(_)) | Self::Unreachable { .. } => {
                told(Code::Unavailable)
            }
            Self::NoNode(_) => told(Code::Unavailable),
            Self::Broken { source: ReadError::Broken(_), .. } => Status { http: Some(502), ..told(Code::Unavailable) },
            Self::Broken { source: ReadError::Frame(error), .. } => {
                Status { message: crate::causes::chain(self), http: Some(502), ..Status::from(error) }
            }
            Self::Mucp { source, .. } if source.was_not_sent() => told(Code::Unavailable),
            Self::Mucp { .. } => Status { http: Some(502), ..told(Code::Unavailable) },
            Self::NotRpc { http, .. } => Status { http: Some(502), ..told(Code::of_foreign_answer(*http)) },
            Self::Deadline { .. } => told(Code::DeadlineExceeded),
            Self::Messages { source, .. } => match &**source {
                UnknownMessages::Untold(_) | UnknownMessages::Method { .. } => told(Code::Unimplemented),
                UnknownMessages::Away(ReflectionError::Broken(ReadError::Frame(_)))
                | UnknownMessages::TooMany(..)
                | UnknownMessages::Senseless(_)
                | UnknownMessages::Malformed(_) => Status { http: Some(502), ..told(Code::Internal) },
                UnknownMessages::Away(_) | UnknownMessages::Late(_) => told(Code::Unavailable),
            },
            Self::Answer { .. } => Status { http: Some(502), ..told(Code::Internal) },
            Self::Request(_) | Self::Message(_) => told(Code::InvalidArgument),
        }
    }
}

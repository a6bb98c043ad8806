//! What a client of `micro api` is told of a failure: `{"id","code","detail","status"}`, the code being the HTTP status.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use bytes::Bytes;

use crate::balance::PickError;
use crate::gateway::answer::{Answer, Body};
use crate::rpc::GoError;
use crate::upstream::RpcError;

/// Who fails, where no service did.
const ID: &str = "go.micro.api";

/// A failure with its status.
#[derive(Debug)]
pub(super) struct MicroError {
    status: StatusCode,
    body: Bytes,
}

impl MicroError {
    /// One of the gateway's own.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let error = GoError {
            id: ID.to_owned(),
            code: i32::from(status.as_u16()),
            detail: detail.into(),
            status: status.canonical_reason().unwrap_or_default().to_owned(),
        };
        // strings and a number always become JSON
        Self { status, body: serde_json::to_vec(&error).unwrap_or_default().into() }
    }

    /// The request cannot be understood.
    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// What is asked for is nowhere.
    pub fn unknown_service() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "service not found")
    }

    /// The answer.
    pub fn answer(self) -> Answer {
        let mut head = HttpResponse::new(self.status);
        head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Answer { head, body: Body::Whole(self.body) }
    }
}

impl From<RpcError> for MicroError {
    /// A service's own error passes as it is.
    fn from(error: RpcError) -> Self {
        match &error {
            RpcError::NoNode(PickError::UnknownService(_) | PickError::NoNode(_)) => Self::unknown_service(),
            RpcError::Deadline { .. } => Self::new(StatusCode::REQUEST_TIMEOUT, error.to_string()),
            RpcError::Request(_) | RpcError::Message(_) => Self::bad(crate::causes::chain(&error)),
            RpcError::Status { status, .. } => {
                let http = StatusCode::from_u16(status.to_http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                match GoError::parse(&status.message) {
                    Some(_) => Self { status: http, body: Bytes::from(status.message.clone()) },
                    None => Self::new(http, status.message.clone()),
                }
            }
            // addresses of nodes stay inside
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the service cannot be reached or gave no proper answer"),
        }
    }
}

//! Errors become answers: the one place that gives each its status.

use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, HttpResponseBuilder};
use serde::Serialize;

use super::AnswerForm;
use crate::balance::PickError;
use crate::causes;
use crate::rpc::GoError;
use crate::upstream::{Broken, CallError, RpcError, UnknownMessages};

/// Why a request is not answered by a service.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    BadRequest(String),
    /// What another reader might understand otherwise: nothing more is read from its connection.
    #[error("{0}")]
    Ambiguous(String),
    #[error("{0}")]
    NotFound(String),
    #[error("this action does not take this method; it takes {allow}")]
    Method { allow: String },
    #[error("the body did not come within {0:?}; send it faster or in smaller parts")]
    SlowBody(Duration),
    #[error("the body has more than {limit} bytes, the limit of this gateway")]
    BodyTooLong { limit: usize },
    #[error("the form has more than {limit} fields, the limit of this gateway; send JSON")]
    Fields { limit: usize },
    #[error(
        "cannot read a body of type `{0}`; send `application/json`, `application/x-www-form-urlencoded` or `multipart/form-data`"
    )]
    MediaType(String),
    #[error("more than {limit} requests are being answered; try again in a second")]
    TooMany { limit: usize },
    #[error("the headers have more than {limit} bytes, the limit of this gateway")]
    Headers { limit: usize },
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("`faults` of this route made this error on purpose")]
    Injected(StatusCode),
    #[error("the registry has not told yet which nodes there are; try again in a second")]
    NotKnownYet,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("the service's answer is no complete JSON; see its log")]
    NotJson,
    #[error("{0}; see the service's log")]
    Answer(#[from] Broken),
}

/// Why a request is not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error("{message}")]
    Unproven {
        message: String,
        /// What `WWW-Authenticate` says.
        challenges: Vec<String>,
    },
    #[error("this caller may not use this route")]
    Caller { by_token: bool },
    #[error("requests from this address are not let in")]
    Address,
    #[error("what the header `{header}` should tell of the caller cannot stand in a header")]
    Untellable { header: String },
    #[error("too many requests, {limit} may come; try again in {retry_after_secs} s")]
    Rate { limit: String, retry_after_secs: u64 },
    #[error("{0}")]
    Origin(&'static str),
    #[error("too many passwords are being checked; try again in a second")]
    PasswordsBusy,
    #[error("the keys that tokens are checked with could not be read yet; try again in a second")]
    KeysAway,
}

impl Denied {
    /// What metrics call it; `None`: it is counted elsewhere, or nobody was denied for what it is.
    pub fn why(&self) -> Option<&'static str> {
        match self {
            Self::Unproven { .. } => Some("proof"),
            Self::Caller { .. } | Self::Untellable { .. } => Some("caller"),
            Self::Address => Some("address"),
            Self::Rate { .. } | Self::Origin(_) | Self::PasswordsBusy | Self::KeysAway => None,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Unproven { .. } => StatusCode::UNAUTHORIZED,
            Self::Caller { .. } | Self::Address | Self::Untellable { .. } | Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::Rate { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::PasswordsBusy | Self::KeysAway => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn retry_after_secs(&self) -> Option<u64> {
        match self {
            Self::Rate { retry_after_secs, .. } => Some(*retry_after_secs),
            Self::PasswordsBusy | Self::KeysAway => Some(1),
            _ => None,
        }
    }

    /// `WWW-Authenticate`, one field each.
    fn challenges(&self) -> impl Iterator<Item = &str> {
        let (several, one) = match self {
            Self::Unproven { challenges, .. } => (challenges.as_slice(), None),
            // RFC 6750 section 3.1
            Self::Caller { by_token: true } => (&[][..], Some("Bearer error=\"insufficient_scope\"")),
            _ => (&[][..], None),
        };
        several.iter().map(String::as_str).chain(one)
    }
}

impl Failure {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Ambiguous(_) | Self::Call(CallError::Request(_) | CallError::Body(_)) => {
                StatusCode::BAD_REQUEST
            }
            // never: it is 200 to 599
            Self::Rpc(error) => StatusCode::from_u16(error.status().to_http()).unwrap_or(StatusCode::BAD_GATEWAY),
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Denied(denied) => denied.status(),
            Self::Injected(status) => *status,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::SlowBody(_) => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLong { .. } | Self::Fields { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Headers { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NotKnownYet | Self::Call(CallError::NoNode(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Call(CallError::Deadline { .. }) | Self::Answer(Broken::Stalled(_) | Broken::Late(_)) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Call(CallError::Unreachable { .. } | CallError::Broken { .. }) | Self::NotJson | Self::Answer(_) => {
                StatusCode::BAD_GATEWAY
            }
        }
    }

    /// What the client reads: what is wrong and what to do. The addresses of nodes stay inside.
    fn message(&self) -> String {
        let advice = |what: &str, service: &str, advice: &str| format!("service `{service}` {what}; {advice}");
        match self {
            Self::Call(CallError::NoNode(
                error @ (PickError::Open { .. } | PickError::Full(_) | PickError::Shed(_)),
            )) => {
                format!("{error}; try again in {} s", self.retry_after_secs().unwrap_or(1))
            }
            Self::Call(CallError::NoNode(error)) => format!("{error}; start one or wait until one is back"),
            Self::Call(CallError::Unreachable { node, .. }) => {
                advice("cannot be reached", &node.id.service, "try again, or see whether its nodes run")
            }
            Self::Call(CallError::Broken { node, .. }) => {
                advice("gave no proper answer", &node.id.service, "see its log")
            }
            Self::Call(CallError::Deadline { node, after }) => {
                let what = format!("did not answer within {after:?}");
                advice(&what, &node.id.service, "try again, or give this action a longer `timeout`")
            }
            Self::Rpc(RpcError::NoNode(error)) => format!("{error}; start one or wait until one is back"),
            Self::Rpc(RpcError::Status { status, .. }) => status.message.clone(),
            Self::Rpc(RpcError::Request(error)) => error.to_string(),
            Self::Rpc(RpcError::Unreachable { node, .. }) => {
                advice("cannot be reached by rpc", &node.id.service, "try again, or see whether its nodes run")
            }
            Self::Rpc(RpcError::Deadline { node, after }) => {
                let what = format!("did not answer within {after:?}");
                advice(&what, &node.id.service, "try again, or give this action a longer `timeout`")
            }
            Self::Rpc(RpcError::Message(error)) => causes::chain(error),
            Self::Rpc(RpcError::Messages { node, source }) => match &**source {
                told @ (UnknownMessages::Untold(_) | UnknownMessages::Method { .. } | UnknownMessages::Late(_)) => {
                    format!("service `{}` cannot be called with JSON: {told}", node.id.service)
                }
                _ => advice(
                    "cannot be called with JSON",
                    &node.id.service,
                    "its messages are not known; see this gateway's log",
                ),
            },
            Self::Rpc(
                RpcError::Broken { node, .. }
                | RpcError::NotRpc { node, .. }
                | RpcError::Mucp { node, .. }
                | RpcError::Answer { node, .. },
            ) => advice("gave no proper answer by rpc", &node.id.service, "see its log"),
            other => other.to_string(),
        }
    }

    /// When asking again may help, where that is known.
    fn retry_after_secs(&self) -> Option<u64> {
        match self {
            Self::TooMany { .. } | Self::Call(CallError::NoNode(PickError::Full(_) | PickError::Shed(_))) => Some(1),
            Self::Call(CallError::NoNode(PickError::Open { retry_after, .. })) => {
                Some(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0))
            }
            Self::Denied(denied) => denied.retry_after_secs(),
            _ => None,
        }
    }

    /// The answer to the client.
    pub fn answer(&self, form: AnswerForm, wants_problem: bool, request_id: &str) -> HttpResponse<BoxBody> {
        let status = self.status();
        let (code, message) = (status.as_u16(), self.message());
        let mut content_type = HeaderValue::from_static("application/json");
        let of_go = match self {
            Self::Rpc(RpcError::Status { status, .. }) => GoError::parse(&status.message).map(|_| &status.message),
            _ => None,
        };
        let body = if let Some(error) = of_go {
            error.clone().into_bytes() // a Go Micro service's own error passes as it is
        } else if wants_problem {
            content_type = HeaderValue::from_static("application/problem+json");
            let title = status.canonical_reason().unwrap_or("");
            json(&Problem { kind: "about:blank", title, status: code, detail: &message, request_id })
        } else if form == AnswerForm::GoMs {
            json(&GoMs { code, data: (), message: &message })
        } else {
            json(&Goms { status: false, code, msg: &message, request_id })
        };
        let mut response = HttpResponseBuilder::new(status);
        response.insert_header((CONTENT_TYPE, content_type));
        if let Self::Method { allow } = self {
            response.insert_header((ALLOW, allow.as_str()));
        }
        if let Self::Denied(denied) = self {
            for challenge in denied.challenges() {
                response.append_header((WWW_AUTHENTICATE, challenge));
            }
        }
        if matches!(self, Self::Ambiguous(_)) {
            response.force_close();
        }
        if let Some(seconds) = self.retry_after_secs() {
            response.insert_header((RETRY_AFTER, seconds));
        }
        response.body(body)
    }
}

/// `{"status":false,"code":404,"msg":"…","requestId":"…"}`
#[derive(Serialize)]
struct Goms<'a> {
    status: bool,
    code: u16,
    msg: &'a str,
    #[serde(rename = "requestId")]
    request_id: &'a str,
}

/// go-ms: `{"code":404,"data":null,"message":"…"}`
#[derive(Serialize)]
struct GoMs<'a> {
    code: u16,
    data: (),
    message: &'a str,
}

/// RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(rename = "requestId")]
    request_id: &'a str,
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // only a map with keys that are no strings can fail, and there is none here
    serde_json::to_vec(value).unwrap_or_default()
}

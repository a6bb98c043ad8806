//! What can go wrong in a service, and what a caller is told of it.

use std::borrow::Cow;

use serde::Serialize;

/// What a handler answers when it cannot do what was asked: an HTTP status and a message for the caller. Written as
/// `{"status":false,"code":404,"msg":"…","requestId":"…"}`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    status: u16,
    message: Cow<'static, str>,
}

impl ServiceError {
    /// An error with a status of 400 to 599 (anything else becomes 500) and what the caller should know.
    #[must_use]
    pub fn new(status: u16, message: impl Into<Cow<'static, str>>) -> Self {
        let status = if (400..=599).contains(&status) { status } else { 500 };
        Self { status, message: message.into() }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// What the caller is told.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The body of the answer.
    pub(super) fn to_json(&self, request_id: &str) -> Vec<u8> {
        let failure = Failure { status: false, code: self.status, msg: &self.message, request_id };
        // a struct of strings and numbers always becomes JSON
        serde_json::to_vec(&failure).unwrap_or_else(|_| br#"{"status":false}"#.to_vec())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    status: bool,
    code: u16,
    msg: &'a str,
    request_id: &'a str,
}

/// Why a node of a service could not begin to serve.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve on the listener of service `{service}`")]
pub struct ServeError {
    /// The service.
    pub service: String,
    /// What went wrong.
    #[source]
    pub source: std::io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_status_message_and_request() {
        let error = ServiceError::new(404, "no user `7`");
        let json = String::from_utf8(error.to_json("cdb08456-d8a7-4d53-93c2-a5e3f01f56d6")).unwrap();
        assert_eq!(
            json,
            r#"{"status":false,"code":404,"msg":"no user `7`","requestId":"cdb08456-d8a7-4d53-93c2-a5e3f01f56d6"}"#
        );
        assert_eq!(ServiceError::new(200, "not an error").status(), 500);
    }
}

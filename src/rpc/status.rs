//! What became of a call: gRPC's codes beside HTTP's statuses and Go Micro's errors.
//!
//! Source: <https://github.com/grpc/grpc/blob/master/doc/statuscodes.md> and `PROTOCOL-HTTP2.md` beside it; the statuses are
//! those of `google/rpc/code.proto`, as far as Go Micro (`server/grpc/error.go`) has no other.

use std::fmt::Write;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http_v1::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// A code of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// Every code, by its number, with its name in the specification.
const CODES: [(Code, &str); 17] = [
    (Code::Ok, "OK"),
    (Code::Cancelled, "CANCELLED"),
    (Code::Unknown, "UNKNOWN"),
    (Code::InvalidArgument, "INVALID_ARGUMENT"),
    (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
    (Code::NotFound, "NOT_FOUND"),
    (Code::AlreadyExists, "ALREADY_EXISTS"),
    (Code::PermissionDenied, "PERMISSION_DENIED"),
    (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"),
    (Code::FailedPrecondition, "FAILED_PRECONDITION"),
    (Code::Aborted, "ABORTED"),
    (Code::OutOfRange, "OUT_OF_RANGE"),
    (Code::Unimplemented, "UNIMPLEMENTED"),
    (Code::Internal, "INTERNAL"),
    (Code::Unavailable, "UNAVAILABLE"),
    (Code::DataLoss, "DATA_LOSS"),
    (Code::Unauthenticated, "UNAUTHENTICATED"),
];

impl Code {
    /// The code of a number; one that is not known is `Unknown`, as the specification wants it.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        usize::try_from(number).ok().and_then(|at| CODES.get(at)).map_or(Self::Unknown, |known| known.0)
    }

    /// `NOT_FOUND`.
    #[must_use]
    pub fn name(self) -> &'static str {
        CODES[self as usize].1
    }

    /// The code that tells a client of gRPC what this status (100 to 599) tells one of HTTP.
    #[must_use]
    pub fn from_http(status: u16) -> Self {
        match status {
            100..=399 => Self::Ok,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::NotFound,
            408 | 504 => Self::DeadlineExceeded,
            409 => Self::AlreadyExists,
            412 => Self::FailedPrecondition,
            413 | 429 => Self::ResourceExhausted,
            499 => Self::Cancelled,
            400..=498 => Self::InvalidArgument,
            501 => Self::Unimplemented,
            500 => Self::Internal,
            502 | 503 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }

    /// The status that tells a client of HTTP what this code tells one of gRPC.
    #[must_use]
    pub fn to_http(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Cancelled => 499,
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => 400,
            Self::DeadlineExceeded => 504,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Aborted => 409,
            Self::PermissionDenied => 403,
            Self::ResourceExhausted => 429,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::Unauthenticated => 401,
            Self::Unknown | Self::Internal | Self::DataLoss => 500,
        }
    }

    /// What an answer of HTTP means that has no `grpc-status` (`doc/http-grpc-status-mapping.md`): it came from a proxy, or
    /// from a server that knows no gRPC.
    #[must_use]
    pub fn of_foreign_answer(status: u16) -> Self {
        match status {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502..=504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct Status {
    /// gRPC's code.
    pub code: Code,
    /// What the caller is told; of a Go Micro node its [`GoError`] as JSON.
    pub message: String,
    /// A `google.rpc.Status` in protobuf; empty for none.
    pub details: Bytes,
    /// The HTTP status that the callee meant, where the code alone would say another.
    pub http: Option<u16>,
}

/// An error as Go Micro writes it into the message of a status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoError {
    /// Who failed: `go.micro.srv.greeter`.
    #[serde(default)]
    pub id: String,
    /// An HTTP status.
    pub code: i32,
    /// What went wrong.
    #[serde(default)]
    pub detail: String,
    /// The status in words: `Not Found`.
    #[serde(default)]
    pub status: String,
}

impl GoError {
    /// Reads the message of a status.
    #[must_use]
    pub fn parse(message: &str) -> Option<Self> {
        message.starts_with('{').then(|| serde_json::from_str(message).ok()).flatten()
    }

    /// The HTTP status, where it is one of an error.
    #[must_use]
    pub fn http(&self) -> Option<u16> {
        u16::try_from(self.code).ok().filter(|code| (400..=599).contains(code))
    }
}

/// The number of the code.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// What went wrong, percent-encoded.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// [`Status::details`] in base64.
pub const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// [`Status::http`], between nodes of goms.
pub const GOMS_HTTP_STATUS: HeaderName = HeaderName::from_static("goms-http-status");
/// Base64 of headers: written without padding, read with and without.
const BINARY: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Status {
    /// A status with a message.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Bytes::new(), http: None }
    }

    /// It went well.
    #[must_use]
    pub fn ok() -> Self {
        Self::new(Code::Ok, "")
    }

    /// What an HTTP status (400 to 599) and a message say.
    #[must_use]
    pub fn of_http(status: u16, message: impl Into<String>) -> Self {
        let code = Code::from_http(status);
        Self { http: (code.to_http() != status).then_some(status), ..Self::new(code, message) }
    }

    /// The HTTP status: the callee's own where it named one (Go Micro in its message), else that of the code.
    #[must_use]
    pub fn to_http(&self) -> u16 {
        if self.code == Code::Ok {
            return 200;
        }
        let named = || GoError::parse(&self.message).and_then(|error| error.http());
        self.http.or_else(named).unwrap_or_else(|| self.code.to_http())
    }

    /// The same with its message in Go Micro's form, for callers that read it. `id` is who failed.
    #[must_use]
    pub fn in_go_form(mut self, id: &str) -> Self {
        if self.code == Code::Ok || GoError::parse(&self.message).is_some() {
            return self;
        }
        let code = self.to_http();
        let words = http_v1::StatusCode::from_u16(code).ok().and_then(|status| status.canonical_reason());
        let error = GoError {
            id: id.to_owned(),
            code: i32::from(code),
            detail: std::mem::take(&mut self.message),
            status: words.unwrap_or_default().to_owned(),
        };
        // strings and a number always become JSON
        self.message = serde_json::to_string(&error).unwrap_or(error.detail);
        self
    }

    /// Adds it to trailers.
    pub fn put(&self, trailers: &mut HeaderMap) {
        trailers.insert(GRPC_STATUS, HeaderValue::from(self.code as u16));
        if !self.message.is_empty()
            && let Ok(message) = HeaderValue::from_str(&percent_encoded(&self.message))
        {
            trailers.insert(GRPC_MESSAGE, message);
        }
        if !self.details.is_empty()
            && let Ok(details) = HeaderValue::from_str(&BINARY.encode(&self.details))
        {
            trailers.insert(GRPC_DETAILS, details);
        }
        if let Some(http) = self.http {
            trailers.insert(GOMS_HTTP_STATUS, HeaderValue::from(http));
        }
    }

    /// As trailers.
    #[must_use]
    pub fn to_trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(2);
        self.put(&mut trailers);
        trailers
    }

    /// Reads trailers (or the head of an answer that is nothing but trailers); `None` where they tell no status.
    #[must_use]
    pub fn from_trailers(trailers: &HeaderMap) -> Option<Self> {
        let number = trailers.get(GRPC_STATUS)?.to_str().ok().and_then(|number| number.parse().ok());
        let text = |name| trailers.get(name).map(HeaderValue::as_bytes);
        let details = text(GRPC_DETAILS).and_then(|details| BINARY.decode(details).ok()).unwrap_or_default();
        let http = text(GOMS_HTTP_STATUS).and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        Some(Self {
            code: number.map_or(Code::Unknown, Code::from_number),
            message: text(GRPC_MESSAGE).map(percent_decoded).unwrap_or_default(),
            details: details.into(),
            http: http.filter(|status| (400..=599).contains(status)),
        })
    }
}

/// `a%b` → `a%25b`: all but printable ASCII is encoded, of its UTF-8.
fn percent_encoded(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else if write!(out, "%{byte:02X}").is_err() {
            return out; // a String takes everything
        }
    }
    out
}

/// The way back; what is no encoding stays as it is.
fn percent_decoded(message: &[u8]) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(message.len());
    let mut rest = message;
    while let [byte, after @ ..] = rest {
        let encoded = match after {
            [high, low, ..] if *byte == b'%' => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match encoded {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = &after[2..];
            }
            None => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_comes_back_from_its_trailers() {
        for status in [
            Status::ok(),
            Status::new(Code::NotFound, "100 % gone, gr\u{fc}\u{df}e\n\u{1f980}"),
            Status { details: Bytes::from_static(&[8, 5, 18, 0]), ..Status::new(Code::Aborted, "%zz %4") },
            Status::of_http(422, "no"),
        ] {
            assert_eq!(Status::from_trailers(&status.to_trailers()), Some(status));
        }
        assert_eq!(Status::from_trailers(&HeaderMap::new()), None);
        let mut odd = HeaderMap::new();
        odd.insert(GRPC_STATUS, HeaderValue::from_static("99"));
        odd.insert(GRPC_MESSAGE, HeaderValue::from_static("%"));
        assert_eq!(Status::from_trailers(&odd), Some(Status::new(Code::Unknown, "%")));
    }

    #[test]
    fn codes_and_http_statuses_tell_the_same() {
        for (code, status) in [(Code::NotFound, 404), (Code::DeadlineExceeded, 504), (Code::Unavailable, 503)] {
            assert_eq!((Code::from_http(status), code.to_http()), (code, status));
        }
        for (number, (code, name)) in CODES.iter().enumerate() {
            assert_eq!((*code as usize, code.name()), (number, *name));
        }
        let teapot = Status::of_http(418, "tea");
        assert_eq!((teapot.code, teapot.to_http()), (Code::InvalidArgument, 418));
        assert_eq!(Status::of_http(404, "").http, None);
    }

    #[test]
    fn go_micros_error_goes_both_ways() {
        let status = Status::of_http(404, "no user `7`").in_go_form("greeter");
        assert_eq!(status.message, r#"{"id":"greeter","code":404,"detail":"no user `7`","status":"Not Found"}"#);
        assert_eq!(status.clone().in_go_form("other"), status);
        let theirs = Status::new(Code::Unknown, r#"{"id":"a","code":418,"detail":"d","status":"s"}"#);
        assert_eq!(theirs.to_http(), 418);
        assert_eq!(Status::new(Code::Internal, "{").to_http(), 500);
        assert_eq!(Status::new(Code::Internal, r#"{"code":200}"#).to_http(), 500);
    }
}

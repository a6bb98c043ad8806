//! How messages are written: named by the content type.

use http_v1::HeaderValue;

use super::status::{Code, Status};

/// How the messages of a call are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Protobuf: `application/grpc`, `application/grpc+proto`.
    Proto,
    /// JSON: `application/grpc+json`.
    Json,
}

/// Why a content type names no codec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It is not gRPC at all: such a request is answered 415.
    #[error("the content type `{0}` is not that of gRPC; send application/grpc+json or application/grpc")]
    NotGrpc(String),
    /// No such codec.
    #[error("there is no codec `{0}`; send application/grpc+json or application/grpc (protobuf)")]
    Unknown(String),
}

impl From<&CodecError> for Status {
    fn from(error: &CodecError) -> Self {
        Self::new(Code::Unimplemented, error.to_string())
    }
}

impl Codec {
    /// Reads a content type; what follows a `;` says nothing.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn of_content_type(content_type: Option<&[u8]>) -> Result<Self, CodecError> {
        let text = content_type.unwrap_or_default();
        let name = text.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        let shown = || String::from_utf8_lossy(name).into_owned();
        let Some((grpc, rest)) = name.split_at_checked("application/grpc".len()) else {
            return Err(CodecError::NotGrpc(shown()));
        };
        if !grpc.eq_ignore_ascii_case(b"application/grpc") {
            return Err(CodecError::NotGrpc(shown()));
        }
        match rest {
            b"" | b"+proto" => Ok(Self::Proto),
            b"+json" => Ok(Self::Json),
            [b'+', other @ ..] => Err(CodecError::Unknown(String::from_utf8_lossy(other).into_owned())),
            _ => Err(CodecError::NotGrpc(shown())),
        }
    }

    /// The content type.
    #[must_use]
    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Proto => "application/grpc",
            Self::Json => "application/grpc+json",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_name_codecs() {
        let of = |text: &'static str| Codec::of_content_type(Some(text.as_bytes()));
        for proto in ["application/grpc", "application/grpc+proto", "Application/gRPC; charset=utf-8"] {
            assert_eq!(of(proto), Ok(Codec::Proto), "{proto}");
        }
        assert_eq!(of("application/grpc+json"), Ok(Codec::Json));
        assert_eq!(of("application/grpc+thrift"), Err(CodecError::Unknown("thrift".to_owned())));
        for not in ["application/json", "application/grpc-web", "text/html", ""] {
            assert_eq!(of(not), Err(CodecError::NotGrpc(not.to_owned())));
        }
        assert_eq!(Codec::of_content_type(None), Err(CodecError::NotGrpc(String::new())));
    }
}

//! How a call by gRPC-Web and its answer are written.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http_v1::HeaderMap;

use super::super::pass::keep_up;
use crate::rpc::frame::Decoder;
use crate::rpc::{Code, MESSAGE_BYTES, Status};

/// The first byte of the frame that holds trailers.
const TRAILERS: u8 = 0x80;

/// The forms of a call: how it is written, and in what.
const FORMS: [(&str, bool, &str); 6] = [
    ("application/grpc-web", false, "application/grpc"),
    ("application/grpc-web+proto", false, "application/grpc+proto"),
    ("application/grpc-web+json", false, "application/grpc+json"),
    ("application/grpc-web-text", true, "application/grpc"),
    ("application/grpc-web-text+proto", true, "application/grpc+proto"),
    ("application/grpc-web-text+json", true, "application/grpc+json"),
];

/// The form of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// What the answer is, too.
    content_type: &'static str,
    is_text: bool,
    /// What the service gets.
    pub grpc: &'static str,
}

impl Form {
    /// By a request's content type.
    pub fn of(kind: &str) -> Option<Self> {
        let known = FORMS.iter().find(|(name, ..)| kind.eq_ignore_ascii_case(name));
        known.map(|&(content_type, is_text, grpc)| Self { content_type, is_text, grpc })
    }

    /// Part of an answer as the client gets it: in base64 each has its own padding, which clients must bear.
    pub fn part(self, bytes: Bytes) -> Bytes {
        if self.is_text { STANDARD.encode(&bytes).into() } else { bytes }
    }

    /// The frame of a request, which has one.
    pub fn message(self, body: Bytes) -> Result<Bytes, Status> {
        let bytes = if self.is_text { decoded(&body)? } else { body };
        let mut decoder = Decoder::new(MESSAGE_BYTES);
        decoder.push(bytes.clone());
        let mut messages = 0;
        while decoder.message().map_err(|error| Status::from(&error))?.is_some() {
            messages += 1;
        }
        decoder.end().map_err(|error| Status::from(&error))?;
        match messages {
            1 => Ok(bytes),
            several => {
                let why = format!("a call by gRPC-Web has one message, this one has {several}");
                Err(Status::new(Code::InvalidArgument, why))
            }
        }
    }

    /// The head of an answer, with what of the node's is for clients; its status stands in the last frame.
    pub fn head(self, answered: &HeaderMap) -> HttpResponse {
        let mut kept = answered.clone();
        keep_up(&mut kept);
        let mut head = HttpResponse::new(StatusCode::OK);
        for (name, value) in &kept {
            let is_status =
                ["grpc-status", "grpc-message", "grpc-status-details-bin", "content-type"].contains(&name.as_str());
            if !is_status
                && let Ok(name) = HeaderName::from_bytes(name.as_str().as_bytes())
                && let Ok(value) = HeaderValue::from_bytes(value.as_bytes())
            {
                head.headers_mut().append(name, value);
            }
        }
        head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        head
    }
}

/// Base64 in pieces, each of which may end with padding.
fn decoded(text: &[u8]) -> Result<Bytes, Status> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut rest = text.trim_ascii();
    while !rest.is_empty() {
        let padding = rest.iter().position(|&byte| byte == b'=');
        let end = padding.map_or(rest.len(), |at| (at / 4 + 1) * 4).min(rest.len());
        let (piece, after) = rest.split_at(end);
        let decoded = STANDARD.decode_vec(piece, &mut out);
        decoded.map_err(|error| Status::new(Code::InvalidArgument, format!("the body is no base64: {error}")))?;
        rest = after;
    }
    Ok(out.into())
}

/// The frame of trailers.
pub(super) fn trailers(fields: &HeaderMap) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    out.put_u8(TRAILERS);
    out.put_u32(0);
    for (name, value) in fields {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    let length = u32::try_from(out.len() - 5).unwrap_or(u32::MAX);
    out[1..5].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::frame::framed;

    const TEXT: Form = Form { content_type: "", is_text: true, grpc: "" };
    const PLAIN: Form = Form { content_type: "", is_text: false, grpc: "" };

    #[test]
    fn base64_comes_in_pieces() {
        let frame = framed(b"abcd");
        let pieces = [STANDARD.encode(&frame[..1]), STANDARD.encode(&frame[1..6]), STANDARD.encode(&frame[6..])];
        assert_eq!(TEXT.message(pieces.concat().into()).unwrap(), frame);
        assert_eq!(TEXT.message(STANDARD.encode(&frame).into()).unwrap(), frame);
        assert_eq!(PLAIN.message(frame.clone()).unwrap(), frame);
    }

    #[test]
    fn what_is_no_call_is_told() {
        let two = [framed(b"a"), framed(b"b")].concat();
        let cut = framed(b"abc").slice(..6);
        for (form, body, code) in [
            (TEXT, Bytes::from_static(b"AAA"), Code::InvalidArgument),
            (TEXT, Bytes::from_static(b"A=AA"), Code::InvalidArgument),
            (TEXT, Bytes::from_static(b"!!!!"), Code::InvalidArgument),
            (PLAIN, Bytes::new(), Code::InvalidArgument),
            (PLAIN, two.into(), Code::InvalidArgument),
            (PLAIN, cut, Code::Internal),
            (PLAIN, Bytes::from_static(&[0, 0xff, 0, 0, 0]), Code::ResourceExhausted),
            (PLAIN, Bytes::from_static(&[1, 0, 0, 0, 0]), Code::Unimplemented),
            (PLAIN, Bytes::from_static(&[0x80, 0, 0, 0, 0]), Code::Internal),
        ] {
            assert_eq!(form.message(body.clone()).unwrap_err().code, code, "{body:?}");
        }
    }

    #[test]
    fn trailers_are_a_frame() {
        let frame = trailers(&Status::new(Code::NotFound, "no ä").to_trailers());
        let text = "grpc-status: 5\r\ngrpc-message: no %C3%A4\r\n";
        assert_eq!((frame[0], &frame[1..5]), (0x80, &(text.len() as u32).to_be_bytes()[..]));
        assert_eq!(&frame[5..], text.as_bytes());
    }
}

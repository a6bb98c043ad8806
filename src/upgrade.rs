//! A client that asks for the WebSocket protocol (RFC 6455 section 4.1; RFC 9110 section 7.8), as the servers that pass
//! requests on see it.
//!
//! May import: `upstream`.

use actix_web::dev::{Payload, RequestHead, ResponseHead};
use actix_web::http::header::{HeaderValue, UPGRADE};
use actix_web::http::{ConnectionType, Method, Version};
use futures_util::StreamExt;

use crate::upstream::{BodyStream, PROTOCOL};

/// Whether an `Upgrade` field names it: the server below then takes all that follows for no body of a known length.
fn is_named(request: &RequestHead) -> bool {
    let names = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(PROTOCOL);
    request.headers().get_all(UPGRADE).any(names)
}

/// Whether it may be granted: HTTP/1.1 only, since HTTP/2 has another way (RFC 8441).
pub(crate) fn is_asked(request: &RequestHead) -> bool {
    request.method == Method::GET && request.version == Version::HTTP_11 && request.upgrade() && is_named(request)
}

/// Whether it must be refused: what announces a body besides, ends in two places for two readers.
pub(crate) fn is_ambiguous(request: &RequestHead, has_body: bool) -> bool {
    has_body && is_named(request)
}

/// What the client sends once it is granted.
pub(crate) fn parts(payload: Payload) -> BodyStream {
    Box::pin(payload.map(|part| part.map_err(Into::into)))
}

/// Says so in the answer.
pub(crate) fn grant(head: &mut ResponseHead) {
    head.set_connection_type(ConnectionType::Upgrade);
    head.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
}

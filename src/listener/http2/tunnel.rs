//! WebSocket by HTTP/2 (RFC 8441): a stream of `CONNECT` with `:protocol: websocket` is handed on as the request for an upgrade that it
//! would be by HTTP/1.1, which is what services take, and the `101` of its answer is `200` here.

use actix_http::RequestHead;
use actix_web::http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, UPGRADE};
use actix_web::http::{Method, StatusCode, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;

/// What proves by HTTP/1.1 that the other side speaks WebSocket; HTTP/2 does without (section 5).
pub(super) const ACCEPT: HeaderName = actix_web::http::header::SEC_WEBSOCKET_ACCEPT;

const WEBSOCKET: &str = "websocket";

/// Whether a stream asks for WebSocket.
pub(super) fn is_asked<B>(request: &http::Request<B>) -> bool {
    let named = request.extensions().get::<Protocol>().map(Protocol::as_str);
    request.method() == Method::CONNECT && named.is_some_and(|named| named.eq_ignore_ascii_case(WEBSOCKET))
}

/// Makes it what it would be by HTTP/1.1.
///
/// # Errors
/// A length, which no tunnel has.
pub(super) fn as_upgrade(head: &mut RequestHead) -> Result<(), &'static str> {
    if head.headers.contains_key(CONTENT_LENGTH) {
        return Err("it asks for WebSocket and announces a body");
    }
    // 16 bytes, of which it need not be known how they are chosen (RFC 6455 section 4.1): the service must repeat them
    let key = STANDARD.encode(uuid::Uuid::new_v4().as_bytes());
    let key = HeaderValue::from_str(&key).map_err(|_| "its key cannot be written")?; // never: it is Base64
    head.headers.insert(SEC_WEBSOCKET_KEY, key);
    head.headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    (head.method, head.version) = (Method::GET, Version::HTTP_11);
    Ok(())
}

/// The status of an answer to it. A service that answers 2xx has not granted anything, which the client would take it for.
pub(super) fn status(answered: StatusCode) -> StatusCode {
    match answered {
        StatusCode::SWITCHING_PROTOCOLS => StatusCode::OK,
        other if other.is_success() => StatusCode::BAD_GATEWAY,
        other => other,
    }
}

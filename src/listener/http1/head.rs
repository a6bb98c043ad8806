//! A request's head, read strictly: what two readers could take for two different requests is refused (RFC 9112).

use std::mem::MaybeUninit;

use actix_http::header::HeaderMap;
use actix_http::{ConnectionType, Request};
use actix_web::http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use actix_web::http::{Method, StatusCode, Uri, Version};
use bytes::BytesMut;

use crate::framing::{Framing, whole_number};

/// Fields of a head.
const MAX_FIELDS: usize = 96;
/// Bytes of a head that is not complete; the gateway's own limit is below it.
const HEAD_BYTES: usize = 128 << 10;

/// A request without its body, and what its head says of that and of the connection.
pub(super) struct Head {
    pub request: Request<()>,
    pub framing: Framing,
    /// It asks for WebSocket, in which what follows is no request.
    pub is_upgrade: bool,
    /// The client sends its body only when it is told to.
    pub waits: bool,
    /// The client may send another request on the connection.
    pub keeps: bool,
}

/// Where name and value of a field stand.
pub(super) type Places = Vec<[u32; 4]>;

/// Takes a head from the front of `input`; `None` while it is not complete. `places` is memory that is used again.
///
/// # Errors
/// With which status it is refused: 400, 431.
pub(super) fn take(input: &mut BytesMut, places: &mut Places) -> Result<Option<Head>, StatusCode> {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(input, &mut fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if input.len() < HEAD_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        Err(_) => return Err(BAD),
    };
    let base = input.as_ptr() as usize;
    let place = |part: &[u8]| {
        let from = part.as_ptr() as usize - base;
        [from as u32, (from + part.len()) as u32] // a head is shorter than 4 GiB
    };
    let method = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes()).map_err(|_| BAD)?;
    let target = place(parsed.path.unwrap_or_default().as_bytes());
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    places.clear();
    for field in parsed.headers.iter() {
        let ([name, name_end], [value, value_end]) = (place(field.name.as_bytes()), place(field.value));
        places.push([name, name_end, value, value_end]);
    }
    let raw = input.split_to(length).freeze();
    let part = |from: u32, to: u32| raw.slice(from as usize..to as usize);
    let mut request = Request::with_payload(actix_http::Payload::None);
    let head = request.head_mut();
    head.uri = Uri::from_maybe_shared(part(target[0], target[1])).map_err(|_| BAD)?;
    for &[name, name_end, value, value_end] in places.iter() {
        let name = HeaderName::from_bytes(&raw[name as usize..name_end as usize]).map_err(|_| BAD)?;
        let value = HeaderValue::from_maybe_shared(part(value, value_end)).map_err(|_| BAD)?;
        head.headers.append(name, value);
    }
    let manner = Manner::of(&head.headers, version).ok_or(BAD)?;
    if version == Version::HTTP_10 && method == Method::POST && manner.length.is_none() {
        return Err(BAD); // RFC 1945 section 7.2.2
    }
    if let Some(connection) = manner.connection {
        head.set_connection_type(connection);
    }
    let framing = match (manner.is_chunked, manner.length) {
        (true, _) => Framing::Chunked,
        (false, Some(bytes)) => Framing::Length(bytes),
        (false, None) => Framing::NoBody,
    };
    let has_body = !matches!(framing, Framing::NoBody | Framing::Length(0));
    let keeps = match manner.connection {
        Some(ConnectionType::Close) => false,
        Some(ConnectionType::KeepAlive) => true,
        Some(ConnectionType::Upgrade) | None => version == Version::HTTP_11,
    };
    let is_upgrade = manner.connection == Some(ConnectionType::Upgrade) && manner.names_websocket && !has_body;
    // a tunnel that is refused may bring what is meant for its other end
    let keeps = keeps && method != Method::CONNECT;
    (head.method, head.version) = (method, version);
    Ok(Some(Head { request, framing, is_upgrade, waits: manner.waits && has_body, keeps }))
}

/// What the fields say of the body and the connection.
#[derive(Default)]
struct Manner {
    length: Option<u64>,
    is_chunked: bool,
    connection: Option<ConnectionType>,
    names_websocket: bool,
    waits: bool,
}

impl Manner {
    /// `None`: they can be read in two ways.
    fn of(fields: &HeaderMap, version: Version) -> Option<Self> {
        let is_new = version == Version::HTTP_11;
        let (mut manner, mut hosts) = (Self::default(), 0);
        for (name, value) in fields {
            match *name {
                HOST => hosts += 1,
                CONTENT_LENGTH if manner.length.is_some() => return None,
                CONTENT_LENGTH => manner.length = Some(whole_number(value.as_bytes())?),
                TRANSFER_ENCODING => {
                    // anything else is not known here, and HTTP/1.0 has none
                    let is_known = is_new && !manner.is_chunked && value.as_bytes().eq_ignore_ascii_case(b"chunked");
                    manner.is_chunked = is_known.then_some(true)?;
                }
                CONNECTION => manner.connection(value.as_bytes()),
                UPGRADE => manner.names_websocket |= value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"),
                EXPECT if is_new => manner.waits |= value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"100-continue"),
                _ => {}
            }
        }
        // RFC 9112 section 3.2
        let is_named = hosts == 1 || (hosts == 0 && !is_new);
        (is_named && !(manner.is_chunked && manner.length.is_some())).then_some(manner)
    }

    /// `close` goes before the others.
    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"close") {
                self.connection = Some(ConnectionType::Close);
            } else if option.eq_ignore_ascii_case(b"upgrade") && self.connection != Some(ConnectionType::Close) {
                self.connection = Some(ConnectionType::Upgrade);
            } else if option.eq_ignore_ascii_case(b"keep-alive") && self.connection.is_none() {
                self.connection = Some(ConnectionType::KeepAlive);
            }
        }
    }
}

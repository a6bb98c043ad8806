//! HTTP/2 to a client (RFC 9113). actix-http's own dispatcher cannot say goodbye: it sends no GOAWAY when a server ends, and
//! has no limit of streams, of heads, or of idle time.
//!
//! A connection and its streams are one task: when the connection is gone, so are its requests.
//!
//! A client that waits with `Expect: 100-continue` hears the final status only (RFC 9110 section 10.1.1 bids it not to wait without
//! end): the h2 crate's 0.3, which actix-http's types ask for, sends no interim answers.

mod tunnel;

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use actix_http::body::MessageBody;
use actix_http::error::PayloadError;
use actix_http::header::HeaderMap;
use actix_http::{BoxedPayloadStream, Payload, Request};
use actix_web::body::BodySize;
use actix_web::http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, DATE, HOST, HeaderName, HeaderValue, HttpDate, TRANSFER_ENCODING,
    TryIntoHeaderValue, UPGRADE,
};
use actix_web::http::{Method, StatusCode, Version};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::uri::PathAndQuery;
use std::future::poll_fn;

use super::connection::Connection;
use super::incoming::Incoming;
use super::peer::Peer;
use super::{Answered, Answers, Shared};

/// Requests at once on a connection; as nginx. Those that a client resets count until they are cleared away, of which
/// the h2 crate keeps 20 at most before it ends the connection (the "rapid reset" of CVE-2023-44487).
const STREAMS: u32 = 128;
/// How much of a body a client may send before it was read: a stream, and all of a connection together.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// How much of an answer may wait for the client, a stream.
const SEND_BUFFER: usize = 128 << 10;
/// The part of an answer that is handed over at once; h2's usual frame.
const PART: usize = 16 << 10;
/// Bytes of a head: names, values and 32 for each field (section 6.5.2). A longer one is answered 431 by h2; as much as
/// actix-http takes by HTTP/1.1, and more than the application's own limit can be.
const HEAD: u32 = 128 << 10;
/// How long a client without a request may take to go once it was told to.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves a connection to its end.
pub(super) async fn serve<A>(connection: Connection, peer: &Rc<Peer>, app: &A, shared: &Shared)
where
    A: Answers,
{
    let limits = &shared.limits;
    let handshake = builder().handshake::<_, Bytes>(connection);
    let mut http2 = match tokio::time::timeout(limits.header_timeout, handshake).await {
        Ok(Ok(http2)) => http2,
        Ok(Err(error)) => return log::debug!("no http/2 handshake client={} error=\"{error}\"", peer.ip()),
        Err(_) => return log::debug!("no http/2 handshake in time client={}", peer.ip()),
    };
    let mut streams = FuturesUnordered::new();
    let mut stopping = pin!(shared.stopping.notified());
    let mut idle = pin!(tokio::time::sleep(limits.idle_timeout));
    let mut is_ending = false;
    loop {
        let wait = tokio::select! {
            biased;
            Some(()) = streams.next(), if !streams.is_empty() => limits.idle_timeout,
            accepted = http2.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    streams.push(answer(request, respond, peer, app, limits.send_timeout));
                    if shared.traffic.is_draining() && !is_ending {
                        is_ending = true;
                        http2.graceful_shutdown();
                    }
                    continue;
                }
                Some(Err(error)) => return log::debug!("http/2 ended client={} error=\"{error}\"", peer.ip()),
                None => return,
            },
            () = &mut stopping, if !is_ending => {
                is_ending = true;
                http2.graceful_shutdown();
                FAREWELL
            }
            () = &mut idle, if streams.is_empty() => {
                if is_ending {
                    return;
                }
                is_ending = true;
                http2.graceful_shutdown();
                FAREWELL
            }
        };
        let wait = if is_ending { FAREWELL } else { wait };
        idle.as_mut().reset(tokio::time::Instant::now() + wait);
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEAD)
        .enable_connect_protocol();
    builder
}

/// One request to the end of its answer.
async fn answer<A>(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: &Rc<Peer>,
    app: &A,
    patience: Duration,
) where
    A: Answers,
{
    let form = Form { is_head: request.method() == Method::HEAD, is_tunnel: tunnel::is_asked(&request) };
    let (request, payload) = match request_of(request, peer) {
        Ok(both) => both,
        Err(why) => {
            log::debug!("a request of http/2 was refused client={} error=\"{why}\"", peer.ip());
            let mut refused = http::Response::new(());
            *refused.status_mut() = StatusCode::BAD_REQUEST;
            // an error is a client that has gone
            return drop(respond.send_response(refused, true));
        }
    };
    let answered = tokio::select! {
        biased;
        _ = poll_fn(|task| respond.poll_reset(task)) => return, // dropping the call ends it
        answered = app.answer(request, payload) => answered,
    };
    let sent = send(answered, respond, form, patience).await;
    if let Err(error) = sent {
        log::debug!("an answer of http/2 was not sent client={} error=\"{error}\"", peer.ip());
    }
}

/// What the application gets, as if it came by HTTP/1.1.
///
/// # Errors
/// Why it could be understood in two ways.
fn request_of(request: http::Request<RecvStream>, peer: &Rc<Peer>) -> Result<(Incoming, Payload), &'static str> {
    let is_tunnel = tunnel::is_asked(&request);
    let (parts, body) = request.into_parts();
    let payload =
        if body.is_end_stream() { Payload::None } else { Payload::from(Box::pin(Upload(body)) as BoxedPayloadStream) };
    let mut request = Request::with_payload(Payload::None);
    let head = request.head_mut();
    head.headers = HeaderMap::from(parts.headers);
    name_host(&mut head.headers, parts.uri.authority().map(|authority| authority.as_str()))?;
    if head.headers.get_all(CONTENT_LENGTH).count() > 1 {
        return Err("it has two lengths");
    }
    join_cookies(&mut head.headers)?;
    head.uri = match parts.uri.path_and_query() {
        Some(target) => target.clone().into(),
        None => PathAndQuery::from_static("/").into(), // CONNECT, which has no path
    };
    head.method = parts.method;
    head.version = Version::HTTP_2;
    if is_tunnel {
        tunnel::as_upgrade(head)?;
    }
    head.peer_addr = peer.address;
    Ok((Incoming::new(request, Some(peer.clone())), payload))
}

/// `:authority` is the host; a `Host` beside it must say the same (RFC 9113 section 8.3.1).
fn name_host(headers: &mut HeaderMap, authority: Option<&str>) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(HOST);
    match (authority, hosts.next(), hosts.next()) {
        (_, _, Some(_)) => Err("it has two Hosts"),
        (None, None, None) => Err("it has no host"),
        (None, Some(_), None) => Ok(()),
        (Some(authority), Some(host), None) if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => {
            Err("its Host is not its :authority")
        }
        (Some(_), Some(_), None) => Ok(()),
        (Some(authority), None, None) => {
            let host = HeaderValue::from_str(authority).map_err(|_| "its :authority is no host")?;
            headers.insert(HOST, host);
            Ok(())
        }
    }
}

/// Clients may send a field for each cookie, but services expect one (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Result<(), &'static str> {
    if headers.get_all(COOKIE).count() < 2 {
        return Ok(());
    }
    let mut joined = BytesMut::new();
    for crumb in headers.get_all(COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb.as_bytes());
    }
    let joined = HeaderValue::from_maybe_shared(joined.freeze()).map_err(|_| "its cookies cannot be joined")?;
    headers.insert(COOKIE, joined);
    Ok(())
}

/// A client's body. What was handed on may come again, and no more.
struct Upload(RecvStream);

impl Stream for Upload {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_data(task).map(|part| {
            part.map(|part| {
                let part = part?;
                self.0.flow_control().release_capacity(part.len())?;
                Ok(part)
            })
        })
    }
}

/// Fields that HTTP/2 does not have (RFC 9113 section 8.2.2).
const OF_A_CONNECTION: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What of a request its answer depends on.
#[derive(Clone, Copy)]
struct Form {
    is_head: bool,
    /// It asks for WebSocket.
    is_tunnel: bool,
}

async fn send(
    answered: Answered,
    mut respond: SendResponse<Bytes>,
    form: Form,
    patience: Duration,
) -> Result<(), h2::Error> {
    let Answered { response, passed, request_id } = answered;
    let size = response.body().size();
    let status = if form.is_tunnel { tunnel::status(response.status()) } else { response.status() };
    let mut head = http::Response::new(());
    *head.status_mut() = status;
    let fields = head.headers_mut();
    for (name, value) in response.headers() {
        if !OF_A_CONNECTION.contains(name) && name != CONTENT_LENGTH && !(form.is_tunnel && name == tunnel::ACCEPT) {
            fields.append(name, value.clone());
        }
    }
    let besides = request_id.as_ref().map(|id| (&b"x-request-id"[..], &id[..]));
    for (name, value) in passed.iter().chain(besides) {
        // what was parsed as a field of HTTP/1.1 is one here too
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            && !(form.is_tunnel && name == tunnel::ACCEPT)
        {
            fields.append(name, value);
        }
    }
    drop(passed); // it holds what was read from the service, and a body may go on for hours
    if let BodySize::Sized(length) = size
        && status != StatusCode::NO_CONTENT
    {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !fields.contains_key(DATE)
        && let Ok(now) = HttpDate::from(SystemTime::now()).try_into_value()
    {
        fields.insert(DATE, now);
    }
    let is_over = form.is_head || size.is_eof() || status == StatusCode::NO_CONTENT;
    let mut stream = respond.send_response(head, is_over)?;
    if is_over {
        return Ok(());
    }
    let mut left = if let BodySize::Sized(length) = size { Some(length) } else { None };
    let mut body = pin!(response.into_body());
    loop {
        let part = tokio::select! {
            biased;
            _ = poll_fn(|task| stream.poll_reset(task)) => return Ok(()), // the client wants no more
            part = poll_fn(|task| body.as_mut().poll_next(task)) => part,
        };
        match part {
            Some(Ok(part)) => {
                // the part that ends a body of a known length says so itself
                left = left.map(|left| left.saturating_sub(part.len() as u64));
                let is_last = left == Some(0) && !part.is_empty();
                send_part(&mut stream, part, is_last, patience).await?;
                if is_last {
                    // its source may have to do at its end what it does not do when it is dropped
                    let rest = poll_fn(|task| Poll::Ready(body.as_mut().poll_next(task))).await;
                    drop(rest);
                    return Ok(());
                }
            }
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR); // the answer broke off: so that it never looks complete
                return Ok(());
            }
            None => {
                stream.send_data(Bytes::new(), true)?;
                if form.is_tunnel {
                    // its client ends its side when it reads of this end, which a reset just behind it would take away
                    let ended = poll_fn(|task| stream.poll_reset(task));
                    drop(tokio::time::timeout(FAREWELL, ended).await);
                }
                return Ok(());
            }
        }
    }
}

/// Hands a part over as the client takes it. One that opens no window for so long wants no more: else it would hold a
/// service's answer for ever with a connection that is well.
async fn send_part(
    stream: &mut SendStream<Bytes>,
    mut part: Bytes,
    is_last: bool,
    patience: Duration,
) -> Result<(), h2::Error> {
    while !part.is_empty() {
        stream.reserve_capacity(part.len().min(PART));
        match tokio::time::timeout(patience, poll_fn(|task| stream.poll_capacity(task))).await {
            Ok(Some(Ok(room))) => {
                let now = part.split_to(room.min(part.len()));
                stream.send_data(now, is_last && part.is_empty())?;
            }
            Ok(Some(Err(error))) => return Err(error),
            Ok(None) => return Err(Reason::CANCEL.into()),
            Err(_) => {
                stream.send_reset(Reason::CANCEL);
                return Err(Reason::CANCEL.into());
            }
        }
    }
    Ok(())
}

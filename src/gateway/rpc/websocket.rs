//! A stream each way over WebSocket (RFC 6455): each text or binary message is one of the call. An empty message ends the
//! client's side of the call; a Close frame, or the connection's end, cancels what is not over.
//!
//! ```text
//! frame: fin 1 bit, reserved 3, opcode 4 | masked 1, length 7 (126: 2 more bytes, 127: 8 more) | mask 4 | payload
//! ```
//! The end of the call becomes a Close frame: 1000 where all went well, else 4000 and gRPC's code, with the message.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use futures_util::{StreamExt, stream};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::sync::mpsc;

use super::lines::Parts;
use crate::gateway::respond::Failure;
use crate::listener::Incoming;
use crate::rpc::{Code, MESSAGE_BYTES, Status};
use crate::upgrade;
use crate::upstream::{BodyStream, RpcReceiver, RpcSender, RpcStream};

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
/// RFC 6455 section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The longest reason that a Close frame has room for.
const REASON_BYTES: usize = 123;
/// Control frames that wait for the client.
const CONTROLS: usize = 4;

/// The answer to a client that asks for WebSocket.
///
/// # Errors
/// 400 where its request is incomplete.
pub(super) fn granted(request: &Incoming) -> Result<HttpResponse, Failure> {
    let field = |name: &HeaderName| request.headers().get(name).map(|value| value.as_bytes().trim_ascii());
    let bad = |why: &str| Failure::BadRequest(why.to_owned());
    if field(&VERSION) != Some(b"13") {
        return Err(bad("WebSocket of version 13 is spoken here; send `Sec-WebSocket-Version: 13`"));
    }
    let key = field(&KEY).filter(|key| key.len() == 24).ok_or_else(|| bad("`Sec-WebSocket-Key` is missing"))?;
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID.as_bytes()].concat());
    let mut head = HttpResponse::new(StatusCode::SWITCHING_PROTOCOLS);
    let accept = HeaderValue::from_str(&STANDARD.encode(hash)).map_err(|_| bad("`Sec-WebSocket-Key` is none"))?;
    head.headers_mut().insert(ACCEPT, accept);
    upgrade::grant(head.head_mut());
    Ok(head)
}

/// What goes to the client, while what it sends goes to the callee.
pub(super) fn frames(parts: BodyStream, call: RpcStream) -> Parts {
    let (control, controls) = mpsc::channel(CONTROLS);
    let up: LocalBoxFuture<'static, Option<Bytes>> = Box::pin(upwards(parts, call.sender, control));
    let talk = Talk { up: Some(up), receiver: call.receiver, controls };
    Box::pin(stream::unfold(Some(talk), |talk| async move {
        let mut talk = talk?;
        let (frame, goes_on) = talk.next().await;
        Some((Ok(frame), goes_on.then_some(talk)))
    }))
}

struct Talk {
    /// The client's side; gives the frame that ends the talk, or none where only that side is over.
    up: Option<LocalBoxFuture<'static, Option<Bytes>>>,
    receiver: RpcReceiver,
    controls: mpsc::Receiver<Bytes>,
}

impl Talk {
    /// The next frame for the client, and whether more follow.
    async fn next(&mut self) -> (Bytes, bool) {
        loop {
            let up = async {
                match &mut self.up {
                    Some(up) => up.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(control) = self.controls.recv() => return (control, true),
                ended = up => {
                    self.up = None;
                    if let Some(close) = ended {
                        return (close, false);
                    }
                }
                message = self.receiver.next() => return match message {
                    Ok(Some(message)) => (frame(TEXT, &message), true),
                    Ok(None) => (close(&Status::ok()), false),
                    Err(error) => (close(&error.status()), false),
                },
            }
        }
    }
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Carries the client's messages to the callee. The frame that answers its last one; `None`: its side is over, the call is not.
async fn upwards(mut parts: BodyStream, mut sender: RpcSender, control: mpsc::Sender<Bytes>) -> Option<Bytes> {
    let mut reader = Reader::default();
    loop {
        match reader.next() {
            Err(why) => return Some(closing(1002, why)),
            Ok(Some(Said::Message(message))) if message.is_empty() => {
                if sender.finish().is_err() {
                    return None; // its answer tells why
                }
                return after_the_end(parts, reader, sender, control).await;
            }
            Ok(Some(Said::Message(message))) => {
                if sender.send(&message).await.is_err() {
                    return after_the_end(parts, reader, sender, control).await;
                }
            }
            Ok(Some(Said::Ping(payload))) => drop(control.send(frame(PONG, &payload)).await), // the client may be gone
            Ok(Some(Said::Close)) => return Some(closing(1000, "")),
            Ok(None) => match parts.next().await {
                Some(Ok(part)) => reader.input.extend_from_slice(&part),
                Some(Err(_)) | None => return Some(closing(1001, "")),
            },
        }
    }
}

/// The client has sent all; only what belongs to the connection still counts.
async fn after_the_end(
    mut parts: BodyStream,
    mut reader: Reader,
    _sender: RpcSender,
    control: mpsc::Sender<Bytes>,
) -> Option<Bytes> {
    loop {
        match reader.next() {
            Err(why) => return Some(closing(1002, why)),
            Ok(Some(Said::Close)) => return Some(closing(1000, "")),
            Ok(Some(Said::Ping(payload))) => drop(control.send(frame(PONG, &payload)).await),
            Ok(Some(Said::Message(_))) => return Some(closing(1002, "a message after the empty one that ended them")),
            Ok(None) => match parts.next().await {
                Some(Ok(part)) => reader.input.extend_from_slice(&part),
                Some(Err(_)) | None => return Some(closing(1001, "")),
            },
        }
    }
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Message(Bytes),
    Ping(Bytes),
    Close,
}

/// Reads the frames of a client.
#[derive(Debug, Default)]
struct Reader {
    input: BytesMut,
    /// A message that came in several frames.
    message: Option<BytesMut>,
}

impl Reader {
    /// What is next; `None`: more bytes are needed.
    fn next(&mut self) -> Result<Option<Said>, &'static str> {
        while let Some((is_last, opcode, payload)) = self.frame()? {
            match opcode {
                TEXT | BINARY if self.message.is_some() => return Err("a message within a message"),
                TEXT | BINARY if is_last => return Ok(Some(Said::Message(payload.freeze()))),
                TEXT | BINARY => self.message = Some(payload),
                CONTINUATION => {
                    let message = self.message.as_mut().ok_or("a continuation of nothing")?;
                    if message.len() + payload.len() > MESSAGE_BYTES {
                        return Err("the message is too long");
                    }
                    message.extend_from_slice(&payload);
                    if is_last {
                        return Ok(self.message.take().map(|message| Said::Message(message.freeze())));
                    }
                }
                PING => return Ok(Some(Said::Ping(payload.freeze()))),
                PONG => {}
                CLOSE => return Ok(Some(Said::Close)),
                _ => return Err("an unknown kind of frame"),
            }
        }
        Ok(None)
    }

    /// A frame that is complete: whether it is its message's last one, its kind and its payload.
    fn frame(&mut self) -> Result<Option<(bool, u8, BytesMut)>, &'static str> {
        let &[first, second, ref rest @ ..] = &self.input[..] else { return Ok(None) };
        let (is_last, opcode) = (first & 0x80 != 0, first & 0xf);
        if first & 0x70 != 0 {
            return Err("an extension that was not agreed on");
        }
        if second & 0x80 == 0 {
            return Err("a frame of a client without its mask");
        }
        let (head, length) = match (second & 0x7f, rest) {
            (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
            (127, [a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
            (126 | 127, _) => return Ok(None),
            (length, _) => (2, u64::from(length)),
        };
        if opcode >= CLOSE && (!is_last || length > 125) {
            return Err("a control frame that is long or in parts");
        }
        let length = usize::try_from(length).ok().filter(|length| *length <= MESSAGE_BYTES);
        let length = length.ok_or("the message is too long")?;
        if self.input.len() < head + 4 + length {
            return Ok(None);
        }
        self.input.advance(head);
        let mask: [u8; 4] = [self.input[0], self.input[1], self.input[2], self.input[3]];
        self.input.advance(4);
        let mut payload = self.input.split_to(length);
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok(Some((is_last, opcode, payload)))
    }
}

/// A frame of the server's.
fn frame(opcode: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 10);
    out.put_u8(0x80 | opcode);
    match payload.len() {
        short @ 0..=125 => out.put_u8(short as u8),
        medium @ 126..=0xffff => {
            out.put_u8(126);
            out.put_u16(medium as u16);
        }
        long => {
            out.put_u8(127);
            out.put_u64(long as u64);
        }
    }
    out.put_slice(payload);
    out.freeze()
}

/// The Close frame that tells how a call ended.
fn close(status: &Status) -> Bytes {
    match status.code {
        Code::Ok => closing(1000, ""),
        code => closing(4000 + code as u16, &status.message),
    }
}

fn closing(code: u16, reason: &str) -> Bytes {
    let end = (0..=reason.len().min(REASON_BYTES)).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
    let mut payload = BytesMut::with_capacity(2 + end);
    payload.put_u16(code);
    payload.put_slice(&reason.as_bytes()[..end]);
    frame(CLOSE, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as a client sends it.
    fn sent(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            short @ 0..=125 => out.push(0x80 | short as u8),
            long => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(long as u16).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    #[test]
    fn messages_come_back_however_they_are_cut() {
        let long = [b'x'; 300];
        let bytes = [
            sent(0x81, b"one"),
            sent(0x01, b"t"),
            sent(0x89, b"ping"),
            sent(0x00, b"w"),
            sent(0x80, b"o"),
            sent(0x82, &long),
            sent(0x88, &[3, 232]),
        ]
        .concat();
        for size in 1..20 {
            let (mut reader, mut said) = (Reader::default(), Vec::new());
            for part in bytes.chunks(size) {
                reader.input.extend_from_slice(part);
                while let Some(next) = reader.next().unwrap() {
                    said.push(next);
                }
            }
            let message = |text: &'static [u8]| Said::Message(Bytes::from_static(text));
            let all = [
                message(b"one"),
                Said::Ping(Bytes::from_static(b"ping")),
                message(b"two"),
                Said::Message(Bytes::copy_from_slice(&long)),
                Said::Close,
            ];
            assert_eq!(said, all, "in parts of {size}");
        }
    }

    #[test]
    fn what_is_no_frame_of_a_client_is_told() {
        for (bytes, why) in [
            (vec![0x81, 1, b'x'], "a frame of a client without its mask"),
            (sent(0xc1, b"x"), "an extension that was not agreed on"),
            (sent(0x80, b"x"), "a continuation of nothing"),
            (sent(0x83, b"x"), "an unknown kind of frame"),
            (sent(0x09, b"x"), "a control frame that is long or in parts"),
            (vec![0x81, 0xff, 0, 0, 0, 0, 0xff, 0, 0, 0], "the message is too long"),
            ([sent(0x01, b"x"), sent(0x01, b"x")].concat(), "a message within a message"),
        ] {
            let mut reader = Reader { input: BytesMut::from(&bytes[..]), message: None };
            assert_eq!(reader.next(), Err(why), "{bytes:?}");
        }
        assert_eq!(frame(TEXT, &[0; 126])[..4], [0x81, 126, 0, 126]);
        assert_eq!(frame(TEXT, &[0; 70_000])[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
        assert_eq!(closing(1000, &"\u{e9}".repeat(100)).len(), 2 + 2 + 122);
    }
}

//! An answer as its bytes (RFC 9112).

use std::cell::RefCell;
use std::io::Write;
use std::time::{Duration, SystemTime};

use actix_http::{ConnectionType, ResponseHead};
use actix_web::body::BodySize;
use actix_web::http::header::{CONNECTION, CONTENT_LENGTH, DATE, HttpDate, TRANSFER_ENCODING, UPGRADE};
use actix_web::http::{StatusCode, Version};

use crate::framing;
use crate::raw_fields::RawFields;

/// How an answer's body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// It has none, or may not have one.
    Nothing,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    /// Up to the end of the connection.
    Raw,
}

/// What an answer's head depends on beside the answer itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct To {
    pub version: Version,
    /// The request was a HEAD.
    pub is_head: bool,
    /// The connection can go on.
    pub keeps: bool,
}

/// Fields beside those of an answer's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Besides<'a> {
    /// As they were read.
    pub passed: &'a RawFields,
    pub request_id: Option<[u8; 36]>,
}

/// Writes an answer's head behind what is in `out`. Returns how its body follows, and whether the connection goes on.
pub(super) fn begin(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    besides: Besides<'_>,
    size: BodySize,
    to: To,
) -> (Transfer, bool) {
    let status = head.status;
    let is_switching = status == StatusCode::SWITCHING_PROTOCOLS;
    let is_bare = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || status.is_informational();
    let is_old = to.version < Version::HTTP_11;
    let transfer = match size {
        _ if is_switching => Transfer::Raw,
        _ if is_bare || to.is_head => Transfer::Nothing,
        BodySize::None => Transfer::Nothing,
        BodySize::Sized(bytes) => Transfer::Length(bytes),
        BodySize::Stream if is_old => Transfer::Raw, // it has no chunks
        BodySize::Stream => Transfer::Chunked,
    };
    let keeps = to.keeps && transfer != Transfer::Raw && head.connection_type() != ConnectionType::Close;
    match status {
        StatusCode::OK => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
        _ => line(out, &["HTTP/1.1 ", status.as_str(), " ", head.reason(), "\r\n"]),
    }
    match size {
        _ if is_bare => {}
        BodySize::Sized(bytes) => {
            field(out, b"content-length", framing::digits(bytes, &mut [0; 20]));
        }
        BodySize::Stream if transfer == Transfer::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        BodySize::Stream | BodySize::None => {}
    }
    // a field `Upgrade` needs the option (RFC 9110 section 7.8)
    match (keeps, is_switching || head.headers().contains_key(UPGRADE)) {
        (_, true) if is_switching => out.extend_from_slice(b"connection: upgrade\r\n"),
        (true, true) => out.extend_from_slice(b"connection: upgrade\r\n"),
        (false, true) => out.extend_from_slice(b"connection: close, upgrade\r\n"),
        (true, false) if is_old => out.extend_from_slice(b"connection: keep-alive\r\n"),
        (false, false) if !is_old => out.extend_from_slice(b"connection: close\r\n"),
        _ => {}
    }
    let mut has_date = false;
    for (name, value) in besides.passed.iter() {
        has_date |= name.eq_ignore_ascii_case(b"date");
        let begin = out.len();
        field(out, name, value);
        out[begin..begin + name.len()].make_ascii_lowercase(); // as all others are
    }
    if let Some(id) = &besides.request_id {
        field(out, b"x-request-id", id);
    }
    for (name, value) in head.headers() {
        match *name {
            CONNECTION | TRANSFER_ENCODING => continue,
            CONTENT_LENGTH if status != StatusCode::NOT_MODIFIED => continue, // written above
            DATE => has_date = true,
            _ => {}
        }
        field(out, name.as_str().as_bytes(), value.as_bytes());
    }
    if !has_date {
        date(out);
    }
    out.extend_from_slice(b"\r\n");
    (transfer, keeps)
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

fn line(out: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// The second for which a date is written, and its field.
type Written = (u64, Vec<u8>);

/// Writes the field `date`. Its text is made once a second.
fn date(out: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<Written> = const { RefCell::new((0, Vec::new())) };
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    LAST.with_borrow_mut(|(second, field)| {
        if *second != now || field.is_empty() {
            *second = now;
            let date = HttpDate::from(SystemTime::UNIX_EPOCH + Duration::from_secs(now));
            *field = format!("date: {date}\r\n").into_bytes();
        }
        out.extend_from_slice(field);
    });
}

impl Transfer {
    /// Writes what stands before a part of so many bytes. `None`: more would come than was announced.
    pub fn before(&mut self, out: &mut Vec<u8>, bytes: usize) -> Option<()> {
        match self {
            Self::Nothing => return None,
            Self::Length(left) => *left = left.checked_sub(bytes as u64)?,
            Self::Chunked => {
                // writing into a vector never fails
                drop(write!(out, "{bytes:x}\r\n"));
            }
            Self::Raw => {}
        }
        Some(())
    }

    /// What stands behind a part.
    pub fn after(self) -> &'static [u8] {
        if self == Self::Chunked { b"\r\n" } else { b"" }
    }

    /// What stands at the end. `None`: it has not come yet.
    pub fn end(self) -> Option<&'static [u8]> {
        match self {
            Self::Nothing | Self::Raw | Self::Length(0) => Some(b""),
            Self::Length(_) => None,
            Self::Chunked => Some(b"0\r\n\r\n"),
        }
    }
}

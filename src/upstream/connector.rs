//! awc's connections, without the `Date` that it puts into every request.
//!
//! actix-http's encoder ends each head with a `Date` of its own unless the request has one, and nothing turns that off.
//! So the stream leaves that line out on its way into the socket:
//!
//! ```text
//! GET /login HTTP/1.1\r\n … accept: */*\r\n │ date: Sat, 21 Nov 2026 11:00:00 GMT\r\n │ \r\n body
//!                                      written │            left out                   │ written
//! ```
//!
//! Invariants: the first write of a request holds its whole head; awc reads nothing before it has sent all of a request,
//! so the first write after a read begins the next one. A client's own `Date` passes ([`mark_own_date`]).
//!
//! Three faults of awc's reading are mended here as well, by what the first read of an answer shows: it takes an interim
//! answer (RFC 9110 section 15.2) for the final one and would give the final one to the next request on the connection,
//! so that connection ends; it takes the end of a connection for the end of a chunked body (RFC 9112 section 8); and it
//! reads a body that ends with its connection only from HTTP/1.0 (section 6.3), so such an answer is shown as one.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_tls::connect::{ConnectError, ConnectInfo, Connection, Connector, Resolver};
use actix_web::dev::{Service, fn_service};
use actix_web::rt::net::{ActixStream, Ready, TcpStream};
use awc::http::Uri;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The generated line, as actix-http writes it: lower case, and a date always has 29 bytes (RFC 9110 section 5.6.7).
const DATE: &[u8] = b"\r\ndate: ";
const DATE_LINE: usize = "\r\ndate: Sat, 21 Nov 2026 11:00:00 GMT".len();

/// Opens TCP connections for awc.
pub(crate) fn tcp()
-> impl Service<ConnectInfo<Uri>, Response = Connection<Uri, Dateless>, Error = ConnectError> + Clone + 'static {
    let connector = Connector::new(Resolver::default()).service();
    fn_service(move |to: ConnectInfo<Uri>| {
        let connecting = connector.call(to);
        async move {
            let (socket, uri) = connecting.await?.into_parts();
            if let Err(error) = socket.set_nodelay(true) {
                log::debug!("cannot turn off Nagle's algorithm: {error}");
            }
            Ok(Connection::new(uri, Dateless { socket, is_head_next: true, answer: Answer::Plain }))
        }
    })
}

/// A client's own `Date` as it is to be sent: white space at its end means nothing (RFC 9110 section 5.5), but tells it
/// from a generated one.
pub(crate) fn mark_own_date(value: &[u8]) -> Vec<u8> {
    [value, b" "].concat()
}

/// A TCP connection that leaves the generated `Date` out.
#[derive(Debug)]
pub(crate) struct Dateless {
    socket: TcpStream,
    /// The next bytes to be written begin a request, or are what is left of a head that has its `Date` still to come.
    is_head_next: bool,
    answer: Answer,
}

/// What the first bytes of an answer say of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing special.
    Plain,
    /// Another answer to the same request follows.
    Interim,
    /// Its body has an end of its own.
    Chunked,
    /// Its body ends with the connection.
    Open,
}

impl Answer {
    fn of(bytes: &[u8]) -> Self {
        const VERSION: &[u8] = b"HTTP/1.1 ";
        const CODING: &[u8] = b"transfer-encoding:";
        const LENGTH: &[u8] = b"content-length:";
        let Some(status) = bytes.strip_prefix(VERSION).and_then(|rest| rest.get(..3)) else { return Self::Plain };
        if status[0] == b'1' {
            return Self::Interim;
        }
        let end = memchr::memmem::find(bytes, b"\r\n\r\n");
        let head = &bytes[..end.unwrap_or(bytes.len())];
        let is = |line: usize, name: &[u8]| {
            head.get(line + 1..line + 1 + name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        let has = |name| memchr::memchr_iter(b'\n', head).any(|line| is(line, name));
        match end {
            _ if has(CODING) => Self::Chunked,
            Some(_) if status != b"204" && status != b"304" && !has(LENGTH) => Self::Open,
            _ => Self::Plain,
        }
    }
}

/// Where the generated line stands in `head` and what follows it.
fn generated_date(bytes: &[u8]) -> Option<Range<usize>> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    let start = end.checked_sub(DATE_LINE)?;
    (bytes[start..].starts_with(DATE) && bytes[..end].ends_with(b" GMT")).then_some(start..end)
}

impl AsyncWrite for Dateless {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.is_head_next {
            this.answer = Answer::Plain;
        }
        let date = if this.is_head_next { generated_date(bytes) } else { None };
        let Some(date) = date else {
            this.is_head_next = false;
            return Pin::new(&mut this.socket).poll_write(task, bytes);
        };
        let around = [IoSlice::new(&bytes[..date.start]), IoSlice::new(&bytes[date.end..])];
        let written = ready!(Pin::new(&mut this.socket).poll_write_vectored(task, &around))?;
        if written < date.start {
            return Poll::Ready(Ok(written));
        }
        this.is_head_next = false;
        Poll::Ready(Ok(written + date.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(task)
    }
}

impl AsyncRead for Dateless {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.answer == Answer::Interim {
            return Poll::Ready(Ok(())); // the end
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(task, into))?;
        let read = &into.filled()[before..];
        let is_end = read.is_empty();
        if is_end && into.remaining() > 0 && this.answer == Answer::Chunked {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        if !is_end {
            if !this.is_head_next {
                this.answer = Answer::of(read);
                if this.answer == Answer::Open {
                    into.filled_mut()[before + "HTTP/1.".len()] = b'0';
                }
            }
            this.is_head_next = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl ActixStream for Dateless {
    fn poll_read_ready(&self, task: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(&self.socket, task)
    }

    fn poll_write_ready(&self, task: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(&self.socket, task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(head: &str) -> String {
        let mut head = head.to_owned();
        if let Some(date) = generated_date(head.as_bytes()) {
            head.replace_range(date, "");
        }
        head
    }

    #[test]
    fn only_the_last_line_of_the_head_is_a_generated_date() {
        let date = "date: Sat, 21 Nov 2026 11:00:00 GMT\r\n";
        let body = format!("a\r\n{date}\r\n");
        assert_eq!(
            without(&format!("GET / HTTP/1.1\r\nhost: a\r\n{date}\r\n{body}")),
            format!("GET / HTTP/1.1\r\nhost: a\r\n\r\n{body}")
        );
        let own = String::from_utf8(mark_own_date(b"Sat, 21 Nov 2026 11:00:00 GMT")).unwrap();
        for kept in [
            format!("GET / HTTP/1.1\r\ndate: {own}\r\n\r\n"),
            format!("GET / HTTP/1.1\r\n{date}host: a\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nup{date}\r\n"),
            "\r\n\r\n".to_owned(),
            date.to_owned(),
        ] {
            assert_eq!(without(&kept), kept);
        }
    }
}

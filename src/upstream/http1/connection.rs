//! A connection: a socket and what was read from it but not yet taken.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use super::Target;
use super::socket::Socket;

/// One read. More than most answers have: a read that fills its buffer is followed by one more system call that finds
/// nothing.
const READ_BYTES: usize = 8 << 10;
/// One read of a long answer, once a read has filled its buffer; above it the copying costs more than the calls save.
const LONG_READ_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    input: BytesMut,
    read_bytes: usize,
    /// It has carried an exchange before.
    pub was_kept: bool,
    /// Where it leads.
    pub target: Target,
}

impl Connection {
    pub fn new(socket: Socket, target: Target, input: BytesMut, was_kept: bool) -> Self {
        Self { socket, input, read_bytes: READ_BYTES, was_kept, target }
    }

    /// What was read and not taken.
    pub fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Reads once behind what is there; 0 is the end.
    pub fn poll_read(&mut self, task: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < self.read_bytes / 2 {
            self.input.reserve(self.read_bytes);
        }
        let room = self.input.capacity() - self.input.len();
        let read = poll_read_buf(Pin::new(&mut self.socket), task, &mut self.input);
        if let Poll::Ready(Ok(bytes)) = read
            && bytes == room
        {
            self.read_bytes = LONG_READ_BYTES;
        }
        read
    }

    /// Writes once what comes after the first `skip` bytes of all parts, of which there are more; how many bytes went.
    pub fn poll_write(
        &mut self,
        task: &mut Context<'_>,
        parts: [&[u8]; 3],
        mut skip: usize,
    ) -> Poll<io::Result<usize>> {
        let parts = parts.map(|part| {
            let skipped = skip.min(part.len());
            skip -= skipped;
            &part[skipped..]
        });
        let socket = Pin::new(&mut self.socket);
        let written = match parts {
            // most requests are one buffer, for which the kernel has less to set up
            [only, [], []] | [[], only, []] | [[], [], only] => socket.poll_write(task, only),
            parts => socket.poll_write_vectored(task, &parts.map(IoSlice::new)),
        };
        match written {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            other => other,
        }
    }

    /// Sends what was taken and is still held, as TLS does.
    pub fn poll_flush(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(task)
    }

    /// The socket, and what was read of it and not taken.
    pub fn into_tunnel(self) -> (Socket, BytesMut) {
        (self.socket, self.input)
    }

    /// What is kept of it between exchanges, and its read buffer. `None`: it brought something that nobody asked for.
    pub fn into_parts(self) -> Option<(Socket, Target, BytesMut)> {
        self.input.is_empty().then_some((self.socket, self.target, self.input))
    }
}

/// Whether the other side neither ended it nor sent anything, as far as the last wake-up told: without a system call.
pub(super) fn stands(socket: &Socket) -> bool {
    matches!(socket.tcp().try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// The same asked of the kernel.
pub(super) fn surely_stands(socket: &Socket) -> bool {
    let asked = SockRef::from(socket.tcp()).peek(&mut [MaybeUninit::uninit()]);
    matches!(asked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

//! Lets calls pass whose `content-length` is not theirs.
//!
//! Go Micro's nodes send on the header fields of what they were asked, `content-length` too, and HTTP/2 takes a request at its
//! word: h2 resets a stream whose data have another length (RFC 9113 section 8.1.1). gRPC tells lengths in its own frames and
//! needs no such field. So between the socket and h2 the field's *name* is changed in the compressed heads (RFC 7541), in
//! place: its number in the static table, 28, into 15 (`accept-charset`, which has the same length, so the dynamic tables
//! of both ends stay alike), and where the name is spelt out its first letter into another that has as many bits.
//!
//! ```text
//! frame:  length 3 | type 1 | flags 1 | stream 4 | payload      HEADERS (1) begin a block, CONTINUATION (9) go on with it
//! block:  1xxxxxxx indexed | 01xxxxxx name, value, indexed | 0000xxxx, 0001xxxx name, value | 001xxxxx table's size
//! ```
//! What it does not understand it leaves alone: h2 judges it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose requests have no `content-length`.
#[derive(Debug)]
pub struct AnyLength<T> {
    inner: T,
    frames: Frames,
}

impl<T> AnyLength<T> {
    /// A server's side, from the client's preface on.
    pub fn new(inner: T) -> Self {
        Self { inner, frames: Frames::default() }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for AnyLength<T> {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(task, into))?;
        self.frames.pass(&mut into.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for AnyLength<T> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(task, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(task, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(task)
    }
}

/// What a connection begins with: `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`.
const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

/// Follows the frames of a connection, in whatever parts they come.
#[derive(Debug)]
struct Frames {
    /// Bytes until the next frame's head (or until its block of fields begins).
    skip: usize,
    head: [u8; FRAME_HEAD_BYTES],
    head_filled: usize,
    /// What is left of the frame's payload, where it holds a block of fields.
    payload: usize,
    /// The frame's padding is told by its first byte.
    is_padded: bool,
    has_priority: bool,
    padding: usize,
    block: Block,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            skip: PREFACE_BYTES,
            head: [0; FRAME_HEAD_BYTES],
            head_filled: 0,
            payload: 0,
            is_padded: false,
            has_priority: false,
            padding: 0,
            block: Block::default(),
        }
    }
}

impl Frames {
    fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let now = self.skip.min(bytes.len());
                self.skip -= now;
                bytes = &mut bytes[now..];
            } else if self.payload > 0 {
                let now = self.fields(bytes);
                bytes = &mut bytes[now..];
            } else {
                let now = (FRAME_HEAD_BYTES - self.head_filled).min(bytes.len());
                self.head[self.head_filled..][..now].copy_from_slice(&bytes[..now]);
                self.head_filled += now;
                bytes = &mut bytes[now..];
                if self.head_filled == FRAME_HEAD_BYTES {
                    self.begin();
                }
            }
        }
    }

    /// A frame's head is complete.
    fn begin(&mut self) {
        self.head_filled = 0;
        let [a, b, c, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        self.padding = 0;
        match kind {
            HEADERS => {
                self.block = Block::default();
                self.payload = length;
                self.is_padded = flags & PADDED != 0;
                self.has_priority = flags & PRIORITY != 0;
            }
            CONTINUATION => self.payload = length,
            _ => self.skip = length,
        }
    }

    /// Passes bytes of a payload that holds fields; how many.
    fn fields(&mut self, bytes: &mut [u8]) -> usize {
        if std::mem::take(&mut self.is_padded) {
            self.payload -= 1;
            self.padding = usize::from(bytes[0]);
            return 1;
        }
        if std::mem::take(&mut self.has_priority) {
            self.skip = PRIORITY_BYTES.min(self.payload);
            self.payload -= self.skip;
            return 0;
        }
        if self.padding >= self.payload {
            self.skip = self.payload;
            self.payload = 0;
            return 0;
        }
        let now = bytes.len().min(self.payload - self.padding);
        bytes[..now].iter_mut().for_each(|byte| self.block.pass(byte));
        self.payload -= now;
        now
    }
}

/// `content-length` in the static table of RFC 7541, and what it becomes.
const CONTENT_LENGTH: u8 = 28;
const ACCEPT_CHARSET: u8 = 15;
/// `content-length` spelt out, as it is and in the code of RFC 7541, appendix B.
const SPELT: &[u8] = b"content-length";
const CODED: [u8; 10] = coded();

/// The code of `content-length`: the bits of each letter, filled up with ones.
const fn coded() -> [u8; 10] {
    // c o n t e n t - l e n g t h, each with its number of bits
    const LETTERS: [(u32, u32); 14] = [
        (0x4, 5),
        (0x7, 5),
        (0x2a, 6),
        (0x9, 5),
        (0x5, 5),
        (0x2a, 6),
        (0x9, 5),
        (0x16, 6),
        (0x28, 6),
        (0x5, 5),
        (0x2a, 6),
        (0x26, 6),
        (0x9, 5),
        (0x27, 6),
    ];
    let (mut bits, mut at) = (0_u128, 0);
    let mut count = 0;
    while at < LETTERS.len() {
        bits = bits << LETTERS[at].1 | LETTERS[at].0 as u128;
        count += LETTERS[at].1;
        at += 1;
    }
    let fill = 80 - count;
    bits = bits << fill | ((1 << fill) - 1);
    let bytes = bits.to_be_bytes();
    let mut out = [0; 10];
    let mut at = 0;
    while at < 10 {
        out[at] = bytes[6 + at];
        at += 1;
    }
    out
}

/// Follows a block of fields byte by byte, and changes the one name.
#[derive(Debug, Default)]
struct Block {
    state: State,
    /// The number that is being read, and its next bits' place.
    number: usize,
    shift: u32,
    /// A name that is spelt out, as far as it is the one.
    is_coded: bool,
    length: usize,
    matched: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// A field begins.
    #[default]
    Field,
    /// More of an index, of which nothing is to be known; then this many strings follow.
    Index { strings: u8 },
    /// The second byte of an index that fills its first four bits.
    LongIndex,
    /// The length of a string begins; after it as many others follow.
    Length { strings: u8 },
    /// More of that length.
    LongLength { strings: u8 },
    /// A string, of which so many bytes are left.
    Text { left: usize, strings: u8 },
}

impl Block {
    fn pass(&mut self, byte: &mut u8) {
        self.state = match self.state {
            State::Field => self.field(byte),
            State::LongIndex => {
                if *byte == CONTENT_LENGTH - 15 {
                    *byte = ACCEPT_CHARSET - 15;
                }
                if *byte & 0x80 == 0 { State::Length { strings: 1 } } else { State::Index { strings: 1 } }
            }
            State::Index { strings } if *byte & 0x80 != 0 => State::Index { strings },
            State::Index { strings: 0 } => State::Field,
            State::Index { strings } => State::Length { strings },
            State::Length { strings } => {
                self.is_coded = *byte & 0x80 != 0;
                self.number = usize::from(*byte & 0x7f);
                self.shift = 0;
                if self.number == 0x7f { State::LongLength { strings } } else { self.text(strings) }
            }
            State::LongLength { strings } => {
                // a longer one is refused by h2
                let bits = usize::from(*byte & 0x7f).checked_shl(self.shift).unwrap_or(0);
                self.number = self.number.saturating_add(bits);
                self.shift = self.shift.saturating_add(7);
                if *byte & 0x80 == 0 { self.text(strings) } else { State::LongLength { strings } }
            }
            State::Text { left, strings } => {
                self.spell(byte, left, strings);
                if left > 1 { State::Text { left: left - 1, strings } } else { after_text(strings) }
            }
        };
    }

    /// The first byte of a field.
    fn field(&mut self, byte: &mut u8) -> State {
        let first = *byte;
        // how many bits the index has, and how many strings follow it where it is not 0
        let (bits, strings) = match first {
            0x80.. => (7, 0),
            0x40..=0x7f => (6, 1),
            0x20..=0x3f => (5, 0), // the table's size
            0x00..=0x1f => (4, 1),
        };
        let most = (1_u8 << bits) - 1;
        let index = first & most;
        if index == CONTENT_LENGTH && bits > 5 {
            *byte = first & !most | ACCEPT_CHARSET;
        }
        match (index, bits) {
            (index, 4) if index == most => State::LongIndex,
            (index, _) if index == most => State::Index { strings },
            (0, 4 | 6) => State::Length { strings: 2 },
            (_, 4 | 6) => State::Length { strings: 1 },
            _ => State::Field,
        }
    }

    /// A string of `number` bytes begins.
    fn text(&mut self, strings: u8) -> State {
        self.length = self.number;
        self.matched = 0;
        if self.number == 0 { after_text(strings) } else { State::Text { left: self.number, strings } }
    }

    /// A byte of a string: of two the first is a name. The letter to change is its first, which is gone when the last is
    /// known; so the last is changed, which is as good: `h` to `i` (both 6 bits), or the same in the coded form.
    fn spell(&mut self, byte: &mut u8, left: usize, strings: u8) {
        let whole: &[u8] = if self.is_coded { &CODED } else { SPELT };
        if strings != 2 || self.length != whole.len() || self.matched != self.length - left {
            return;
        }
        if *byte == whole[self.matched] {
            self.matched += 1;
            if left == 1 {
                *byte = if self.is_coded { *byte ^ CODED_CHANGE } else { b'i' };
            }
        }
    }
}

/// In the code `h` is 0x27 and `d` 0x24, of 6 bits both; three bits fill the last byte up.
const CODED_CHANGE: u8 = (0x27 ^ 0x24) << 3;

/// What follows the end of a string.
fn after_text(strings: u8) -> State {
    if strings > 1 { State::Length { strings: strings - 1 } } else { State::Field }
}

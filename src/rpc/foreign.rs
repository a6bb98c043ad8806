//! Lets calls pass that carry fields of another connection.
//!
//! Go Micro's nodes and its gateway send on the header fields of what they were asked. Its `content-length` is another's: h2
//! resets a stream whose data have another length (RFC 9113 section 8.1.1). Its `connection` and the like have no place in
//! HTTP/2 at all (section 8.2.2), so h2 refuses the request. gRPC tells lengths in its own frames and needs none of them. So
//! between the socket and h2 the fields' *names* are changed in the compressed heads (RFC 7541), in place: numbers of the
//! static table into that of a name of the same length, so that the dynamic tables of both ends stay alike, and where the
//! name is spelt out its last letter into another that has as many bits. What is called so is nobody's: see [`remove`].
//!
//! ```text
//! frame:  length 3 | type 1 | flags 1 | stream 4 | payload      HEADERS (1) begin a block, CONTINUATION (9) go on with it
//! block:  1xxxxxxx indexed | 01xxxxxx name, value, indexed | 0000xxxx, 0001xxxx name, value | 001xxxxx table's size
//! ```
//! What it does not understand it leaves alone: h2 judges it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_v1::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose requests have no fields of another one.
#[derive(Debug)]
pub struct WithoutForeign<T> {
    inner: T,
    frames: Frames,
}

impl<T> WithoutForeign<T> {
    /// A server's side, from the client's preface on.
    pub fn new(inner: T) -> Self {
        Self { inner, frames: Frames::default() }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WithoutForeign<T> {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(task, into))?;
        self.frames.pass(&mut into.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WithoutForeign<T> {
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

/// What the numbers of `content-length` and `transfer-encoding` in the static table of RFC 7541 become: `accept-charset`,
/// `if-modified-since`.
const NUMBERS: [(u8, u8); 2] = [(28, 15), (57, 40)];

/// The names that h2 refuses, and what they become where they are spelt out.
static NAMES: [Name; 6] = [
    Name::new("content-length", "content-lengtd"),
    Name::new("connection", "connectiom"),
    Name::new("keep-alive", "keep-alivc"),
    Name::new("proxy-connection", "proxy-connectiom"),
    Name::new("transfer-encoding", "transfer-encodinf"),
    Name::new("upgrade", "upgrada"),
];

/// Takes out of a call's fields what came as a name of [`NAMES`], and the two that stand for those with a number.
pub fn remove(fields: &mut HeaderMap) {
    let is_foreign = |name: &str| {
        matches!(name, "accept-charset" | "if-modified-since") || NAMES.iter().any(|known| known.changed == name)
    };
    while let Some(name) = fields.keys().find(|name| is_foreign(name.as_str())).cloned() {
        fields.remove(name);
    }
}

/// A name in both of its forms.
#[derive(Debug)]
struct Name {
    spelt: &'static str,
    coded: Coded,
    changed: &'static str,
    /// The last bytes of `changed`; all others are those of the name.
    last: u8,
    last_coded: u8,
}

/// A name in the code of RFC 7541, appendix B.
#[derive(Debug)]
struct Coded {
    bytes: [u8; Self::MOST],
    length: usize,
}

impl Name {
    const fn new(spelt: &'static str, changed: &'static str) -> Self {
        let (coded, other) = (Coded::of(spelt), Coded::of(changed));
        let last = coded.length - 1;
        assert!(coded.length == other.length && spelt.len() == changed.len(), "a changed name has its length");
        let mut at = 0;
        while at < last {
            assert!(coded.bytes[at] == other.bytes[at], "only the last byte may differ: those before it are gone");
            at += 1;
        }
        Self { spelt, coded, changed, last: changed.as_bytes()[spelt.len() - 1], last_coded: other.bytes[last] }
    }

    fn form(&self, is_coded: bool) -> (&[u8], u8) {
        if is_coded {
            (&self.coded.bytes[..self.coded.length], self.last_coded)
        } else {
            (self.spelt.as_bytes(), self.last)
        }
    }
}

impl Coded {
    const MOST: usize = 16;

    /// The bits of each letter, filled up with ones.
    const fn of(name: &str) -> Self {
        let (mut bits, mut count, mut at) = (0_u128, 0, 0);
        while at < name.len() {
            let (code, length) = letter(name.as_bytes()[at]);
            bits = bits << length | code as u128;
            count += length;
            at += 1;
        }
        let length = count.div_ceil(8) as usize;
        bits = ((bits + 1) << (128 - count)).wrapping_sub(1);
        Self { bytes: bits.to_be_bytes(), length }
    }
}

/// The code of a letter of these names, and how many bits it has.
const fn letter(letter: u8) -> (u32, u32) {
    match letter {
        b'a' => (0x3, 5),
        b'c' => (0x4, 5),
        b'd' => (0x24, 6),
        b'e' => (0x5, 5),
        b'f' => (0x25, 6),
        b'g' => (0x26, 6),
        b'h' => (0x27, 6),
        b'i' => (0x6, 5),
        b'k' => (0x75, 7),
        b'l' => (0x28, 6),
        b'm' => (0x29, 6),
        b'n' => (0x2a, 6),
        b'o' => (0x7, 5),
        b'p' => (0x2b, 6),
        b'r' => (0x2c, 6),
        b's' => (0x8, 5),
        b't' => (0x9, 5),
        b'u' => (0x2d, 6),
        b'v' => (0x77, 7),
        b'x' => (0x79, 7),
        b'y' => (0x7a, 7),
        b'-' => (0x16, 6),
        _ => panic!("a letter without a code"),
    }
}

/// Follows a block of fields byte by byte, and changes names.
#[derive(Debug, Default)]
struct Block {
    state: State,
    /// The number that is being read, and its next bits' place.
    number: usize,
    shift: u32,
    /// A name that is spelt out, as far as it is one of them.
    is_coded: bool,
    length: usize,
    matched: usize,
    name: Option<&'static Name>,
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
                if let Some((_, other)) = NUMBERS.iter().find(|(number, _)| number - 15 == *byte) {
                    *byte = other - 15;
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
        if bits > 5
            && let Some((_, other)) = NUMBERS.iter().find(|(number, _)| *number == index)
        {
            *byte = first & !most | other;
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

    /// A byte of a string: of two the first is a name. Only when its last byte comes is the name known, so that is changed.
    fn spell(&mut self, byte: &mut u8, left: usize, strings: u8) {
        if strings != 2 {
            return;
        }
        if left == self.length {
            // no two of them have the same length and the same first byte
            let is_it = |name: &&Name| {
                let (whole, _) = name.form(self.is_coded);
                whole.len() == self.length && whole[0] == *byte
            };
            self.name = NAMES.iter().find(is_it);
        }
        let Some((whole, last)) = self.name.map(|name| name.form(self.is_coded)) else { return };
        if self.matched == self.length - left && *byte == whole[self.matched] {
            self.matched += 1;
            if left == 1 {
                *byte = last;
            }
        }
    }
}

/// What follows the end of a string.
fn after_text(strings: u8) -> State {
    if strings > 1 { State::Length { strings: strings - 1 } } else { State::Field }
}

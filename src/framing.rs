//! Where a body of HTTP/1.1 ends (RFC 9112 sections 6 and 7), read strictly: what two readers could take for two different
//! things is an error.
//!
//! May import: nothing.

use bytes::{Buf, Bytes, BytesMut};

/// Digits of a chunk's size; 16 fill 64 bits.
const SIZE_DIGITS: u8 = 16;
/// Bytes of a chunk's extensions, which nobody uses.
const EXTENSION_BYTES: usize = 1024;
/// Bytes of all trailers, which are read and left out.
const TRAILER_BYTES: usize = 16 << 10;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    NoBody,
    /// After so many bytes.
    Length(u64),
    /// With a chunk of size 0.
    Chunked,
    /// With its connection.
    Close,
}

/// What the next step of decoding gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Bytes of the body.
    Part(Bytes),
    /// More bytes are needed.
    More,
    /// The body is complete.
    End,
}

/// Takes a body out of the bytes of its connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// Bytes to come of the body, or of the chunk that is being read.
    left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length,
    /// In a chunk's size, after so many digits.
    Size(u8),
    /// In its extensions, after so many bytes.
    Extension(usize),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// In a line of trailers: bytes of all lines, and whether this one has any.
    Trailer(usize, bool),
    TrailerLf(usize, bool),
    Close,
    End,
}

impl Decoder {
    pub fn new(framing: Framing) -> Self {
        let (state, left) = match framing {
            Framing::NoBody | Framing::Length(0) => (State::End, 0),
            Framing::Length(bytes) => (State::Length, bytes),
            Framing::Chunked => (State::Size(0), 0),
            Framing::Close => (State::Close, 0),
        };
        Self { state, left }
    }

    /// Nothing more belongs to the body.
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// Whether the body is complete when the connection ends here.
    pub fn may_close(&self) -> bool {
        matches!(self.state, State::End | State::Close)
    }

    /// Bytes still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Length => Some(self.left),
            State::End => Some(0),
            _ => None,
        }
    }

    /// Takes what can be taken from the front of `input`.
    ///
    /// # Errors
    /// What breaks the rules; the connection is of no more use.
    pub fn step(&mut self, input: &mut BytesMut) -> Result<Step, &'static str> {
        loop {
            match self.state {
                State::End => return Ok(Step::End),
                _ if input.is_empty() => return Ok(Step::More),
                State::Close => return Ok(Step::Part(input.split().freeze())),
                State::Length | State::Data => {
                    let bytes = usize::try_from(self.left).map_or(input.len(), |left| left.min(input.len()));
                    self.left -= bytes as u64;
                    if self.left == 0 {
                        self.state = if self.state == State::Length { State::End } else { State::DataCr };
                    }
                    return Ok(Step::Part(input.split_to(bytes).freeze()));
                }
                _ => {
                    let byte = input.get_u8();
                    self.state = self.after(byte)?;
                }
            }
        }
    }

    /// One byte of what stands around the chunks.
    fn after(&mut self, byte: u8) -> Result<State, &'static str> {
        match (self.state, byte) {
            (State::Size(digits), _) if byte.is_ascii_hexdigit() => {
                if digits >= SIZE_DIGITS {
                    return Err("a chunk's size has too many digits");
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.left = self.left << 4 | u64::from(digit);
                Ok(State::Size(digits + 1))
            }
            (State::Size(0), _) => Err("a chunk's size is no hexadecimal number"),
            (State::Size(_) | State::Extension(_), b'\r') => Ok(State::SizeLf),
            (State::Size(_), b';' | b' ' | b'\t') => Ok(State::Extension(1)),
            (State::Size(_), _) => Err("a chunk's size is no hexadecimal number"),
            (State::Extension(_), b'\n') => Err("a chunk's line does not end with CRLF"),
            (State::Extension(bytes), _) if bytes < EXTENSION_BYTES => Ok(State::Extension(bytes + 1)),
            (State::Extension(_), _) => Err("a chunk's extensions are too long"),
            (State::SizeLf, b'\n') if self.left == 0 => Ok(State::Trailer(0, false)),
            (State::SizeLf, b'\n') => Ok(State::Data),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size(0)),
            (State::Trailer(all, has_any), b'\r') => Ok(State::TrailerLf(all, has_any)),
            (State::Trailer(..), b'\n') => Err("a trailer does not end with CRLF"),
            (State::Trailer(all, _), _) if all < TRAILER_BYTES => Ok(State::Trailer(all + 1, true)),
            (State::Trailer(..), _) => Err("the trailers are too long"),
            (State::TrailerLf(_, false), b'\n') => Ok(State::End),
            (State::TrailerLf(all, true), b'\n') => Ok(State::Trailer(all, false)),
            _ => Err("a chunk does not end with CRLF"),
        }
    }
}

/// The digits of a number, at the end of `room`: what `Display` writes, without its machinery.
pub(crate) fn digits(mut number: u64, room: &mut [u8; 20]) -> &[u8] {
    let mut begin = room.len();
    loop {
        begin -= 1;
        room[begin] = b'0' + (number % 10) as u8; // one digit
        number /= 10;
        if number == 0 {
            return &room[begin..];
        }
    }
}

/// The value of a `Content-Length`: digits and nothing else.
pub(crate) fn whole_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_as_displayed() {
        for number in [0, 7, 10, 99, 160, 65535, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(digits(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }

    const SHORT: &str = "short";

    /// What comes of the bytes when they arrive in pieces of `piece`: the body, and what is left over once it ended.
    fn decode(framing: Framing, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Option<usize>), &'static str> {
        let (mut decoder, mut input, mut body) = (Decoder::new(framing), BytesMut::new(), Vec::new());
        let mut pieces = bytes.chunks(piece);
        loop {
            match decoder.step(&mut input)? {
                Step::Part(part) => body.extend_from_slice(&part),
                Step::End => return Ok((body, Some(input.len() + pieces.map(<[u8]>::len).sum::<usize>()))),
                Step::More => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None if decoder.may_close() => return Ok((body, None)),
                    None => return Err(SHORT),
                },
            }
        }
    }

    #[test]
    fn a_body_ends_where_its_framing_says_however_it_arrives() {
        for (framing, bytes, body, left) in [
            (Framing::NoBody, "abc", "", Some(3)),
            (Framing::Length(0), "abc", "", Some(3)),
            (Framing::Length(3), "abcde", "abc", Some(2)),
            (Framing::Close, "abcde", "abcde", None),
            (Framing::Chunked, "0\r\n\r\nx", "", Some(1)),
            (Framing::Chunked, "3\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n", "abc0123456789", Some(0)),
            (Framing::Chunked, "3;a=b;c=\"d\"\r\nabc\r\n3 \r\nabc\r\n000\r\n\r\nHTTP", "abcabc", Some(4)),
            (Framing::Chunked, "1\r\n\r\r\n1\r\n\n\r\n0\r\nA: b\r\nC: d\r\n\r\n", "\r\n", Some(0)),
        ] {
            for piece in [1, 2, 3, 1000] {
                let found = decode(framing, bytes.as_bytes(), piece).unwrap();
                assert_eq!(found, (body.as_bytes().to_vec(), left), "{bytes:?} by {piece}");
            }
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let long = |text: &str, count: usize| text.repeat(count);
        for bytes in [
            "\r\n".to_owned(),
            "g\r\n".to_owned(),
            "-1\r\n".to_owned(),
            "+1\r\na\r\n".to_owned(),
            "0x1\r\na\r\n".to_owned(),
            " 1\r\na\r\n".to_owned(),
            "1\na\r\n".to_owned(),
            "1;x\na\r\n".to_owned(),
            "1\r\rabc".to_owned(),
            "1\r\nab\r\n".to_owned(),
            "1\r\na\n".to_owned(),
            "1\r\na\rb".to_owned(),
            "0\r\n\n".to_owned(),
            "0\r\nA: b\n\r\n".to_owned(),
            "00000000000000001\r\na".to_owned(),
            format!("1;{}\r\n", long("x", EXTENSION_BYTES + 1)),
            format!("0\r\n{}", long("x", TRAILER_BYTES + 1)),
        ] {
            for piece in [1, 1000] {
                let found = decode(Framing::Chunked, bytes.as_bytes(), piece);
                assert!(found.is_err_and(|why| why != SHORT), "{bytes:?}");
            }
        }
    }

    #[test]
    fn a_body_that_stops_early_is_short() {
        for (framing, bytes) in [
            (Framing::Length(4), "abc"),
            (Framing::Chunked, ""),
            (Framing::Chunked, "3\r\nab"),
            (Framing::Chunked, "3\r\nabc\r\n"),
            (Framing::Chunked, "3\r\nabc\r\n0\r\n"),
            (Framing::Chunked, "ffffffffffffffff\r\nabc"),
        ] {
            assert!(decode(framing, bytes.as_bytes(), 1) == Err(SHORT), "{bytes:?}");
        }
    }
}

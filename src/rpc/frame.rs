//! Messages in a stream of bytes.
//!
//! ```text
//! +------------+---------------------+-----------------+
//! | compressed | length, big endian  | the message     |
//! | 1 byte: 0  | 4 bytes             | `length` bytes  |
//! +------------+---------------------+-----------------+
//! ```
//! Source: `PROTOCOL-HTTP2.md` of gRPC, "Length-Prefixed-Message".

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::status::{Code, Status};

/// Bytes before each message.
pub const HEAD_BYTES: usize = 5;

/// Why bytes are no messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message is longer than may be.
    #[error("a message of {length} bytes is longer than {limit} bytes; send less at once")]
    TooLong {
        /// As announced.
        length: usize,
        /// What may be.
        limit: usize,
    },
    /// The message is compressed.
    #[error("the message is compressed, which this server does not take; send it as it is")]
    Compressed,
    /// The first byte is none of a message.
    #[error("a message begins with {0}, not with 0 or 1; this is not gRPC")]
    Malformed(u8),
    /// The stream ended within a message.
    #[error("the stream ended within a message, {0} bytes early")]
    Cut(usize),
}

impl From<&FrameError> for Status {
    fn from(error: &FrameError) -> Self {
        let code = match error {
            FrameError::TooLong { .. } => Code::ResourceExhausted,
            FrameError::Compressed => Code::Unimplemented,
            FrameError::Malformed(_) | FrameError::Cut(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// Appends a message with its head. A message has 4 GiB at most.
pub fn encode(message: &[u8], out: &mut BytesMut) {
    out.reserve(HEAD_BYTES + message.len());
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
}

/// A message with its head.
#[must_use]
pub fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + message.len());
    encode(message, &mut out);
    out.freeze()
}

/// Takes messages out of parts as they come. Holds one message at most, and what came after it in the same part.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    /// What came last, not taken yet.
    part: Bytes,
    /// The begin of a message that came in several parts.
    partial: BytesMut,
}

impl Decoder {
    /// A decoder of messages of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, part: Bytes::new(), partial: BytesMut::new() }
    }

    /// Takes the next part; all messages of the one before must have been taken.
    pub fn push(&mut self, part: Bytes) {
        if self.part.is_empty() {
            self.part = part;
        } else {
            let mut both = BytesMut::from(&self.part[..]);
            both.extend_from_slice(&part);
            self.part = both.freeze();
        }
    }

    /// The next message; `None`: another part is needed.
    ///
    /// # Errors
    /// [`FrameError`], after which nothing more comes.
    pub fn message(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.partial.is_empty() {
            // nearly always a part holds whole messages, which need no copy
            let Some(length) = self.length_of(&self.part)? else {
                self.partial.extend_from_slice(&self.part);
                self.part = Bytes::new();
                return Ok(None);
            };
            if self.part.len() >= HEAD_BYTES + length {
                self.part.advance(HEAD_BYTES);
                return Ok(Some(self.part.split_to(length)));
            }
        }
        self.fill(HEAD_BYTES);
        let Some(length) = self.length_of(&self.partial)? else { return Ok(None) };
        self.fill(HEAD_BYTES + length);
        if self.partial.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        let mut message = self.partial.split().freeze();
        message.advance(HEAD_BYTES);
        Ok(Some(message))
    }

    /// The stream is over.
    ///
    /// # Errors
    /// [`FrameError::Cut`] within a message.
    pub fn end(&self) -> Result<(), FrameError> {
        if self.partial.is_empty() {
            return Ok(());
        }
        let whole = self.length_of(&self.partial)?.map_or(HEAD_BYTES, |length| HEAD_BYTES + length);
        Err(FrameError::Cut(whole.saturating_sub(self.partial.len())))
    }

    /// Moves bytes into `partial`, up to `whole` in all.
    fn fill(&mut self, whole: usize) {
        let missing = whole.saturating_sub(self.partial.len()).min(self.part.len());
        self.partial.extend_from_slice(&self.part[..missing]);
        self.part.advance(missing);
    }

    /// The length that a head tells; `None`: it is not complete.
    fn length_of(&self, bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        match *bytes {
            [] => Ok(None),
            [1, ..] => Err(FrameError::Compressed),
            [0, a, b, c, d, ..] => {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                let fits = length <= self.limit;
                if fits { Ok(Some(length)) } else { Err(FrameError::TooLong { length, limit: self.limit }) }
            }
            [0, ..] => Ok(None),
            [other, ..] => Err(FrameError::Malformed(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(parts: &[&[u8]], limit: usize) -> Result<Vec<Bytes>, FrameError> {
        let (mut decoder, mut out) = (Decoder::new(limit), Vec::new());
        for part in parts {
            decoder.push(Bytes::copy_from_slice(part));
            while let Some(message) = decoder.message()? {
                out.push(message);
            }
        }
        decoder.end()?;
        Ok(out)
    }

    #[test]
    fn messages_come_back_however_they_are_cut() {
        let messages: [&[u8]; 4] = [b"one", b"", &[7; 300], b"last"];
        let mut bytes = BytesMut::new();
        messages.iter().for_each(|message| encode(message, &mut bytes));
        for size in 1..bytes.len() + 1 {
            let parts: Vec<&[u8]> = bytes.chunks(size).collect();
            assert_eq!(all(&parts, 300).unwrap(), messages, "parts of {size}");
        }
        assert_eq!(framed(b"ab")[..], [0, 0, 0, 0, 2, b'a', b'b']);
    }

    #[test]
    fn what_is_no_message_is_told() {
        assert_eq!(all(&[&[0, 0, 0, 1, 0]], 255), Err(FrameError::TooLong { length: 256, limit: 255 }));
        assert_eq!(
            all(&[&[0], &[0xff, 0xff, 0xff, 0xff]], 9),
            Err(FrameError::TooLong { length: u32::MAX as usize, limit: 9 })
        );
        assert_eq!(all(&[&[1, 0, 0, 0, 0]], 9), Err(FrameError::Compressed));
        assert_eq!(all(&[b"{}"], 9), Err(FrameError::Malformed(b'{')));
        assert_eq!(all(&[&[0, 0, 0, 0, 3, 1]], 9), Err(FrameError::Cut(2)));
        assert_eq!(all(&[&[0, 0]], 9), Err(FrameError::Cut(3)));
    }
}

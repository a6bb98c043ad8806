//! Compresses a body part by part.
//!
//! It reads on while the source has more at once, so that small parts are compressed together; when the source has nothing
//! for now, what it has is flushed and sent, so that an event reaches its reader in time. It takes no more from the source than
//! the client takes from it.

use std::io::{self, Write};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use flate2::write::GzEncoder;
use futures_util::Stream;

use super::super::answer::Body;
use super::Coding;
use crate::upstream::{AnswerBody, Broken, HttpError};

/// About what nginx has too: more costs much time for few bytes.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
/// 256 KiB: each stream has a window of its own, and brotli holds back up to twice as much before it gives anything.
const BROTLI_WINDOW_BITS: u32 = 18;
const BROTLI_BUFFER_BYTES: usize = 4096;
const ZSTD_LEVEL: i32 = 3;
/// What is compressed at once goes with its length.
const AT_ONCE_BYTES: usize = 64 << 10;
/// So much is sent together.
const PART_BYTES: usize = 16 << 10;
/// So much is compressed before others of this thread have their turn, at some 100 MB/s about a millisecond.
const TURN_BYTES: usize = 64 << 10;

enum Encoder {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?),
            Coding::Br => {
                let writer =
                    brotli::CompressorWriter::new(Vec::new(), BROTLI_BUFFER_BYTES, BROTLI_QUALITY, BROTLI_WINDOW_BITS);
                Self::Br(Box::new(writer))
            }
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL))),
        })
    }

    fn write(&mut self, part: &[u8]) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.write_all(part),
            Self::Br(encoder) => encoder.write_all(part),
            Self::Gzip(encoder) => encoder.write_all(part),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.flush(),
            Self::Br(encoder) => encoder.flush(),
            Self::Gzip(encoder) => encoder.flush(),
        }
    }

    fn made(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Br(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd(encoder) => encoder.finish(),
            Self::Br(encoder) => Ok(encoder.into_inner()),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

/// Compresses what is in memory: at once where it is short.
///
/// # Errors
/// Gives it back where that did not work.
pub(super) fn whole(coding: Coding, bytes: Bytes) -> Result<Body, Bytes> {
    if bytes.len() > AT_ONCE_BYTES {
        return Ok(Body::Encoded(Box::new(Encoded::new(coding, Source::Whole(bytes)))));
    }
    let encoded = Encoder::new(coding).and_then(|mut encoder| {
        encoder.write(&bytes)?;
        encoder.finish()
    });
    match encoded {
        Ok(encoded) => Ok(Body::Whole(encoded.into())),
        Err(error) => {
            log::debug!("cannot compress an answer, it goes as it is: {error}");
            Err(bytes)
        }
    }
}

/// What is compressed.
pub(super) enum Source {
    Whole(Bytes),
    Passing(Box<AnswerBody>),
}

impl From<Box<AnswerBody>> for Source {
    fn from(body: Box<AnswerBody>) -> Self {
        Self::Passing(body)
    }
}

impl Source {
    fn poll_part(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        match self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(bytes.split_to(bytes.len().min(PART_BYTES))))),
            Self::Passing(body) => Pin::new(body).poll_next(task),
        }
    }
}

/// A body in another coding.
pub(in crate::gateway) struct Encoded {
    coding: Coding,
    source: Source,
    /// Made with the first part; `None` again at the end.
    encoder: Option<Encoder>,
    /// What of a part waits for its turn.
    rest: Bytes,
    has_begun: bool,
    is_unflushed: bool,
}

impl Encoded {
    pub(super) fn new(coding: Coding, source: Source) -> Self {
        Self { coding, source, encoder: None, rest: Bytes::new(), has_begun: false, is_unflushed: false }
    }

    fn poll_encoded(&mut self, task: &mut Context<'_>) -> io::Result<Poll<Option<Result<Bytes, Broken>>>> {
        if !self.has_begun {
            self.encoder = Some(Encoder::new(self.coding)?);
            self.has_begun = true;
        }
        let mut taken = 0;
        loop {
            let Some(encoder) = &mut self.encoder else { return Ok(Poll::Ready(None)) };
            if encoder.made().len() >= PART_BYTES {
                return Ok(Poll::Ready(Some(Ok(mem::take(encoder.made()).into()))));
            }
            if taken >= TURN_BYTES {
                task.waker().wake_by_ref();
                return Ok(Poll::Pending);
            }
            if !self.rest.is_empty() {
                let turn = self.rest.len().min(PART_BYTES);
                encoder.write(&self.rest[..turn])?;
                self.rest.advance(turn);
                taken += turn;
                self.is_unflushed = true;
                continue;
            }
            match self.source.poll_part(task) {
                Poll::Ready(Some(Ok(part))) => self.rest = part,
                Poll::Ready(Some(Err(broken))) => {
                    self.encoder = None;
                    return Ok(Poll::Ready(Some(Err(broken))));
                }
                Poll::Ready(None) => {
                    let last = self.encoder.take().map(Encoder::finish).transpose()?.unwrap_or_default();
                    return Ok(Poll::Ready((!last.is_empty()).then(|| Ok(last.into()))));
                }
                Poll::Pending => {
                    if mem::take(&mut self.is_unflushed) {
                        encoder.flush()?;
                    }
                    if encoder.made().is_empty() {
                        return Ok(Poll::Pending);
                    }
                    return Ok(Poll::Ready(Some(Ok(mem::take(encoder.made()).into()))));
                }
            }
        }
    }
}

impl Stream for Encoded {
    type Item = Result<Bytes, Broken>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_encoded(task).unwrap_or_else(|error| {
            self.encoder = None;
            self.has_begun = true;
            Poll::Ready(Some(Err(Broken::Read(HttpError::Read(error)))))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker;

    use super::*;

    fn noise(bytes: usize) -> Bytes {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..bytes).map(|_| next()).collect::<Vec<u8>>().into()
    }

    fn left(encoded: &Encoded) -> usize {
        match &encoded.source {
            Source::Whole(bytes) => bytes.len() + encoded.rest.len(),
            Source::Passing(_) => 0,
        }
    }

    #[test]
    fn no_more_is_taken_than_is_sent() {
        let waker = noop_waker();
        for coding in [Coding::Zstd, Coding::Br, Coding::Gzip] {
            let (whole, mut sent, mut taken_unsent) = (noise(2 << 20), 0, 0);
            let mut encoded = Encoded::new(coding, Source::Whole(whole.clone()));
            loop {
                match Pin::new(&mut encoded).poll_next(&mut Context::from_waker(&waker)) {
                    Poll::Ready(Some(part)) => sent += part.expect("no failure").len(),
                    Poll::Ready(None) => break,
                    Poll::Pending => {} // its turn is over, and it asked for another
                }
                taken_unsent = taken_unsent.max((whole.len() - left(&encoded)).saturating_sub(sent));
            }
            assert!(sent >= whole.len(), "noise cannot be made shorter");
            assert!(taken_unsent <= 600 << 10, "{coding:?} held {taken_unsent}");
        }
    }

    #[test]
    fn what_shrinks_much_gives_others_their_turn() {
        let waker = noop_waker();
        let whole = Bytes::from(vec![b' '; 1 << 20]);
        let mut encoded = Encoded::new(Coding::Gzip, Source::Whole(whole.clone()));
        let first = Pin::new(&mut encoded).poll_next(&mut Context::from_waker(&waker));
        assert!(first.is_pending(), "{first:?}");
        assert_eq!(left(&encoded), whole.len() - TURN_BYTES);
    }
}

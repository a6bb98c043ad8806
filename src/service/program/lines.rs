//! What a program prints: read line by line, handed on, and the last lines kept for the message that it failed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Where a program printed a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output.
    Out,
    /// Its standard error.
    Err,
}

/// Takes a program's lines, one at a time and without their ends; must not block.
#[derive(Clone)]
pub struct Lines(Arc<Take>);

type Take = dyn Fn(Stream, &str) + Send + Sync;

impl Lines {
    /// From a function.
    pub fn new(take: impl Fn(Stream, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Lines")
    }
}

/// A longer line is handed on in parts.
const LONGEST: usize = 64 << 10;
/// As many lines as a trace of a failed start usually has.
const KEPT: usize = 20;

/// The last lines of a program.
#[derive(Clone, Debug, Default)]
pub struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    fn keep(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// Takes them out.
    pub fn take(&self) -> VecDeque<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads a stream to its end.
pub async fn read(from: impl AsyncRead + Unpin, stream: Stream, lines: Lines, last: LastLines) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    let tell = |line: &[u8]| {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        last.keep(&text);
        (lines.0)(stream, &text);
    };
    loop {
        let (taken, ended) = match from.fill_buf().await {
            Ok([]) => break,
            Ok(bytes) => {
                let room = bytes.len().min(LONGEST - line.len());
                match bytes[..room].iter().position(|byte| *byte == b'\n') {
                    Some(end) => {
                        line.extend_from_slice(&bytes[..end]);
                        (end + 1, true)
                    }
                    None => {
                        line.extend_from_slice(&bytes[..room]);
                        (room, line.len() == LONGEST)
                    }
                }
            }
            Err(error) => {
                log::warn!("cannot read what the program prints: {error}");
                break;
            }
        };
        from.consume(taken);
        if ended {
            tell(&line);
            line.clear();
        }
    }
    if !line.is_empty() {
        tell(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines_of(bytes: &[u8]) -> Vec<String> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let to = told.clone();
        let lines = Lines::new(move |_, line| to.lock().expect("no panic").push(line.to_owned()));
        read(bytes, Stream::Out, lines, LastLines::default()).await;
        let told = told.lock().expect("no panic");
        told.clone()
    }

    #[tokio::test]
    async fn lines_are_whole_and_the_last_needs_no_end() {
        assert_eq!(lines_of(b"one\r\n\ntwo\xff\nrest").await, ["one", "", "two\u{fffd}", "rest"]);
        assert!(lines_of(b"").await.is_empty());
    }

    #[tokio::test]
    async fn a_line_without_end_comes_in_parts() {
        let long = vec![b'x'; LONGEST * 2 + 5];
        let lengths: Vec<usize> = lines_of(&long).await.iter().map(String::len).collect();
        assert_eq!(lengths, [LONGEST, LONGEST, 5]);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let last = LastLines::default();
        (0..KEPT + 3).for_each(|n| last.keep(&n.to_string()));
        let kept = last.take();
        assert_eq!((kept.len(), kept.front().map(String::as_str)), (KEPT, Some("3")));
    }
}

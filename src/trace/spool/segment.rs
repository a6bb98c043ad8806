//! A file of the spool: batches one after the other.
//!
//! ```text
//! segment = "GOMSSPL1" record*
//! record  = length: u32 LE | crc: u32 LE | events: u32 LE | payload: `length` bytes, a JSON array of `events` events
//! ```
//! `crc` is CRC-32 (IEEE) of `events` and payload. Records are only ever appended, each with one write. So after a crash
//! a file may end in the middle of a record (a torn tail, which is cut off); anything else that does not fit is damage,
//! and the file is set aside.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use bytes::Bytes;

use crate::trace::batch::{BATCH_BYTES, Batch};

const MAGIC: &[u8; 8] = b"GOMSSPL1";
/// Where the first record stands.
pub(super) const FIRST_RECORD: u64 = MAGIC.len() as u64;
const HEADER: usize = 12;
/// A batch is sealed when it passes `BATCH_BYTES`, with its last event on top; no honest record is longer.
const MAX_RECORD: usize = BATCH_BYTES + (16 << 20);

/// Makes a new segment with nothing in it.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut file = File::options().create_new(true).append(true).open(path)?;
    if let Err(error) = file.write_all(MAGIC) {
        // a full disk: each try would leave one more empty file
        return Err(std::fs::remove_file(path).err().unwrap_or(error));
    }
    Ok(file)
}

/// Appends a batch; returns the bytes written.
pub(super) fn append(file: &mut File, batch: &Batch) -> io::Result<u64> {
    let length = u32::try_from(batch.json.len()).map_err(io::Error::other)?;
    let events = u32::try_from(batch.events).map_err(io::Error::other)?.to_le_bytes();
    let mut record = Vec::with_capacity(HEADER + batch.json.len());
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&checksum(events, &batch.json).to_le_bytes());
    record.extend_from_slice(&events);
    record.extend_from_slice(&batch.json);
    file.write_all(&record)?;
    Ok(record.len() as u64)
}

fn checksum(events: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&events);
    hasher.update(payload);
    hasher.finalize()
}

/// What stands at a place in a segment.
#[derive(Debug)]
pub(super) enum Next {
    /// A batch, and where the next one stands.
    Batch(Batch, u64),
    /// Nothing more.
    End,
    /// The beginning of a record whose end is missing.
    Torn,
    /// Bytes that no record of ours looks like.
    Damaged,
}

/// Reads the record at `offset`.
pub(super) fn read_at(file: &mut File, offset: u64) -> io::Result<Next> {
    file.seek(SeekFrom::Start(offset))?;
    let mut header = [0; HEADER];
    match read_full(file, &mut header)? {
        0 => return Ok(Next::End),
        HEADER => {}
        _ => return Ok(Next::Torn),
    }
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (length, crc, events) = (word(0) as usize, word(4), word(8));
    if length == 0 || length > MAX_RECORD {
        return Ok(Next::Damaged);
    }
    let mut payload = vec![0; length];
    if read_full(file, &mut payload)? < length {
        return Ok(Next::Torn);
    }
    if checksum(events.to_le_bytes(), &payload) != crc {
        return Ok(Next::Damaged);
    }
    let next = offset + (HEADER + length) as u64;
    Ok(Next::Batch(Batch::from_disk(Bytes::from(payload), events as usize), next))
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What a whole segment of a dead process holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Where the last whole record ends.
    pub good_bytes: u64,
    /// Events in whole records.
    pub events: u64,
    /// Something that is no torn tail stands behind them (or before: then `good_bytes` is 0).
    pub damaged: bool,
}

/// Checks every record of a file.
pub(super) fn scan(file: &mut File) -> io::Result<Scan> {
    let mut magic = [0; MAGIC.len()];
    file.seek(SeekFrom::Start(0))?;
    let read = read_full(file, &mut magic)?;
    if magic[..read] != MAGIC[..read] {
        return Ok(Scan { damaged: true, ..Scan::default() });
    }
    if read < MAGIC.len() {
        return Ok(Scan::default()); // died while it made the file
    }
    let mut found = Scan { good_bytes: FIRST_RECORD, ..Scan::default() };
    loop {
        match read_at(file, found.good_bytes)? {
            Next::Batch(batch, next) => {
                found.good_bytes = next;
                found.events += batch.events as u64;
            }
            Next::End | Next::Torn => return Ok(found),
            Next::Damaged => {
                found.damaged = true;
                return Ok(found);
            }
        }
    }
}

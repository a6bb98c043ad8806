//! The part of the spool that is on disk: a queue of segments in a folder that this process alone holds.
//!
//! ```text
//! <spool_dir>/<uuid>/lock                   held (flock) by the process that owns the folder, as long as it lives
//! <spool_dir>/<uuid>/0000000000000001.seg   oldest; delivered first, deleted once all of it is confirmed
//! <spool_dir>/<uuid>/0000000000000002.seg   newest; appended to
//! <spool_dir>/<uuid>-…02.seg.bad            damaged, set aside for a person to look at; the newest 16
//! ```
//! Invariants: what is before [`Disk::cursor`] is confirmed; the bytes of all segments stay within the cap, else the
//! oldest segment goes; a segment is on disk in one folder at a time (adoption renames it). Writes are not synced: they
//! survive the death of the process, not that of the machine.
//!
//! Why not a library (looked at in November 2026; what is needed: a checksum a record, a cap at which the oldest goes,
//! several takes in flight with one confirmation each, other processes' leftovers taken over):
//! - yaque 0.6 is the nearest: segments, locks, a take that counts when it is committed. But its record has a parity over
//!   the length and none over the payload, and a wrong one panics; one take borrows the receiver until it is committed, so
//!   one delivery is in flight; at the cap it refuses the newest; its lock files outlive a killed process (its issue 23)
//!   until somebody calls `recover`.
//! - okaywal 0.3 is a log to be checkpointed and no queue, and calls itself not ready for production; qwal 0.1 and
//!   simple_wal 0.3 rest since their first releases.
//! - An embedded database (fjall, redb, sled) does all of it, with an index, a compaction and a journal that a queue
//!   read once from front to back does not need, and writes each event twice or more.
//! - vector's `disk_v2` has what is needed (its records are like ours) but is part of vector, published as no crate.
//!
//! What is left is these two files, `segment.rs` and the tests that cut, damage, fill and kill.

mod adopt;
mod leftovers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::segment::{self, FIRST_RECORD, Next};
use crate::trace::batch::Batch;

/// A place in the queue: segment number and byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    segment: u64,
    offset: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    /// Events in it that are not confirmed.
    events: u64,
    /// Those of them that are in flight.
    in_flight: u64,
}

impl Segment {
    /// Events that would be lost with the file: what is in flight may still arrive.
    fn waiting(&self) -> u64 {
        self.events.saturating_sub(self.in_flight)
    }
}

/// What was lost or set aside; the spool counts and logs it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// Events in segments that went because of the cap or because they could not be read.
    pub events: u64,
    /// Files that were set aside.
    pub damaged_files: u64,
}

/// A queue of batches on disk.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    dir: PathBuf,
    lock: File,
    segments: VecDeque<Segment>,
    writer: Option<File>,
    reader: Option<(u64, File)>,
    /// What is before it is confirmed.
    cursor: Position,
    /// What is before it and not confirmed is in flight.
    taken: Position,
    next_number: u64,
    bytes: u64,
    cap: u64,
    losses: Losses,
    /// Folders of ended processes that could not be taken over; said once.
    stuck: BTreeSet<PathBuf>,
}

/// Segments are an eighth of the cap, so that dropping the oldest loses little, and at most this long.
const MAX_SEGMENT_BYTES: u64 = 8 << 20;

impl Disk {
    /// Makes a folder of this process under `root` and takes over what dead processes left there.
    pub fn open(root: &Path, cap: u64) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let name = Uuid::new_v4().to_string();
        // locked under a name that nobody adopts, then renamed: nobody can take it in between
        let (hidden, dir) = (root.join(format!(".new-{name}")), root.join(name));
        fs::create_dir(&hidden)?;
        let lock = File::create(hidden.join("lock"))?;
        lock.try_lock().map_err(io::Error::from)?;
        fs::rename(&hidden, &dir)?;
        let mut disk = Self {
            root: root.to_owned(),
            dir,
            lock,
            segments: VecDeque::new(),
            writer: None,
            reader: None,
            cursor: Position::default(),
            taken: Position::default(),
            next_number: 1,
            bytes: 0,
            cap,
            losses: Losses::default(),
            stuck: BTreeSet::new(),
        };
        disk.adopt_all()?;
        disk.keep_within_cap(0);
        disk.tidy();
        Ok(disk)
    }

    /// Whether there is nothing to deliver.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Events that are not confirmed.
    pub fn events(&self) -> u64 {
        self.segments.iter().map(|segment| segment.events).sum()
    }

    /// Whether something is neither confirmed nor in flight.
    pub fn has_waiting(&self) -> bool {
        self.segments.iter().any(|segment| segment.waiting() > 0)
    }

    /// What was lost since the last call.
    pub fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.losses)
    }

    /// Writes a batch behind all others; drops the oldest segments when the cap would be passed.
    ///
    /// # Errors
    /// When it cannot be written; then nothing of it stands there.
    pub fn push(&mut self, batch: &Batch) -> io::Result<Position> {
        self.keep_within_cap(batch.json.len() as u64);
        let full = self.segments.back().is_none_or(|last| last.bytes >= self.segment_bytes());
        if full || self.writer.is_none() {
            self.begin_segment()?;
        }
        let (Some(writer), Some(last)) = (self.writer.as_mut(), self.segments.back_mut()) else {
            return Err(io::Error::other("no segment to write to"));
        };
        match segment::append(writer, batch) {
            Ok(written) => {
                last.bytes += written;
                last.events += batch.events as u64;
                self.bytes += written;
                Ok(Position { segment: last.number, offset: last.bytes })
            }
            Err(error) => {
                // half a record may stand there: cut it off, and write no more to this file
                let cut = writer.set_len(last.bytes);
                self.writer = None;
                if last.bytes == FIRST_RECORD {
                    self.remove_last();
                }
                cut.and(Err(error))
            }
        }
    }

    /// The same for a batch that is in flight, which only follows others that are: [`Disk::has_waiting`] says no.
    pub fn push_in_flight(&mut self, batch: &Batch) -> io::Result<Position> {
        let end = self.push(batch)?;
        if let Some(last) = self.segments.back_mut() {
            last.in_flight += batch.events as u64;
        }
        self.taken = end;
        Ok(end)
    }

    /// The oldest batches that wait, `max_bytes` at most but one at least, each with where it ends: they are in flight
    /// now. None when nothing is left that can be read. Damaged segments are set aside.
    ///
    /// # Errors
    /// When a file cannot be opened or read now.
    pub fn take(&mut self, max_batches: usize, max_bytes: usize) -> io::Result<Vec<(Batch, Position)>> {
        let (mut batches, mut bytes, mut index) = (Vec::new(), 0, 0);
        self.taken = self.taken.max(self.cursor);
        while let Some(current) = self.segments.get(index).map(|segment| segment.number) {
            let begin = Position { segment: current, offset: FIRST_RECORD };
            if self.taken.segment > current {
                index += 1;
                continue;
            }
            if batches.len() >= max_batches || bytes >= max_bytes {
                break;
            }
            let from = self.taken.max(begin);
            match self.read_at(from) {
                Ok(Next::Batch(batch, offset)) => {
                    bytes += batch.json.len();
                    self.taken = Position { offset, ..from };
                    self.segments[index].in_flight += batch.events as u64;
                    batches.push((batch, self.taken));
                }
                Ok(Next::End) => index += 1,
                Ok(Next::Torn | Next::Damaged) if batches.is_empty() => self.set_aside(index),
                Err(error) if error.kind() == io::ErrorKind::NotFound && batches.is_empty() => self.set_aside(index),
                Err(error) if batches.is_empty() => return Err(error),
                Ok(Next::Torn | Next::Damaged) | Err(_) => break,
            }
        }
        if batches.is_empty() && self.segments.iter().all(|segment| segment.in_flight == 0) {
            // files that someone cut short: there is nothing to deliver in them
            self.losses.events += self.events();
            while !self.segments.is_empty() {
                self.remove_first();
            }
        }
        Ok(batches)
    }

    /// Forgets a batch that was in flight, by where it ends and its number of events: it was confirmed, and so was all
    /// before it. Nothing is to be done where the cap took its segment meanwhile: it was not counted as lost then.
    pub fn confirm(&mut self, end: Position, events: u64) {
        self.cursor = self.cursor.max(end);
        if let Some(segment) = self.segment(end.segment) {
            segment.events = segment.events.saturating_sub(events);
            segment.in_flight = segment.in_flight.saturating_sub(events);
        }
        while let Some(first) = self.segments.front() {
            let end = Position { segment: first.number, offset: first.bytes };
            if end > self.cursor && first.events > 0 {
                break;
            }
            self.remove_first();
        }
    }

    /// Everything that was in flight waits again, to be taken in the same order. `flying` are those batches, as in
    /// [`Disk::confirm`]: those whose segment the cap took meanwhile are lost now.
    pub fn give_back(&mut self, flying: impl IntoIterator<Item = (Position, u64)>) {
        for (end, events) in flying {
            if self.segment(end.segment).is_none() {
                self.losses.events += events;
            }
        }
        self.segments.iter_mut().for_each(|segment| segment.in_flight = 0);
        self.taken = self.cursor;
    }

    fn segment(&mut self, number: u64) -> Option<&mut Segment> {
        self.segments.iter_mut().find(|segment| segment.number == number)
    }

    fn read_at(&mut self, at: Position) -> io::Result<Next> {
        if self.reader.as_ref().is_none_or(|(number, _)| *number != at.segment) {
            self.reader = Some((at.segment, File::open(self.path(at.segment))?));
        }
        match self.reader.as_mut() {
            Some((_, file)) => segment::read_at(file, at.offset),
            None => Ok(Next::End),
        }
    }

    fn segment_bytes(&self) -> u64 {
        (self.cap / 8).min(MAX_SEGMENT_BYTES)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.seg"))
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let number = self.next_number;
        self.next_number += 1;
        self.writer = Some(segment::create(&self.path(number))?);
        self.segments.push_back(Segment { number, bytes: FIRST_RECORD, events: 0, in_flight: 0 });
        self.bytes += FIRST_RECORD;
        Ok(())
    }

    fn keep_within_cap(&mut self, coming: u64) {
        while self.bytes + coming > self.cap && !self.segments.is_empty() {
            self.losses.events += self.segments.front().map_or(0, Segment::waiting);
            self.remove_first();
        }
    }

    fn remove_first(&mut self) {
        let Some(first) = self.segments.pop_front() else { return };
        if self.segments.is_empty() {
            self.writer = None;
        }
        self.bytes = self.bytes.saturating_sub(first.bytes);
        self.cursor = self.cursor.max(Position { segment: first.number + 1, offset: 0 });
        if let Err(error) = fs::remove_file(self.path(first.number)) {
            log::warn!("cannot remove a delivered spool file file={} error={error}", self.path(first.number).display());
        }
    }

    /// Of a file that was begun and got nothing, nothing stays.
    fn remove_last(&mut self) {
        let Some(last) = self.segments.pop_back() else { return };
        self.bytes = self.bytes.saturating_sub(last.bytes);
        if let Err(error) = fs::remove_file(self.path(last.number)) {
            log::warn!("cannot remove an empty spool file file={} error={error}", self.path(last.number).display());
        }
    }

    /// Takes a file that cannot be read out of the queue.
    fn set_aside(&mut self, index: usize) {
        let Some(bad) = self.segments.remove(index) else { return };
        if self.segments.len() == index {
            self.writer = None;
        }
        self.reader = None;
        self.bytes = self.bytes.saturating_sub(bad.bytes);
        self.losses.damaged_files += 1;
        self.losses.events += bad.waiting();
        self.keep_as_bad(&self.path(bad.number));
    }

    fn keep_as_bad(&self, path: &Path) {
        let part = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let owner = path.parent().map(part).unwrap_or_default();
        let target = self.root.join(format!("{owner}-{}.bad", part(path)));
        match fs::rename(path, &target) {
            Ok(()) => log::warn!("damaged spool file set aside file={}", target.display()),
            Err(error) => log::warn!("cannot set a damaged spool file aside file={} error={error}", path.display()),
        }
        self.tidy();
    }
}

impl Drop for Disk {
    /// Leaves nothing behind when all was confirmed.
    fn drop(&mut self) {
        if !self.segments.is_empty() {
            return; // the next process adopts the folder: the lock goes with this one
        }
        let removed = fs::remove_file(self.dir.join("lock")).and_then(|()| fs::remove_dir(&self.dir));
        if let Err(error) = removed.and_then(|()| self.lock.unlock()) {
            log::debug!("cannot remove an empty spool folder folder={} error={error}", self.dir.display());
        }
    }
}

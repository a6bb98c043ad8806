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
    cursor: Position,
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

    /// Where the next batch would be written.
    pub fn end(&self) -> Position {
        match self.segments.back() {
            Some(last) => Position { segment: last.number, offset: last.bytes },
            None => Position { segment: self.next_number, offset: 0 },
        }
    }

    /// What was lost since the last call.
    pub fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.losses)
    }

    /// Writes a batch behind all others; drops the oldest segments when the cap would be passed.
    pub fn push(&mut self, batch: &Batch) -> io::Result<()> {
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
                Ok(())
            }
            Err(error) => {
                // half a record may stand there: cut it off, and write no more to this file
                let cut = writer.set_len(last.bytes);
                self.writer = None;
                cut.and(Err(error))
            }
        }
    }

    /// The oldest batches that are not confirmed, `max_bytes` at most but one at least, and where they end. None when
    /// nothing is left that can be read; then the queue is empty. Damaged segments are set aside.
    ///
    /// # Errors
    /// When a file cannot be opened or read now.
    pub fn peek(&mut self, max_batches: usize, max_bytes: usize) -> io::Result<(Vec<Batch>, Position)> {
        let (mut batches, mut bytes, mut at) = (Vec::new(), 0, self.cursor);
        let mut index = 0;
        while let Some(current) = self.segments.get(index).map(|segment| segment.number) {
            if at.segment < current || (at.segment == current && at.offset < FIRST_RECORD) {
                at = Position { segment: current, offset: FIRST_RECORD };
            }
            if at.segment > current {
                index += 1;
                continue;
            }
            if batches.len() >= max_batches || bytes >= max_bytes {
                break;
            }
            match self.read_at(at) {
                Ok(Next::Batch(batch, next)) => {
                    bytes += batch.json.len();
                    at.offset = next;
                    batches.push(batch);
                }
                Ok(Next::End) => index += 1,
                Ok(Next::Torn | Next::Damaged) if batches.is_empty() => self.set_aside(index),
                Err(error) if error.kind() == io::ErrorKind::NotFound && batches.is_empty() => self.set_aside(index),
                Err(error) if batches.is_empty() => return Err(error),
                Ok(Next::Torn | Next::Damaged) | Err(_) => break,
            }
        }
        if batches.is_empty() {
            // files that someone cut short: there is nothing to deliver in them
            self.losses.events += self.events();
            while !self.segments.is_empty() {
                self.remove_first();
            }
        }
        Ok((batches, at))
    }

    /// Forgets what stands before `end`, `events` events: they were confirmed.
    pub fn confirm(&mut self, end: Position, mut events: u64) {
        self.cursor = self.cursor.max(end);
        for segment in self.segments.iter_mut().take_while(|segment| segment.number <= end.segment) {
            let share = events.min(segment.events);
            segment.events -= share;
            events -= share;
        }
        while let Some(first) = self.segments.front() {
            let here = Position { segment: first.number, offset: first.bytes };
            if here > self.cursor {
                break;
            }
            self.remove_first();
        }
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
        self.segments.push_back(Segment { number, bytes: FIRST_RECORD, events: 0 });
        self.bytes += FIRST_RECORD;
        Ok(())
    }

    fn keep_within_cap(&mut self, coming: u64) {
        while self.bytes + coming > self.cap && !self.segments.is_empty() {
            self.losses.events += self.segments.front().map_or(0, |first| first.events);
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

    /// Takes a file that cannot be read out of the queue.
    fn set_aside(&mut self, index: usize) {
        let Some(bad) = self.segments.remove(index) else { return };
        if self.segments.len() == index {
            self.writer = None;
        }
        self.reader = None;
        self.bytes = self.bytes.saturating_sub(bad.bytes);
        self.losses.damaged_files += 1;
        self.losses.events += bad.events;
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

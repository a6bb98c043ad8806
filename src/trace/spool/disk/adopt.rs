//! Taking over what ended processes left: their folder's lock is free, so its files may be moved to the end of this
//! queue. A folder is always held by one process alone, so a segment has one new owner however many look for it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::super::segment;
use super::{Disk, Segment};

impl Disk {
    /// Takes over everything; for the start, where the cap is applied afterwards.
    pub(super) fn adopt_all(&mut self) -> io::Result<()> {
        for folder in self.other_folders()? {
            self.try_adopt(&folder, usize::MAX, u64::MAX);
        }
        Ok(())
    }

    /// Takes over one file, which takes a few milliseconds, unless the cap forbids it. Says whether it did, so there may
    /// be more.
    ///
    /// Not to be called while something is in flight that does not stand in this queue yet: it would get in behind, and
    /// a confirmation covers all that stands before it.
    ///
    /// # Errors
    /// When the folder of all spools cannot be read.
    pub fn adopt_one(&mut self) -> io::Result<bool> {
        for folder in self.other_folders()? {
            if self.try_adopt(&folder, 1, self.cap) > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether an ended process left something, as far as a glance tells.
    pub fn has_orphan(&self) -> bool {
        let is_orphan = |folder: &PathBuf| {
            let lock = File::options().write(true).open(folder.join("lock"));
            !self.stuck.contains(folder) && lock.is_ok_and(|lock| lock.try_lock().is_ok())
        };
        self.other_folders().is_ok_and(|folders| folders.iter().any(is_orphan))
    }

    fn other_folders(&self) -> io::Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let folder = entry?.path();
            let hidden = folder.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            if !hidden && folder != self.dir && folder.is_dir() {
                folders.push(folder);
            }
        }
        Ok(folders)
    }

    /// Files taken over; a failure is told once a folder.
    fn try_adopt(&mut self, folder: &Path, max_files: usize, cap: u64) -> usize {
        match self.adopt(folder, max_files, cap) {
            Ok(files) => files,
            // another process was quicker, or the owner ended and left nothing
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => {
                if self.stuck.insert(folder.to_owned()) {
                    let folder = folder.display();
                    log::warn!("cannot take over the spool of an ended process folder={folder} error={error}");
                }
                0
            }
        }
    }

    /// Moves segments of a dead process to the end of this queue, and removes its folder when none is left.
    fn adopt(&mut self, folder: &Path, max_files: usize, cap: u64) -> io::Result<usize> {
        let lock = File::options().write(true).open(folder.join("lock"))?; // without one it is no folder of ours
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(0), // alive
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "seg"));
        files.sort();
        let (before, mut taken) = (self.events(), 0);
        for file in files.iter().take(max_files) {
            if self.bytes + fs::metadata(file)?.len() > cap {
                return Ok(taken);
            }
            self.adopt_file(file)?;
            if file.exists() {
                return Err(io::Error::other(format!("`{}` cannot be moved", file.display())));
            }
            taken += 1;
        }
        if taken == files.len() {
            fs::remove_file(folder.join("lock"))?;
            fs::remove_dir(folder)?;
        }
        let events = self.events() - before;
        log::info!("took over the spool of an ended process folder={} events={events}", folder.display());
        Ok(taken)
    }

    fn adopt_file(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::options().read(true).write(true).open(path)?;
        let found = segment::scan(&mut file)?;
        if found.damaged {
            self.losses.damaged_files += 1;
            if found.events == 0 {
                self.keep_as_bad(path);
                return Ok(());
            }
            // the whole file is kept for a person, its good records are delivered
            let copy = path.with_extension("copy");
            fs::copy(path, &copy)?;
            self.keep_as_bad(path);
            fs::rename(&copy, path)?;
            file = File::options().read(true).write(true).open(path)?;
        }
        if found.events == 0 {
            return fs::remove_file(path);
        }
        file.set_len(found.good_bytes)?;
        let number = self.next_number;
        self.next_number += 1;
        fs::rename(path, self.path(number))?;
        // the next batch stands behind these, so not in the file that was written to until now
        self.writer = None;
        self.segments.push_back(Segment { number, bytes: found.good_bytes, events: found.events, in_flight: 0 });
        self.bytes += found.good_bytes;
        Ok(())
    }
}

//! What deaths and damage leave in the folder of all spools, kept within bounds.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Disk;

/// Damaged files that are kept for a person to look at: a few show what went on as well as hundreds do.
const BAD_FILES: usize = 16;
/// A process needs microseconds from making its folder to locking it; one this old was left by a death in between.
const STALE: Duration = Duration::from_secs(60);

impl Disk {
    /// Removes folders that were never finished, and bounds the damaged files. What cannot be removed stays.
    pub(super) fn tidy(&self) {
        let done = remove_unfinished(&self.root).and(bound_bad(&self.root, self.cap / 8));
        if let Err(error) = done {
            log::debug!("cannot tidy the folder of spools folder={} error={error}", self.root.display());
        }
    }
}

/// Removes `.new-…` folders that are old and locked by nobody.
fn remove_unfinished(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let age = SystemTime::now().duration_since(entry.metadata()?.modified()?).unwrap_or_default();
        if !entry.file_name().to_string_lossy().starts_with(".new-") || age < STALE {
            continue;
        }
        let lock = entry.path().join("lock");
        match File::options().write(true).open(&lock) {
            Ok(file) if file.try_lock().is_err() => continue, // its owner is only slow
            Ok(_) => fs::remove_file(&lock)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::remove_dir(entry.path())?; // fails when something of another kind stands in it
    }
    Ok(())
}

/// Keeps the newest damaged files: [`BAD_FILES`] of them and `max_bytes` at most, but one in any case.
fn bound_bad(root: &Path, max_bytes: u64) -> io::Result<()> {
    let mut bad = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "bad") {
            let metadata = fs::metadata(&path)?;
            bad.push((metadata.modified()?, metadata.len(), path));
        }
    }
    bad.sort_unstable_by(|one, other| other.cmp(one));
    let mut bytes = 0;
    for (index, (_, len, path)) in bad.iter().enumerate() {
        bytes += len;
        if index > 0 && (index >= BAD_FILES || bytes > max_bytes) {
            log::warn!("an old damaged spool file is removed, newer ones are kept file={}", path.display());
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_before(path: &Path, age: Duration) {
        File::open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn damaged_files_are_bounded_in_number_and_bytes_and_the_newest_stay() {
        for (len, cap, kept) in [(10, 1 << 20, 16), (1000, 40_000, 5), (1000, 80, 1)] {
            let root = tempfile::tempdir().unwrap();
            for age in 1..=20 {
                let path = root.path().join(format!("{age:02}.seg.bad"));
                fs::write(&path, vec![0; len]).unwrap();
                made_before(&path, Duration::from_secs(age));
            }
            fs::write(root.path().join("dead-letters.jsonl"), vec![0; 1 << 20]).unwrap();
            let disk = Disk::open(root.path(), cap).unwrap();
            let mut left: Vec<_> = fs::read_dir(root.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.ends_with(".bad"))
                .collect();
            left.sort();
            let newest: Vec<_> = (1..=kept).map(|age| format!("{age:02}.seg.bad")).collect();
            assert_eq!(left, newest, "{len} bytes each, cap {cap}");
            assert!(root.path().join("dead-letters.jsonl").exists());
            drop(disk);
        }
    }

    #[test]
    fn folders_that_were_never_finished_go_when_they_are_old_and_free() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str, locked: bool| {
            let path = root.path().join(name);
            fs::create_dir(&path).unwrap();
            locked.then(|| File::create(path.join("lock")).unwrap())
        };
        drop(folder(".new-free", true));
        drop(folder(".new-empty", false));
        drop(folder(".new-young", true));
        let held = folder(".new-held", true).unwrap();
        held.try_lock().unwrap();
        for name in [".new-free", ".new-empty", ".new-held"] {
            made_before(&root.path().join(name), Duration::from_secs(120));
        }
        let disk = Disk::open(root.path(), 1 << 20).unwrap();
        let left = [".new-free", ".new-empty", ".new-young", ".new-held"].map(|name| root.path().join(name).exists());
        assert_eq!(left, [false, false, true, true]);
        drop(disk);
    }
}

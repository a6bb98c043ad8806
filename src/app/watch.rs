//! Tells when watched files change: whatever an editor or a compiler does to them is one change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// An editor writes in several steps, and a branch that is checked out changes many files.
const SETTLE: Duration = Duration::from_millis(200);
/// A safety net where nobody tells of changes (file systems of a network or of a virtual machine's host).
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// What no service is written in, but what running it writes. Names with a `.` before them are left out, too.
const LEFT_OUT: [&str; 4] = ["__pycache__", "node_modules", "target", "vendor"];
/// More files than a service's own sources have.
const MOST_FILES: usize = 50_000;

type Stamps = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// Watched files and folders.
pub struct Watch {
    paths: Vec<PathBuf>,
    seen: Stamps,
    noticed: Arc<Notify>,
    /// Tells as long as it is there.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches these; `None` where there are none.
    pub fn of(paths: &[PathBuf]) -> Option<Self> {
        (!paths.is_empty()).then(|| Self::start(paths))
    }

    /// Remembers how the files are now. What is not there yet may come.
    fn start(paths: &[PathBuf]) -> Self {
        let noticed = Arc::new(Notify::new());
        let watcher = match tell(paths, &noticed) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                log::debug!("nobody tells of changes of files, they are looked at instead: {error}");
                None
            }
        };
        let seen = stamps(paths);
        if seen.is_empty() {
            let paths: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
            log::warn!("no file to watch in {}", paths.join(", "));
        }
        Self { paths: paths.to_vec(), seen, noticed, _watcher: watcher }
    }

    /// Resolves once files have changed and rest again; the first of them.
    pub async fn changed(&mut self) -> PathBuf {
        loop {
            tokio::select! {
                () = self.noticed.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let mut now = stamps(&self.paths);
            if now == self.seen {
                continue;
            }
            loop {
                tokio::time::sleep(SETTLE).await;
                let later = stamps(&self.paths);
                if later == now {
                    break;
                }
                now = later;
            }
            let seen = std::mem::replace(&mut self.seen, now);
            if let Some(path) = difference(&seen, &self.seen) {
                return path;
            }
        }
    }
}

/// The first file that is another, new or gone.
fn difference(old: &Stamps, new: &Stamps) -> Option<PathBuf> {
    let changed = new.iter().find(|(path, stamp)| old.get(*path) != Some(*stamp));
    let gone = || old.iter().find(|(path, _)| !new.contains_key(*path));
    changed.or_else(gone).map(|(path, _)| path.clone())
}

fn tell(paths: &[PathBuf], noticed: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let notice = noticed.clone();
    // looking at files tells of reads: what changed is seen by their stamps
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if !event.is_ok_and(|event| event.kind.is_access()) {
            notice.notify_one();
        }
    })?;
    for path in paths {
        match path.is_dir() {
            true => watcher.watch(path, RecursiveMode::Recursive)?,
            false => {
                // the folder, since an editor puts another file in its place
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                watcher.watch(folder.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)?;
            }
        }
    }
    Ok(watcher)
}

fn stamps(paths: &[PathBuf]) -> Stamps {
    let mut stamps = Stamps::new();
    for path in paths {
        collect(path, &mut stamps);
    }
    stamps
}

/// Files that cannot be read are as if they were not there.
fn collect(path: &Path, stamps: &mut Stamps) {
    if stamps.len() >= MOST_FILES {
        return;
    }
    let Ok(about) = std::fs::metadata(path) else { return };
    if about.is_file() {
        stamps.insert(path.to_owned(), (about.modified().ok(), about.len()));
        return;
    }
    let Ok(entries) = std::fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // a link to a folder might lead in a circle
        let is_link_to_folder = entry.file_type().is_ok_and(|kind| kind.is_symlink()) && entry.path().is_dir();
        if !name.starts_with('.') && !LEFT_OUT.contains(&name.as_ref()) && !is_link_to_folder {
            collect(&entry.path(), stamps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_running_a_program_writes_is_no_change() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
        std::fs::create_dir(dir.path().join("__pycache__")).expect("a folder");
        write("shop.py", "1");
        let paths = [dir.path().to_owned()];
        let before = stamps(&paths);
        write("__pycache__/shop.pyc", "x");
        write(".shop.py.swp", "x");
        assert_eq!(difference(&before, &stamps(&paths)), None);
        write("shop.py", "22");
        assert_eq!(difference(&before, &stamps(&paths)), Some(dir.path().join("shop.py")));
        write("new.py", "1");
        std::fs::remove_file(dir.path().join("shop.py")).expect("removed");
        assert_eq!(difference(&before, &stamps(&paths)), Some(dir.path().join("new.py")));
    }

    #[tokio::test]
    async fn a_change_is_told_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("shop.py");
        std::fs::write(&file, "1").expect("written");
        let mut watch = Watch::start(std::slice::from_ref(&file));
        std::fs::write(&file, "22").expect("written");
        let limit = Duration::from_secs(20);
        assert_eq!(tokio::time::timeout(limit, watch.changed()).await.expect("told"), file);
        assert_eq!(difference(&watch.seen, &stamps(&watch.paths)), None);
    }
}

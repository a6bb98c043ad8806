//! The folder of the local registry. Plain blocking file work; nothing here waits for longer than [`LOCK_WAIT`].
//!
//! ```text
//! <dir>/<namespace>/                                  mode 0700
//!   .lock                                             held while something in the folder is changed
//!   .new-<uuid>                                       a file that is being written; never read
//!   goms_user_127.0.0.1:9180_127.0.0.1:9080           a node: NodeMeta as JSON, held by an exclusive lock
//!   goms_user_127.0.0.1:9180_127.0.0.1:9080.drain     someone took that node out of rotation
//! ```
//! - A file tells of a live node exactly while another open file holds its exclusive lock (`flock`): the kernel drops
//!   the lock when the process dies, however it dies.
//! - A file gets its name only after it was written and locked, and is replaced only by renaming another over it: a
//!   reader never sees half a node, nor one that is not held.
//! - Only shared locks test a node's file, so that two who test do not disturb each other, and nobody who registers
//!   ever waits for one who tests.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::super::{Node, NodeId, NodeMeta, NodeState};

/// How long a change waits for another process that changes the folder: a change takes well under 1 ms, so one that
/// takes this long hangs.
const LOCK_WAIT: Duration = Duration::from_secs(3);
const LOCK_RETRY: Duration = Duration::from_millis(2);
const DRAIN_SUFFIX: &str = ".drain";

/// One namespace's folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    namespace: String,
}

/// The file of a node of this process; dropping it gives the node up.
#[derive(Debug)]
pub(super) struct Held {
    /// Only its lock matters.
    _file: File,
    inode: u64,
}

/// What a look at the folder found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Live nodes in the order their files were written.
    pub(super) nodes: Vec<Node>,
    /// Names of files that nobody holds any more.
    pub(super) stale: Vec<String>,
    /// Names that are no node's, and why.
    pub(super) malformed: Vec<(String, String)>,
}

/// What a look at one file found.
enum Look {
    Live(Box<NodeMeta>, SystemTime),
    Stale,
    Gone,
    Malformed(String),
}

impl Folder {
    /// The folder, made if it is missing, for this user alone.
    pub(super) fn open(dir: &Path, namespace: &str) -> io::Result<Self> {
        let folder = Self { path: dir.join(namespace), namespace: namespace.to_owned() };
        folder.make()?;
        Ok(folder)
    }

    /// Makes the folder again should someone have removed it.
    pub(super) fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let permissions = fs::metadata(&self.path)?.permissions();
        if permissions.mode() & 0o077 != 0 {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells this folder from one that took its place.
    pub(super) fn inode(&self) -> Option<u64> {
        fs::metadata(&self.path).ok().map(|metadata| metadata.ino())
    }

    /// Writes a node's file and holds it. `None` when a live process (or another handle of this one) holds the id.
    pub(super) fn add(&self, node: &Node) -> io::Result<Option<Held>> {
        let _guard = self.guard()?;
        let name = node.id.key(&self.namespace);
        if let Look::Live(..) = self.look(&name)? {
            return Ok(None);
        }
        remove(&self.path.join(format!("{name}{DRAIN_SUFFIX}")))?; // a dead owner's
        self.write(&name, &node.meta).map(Some)
    }

    /// Puts new metadata in the place of a file that is held. `None` when another file, or none, has the name now.
    pub(super) fn replace(&self, node: &Node, held: &Held) -> io::Result<Option<Held>> {
        let _guard = self.guard()?;
        if !self.has(&node.id, held) {
            return Ok(None);
        }
        self.write(&node.id.key(&self.namespace), &node.meta).map(Some)
    }

    /// Removes the file of a node of this process, unless the name is another's by now.
    pub(super) fn remove(&self, id: &NodeId, held: &Held) -> io::Result<()> {
        let _guard = self.guard()?;
        if !self.has(id, held) {
            return Ok(());
        }
        let name = id.key(&self.namespace);
        remove(&self.path.join(&name))?;
        remove(&self.path.join(format!("{name}{DRAIN_SUFFIX}")))
    }

    /// Whether the file that is held is still the one under the node's name.
    pub(super) fn has(&self, id: &NodeId, held: &Held) -> bool {
        fs::metadata(self.path.join(id.key(&self.namespace))).is_ok_and(|metadata| metadata.ino() == held.inode)
    }

    /// Takes a live node out of rotation or puts it back. `false` when no such node is there.
    pub(super) fn mark(&self, id: &NodeId, draining: bool) -> io::Result<bool> {
        let _guard = self.guard()?;
        let name = id.key(&self.namespace);
        if !matches!(self.look(&name)?, Look::Live(..)) {
            return Ok(false);
        }
        let mark = self.path.join(format!("{name}{DRAIN_SUFFIX}"));
        if draining {
            File::create(mark).map(drop)?
        } else {
            remove(&mark)?
        }
        Ok(true)
    }

    /// Everything there is now.
    pub(super) fn read(&self) -> io::Result<Found> {
        let mut found = Found::default();
        let mut live = Vec::new();
        let mut drained = HashSet::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            if let Some(node) = name.strip_suffix(DRAIN_SUFFIX) {
                drained.insert(node.to_owned());
                continue;
            }
            let id = match NodeId::parse_key(&self.namespace, &name) {
                Ok(id) => id,
                Err(error) => {
                    found.malformed.push((name, error.to_string()));
                    continue;
                }
            };
            match self.look(&name)? {
                Look::Live(meta, written) => live.push((written, name, Node::new(id, *meta))),
                Look::Stale => found.stale.push(name),
                Look::Malformed(reason) => found.malformed.push((name, reason)),
                Look::Gone => {}
            }
        }
        live.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        found.nodes.extend(live.into_iter().map(|(_, name, mut node)| {
            if node.meta.draining || drained.contains(&name) {
                node.state = NodeState::Draining;
            }
            node
        }));
        Ok(found)
    }

    /// Removes files that nobody holds. Whoever changes the folder at this moment goes first; the next sweep follows.
    pub(super) fn sweep(&self, stale: &[String]) -> io::Result<()> {
        let lock = self.lock_file()?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        for name in stale {
            if let Look::Stale = self.look(name)? {
                remove(&self.path.join(name))?;
                remove(&self.path.join(format!("{name}{DRAIN_SUFFIX}")))?;
            }
        }
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?; // who writes one holds the lock that we hold
            if entry.file_name().to_string_lossy().starts_with(".new-") {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn look(&self, name: &str) -> io::Result<Look> {
        let path = self.path.join(name);
        // A file that was replaced between `open` and the test is free, but its name is held: look again.
        for _ in 0..10 {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Look::Gone),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    return Ok(Look::Malformed(error.to_string()));
                }
                Err(error) => return Err(error),
            };
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Ok(Look::Malformed("it is no file".to_owned()));
            }
            match file.try_lock_shared() {
                Err(TryLockError::WouldBlock) => {
                    return Ok(match serde_json::from_reader(io::BufReader::new(&file)) {
                        Ok(meta) => Look::Live(Box::new(meta), metadata.modified()?),
                        Err(error) => Look::Malformed(error.to_string()),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) => match fs::metadata(&path) {
                    Ok(now) if now.ino() == metadata.ino() => return Ok(Look::Stale),
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Look::Gone),
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(Look::Gone)
    }

    fn write(&self, name: &str, meta: &NodeMeta) -> io::Result<Held> {
        let draft = self.path.join(format!(".new-{}", uuid::Uuid::new_v4().simple()));
        let result = (|| {
            let mut file = File::options().write(true).create_new(true).open(&draft)?;
            file.write_all(&serde_json::to_vec(meta)?)?;
            file.try_lock()?;
            let inode = file.metadata()?.ino();
            fs::rename(&draft, self.path.join(name))?;
            Ok(Held { _file: file, inode })
        })();
        if result.is_err() {
            remove(&draft)?;
        }
        result
    }

    fn lock_file(&self) -> io::Result<File> {
        File::options().write(true).create(true).truncate(false).open(self.path.join(".lock"))
    }

    /// Held while the folder is changed.
    fn guard(&self) -> io::Result<File> {
        self.make()?;
        let lock = self.lock_file()?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY),
                Err(TryLockError::WouldBlock) => {
                    let reason = format!("another process holds `{}`", self.path.join(".lock").display());
                    return Err(io::Error::new(ErrorKind::TimedOut, reason));
                }
            }
        }
    }
}

/// Removes a file that may be gone.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

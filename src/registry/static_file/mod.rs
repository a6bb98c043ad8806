//! The registry of a file that people or their tools write (`listing`), and that is followed while it changes.
//!
//! - What a process registers it keeps for itself: the file is the word of who writes it, and goms never changes it. A node
//!   that stands in the file and registers is one node, with what it says of itself.
//! - A node of this process that deregistered is hidden from this process, whatever the file says.
//! - A file that turns bad, or goes, changes nothing: the last good one counts, and one line says what is wrong.
//! - Only nodes of this process can be drained by a command; another's is drained by `draining: true` in the file.

mod listing;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use super::own::OwnNodes;
use super::{CatalogWatch, Node, NodeId, Publisher, Registry, RegistryError, check_service};
use crate::causes::chain;
use crate::shutdown::Shutdown;
use listing::{ListingError, MOST_BYTES};

/// How often the file is looked at without any notice (network file systems give none).
const POLL: Duration = Duration::from_millis(1500);
/// A file that was written to this recently may be half written, unless its writer closed it or moved it there.
const SETTLED: Duration = Duration::from_millis(300);

/// A handle; its own nodes go when it is dropped.
pub(super) struct StaticFile {
    shared: Arc<Shared>,
}

struct Shared {
    file: PathBuf,
    publisher: Publisher,
    state: Mutex<State>,
    /// Something in the file's folder was closed, moved or removed.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    listed: Vec<Node>,
    own: OwnNodes,
    /// The file that was read last, good or bad.
    stamp: Option<Stamp>,
    trouble: Option<String>,
}

/// Tells one content of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    written: Option<SystemTime>,
}

impl StaticFile {
    /// Reads the file and follows it.
    pub(super) fn open(file: &Path, shutdown: &Shutdown) -> Result<Arc<Self>, RegistryError> {
        let shared = Arc::new(Shared {
            file: file.to_owned(),
            publisher: Publisher::new(),
            state: Mutex::default(),
            changed: Arc::default(),
        });
        let bad = |reason: String| RegistryError::Setting { setting: "address", reason };
        let watcher = shared.watcher().map_err(|error| bad(format!("`{}`: {error}", file.display())))?;
        shared.look(true);
        if let Some(trouble) = shared.state().trouble.take() {
            return Err(bad(trouble));
        }
        shutdown.spawn(follow(Arc::downgrade(&shared), shared.changed.clone(), watcher, shutdown.clone()));
        Ok(Arc::new(Self { shared }))
    }
}

#[async_trait]
impl Registry for StaticFile {
    fn kind(&self) -> &'static str {
        "static"
    }

    fn catalog(&self) -> CatalogWatch {
        self.shared.publisher.subscribe()
    }

    fn trouble(&self) -> Option<String> {
        self.shared.state().trouble.clone()
    }

    async fn register(&self, node: Node) -> Result<(), RegistryError> {
        check_service(&node.id)?;
        let mut state = self.shared.state();
        let id = node.id.clone();
        state.own.add(node)?;
        self.shared.publisher.add_own(id);
        self.shared.publish(&state);
        Ok(())
    }

    async fn deregister(&self, id: &NodeId) -> Result<(), RegistryError> {
        let mut state = self.shared.state();
        state.own.leave(id)?;
        self.shared.publish(&state);
        state.own.remove(id);
        self.shared.publisher.retire_own(id);
        self.shared.publish(&state);
        Ok(())
    }

    async fn set_draining(&self, id: &NodeId, draining: bool) -> Result<(), RegistryError> {
        let mut state = self.shared.state();
        if state.own.drain(id, draining) {
            self.shared.publish(&state);
            return Ok(());
        }
        if !state.listed.iter().any(|node| node.id == *id) {
            return Err(RegistryError::Unknown(id.clone()));
        }
        Err(RegistryError::Setting {
            setting: "kind",
            reason: format!(
                "`static` is steered by its file; set `draining: {draining}` at the node in `{}`",
                self.shared.file.display()
            ),
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called with the state locked, so that catalogs come in order.
    fn publish(&self, state: &State) {
        self.publisher.publish(state.own.among(&state.listed));
    }

    /// Reads the file where it is another than the last time. `now`: also where it may still be being written.
    fn look(&self, now: bool) {
        let stamp = Stamp::of(&self.file).ok();
        if !now && stamp.is_some_and(|stamp| !stamp.is_settled()) {
            return; // the next poll follows
        }
        if stamp.is_some() && stamp == self.state().stamp {
            return;
        }
        let read = read(&self.file);
        let mut state = self.state();
        state.stamp = stamp;
        match read {
            Ok(nodes) => {
                if state.trouble.take().is_some() {
                    log::info!("registry file `{}` is good again", self.file.display());
                }
                state.listed = nodes;
                self.publish(&state);
            }
            Err(error) => {
                let told = format!("registry file `{}`: {}", self.file.display(), chain(&error));
                if state.trouble.as_ref() != Some(&told) && self.publisher.current().is_some() {
                    log::error!("{told}; the nodes of the last good one stay");
                }
                state.trouble = Some(told);
            }
        }
    }

    /// Watches the folder, since a file is often replaced by another.
    fn watcher(&self) -> notify::Result<RecommendedWatcher> {
        let changed = self.changed.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let kind = event.map(|event| event.kind);
            let done = matches!(
                kind,
                Ok(EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Modify(ModifyKind::Name(_)))
            );
            if done {
                changed.notify_one();
            }
        })?;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        watcher.watch(folder.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }
}

impl Stamp {
    fn of(file: &Path) -> io::Result<Self> {
        let found = fs::metadata(file)?;
        Ok(Self { inode: found.ino(), bytes: found.len(), written: found.modified().ok() })
    }

    /// Nobody wrote to it for a moment. A clock that was set back does not matter for long.
    fn is_settled(&self) -> bool {
        self.written.is_none_or(|written| written.elapsed().map_or(true, |age| age >= SETTLED))
    }
}

fn read(file: &Path) -> Result<Vec<Node>, ListingError> {
    let bytes = fs::metadata(file).map_err(ListingError::Read)?.len();
    if bytes > MOST_BYTES {
        return Err(ListingError::Size(bytes));
    }
    listing::parse(&fs::read_to_string(file).map_err(ListingError::Read)?)
}

/// Follows the file until the end or until the handle is gone.
async fn follow(shared: Weak<Shared>, changed: Arc<Notify>, watcher: RecommendedWatcher, shutdown: Shutdown) {
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = tokio::select! {
            () = shutdown.begun() => break,
            () = changed.notified() => true,
            _ = poll.tick() => false,
        };
        let Some(shared) = shared.upgrade() else { break };
        if let Err(error) = tokio::task::spawn_blocking(move || shared.look(now)).await {
            log::error!("registry file cannot be followed any more: {error}");
            break;
        }
    }
    drop(watcher);
}

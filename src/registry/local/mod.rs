//! The registry of one user's processes on one machine: a folder of files held by locks (`folder`), watched by inotify.
//! It needs no server, and a killed process leaves at once.

mod folder;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::malformed::Malformed;
use super::{CatalogWatch, Node, NodeId, Publisher, Registry, RegistryError, check_service};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use folder::{Folder, Held};

/// How long a node that was just written may take to be read back: twice what it takes with nobody to tell.
const SHOWN: Duration = Duration::from_secs(3);
/// How often the folder is read without any notice: a safety net (inotify's queue can overflow, a folder can be
/// removed), so it may be slow.
const POLL: Duration = Duration::from_millis(1500);
/// When to look again after a file was closed: the kernel tells that a dying process closed its file a moment *before*
/// it drops the lock.
const LOOK_AGAIN: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(60),
    Duration::from_millis(200),
];

/// A handle to the folder; nodes registered with it go when it is dropped.
pub(super) struct Local {
    shared: Arc<Shared>,
}

struct Shared {
    folder: Folder,
    publisher: Publisher,
    own: Mutex<HashMap<NodeId, (Node, Held)>>,
    /// Own nodes whose id another process took: said once each.
    lost: Mutex<HashSet<NodeId>>,
    malformed: Malformed,
    /// Something in the folder changed.
    changed: Arc<Notify>,
    /// Something was closed, perhaps by a dying process.
    closed: Arc<Notify>,
}

impl Local {
    /// Opens (and makes) the folder, reads it and watches it.
    pub(super) fn open(
        dir: &Path,
        namespace: &str,
        shutdown: &Shutdown,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, RegistryError> {
        let unavailable = |source: Box<dyn std::error::Error + Send + Sync>| RegistryError::Unavailable {
            kind: "local",
            address: dir.join(namespace).display().to_string(),
            source,
        };
        let shared = Arc::new(Shared {
            folder: Folder::open(dir, namespace).map_err(|error| unavailable(error.into()))?,
            publisher: Publisher::new(),
            own: Mutex::default(),
            lost: Mutex::default(),
            malformed: Malformed::new(metrics),
            changed: Arc::default(),
            closed: Arc::default(),
        });
        let inode = shared.folder.inode();
        let watcher = shared.watcher().map_err(|error| unavailable(error.into()))?;
        shared.look().map_err(|error| unavailable(error.into()))?;
        shutdown.spawn(follow(Arc::downgrade(&shared), watcher, inode, shutdown.clone()));
        Ok(Arc::new(Self { shared }))
    }

    /// Runs file work off the runtime's threads.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> io::Result<T> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || work(&shared)).await.map_err(io::Error::other);
        done.and_then(|result| result).map_err(|error| RegistryError::Unavailable {
            kind: "local",
            address: self.shared.folder.path().display().to_string(),
            source: error.into(),
        })
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // The follower may hold `shared` for a moment; the nodes go now.
        self.shared.own().clear();
    }
}

#[async_trait]
impl Registry for Local {
    fn kind(&self) -> &'static str {
        "local"
    }

    fn catalog(&self) -> CatalogWatch {
        self.shared.publisher.subscribe()
    }

    async fn register(&self, node: Node) -> Result<(), RegistryError> {
        check_service(&node.id)?;
        let id = node.id.clone();
        let added = self.run(move |shared| shared.add(node)).await?;
        if !added {
            return Err(RegistryError::Taken(id));
        }
        self.shared.changed.notify_one();
        // who registers and then calls finds it: the file is there, and the next look reads it
        let mut catalog = self.catalog();
        let shown = catalog.wait_for(|known| known.as_ref().is_some_and(|known| known.find(&id).is_some()));
        match tokio::time::timeout(SHOWN, shown).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => log::debug!("the registry ended before it showed node `{id}`"),
            Err(_) => log::warn!("node `{id}` is registered and not shown after {SHOWN:?}"),
        }
        Ok(())
    }

    async fn deregister(&self, id: &NodeId) -> Result<(), RegistryError> {
        let wanted = id.clone();
        let known = self.run(move |shared| shared.remove(&wanted)).await?;
        self.shared.changed.notify_one();
        if known { Ok(()) } else { Err(RegistryError::Unknown(id.clone())) }
    }

    async fn set_draining(&self, id: &NodeId, draining: bool) -> Result<(), RegistryError> {
        let wanted = id.clone();
        let known = self.run(move |shared| shared.folder.mark(&wanted, draining)).await?;
        self.shared.changed.notify_one();
        if known { Ok(()) } else { Err(RegistryError::Unknown(id.clone())) }
    }
}

impl Shared {
    fn own(&self) -> MutexGuard<'_, HashMap<NodeId, (Node, Held)>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> MutexGuard<'_, HashSet<NodeId>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, node: Node) -> io::Result<bool> {
        let mut own = self.own();
        if own.contains_key(&node.id) {
            return Ok(false);
        }
        self.publisher.add_own(node.id.clone());
        match self.folder.add(&node) {
            Ok(Some(held)) => {
                own.insert(node.id.clone(), (node, held));
                Ok(true)
            }
            other => {
                self.publisher.forget_own(&node.id);
                other.map(|_| false)
            }
        }
    }

    fn remove(&self, id: &NodeId) -> io::Result<bool> {
        let mut own = self.own();
        let Some((mut node, old)) = own.remove(id) else { return Ok(false) };
        self.lost().remove(id);
        node.meta.draining = true;
        // Even where the mark or the removal fails, dropping the files gives the node up.
        let marked = self.folder.replace(&node, &old);
        let removed = match &marked {
            Ok(Some(new)) => self.folder.remove(id, new),
            Ok(None) => Ok(()), // someone removed it, and another process may have the id by now
            Err(_) => self.folder.remove(id, &old),
        };
        self.publisher.retire_own(id);
        marked.and(removed).map(|()| true)
    }

    /// Reads the folder and publishes what it found.
    fn look(&self) -> io::Result<()> {
        let found = self.folder.read()?;
        for (name, reason) in &found.malformed {
            self.malformed.skip(name, reason);
        }
        self.publisher.publish(found.nodes);
        if found.stale.is_empty() { Ok(()) } else { self.folder.sweep(&found.stale) }
    }

    /// Puts the files of own nodes back that someone removed.
    fn restore(&self) -> io::Result<()> {
        for (id, (node, held)) in self.own().iter_mut() {
            if !self.folder.has(id, held) {
                match self.folder.add(node)? {
                    Some(new) => {
                        *held = new;
                        self.lost().remove(id);
                        log::warn!("registry file of node `{id}` was removed by someone; it was put back");
                    }
                    None if self.lost().insert(id.clone()) => {
                        log::error!("node `{id}` is now registered by another process, waiting for its end");
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn watcher(&self) -> notify::Result<RecommendedWatcher> {
        let (changed, closed) = (self.changed.clone(), self.closed.clone());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            // Reading opens files too: only what changes the folder counts.
            Ok(Event { kind: EventKind::Access(AccessKind::Close(AccessMode::Write)), .. }) => closed.notify_one(),
            Ok(Event { kind: EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_)), .. }) => {}
            Ok(_) | Err(_) => changed.notify_one(),
        })?;
        watcher.watch(self.folder.path(), RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }
}

/// Follows the folder until the end or until the handle is gone.
async fn follow(shared: Weak<Shared>, watcher: RecommendedWatcher, inode: Option<u64>, shutdown: Shutdown) {
    let Some((changed, closed)) = shared.upgrade().map(|shared| (shared.changed.clone(), shared.closed.clone())) else {
        return;
    };
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watched = Some((watcher, inode));
    let mut failing = false;
    let mut again: Vec<Instant> = Vec::new(); // the next one last
    loop {
        let next = again.last().copied();
        let mut polled = false;
        tokio::select! {
            () = shutdown.begun() => return,
            () = changed.notified() => {}
            () = closed.notified() => again = LOOK_AGAIN.iter().rev().map(|wait| Instant::now() + *wait).collect(),
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => drop(again.pop()),
            _ = poll.tick() => polled = true,
        }
        let Some(shared) = shared.upgrade() else { return };
        let kept = watched.take();
        let work = move || {
            let kept = if polled { shared.keep_watching(kept) } else { kept };
            (kept, if polled { shared.restore() } else { Ok(()) }.and_then(|()| shared.look()), shared)
        };
        let (kept, result, shared) = match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => {
                log::error!("local registry cannot be followed any more: {error}");
                return;
            }
        };
        watched = kept;
        match result {
            Err(error) if !failing => {
                failing = true;
                log::warn!("local registry at `{}` is unavailable, retrying: {error}", shared.folder.path().display());
            }
            Ok(()) if failing => {
                failing = false;
                log::info!("local registry at `{}` is back", shared.folder.path().display());
            }
            _ => {}
        }
    }
}

type Watched = Option<(RecommendedWatcher, Option<u64>)>;

impl Shared {
    /// Watches the folder anew where it is no longer the one that is watched.
    fn keep_watching(&self, watched: Watched) -> Watched {
        if self.folder.make().is_err() {
            return None;
        }
        let inode = self.folder.inode();
        match watched {
            Some((watcher, known)) if known == inode => Some((watcher, known)),
            _ => self.watcher().ok().map(|watcher| (watcher, inode)),
        }
    }
}

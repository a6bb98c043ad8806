//! The store without a server: tantivy in the data folder, exact fields and full text.
//!
//! One process at a time has the folder (`goms.lock`, a lock that the kernel drops when the process dies); others
//! read through its API. A write is committed before it is answered, several that wait together in one commit. The
//! folder opens after a `kill -9` at any moment, with everything that was answered.

mod durations;
mod entry;
mod known;
mod packed;
mod progress;
mod reader;
mod retention;
mod schema;
mod stats;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use prometheus::IntCounterVec;
use tantivy::directory::error::LockError;
use tantivy::directory::{Directory, DirectoryLock, Lock, MmapDirectory};
use tantivy::{Index, IndexReader, ReloadPolicy, Searcher, TantivyError};
use tokio::sync::{mpsc, oneshot};

use super::words::Words;
use super::{Document, Outcome, Page, Query, Stats, StatsQuery, StoreError, TraceStore};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use entry::Entry;
use reader::SearchError;
use schema::Layout;
use writer::{Job, Limits, Writer};

/// Writes that may wait for the thread; the next one waits outside.
const MAX_WAITING_WRITES: usize = 64;

/// Held as long as the store is open, also while tantivy's own writer is opened again after an error.
const LOCK_FILE: &str = "goms.lock";

/// Retention by age is looked after a hundred times in its span, within these bounds.
const RETAIN_CHECK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// Retention by bytes is looked after so often: at 100,000 events a second 20 MB come in between.
const BYTES_CHECK: Duration = Duration::from_secs(2);

/// What is kept; the default is all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retain {
    /// Older events go.
    pub age: Option<Duration>,
    /// Over so many bytes on disk the oldest events go.
    pub bytes: Option<u64>,
}

/// An open folder.
pub struct Embedded {
    dir: PathBuf,
    layout: Arc<Layout>,
    reader: IndexReader,
    /// `None` only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    events: IntCounterVec,
}

impl Embedded {
    /// Opens the folder for writing and reading, and makes it where it is missing. Blocks for some milliseconds.
    /// Must run in a tokio runtime. Whenever it takes longer than a second, that is logged.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process (or store of this one) has it; [`StoreError::Unavailable`] when it
    /// cannot be read or written.
    pub fn open(dir: &Path, retain: Retain, shutdown: &Shutdown, metrics: &Metrics) -> Result<Self, StoreError> {
        let layout = Arc::new(Layout::new());
        let what = format!("opening the trace store in {}", dir.display());
        let (index, lock) = progress::told(&what, || open_index(dir, &layout))?;
        let reader = progress::told(&what, || open_reader(&index)).map_err(|error| unavailable(dir, error))?;
        let expired = metrics.counter("store_expired_total", "Events that retention deleted", &["reason"]);
        let writer =
            Writer::open(dir.to_owned(), index, layout.clone(), reader.clone(), expired).map_err(
                |error| match error {
                    TantivyError::LockFailure(LockError::LockBusy, _) => StoreError::InUse(dir.to_owned()),
                    other => unavailable(dir, other),
                },
            )?;
        let (jobs, waiting) = mpsc::channel(MAX_WAITING_WRITES);
        let thread = std::thread::Builder::new()
            .name("goms-store".to_owned())
            .spawn(move || {
                writer.run(waiting);
                drop(lock);
            })
            .map_err(|error| unavailable(dir, error))?;
        if retain != Retain::default() {
            expire(jobs.downgrade(), retain, shutdown);
        }
        log::info!("embedded trace store open events={} dir={}", reader.searcher().num_docs(), dir.display());
        let events = metrics.counter("store_events_total", "Events written to the trace store", &["outcome"]);
        Ok(Self { dir: dir.to_owned(), layout, reader, jobs: Some(jobs), thread: Some(thread), events })
    }

    /// Runs a query of all that is committed on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Searcher, &Layout) -> Result<T, SearchError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (searcher, layout) = (self.reader.searcher(), self.layout.clone());
        match tokio::task::spawn_blocking(move || work(&searcher, &layout)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(SearchError::Query(error))) => Err(error),
            Ok(Err(SearchError::Index(error))) => Err(unavailable(&self.dir, error)),
            Err(error) => Err(unavailable(&self.dir, error)),
        }
    }

    fn ended(&self) -> StoreError {
        unavailable(&self.dir, std::io::Error::other("its writing thread has ended"))
    }
}

#[async_trait]
impl TraceStore for Embedded {
    async fn write(&self, batch: &[Document]) -> Result<Vec<Outcome>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or_else(|| self.ended())?;
        let mut entries: Vec<_> = batch.iter().map(|document| Entry::new(document, &self.layout)).collect();
        let prepare = move || {
            let mut words = Words::default();
            entries.iter_mut().flatten().for_each(|entry| entry.prepare(&mut words));
            entries
        };
        let prepared = tokio::task::spawn_blocking(prepare).await.map_err(|error| unavailable(&self.dir, error))?;
        jobs.send(Job::Write(prepared, reply)).await.map_err(|_| self.ended())?;
        let outcomes = answer.await.map_err(|_| self.ended())?.map_err(|error| unavailable(&self.dir, error))?;
        super::count(&self.events, &outcomes);
        Ok(outcomes)
    }

    async fn query(&self, query: &Query) -> Result<Page, StoreError> {
        let query = query.clone();
        self.read(move |searcher, layout| reader::search(searcher, layout, &query)).await
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats, StoreError> {
        let query = query.clone();
        self.read(move |searcher, layout| stats::count(searcher, layout, &query)).await
    }
}

/// The folder is free again when this returns.
impl Drop for Embedded {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the writing thread of the trace store panicked dir={}", self.dir.display());
        }
    }
}

fn lock(dir: &Path) -> Result<(MmapDirectory, DirectoryLock), StoreError> {
    std::fs::create_dir_all(dir).map_err(|error| unavailable(dir, error))?;
    let directory = MmapDirectory::open(dir).map_err(|error| unavailable(dir, error))?;
    let lock = Lock { filepath: PathBuf::from(LOCK_FILE), is_blocking: false };
    match directory.acquire_lock(&lock) {
        Ok(lock) => Ok((directory, lock)),
        Err(LockError::LockBusy) => Err(StoreError::InUse(dir.to_owned())),
        Err(other @ LockError::IoError(_)) => Err(unavailable(dir, other)),
    }
}

/// Opens or makes the index in a folder that nobody else has. One that another version laid out otherwise is kept
/// beside it, unread, and a new one begun: traces are worth less than a process that does not start.
fn open_index(dir: &Path, layout: &Layout) -> Result<(Index, DirectoryLock), StoreError> {
    let (directory, held) = lock(dir)?;
    let opened = Index::builder().schema(layout.schema.clone()).settings(Layout::settings()).open_or_create(directory);
    let error = match opened {
        Ok(index) => return Ok((index, held)),
        Err(error @ (TantivyError::SchemaError(_) | TantivyError::IncompatibleIndex(_))) => error,
        Err(other) => return Err(unavailable(dir, other)),
    };
    let mut aside = dir.as_os_str().to_owned();
    aside.push(format!(".old-{}", since_1970().as_secs()));
    std::fs::rename(dir, &aside).map_err(|error| unavailable(dir, error))?;
    log::warn!(
        "the trace store was written by another version of goms; its events are set aside in {} (delete it when they \
         are no longer wanted) and a new store is begun error={error} dir={}",
        aside.display(),
        dir.display()
    );
    // the lock lies in the folder that went
    drop(held);
    let (directory, held) = lock(dir)?;
    let index = Index::create(directory, layout.schema.clone(), Layout::settings());
    Ok((index.map_err(|error| unavailable(dir, error))?, held))
}

fn open_reader(index: &Index) -> tantivy::Result<IndexReader> {
    // the writing thread reloads after each commit; no file watcher, no second thread
    index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()
}

/// Deletes what is not to be kept, now and from time to time, until the end or until the store is dropped.
fn expire(jobs: mpsc::WeakSender<Job>, retain: Retain, shutdown: &Shutdown) {
    let by_age = retain.age.map(|age| (age / 100).clamp(RETAIN_CHECK.0, RETAIN_CHECK.1));
    let by_bytes = retain.bytes.map(|_| BYTES_CHECK);
    let Some(every) = [by_age, by_bytes].into_iter().flatten().min() else { return };
    let ending = shutdown.clone();
    shutdown.spawn(async move {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = ending.begun() => return,
                _ = ticks.tick() => {}
            }
            let Some(jobs) = jobs.upgrade() else { return };
            // a full queue is busy writing: the next tick comes soon
            drop(jobs.try_send(Job::Expire(Limits { cutoff_ms: retain.age.map(cutoff_ms), bytes: retain.bytes })));
        }
    });
}

fn cutoff_ms(retain: Duration) -> i64 {
    i64::try_from(since_1970().saturating_sub(retain).as_millis()).unwrap_or(i64::MAX)
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn unavailable(dir: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Unavailable { address: dir.display().to_string(), source: source.into() }
}

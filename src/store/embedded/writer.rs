//! The one thread that writes: it takes what waits, indexes it, commits once, and only then answers.
//!
//! A commit writes new files and then replaces `meta.json` as a whole, so a process that dies at any moment leaves the
//! last commit. The thread ends when the store is dropped.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::IntCounterVec;

use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::{Index, IndexReader, IndexWriter, Searcher};
use tokio::sync::{mpsc, oneshot};

use super::super::Outcome;
use super::entry::Entry;
use super::known::Known;
use super::progress;
use super::reader;
use super::retention;
use super::schema::Layout;

/// A full commit of usual events takes a third of it; one that takes more becomes two segments.
const WRITER_BYTES: usize = 48_000_000;

/// Merging is in the background of a process that has other work.
const MERGE_THREADS: usize = 1;

/// Documents a commit: several writes that wait share one.
const MAX_COMMIT_DOCUMENTS: usize = 20_000;

/// Larger segments are merged no more: each merge of one rewrites it, and retention can give back whole ones.
const MAX_MERGED_DOCUMENTS: usize = 2_000_000;

/// Over this share of deleted events a segment is rewritten, which frees their disk space.
const DELETED_SHARE: f32 = 0.2;

/// The answer to one write; the error is shared by all writes of a commit.
pub(super) type Written = Result<Vec<Outcome>, Arc<tantivy::TantivyError>>;

/// What the thread is asked to do.
pub(super) enum Job {
    /// Keep these.
    Write(Vec<Result<Entry, String>>, oneshot::Sender<Written>),
    /// Delete what is too old, and the oldest of what is too much.
    Expire(Limits),
}

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Events before it go, in milliseconds of Unix time.
    pub cutoff_ms: Option<i64>,
    /// Over it the oldest go.
    pub bytes: Option<u64>,
}

/// The thread's state.
pub(super) struct Writer {
    dir: PathBuf,
    index: Index,
    layout: Arc<Layout>,
    reader: IndexReader,
    /// `None` after an error, until it could be opened again.
    writer: Option<IndexWriter<Entry>>,
    /// Events that went, by `reason`.
    expired: IntCounterVec,
    /// Whether a segment is rewritten now without its deleted events.
    rewriting: Arc<AtomicBool>,
}

impl Writer {
    pub fn open(
        dir: PathBuf,
        index: Index,
        layout: Arc<Layout>,
        reader: IndexReader,
        expired: IntCounterVec,
    ) -> tantivy::Result<Self> {
        let writer = Some(open_writer(&index)?);
        Ok(Self { dir, index, layout, reader, writer, expired, rewriting: Arc::default() })
    }

    /// Works until every sender is gone.
    pub fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut failing = false;
        while let Some(first) = jobs.blocking_recv() {
            let (mut batches, mut replies) = (Vec::new(), Vec::new());
            let mut expire = None;
            let mut documents = 0;
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Write(batch, reply) => {
                        documents += batch.len();
                        batches.push(batch);
                        replies.push(reply);
                    }
                    Job::Expire(limits) => expire = Some(limits),
                }
                next = if documents < MAX_COMMIT_DOCUMENTS { jobs.try_recv().ok() } else { None };
            }
            let result = match expire {
                None => self.commit(batches, None),
                Some(limits) => {
                    progress::told("deleting old events from the trace store", || self.commit(batches, Some(limits)))
                }
            };
            match &result {
                Ok(_) if failing => log::info!("embedded trace store writes again dir={}", self.dir.display()),
                Err(error) if !failing => {
                    log::warn!("embedded trace store cannot write error={error} dir={}", self.dir.display());
                }
                _ => {}
            }
            failing = result.is_err();
            if failing {
                // a writer that failed once refuses all further work; what was not committed goes with it
                self.writer = None;
            }
            answer(replies, result);
        }
    }

    /// Indexes all batches in one commit and gives an outcome per document and batch.
    fn commit(
        &mut self,
        batches: Vec<Vec<Result<Entry, String>>>,
        expire: Option<Limits>,
    ) -> Result<Vec<Vec<Outcome>>, Arc<tantivy::TantivyError>> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let writer = open_writer(&self.index)?;
                // the commit that failed may have reached the disk all the same
                self.reader.reload()?;
                none.insert(writer)
            }
        };
        // all that was ever committed is in this searcher: this thread is the only one that commits
        let searcher = self.reader.searcher();
        let mut known = Known::new(&searcher, &self.layout)?;
        let mut added = Vec::new();
        let mut seen = HashSet::new();
        let mut outcomes = Vec::with_capacity(batches.len());
        for batch in batches {
            let mut of_batch = Vec::with_capacity(batch.len());
            for prepared in batch {
                let event = match prepared {
                    Ok(event) => event,
                    Err(flaw) => {
                        of_batch.push(Outcome::Refused(flaw));
                        continue;
                    }
                };
                if !seen.contains(event.id()) {
                    seen.insert(event.id().to_owned());
                    if !known.holds(&event)? {
                        added.push(event);
                    }
                }
                of_batch.push(Outcome::Stored);
            }
            outcomes.push(of_batch);
        }
        drop(known);
        let mut changed = !added.is_empty();
        added.sort_by_key(|event| event.place);
        for event in added {
            writer.add_document(event)?;
        }
        let deletions = match expire {
            Some(limits) => deletions(&self.dir, &self.layout, &searcher, limits)?,
            None => Vec::new(),
        };
        for deletion in &deletions {
            writer.delete_query(reader::older_than(&self.layout, deletion.cutoff_ms))?;
            changed = true;
        }
        if changed {
            writer.commit()?;
        }
        drop(searcher);
        if changed || expire.is_some() {
            self.reader.reload()?;
        }
        for deletion in deletions {
            deletion.tell(&self.expired);
        }
        if let Some(limits) = expire {
            rewrite(writer, &self.dir, &self.reader.searcher(), limits, &self.rewriting)?;
            // files that a commit or a merge left behind go once no reader has them open
            writer.garbage_collect_files().wait()?;
        }
        Ok(outcomes)
    }
}

/// Events that go.
struct Deletion {
    reason: &'static str,
    cutoff_ms: i64,
    count: usize,
}

impl Deletion {
    fn tell(&self, expired: &IntCounterVec) {
        expired.with_label_values(&[self.reason]).inc_by(self.count as u64);
        log::info!("old events deleted from the trace store count={} reason={}", self.count, self.reason);
    }
}

/// What the limits ask to delete of what is committed; first by age, then what is still too much.
fn deletions(dir: &Path, layout: &Layout, searcher: &Searcher, limits: Limits) -> tantivy::Result<Vec<Deletion>> {
    let too_much = match limits.bytes {
        Some(bytes) => retention::first_to_keep(&retention::parts(dir, searcher)?, bytes),
        None => None,
    };
    let mut found = Vec::new();
    let mut counted = 0;
    for (reason, cutoff_ms) in [("age", limits.cutoff_ms), ("bytes", too_much)] {
        let Some(cutoff_ms) = cutoff_ms else { continue };
        let count = searcher.search(&reader::older_than(layout, cutoff_ms), &tantivy::collector::Count)?;
        if count > counted {
            found.push(Deletion { reason, cutoff_ms, count: count - counted });
            counted = count;
        }
    }
    Ok(found)
}

/// Where the files are over the limit though the events in them are not, begins to rewrite the segment with the most
/// deleted ones; one at a time, beside other work.
fn rewrite(
    writer: &mut IndexWriter<Entry>,
    dir: &Path,
    searcher: &Searcher,
    limits: Limits,
    rewriting: &Arc<AtomicBool>,
) -> tantivy::Result<()> {
    let Some(limit) = limits.bytes else { return Ok(()) };
    let parts = retention::parts(dir, searcher)?;
    let worst = parts.iter().max_by_key(|part| part.bytes - part.live_bytes);
    let Some(worst) = worst.filter(|part| part.bytes > part.live_bytes) else { return Ok(()) };
    let over = parts.iter().map(|part| part.bytes).sum::<u64>() > limit;
    if !over || rewriting.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    let done = Arc::clone(rewriting);
    let merge = writer.merge(&[worst.id]);
    let waiting = std::thread::Builder::new().name("goms-rewrite".to_owned()).spawn(move || {
        if let Err(error) = progress::told("rewriting files of the trace store to free disk space", || merge.wait()) {
            // the segment may have become part of another one meanwhile
            log::debug!("a segment of the trace store is not rewritten error={error}");
        }
        done.store(false, Ordering::Release);
    });
    if waiting.is_err() {
        rewriting.store(false, Ordering::Release);
    }
    Ok(())
}

fn open_writer(index: &Index) -> tantivy::Result<IndexWriter<Entry>> {
    let options = IndexWriterOptions::builder()
        .memory_budget_per_thread(WRITER_BYTES)
        .num_worker_threads(1)
        .num_merge_threads(MERGE_THREADS)
        .build();
    let writer = index.writer_with_options(options)?;
    let mut policy = LogMergePolicy::default();
    policy.set_max_docs_before_merge(MAX_MERGED_DOCUMENTS);
    policy.set_del_docs_ratio_before_merge(DELETED_SHARE);
    writer.set_merge_policy(Box::new(policy));
    Ok(writer)
}

fn answer(replies: Vec<oneshot::Sender<Written>>, result: Result<Vec<Vec<Outcome>>, Arc<tantivy::TantivyError>>) {
    match result {
        Ok(outcomes) => {
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                // a caller that waits no longer will write the batch again
                drop(reply.send(Ok(outcome)));
            }
        }
        Err(error) => {
            for reply in replies {
                drop(reply.send(Err(Arc::clone(&error))));
            }
        }
    }
}

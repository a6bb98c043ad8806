//! The one thread that writes: it takes what waits, indexes it, commits once, and only then answers.
//!
//! A commit writes new files and then replaces `meta.json` as a whole, so a process that dies at any moment leaves the
//! last commit. The thread ends when the store is dropped.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::{Index, IndexReader, IndexWriter};
use tokio::sync::{mpsc, oneshot};

use super::super::{Document, Outcome, flaw};
use super::reader;
use super::schema::Layout;

/// The least that tantivy takes (15 MB). Every commit ends a segment, and a batch fills a small part of this, so more
/// would only cost memory.
const WRITER_BYTES: usize = 15_000_000;

/// Merging is in the background of a process that has other work.
const MERGE_THREADS: usize = 1;

/// Documents a commit: several writes that wait share one.
const MAX_COMMIT_DOCUMENTS: usize = 20_000;

/// Over this share of deleted events a segment is rewritten, which frees their disk space.
const DELETED_SHARE: f32 = 0.2;

/// The answer to one write; the error is shared by all writes of a commit.
pub(super) type Written = Result<Vec<Outcome>, Arc<tantivy::TantivyError>>;

/// What the thread is asked to do.
pub(super) enum Job {
    /// Keep these.
    Write(Vec<Document>, oneshot::Sender<Written>),
    /// Delete what is older than this many milliseconds of Unix time.
    Expire(i64),
}

/// The thread's state.
pub(super) struct Writer {
    dir: PathBuf,
    index: Index,
    layout: Layout,
    reader: IndexReader,
    /// `None` after an error, until it could be opened again.
    writer: Option<IndexWriter>,
}

impl Writer {
    pub fn open(dir: PathBuf, index: Index, layout: Layout, reader: IndexReader) -> tantivy::Result<Self> {
        let writer = Some(open_writer(&index)?);
        Ok(Self { dir, index, layout, reader, writer })
    }

    /// Works until every sender is gone.
    pub fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut failing = false;
        while let Some(first) = jobs.blocking_recv() {
            let mut writes = Vec::new();
            let mut expire = None;
            let mut documents = 0;
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Write(batch, reply) => {
                        documents += batch.len();
                        writes.push((batch, reply));
                    }
                    Job::Expire(cutoff_ms) => expire = Some(cutoff_ms),
                }
                next = if documents < MAX_COMMIT_DOCUMENTS { jobs.try_recv().ok() } else { None };
            }
            let result = self.commit(&writes, expire);
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
            answer(writes, result);
        }
    }

    /// Indexes all batches in one commit and gives an outcome per document and batch.
    fn commit(
        &mut self,
        writes: &[(Vec<Document>, oneshot::Sender<Written>)],
        expire: Option<i64>,
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
        let mut changed = false;
        let mut seen = HashSet::new();
        let mut outcomes = Vec::with_capacity(writes.len());
        for (batch, _) in writes {
            let mut of_batch = Vec::with_capacity(batch.len());
            for document in batch {
                if let Some(flaw) = flaw(document) {
                    of_batch.push(Outcome::Refused(flaw));
                    continue;
                }
                if seen.insert(document.id.as_str()) && !reader::contains(&searcher, &self.layout, &document.id)? {
                    writer.add_document(self.layout.document(document))?;
                    changed = true;
                }
                of_batch.push(Outcome::Stored);
            }
            outcomes.push(of_batch);
        }
        if let Some(cutoff_ms) = expire {
            let old = searcher.search(&reader::older_than(&self.layout, cutoff_ms), &tantivy::collector::Count)?;
            if old > 0 {
                writer.delete_query(reader::older_than(&self.layout, cutoff_ms))?;
                log::info!("old events deleted from the trace store count={old}");
                changed = true;
            }
        }
        if changed {
            writer.commit()?;
        }
        drop(searcher);
        if changed || expire.is_some() {
            self.reader.reload()?;
        }
        if expire.is_some() {
            // files that a commit or a merge left behind go once no reader has them open
            writer.garbage_collect_files().wait()?;
        }
        Ok(outcomes)
    }
}

fn open_writer(index: &Index) -> tantivy::Result<IndexWriter> {
    let options = IndexWriterOptions::builder()
        .memory_budget_per_thread(WRITER_BYTES)
        .num_worker_threads(1)
        .num_merge_threads(MERGE_THREADS)
        .build();
    let writer = index.writer_with_options(options)?;
    let mut policy = LogMergePolicy::default();
    policy.set_del_docs_ratio_before_merge(DELETED_SHARE);
    writer.set_merge_policy(Box::new(policy));
    Ok(writer)
}

fn answer(
    writes: Vec<(Vec<Document>, oneshot::Sender<Written>)>,
    result: Result<Vec<Vec<Outcome>>, Arc<tantivy::TantivyError>>,
) {
    match result {
        Ok(outcomes) => {
            for ((_, reply), outcome) in writes.into_iter().zip(outcomes) {
                // a caller that waits no longer will write the batch again
                drop(reply.send(Ok(outcome)));
            }
        }
        Err(error) => {
            for (_, reply) in writes {
                drop(reply.send(Err(Arc::clone(&error))));
            }
        }
    }
}

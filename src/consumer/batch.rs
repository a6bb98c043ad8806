//! Documents of many submissions in one write, and each submission's account of them.

use std::collections::HashMap;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::pipeline::{Submission, Verdict};
use crate::store::{Document, Outcome};

/// What one write holds: documents, and of which submission each run of them is.
#[derive(Default)]
pub(super) struct Batch {
    pub documents: Vec<Document>,
    runs: Vec<(u64, usize)>,
    pub bytes: usize,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    pub fn append(&mut self, mut other: Self) {
        self.documents.append(&mut other.documents);
        self.runs.append(&mut other.runs);
        self.bytes += other.bytes;
    }

    /// The first half and the rest.
    pub fn halves(self) -> (Self, Self) {
        let middle = self.documents.len() / 2;
        let (mut first, mut rest) = (Self::default(), Self::default());
        for (at, (owner, document)) in self.into_documents().enumerate() {
            if at < middle { first.push(owner, document) } else { rest.push(owner, document) }
        }
        (first, rest)
    }

    fn push(&mut self, submission: u64, document: Document) {
        self.bytes += document.json.get().len();
        self.documents.push(document);
        match self.runs.last_mut() {
            Some((last, count)) if *last == submission => *count += 1,
            _ => self.runs.push((submission, 1)),
        }
    }

    /// Each document with its submission.
    fn into_documents(self) -> impl Iterator<Item = (u64, Document)> {
        let owners = self.runs.into_iter().flat_map(|(owner, count)| std::iter::repeat_n(owner, count));
        owners.zip(self.documents)
    }
}

/// What became of a write.
#[derive(Default)]
pub(super) struct Settled {
    pub stored: usize,
    pub refused: usize,
    /// The first of them: its id and why.
    pub first_refused: Option<(String, String)>,
    /// Those to be written again, and why one of them is.
    pub later: Batch,
    pub reason: Option<String>,
}

/// The submissions that are not answered yet.
#[derive(Default)]
pub(super) struct Ledger {
    open: HashMap<u64, Open>,
    next: u64,
}

struct Open {
    /// Documents without a verdict.
    left: usize,
    verdicts: Vec<Verdict>,
    reply: oneshot::Sender<Vec<Verdict>>,
    _room: OwnedSemaphorePermit,
}

impl Ledger {
    /// Adds a submission to a batch. One without documents is answered at once.
    pub fn enter(&mut self, submission: Submission, batch: &mut Batch) {
        let Submission { documents, reply, room } = submission;
        if documents.is_empty() {
            drop(reply.send(Vec::new()));
            return;
        }
        let id = self.next;
        self.next += 1;
        self.open.insert(
            id,
            Open { left: documents.len(), verdicts: Vec::with_capacity(documents.len()), reply, _room: room },
        );
        documents.into_iter().for_each(|document| batch.push(id, document));
    }

    /// The batch without the documents for which nobody waits any more.
    pub fn without_abandoned(&mut self, batch: Batch) -> Batch {
        self.open.retain(|_, open| !open.reply.is_closed());
        if batch.runs.iter().all(|(owner, _)| self.open.contains_key(owner)) {
            return batch;
        }
        let mut left = Batch::default();
        for (owner, document) in batch.into_documents().filter(|(owner, _)| self.open.contains_key(owner)) {
            left.push(owner, document);
        }
        left
    }

    /// Notes each outcome and answers each submission that has all its verdicts.
    pub fn settle(&mut self, batch: Batch, outcomes: Vec<Outcome>) -> Settled {
        let mut settled = Settled::default();
        let missing = std::iter::repeat_with(|| Outcome::Later("the store told no outcome".to_owned()));
        for ((owner, document), outcome) in batch.into_documents().zip(outcomes.into_iter().chain(missing)) {
            let verdict = match outcome {
                Outcome::Stored => {
                    settled.stored += 1;
                    Verdict::Stored
                }
                Outcome::Refused(reason) => {
                    settled.refused += 1;
                    settled.first_refused.get_or_insert_with(|| (document.id.clone(), reason.clone()));
                    Verdict::Refused(document.json, reason)
                }
                Outcome::Later(reason) => {
                    settled.reason = Some(reason);
                    settled.later.push(owner, document);
                    continue;
                }
            };
            self.note(owner, verdict);
        }
        settled
    }

    fn note(&mut self, owner: u64, verdict: Verdict) {
        let Some(open) = self.open.get_mut(&owner) else { return }; // found abandoned meanwhile
        open.verdicts.push(verdict);
        open.left -= 1;
        if open.left == 0
            && let Some(open) = self.open.remove(&owner)
            && open.reply.send(open.verdicts).is_err()
        {
            log::debug!("stored events whose sender did not wait");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::value::RawValue;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::store::Fields;

    fn submission(room: &Arc<Semaphore>, ids: &[&str]) -> (Submission, oneshot::Receiver<Vec<Verdict>>) {
        let document = |id: &&str| Document {
            id: (*id).to_owned(),
            json: RawValue::from_string("{}".to_owned()).unwrap(),
            fields: Fields::default(),
        };
        let (reply, verdicts) = oneshot::channel();
        let room = room.clone().try_acquire_owned().unwrap();
        (Submission { documents: ids.iter().map(document).collect(), reply, room }, verdicts)
    }

    fn ids(batch: &Batch) -> Vec<&str> {
        batch.documents.iter().map(|document| document.id.as_str()).collect()
    }

    #[test]
    fn a_submission_is_answered_once_all_its_documents_have_a_verdict() {
        let room = Arc::new(Semaphore::new(2));
        let (mut ledger, mut batch) = (Ledger::default(), Batch::default());
        let (first, mut first_verdicts) = submission(&room, &["a", "b"]);
        let (second, mut second_verdicts) = submission(&room, &["c", "d"]);
        ledger.enter(first, &mut batch);
        ledger.enter(second, &mut batch);
        assert_eq!((ids(&batch), batch.bytes), (vec!["a", "b", "c", "d"], 8));
        let busy = || Outcome::Later("busy".to_owned());
        let outcomes = vec![Outcome::Stored, busy(), Outcome::Stored, Outcome::Refused("bad".to_owned())];
        let settled = ledger.settle(batch, outcomes);
        assert_eq!((settled.stored, settled.refused, settled.reason.as_deref()), (2, 1, Some("busy")));
        assert_eq!(ids(&settled.later), ["b"]);
        assert!(first_verdicts.try_recv().is_err(), "b waits");
        let second = second_verdicts.try_recv().unwrap();
        assert!(matches!(&second[..], [Verdict::Stored, Verdict::Refused(_, reason)] if reason == "bad"), "{second:?}");
        assert_eq!(room.available_permits(), 1);
        let settled = ledger.settle(settled.later, Vec::new());
        assert_eq!((ids(&settled.later), settled.stored), (vec!["b"], 0), "no outcome is no verdict");
        ledger.settle(settled.later, vec![Outcome::Stored]);
        assert_eq!(first_verdicts.try_recv().unwrap().len(), 2);
        assert_eq!(room.available_permits(), 2);
    }

    #[test]
    fn halves_keep_whose_each_document_is() {
        let room = Arc::new(Semaphore::new(2));
        let (mut ledger, mut batch) = (Ledger::default(), Batch::default());
        let (first, mut first_verdicts) = submission(&room, &["a"]);
        let (second, mut second_verdicts) = submission(&room, &["b", "c", "d", "e"]);
        ledger.enter(first, &mut batch);
        ledger.enter(second, &mut batch);
        let (left, right) = batch.halves();
        assert_eq!((ids(&left), left.bytes), (vec!["a", "b"], 4));
        assert_eq!((ids(&right), right.bytes), (vec!["c", "d", "e"], 6));
        ledger.settle(right, vec![Outcome::Stored; 3]);
        assert!(second_verdicts.try_recv().is_err(), "b waits");
        ledger.settle(left, vec![Outcome::Stored; 2]);
        assert_eq!((first_verdicts.try_recv().unwrap().len(), second_verdicts.try_recv().unwrap().len()), (1, 4));
    }

    #[test]
    fn what_nobody_waits_for_is_not_written_again() {
        let room = Arc::new(Semaphore::new(3));
        let (mut ledger, mut batch) = (Ledger::default(), Batch::default());
        let (gone, verdicts) = submission(&room, &["a", "b"]);
        let (kept, _verdicts) = submission(&room, &["c"]);
        let (empty, mut nothing) = submission(&room, &[]);
        for submission in [gone, kept, empty] {
            ledger.enter(submission, &mut batch);
        }
        assert!(nothing.try_recv().unwrap().is_empty());
        drop(verdicts);
        let batch = ledger.without_abandoned(batch);
        assert_eq!((ids(&batch), batch.bytes), (vec!["c"], 2));
        assert_eq!(room.available_permits(), 2, "its room is free");
    }
}

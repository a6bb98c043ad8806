//! Documents that wait to be written again, and what the failures of their writes tell.

use tokio::time::Instant;

use crate::consumer::batch::Batch;

/// So often must a write of one document fail, while the store takes others each time, before it counts as refused. With
/// the waits between it has had some twenty seconds; that a batch of a thousand is divided ten times before counts as well.
const MOST_BLAMED: u32 = 9;

/// How often documents were written, and how that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tries {
    /// Writes that they were in.
    pub writes: u32,
    /// Of these, those that failed as a whole though the store had taken others since the failure before.
    blamed: u32,
    failed: Option<Failed>,
    /// They are a part of a batch that failed, so they are written alone.
    divided: bool,
}

/// How many writes the store had taken when one failed as a whole: the first time and the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failed {
    first: u64,
    last: u64,
}

/// What a failure as a whole tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The store takes others, so it is not away.
    pub others_pass: bool,
    /// It is about what was written: a part of it may pass.
    pub divide: bool,
    /// If it was one document: it is that one.
    pub refuse: bool,
}

impl Tries {
    /// Notes that a write of these failed as a whole when the store had taken `taken` writes since its start.
    /// `rejected`: it answered and refused them; otherwise nobody knows why.
    ///
    /// A store that is away takes nothing else either, so it blames nobody.
    pub fn failed(&mut self, rejected: bool, taken: u64) -> Finding {
        let before = self.failed;
        self.failed = Some(Failed { first: before.map_or(taken, |before| before.first), last: taken });
        let since_last = before.is_some_and(|before| taken > before.last);
        let since_first = before.is_some_and(|before| taken > before.first);
        self.blamed += u32::from(since_last);
        Finding {
            others_pass: since_last || rejected && since_first,
            divide: rejected || since_last,
            refuse: rejected && since_first || since_last && self.blamed >= MOST_BLAMED,
        }
    }

    /// Those of its halves.
    pub fn of_a_half(self) -> Self {
        Self { writes: 0, divided: true, ..self }
    }

    /// Those of documents that may be written with others again.
    pub fn of_the_innocent(self) -> Self {
        Self { divided: false, ..self }
    }

    fn joined(self, other: Self) -> Self {
        let failed = match (self.failed, other.failed) {
            (Some(one), Some(other)) => {
                Some(Failed { first: one.first.max(other.first), last: one.last.max(other.last) })
            }
            (one, other) => one.or(other),
        };
        Self {
            writes: self.writes.max(other.writes),
            blamed: self.blamed.max(other.blamed),
            failed,
            divided: self.divided || other.divided,
        }
    }
}

/// What waits, in the order of the last tries.
#[derive(Default)]
pub(super) struct Aside(Vec<Waiting>);

struct Waiting {
    batch: Batch,
    due: Instant,
    tries: Tries,
}

impl Aside {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn put(&mut self, batch: Batch, due: Instant, tries: Tries) {
        self.0.push(Waiting { batch, due, tries });
    }

    /// Of what is due (all with `None`), as much as fits into one write of so many events and bytes.
    pub fn take(&mut self, due: Option<Instant>, most_events: usize, most_bytes: usize) -> Option<(Batch, Tries)> {
        let mut taken: Option<(Batch, Tries)> = None;
        for waiting in std::mem::take(&mut self.0) {
            let is_due = due.is_none_or(|now| waiting.due <= now);
            match &mut taken {
                None if is_due => taken = Some((waiting.batch, waiting.tries)),
                Some((batch, tries))
                    if is_due
                        && !(tries.divided || waiting.tries.divided)
                        && batch.documents.len() + waiting.batch.documents.len() <= most_events
                        && batch.bytes + waiting.batch.bytes <= most_bytes =>
                {
                    batch.append(waiting.batch);
                    *tries = tries.joined(waiting.tries);
                }
                _ => self.0.push(waiting),
            }
        }
        taken
    }

    /// When the first is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.0.iter().map(|waiting| waiting.due).min()
    }

    /// Gives them all up.
    pub fn drain(&mut self) -> impl Iterator<Item = Batch> {
        std::mem::take(&mut self.0).into_iter().map(|waiting| waiting.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Finding = Finding { others_pass: false, divide: false, refuse: false };

    #[test]
    fn a_store_that_takes_nothing_blames_nobody() {
        let mut tries = Tries::default();
        for _ in 0..100 {
            assert_eq!(tries.failed(false, 7), NOTHING);
        }
        // it came back and took others, but these not
        assert_eq!(tries.failed(false, 8), Finding { others_pass: true, divide: true, refuse: false });
        assert_eq!(tries.failed(false, 8), NOTHING, "and went away again");
        let found: Vec<Finding> = (9..).map(|taken| tries.failed(false, taken)).take(8).collect();
        assert!(found[..7].iter().all(|found| found.divide && !found.refuse), "{found:?}");
        assert!(found[7].refuse, "for the ninth time");
    }

    #[test]
    fn what_is_rejected_is_divided_at_once_and_refused_once_others_passed() {
        let mut tries = Tries::default();
        for _ in 0..100 {
            assert_eq!(tries.failed(true, 7), Finding { others_pass: false, divide: true, refuse: false });
        }
        let mut half = tries.of_a_half();
        for _ in 0..2 {
            assert_eq!(half.failed(true, 8), Finding { others_pass: true, divide: true, refuse: true });
        }
    }
}

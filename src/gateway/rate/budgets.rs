//! Where budgets stand: in memory that has a bound.
//!
//! A budget that is whole again is as good as none, so when there are many, those go. Where all of them are in use, who comes
//! new shares one budget with all others who come new: whoever invents addresses slows down strangers, not those known.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::nanos::Nanos;
use governor::state::StateStore;

use super::Subject;

/// Threads that count at once rarely meet.
const SHARDS: usize = 16;
/// Of each shard; in all 131,072 subjects of some 100 bytes, 13 MB a limit.
const MOST_SUBJECTS: usize = 8192;

/// When each subject's budget will be whole again, in nanoseconds since the limiter's start.
type Shard = HashMap<Subject, u64>;

pub(super) struct Budgets {
    /// The last one is everybody's.
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    /// One request's worth.
    each: u64,
    most: usize,
}

impl Budgets {
    pub fn new(each: Duration) -> Self {
        Self::with_room(each, MOST_SUBJECTS)
    }

    fn with_room(each: Duration, most: usize) -> Self {
        let shards = (0..=SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new(), each: Nanos::from(each).as_u64(), most }
    }

    fn shard(&self, subject: &Subject) -> &Mutex<Shard> {
        match subject {
            Subject::Everybody => &self.shards[SHARDS],
            subject => &self.shards[self.hasher.hash_one(subject) as usize % SHARDS], // which bits does not matter
        }
    }
}

impl StateStore for Budgets {
    type Key = Subject;

    fn measure_and_replace<T, F, E>(&self, subject: &Subject, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut shard = self.shard(subject).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at) = shard.get_mut(subject) {
            let (told, next) = measure(Some(Nanos::from(*full_at)))?;
            *full_at = next.as_u64();
            return Ok(told);
        }
        let (told, next) = measure(None)?;
        if shard.len() >= self.most {
            // of a budget that was whole one request is gone: that is now
            let now = next.as_u64().saturating_sub(self.each);
            shard.retain(|_, full_at| *full_at > now);
        }
        if shard.len() >= self.most {
            drop(shard);
            return self.measure_and_replace(&Subject::Everybody, measure);
        }
        shard.insert(subject.clone(), next.as_u64());
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a limiter with `burst` requests of a second each measures at this second.
    fn take(budgets: &Budgets, subject: u32, at_secs: u64, burst: u64) -> Result<(), ()> {
        const SECOND: u64 = 1_000_000_000;
        let now = at_secs * SECOND;
        budgets.measure_and_replace(&Subject::Address(std::net::Ipv4Addr::from_bits(subject).into()), |full_at| {
            let next = full_at.map_or(now, |at| at.as_u64().max(now)) + SECOND;
            if next > now + burst * SECOND { Err(()) } else { Ok(((), Nanos::from(next))) }
        })
    }

    fn held(budgets: &Budgets) -> usize {
        budgets.shards.iter().map(|shard| shard.lock().expect("no panic").len()).sum()
    }

    #[test]
    fn budgets_that_are_whole_again_make_room() {
        let budgets = Budgets::with_room(Duration::from_secs(1), 10);
        for subject in 0..10_000 {
            assert_eq!(take(&budgets, subject, 2 * u64::from(subject), 1), Ok(()));
        }
        assert!(held(&budgets) <= 10 * SHARDS, "{}", held(&budgets));
    }

    #[test]
    fn where_all_are_in_use_strangers_share_one() {
        let budgets = Budgets::with_room(Duration::from_secs(1), 10);
        let known: Vec<u32> = (0..10_000).filter(|subject| take(&budgets, *subject, 0, 2).is_ok()).collect();
        assert_eq!(held(&budgets), 10 * SHARDS + 1, "and that of the strangers");
        assert_eq!(known.len(), 10 * SHARDS + 2, "strangers had two in all");
        assert_eq!(take(&budgets, 10_000, 0, 2), Err(()));
        assert_eq!(take(&budgets, known[0], 0, 2), Ok(()), "known ones have their own");
        assert_eq!(take(&budgets, 10_000, 9, 2), Ok(()), "later there is room again");
    }
}

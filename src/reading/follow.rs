//! Events as they are stored, each once.
//!
//! Stores tell no order of storing, so what is new is what was not there before: each poll reads from the newest event
//! backwards until a whole page is known. An event that arrives late lies behind that, so every few seconds the whole
//! window is read. An event that is stored later than [`WINDOW_MS`] after it happened (it waited on a disk) is not shown.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::Shown;
use crate::store::{Order, Query, StoreError, TraceStore};

/// How often to poll.
pub const INTERVAL: Duration = Duration::from_millis(500);
/// How long after it happened an event may be stored: flush, batch, refresh, a busy consumer, a clock that is behind.
const WINDOW_MS: i64 = 30_000;
/// So many polls read only what is new, the next one the whole window: 5 s.
const SWEEP_EVERY: u32 = 10;
/// Ids that are remembered; at 40 bytes each 8 MB. Past it the window is shorter.
const MEMORY: usize = 200_000;
const PAGE: usize = 1_000;
/// Pages of one poll at most: more events than anybody reads in half a second.
const MAX_PAGES: usize = 100;

/// What was shown, and from when on events are new.
pub struct Follow {
    query: Query,
    start_ms: i64,
    /// Events before it are forgotten, so they are not read again.
    floor_ms: i64,
    known: HashSet<String>,
    by_time: BTreeMap<i64, Vec<String>>,
    polls: u32,
    /// [`MEMORY`].
    most_known: usize,
    /// [`MAX_PAGES`].
    most_pages: usize,
}

impl Follow {
    /// Follows what matches; only what happens from `start_ms` (milliseconds of Unix time) on is new.
    #[must_use]
    pub fn new(query: Query, start_ms: i64) -> Self {
        let query = Query { order: Order::Newest, limit: PAGE, ..query };
        let (known, by_time) = (HashSet::new(), BTreeMap::new());
        Self {
            query,
            start_ms,
            floor_ms: start_ms,
            known,
            by_time,
            polls: 0,
            most_known: MEMORY,
            most_pages: MAX_PAGES,
        }
    }

    /// Reads fewer pages of 1,000 events in a poll (the newest), and remembers fewer.
    #[must_use]
    pub fn at_most(self, pages: usize, known: usize) -> Self {
        Self { most_pages: pages, most_known: known, ..self }
    }

    /// What is new since the last poll, in order of time. After an error nothing of it counts as shown.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn poll(&mut self, store: &dyn TraceStore, now_ms: i64) -> Result<Vec<(Shown, String)>, StoreError> {
        let is_sweep = self.polls.is_multiple_of(SWEEP_EVERY);
        let start_ms = self.floor_ms.max(self.start_ms);
        // who goes on after a break has missed more than a window
        let since_ms = if self.polls == 0 { start_ms } else { start_ms.max(now_ms - WINDOW_MS) };
        self.query.since_ms = Some(since_ms);
        self.query.after = None;
        let mut news: Vec<(Shown, String)> = Vec::new();
        let mut fresh: HashSet<String> = HashSet::new();
        for _ in 0..self.most_pages {
            let page = store.query(&self.query).await?;
            let before = news.len();
            for event in &page.events {
                let shown = Shown::read(event);
                let key = shown.key(event).to_owned();
                if !self.known.contains(&key) && fresh.insert(key) {
                    news.push((shown, event.get().to_owned()));
                }
            }
            self.query.after = page.next;
            let all_known = before == news.len();
            if self.query.after.is_none() || (all_known && !is_sweep) {
                break;
            }
        }
        self.polls = self.polls.wrapping_add(1);
        news.sort_by_key(|(shown, _)| shown.place());
        for (shown, json) in &news {
            let key = if shown.event_id.is_empty() { json } else { &shown.event_id };
            self.known.insert(key.clone());
            self.by_time.entry(shown.time_ms).or_default().push(key.clone());
        }
        self.forget(now_ms);
        Ok(news)
    }

    fn forget(&mut self, now_ms: i64) {
        // twice the window, as a clock of a store may differ
        let old_ms = now_ms - 2 * WINDOW_MS;
        while let Some(oldest) = self.by_time.first_entry() {
            if *oldest.key() >= old_ms && self.known.len() <= self.most_known {
                return;
            }
            self.floor_ms = self.floor_ms.max(*oldest.key() + 1);
            for key in oldest.remove() {
                self.known.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::memory::Memory;
    use serde_json::json;

    fn event(id: &str, time_ms: i64) -> serde_json::Value {
        json!({"eventId": id, "requestId": "r", "event": "service.end", "timeMs": time_ms})
    }

    async fn ids(follow: &mut Follow, store: &Memory, now_ms: i64) -> Vec<String> {
        let news = follow.poll(store, now_ms).await.expect("an answer");
        news.into_iter().map(|(shown, _)| shown.event_id).collect()
    }

    #[tokio::test]
    async fn each_event_comes_once_and_late_ones_too() {
        let start = 1_000_000;
        let store = Memory::of([event("before", start - 1), event("b", start + 20), event("a", start)]);
        let mut follow = Follow::new(Query::default(), start);
        assert_eq!(ids(&mut follow, &store, start + 500).await, ["a", "b"]);
        assert!(ids(&mut follow, &store, start + 1_000).await.is_empty());
        // of a node whose clock is an hour ahead: what others tell is not lost behind it
        store.add(event("ahead", start + 3_600_000));
        assert_eq!(ids(&mut follow, &store, start + 1_500).await, ["ahead"]);
        store.add(event("late", start + 10));
        assert_eq!(ids(&mut follow, &store, start + 2_000).await, ["late"]);
        for polls in 0..3 * SWEEP_EVERY {
            assert!(ids(&mut follow, &store, start + 2_500 + i64::from(polls) * 500).await.is_empty());
        }
    }

    #[tokio::test]
    async fn only_what_is_new_is_read_and_a_sweep_finds_what_lies_behind() {
        let start = 1_000_000;
        let many = PAGE * 5;
        let store = Memory::of((0..many).map(|number| event(&format!("e{number}"), start + 1_000)));
        let mut follow = Follow::new(Query::default(), start);
        assert_eq!(ids(&mut follow, &store, start + 2_000).await.len(), many);
        let asked = |store: &Memory| std::mem::take(&mut *store.queries.lock().expect("no test panicked"));
        assert_eq!(asked(&store), 5);
        assert!(ids(&mut follow, &store, start + 2_500).await.is_empty());
        assert_eq!(asked(&store), 1, "the newest page is known, so nothing more is read");
        store.add(event("deep", start + 1));
        let mut found = Vec::new();
        for polls in 0..SWEEP_EVERY {
            found.extend(ids(&mut follow, &store, start + 3_000 + i64::from(polls) * 500).await);
        }
        assert_eq!(found, ["deep"]);
    }

    #[tokio::test]
    async fn what_is_forgotten_is_not_shown_again() {
        let start = 1_000_000;
        let many = 500;
        let store = Memory::default();
        let mut follow = Follow::new(Query::default(), start);
        follow.most_known = 4 * many;
        let mut shown = HashSet::new();
        for round in 0..6 {
            let time = start + round * 100;
            for number in 0..many {
                store.add(event(&format!("{round}-{number}"), time));
            }
            for id in ids(&mut follow, &store, time + 50).await {
                assert!(shown.insert(id), "shown twice");
            }
        }
        assert_eq!(shown.len(), 6 * many);
        assert!(follow.known.len() <= follow.most_known);
    }
}

//! What happened in the cluster: who came and left, and configs that were read again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::registry::{Catalog, CatalogWatch, NodeState};
use crate::shutdown::Shutdown;

/// Entries that are kept; the oldest go.
const MOST: usize = 200;

/// Nodes of one service that do the same at once and are told one by one; more are told as a number.
const MOST_ALONE: usize = 4;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// In milliseconds of Unix time.
    pub at_ms: i64,
    pub what: What,
}

/// What it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Nodes of a service changed.
    Nodes {
        service: String,
        change: Change,
        /// Which node; `None`: so many that only their number counts.
        node: Option<String>,
        count: usize,
    },
    /// The config was read again, and taken or not; what was said of it.
    Reload { is_taken: bool, told: Vec<String> },
}

/// What nodes did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    Joined,
    Left,
    Ready,
    Draining,
    Stale,
}

impl Change {
    fn to(state: NodeState) -> Self {
        match state {
            NodeState::Ready => Self::Ready,
            NodeState::Draining => Self::Draining,
            NodeState::Stale => Self::Stale,
        }
    }
}

/// The last entries.
#[derive(Debug, Default)]
pub(super) struct Feed {
    entries: Mutex<VecDeque<Entry>>,
}

impl Feed {
    /// The newest entries, at most so many, newest first.
    pub fn newest(&self, most: usize) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().take(most).cloned().collect()
    }

    pub fn add(&self, what: What) {
        let entry = Entry { at_ms: Timestamp::now().as_millisecond(), what };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() == MOST {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// Notes what changes from the first catalog on, until the process ends.
    pub async fn follow(&self, mut catalog: CatalogWatch, shutdown: Shutdown) {
        let mut known: Option<States> = None;
        loop {
            if let Some(now) = catalog.borrow_and_update().clone() {
                let now = states(&now);
                for what in known.iter().flat_map(|before| changes(before, &now)) {
                    self.add(what);
                }
                known = Some(now);
            }
            tokio::select! {
                () = shutdown.begun() => return,
                changed = catalog.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// Service and node → its state.
type States = HashMap<(String, String), NodeState>;

fn states(catalog: &Catalog) -> States {
    catalog.all().map(|node| ((node.id.service.clone(), node.id.to_string()), node.state)).collect()
}

/// What is different, by service; many nodes that do the same are one entry.
fn changes(before: &States, now: &States) -> Vec<What> {
    let mut found: BTreeMap<(&str, Change), Vec<&str>> = BTreeMap::new();
    for ((service, node), state) in now {
        let change = match before.get(&(service.clone(), node.clone())) {
            None => Change::Joined,
            Some(was) if was != state => Change::to(*state),
            Some(_) => continue,
        };
        found.entry((service, change)).or_default().push(node);
    }
    for (service, node) in before.keys().filter(|key| !now.contains_key(key)) {
        found.entry((service, Change::Left)).or_default().push(node);
    }
    let mut told = Vec::new();
    for ((service, change), mut nodes) in found {
        nodes.sort_unstable();
        let entry = |node: Option<&str>, count| What::Nodes {
            service: service.to_owned(),
            change,
            node: node.map(str::to_owned),
            count,
        };
        if nodes.len() > MOST_ALONE {
            told.push(entry(None, nodes.len()));
        } else {
            told.extend(nodes.into_iter().map(|node| entry(Some(node), 1)));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nodes: &[(&str, &str, NodeState)]) -> States {
        nodes.iter().map(|(service, node, state)| (((*service).to_owned(), (*node).to_owned()), *state)).collect()
    }

    fn one(service: &str, change: Change, node: &str) -> What {
        What::Nodes { service: service.to_owned(), change, node: Some(node.to_owned()), count: 1 }
    }

    #[test]
    fn joins_leaves_and_states_are_told() {
        let before = of(&[("user", "a", NodeState::Ready), ("user", "b", NodeState::Ready)]);
        let now = of(&[("user", "b", NodeState::Draining), ("order", "c", NodeState::Ready)]);
        assert_eq!(
            changes(&before, &now),
            [one("order", Change::Joined, "c"), one("user", Change::Left, "a"), one("user", Change::Draining, "b")]
        );
        assert!(changes(&now, &now).is_empty());
    }

    #[test]
    fn a_crowd_is_one_entry_and_the_feed_has_an_end() {
        let names: Vec<String> = (0..500).map(|number| format!("n{number}")).collect();
        let many: Vec<_> = names.iter().map(|name| ("user", name.as_str(), NodeState::Ready)).collect();
        let crowd = What::Nodes { service: "user".into(), change: Change::Joined, node: None, count: 500 };
        assert_eq!(changes(&States::new(), &of(&many)), [crowd]);
        let feed = Feed::default();
        for number in 0..MOST + 10 {
            feed.add(What::Reload { is_taken: true, told: vec![number.to_string()] });
        }
        let newest = feed.newest(usize::MAX);
        assert_eq!(newest.len(), MOST);
        assert_eq!(newest[0].what, What::Reload { is_taken: true, told: vec![(MOST + 9).to_string()] });
    }
}

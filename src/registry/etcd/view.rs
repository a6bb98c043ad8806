//! What etcd tells, as nodes: a pure state that reads and events change. The clock is an argument.
//!
//! - A read replaces everything. After the first one, a node that is missing was lost in a gap (etcd was away, frozen,
//!   or restarted empty), not deregistered: it stays as `stale` for the grace period.
//! - A key that is deleted later is a leave, at once; but for one grace period after a gap leases still expire that
//!   could not be renewed in it, so such a node becomes `stale` too, unless it said that it drains.
//! - Metadata and drain marks are watched apart from the keys, so they can come sooner or later than their key's
//!   events: revisions tell what belongs together.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::super::go_micro::hearer;
use super::super::malformed::Malformed;
use super::super::{Format, Hearer, Node, NodeId, NodeMeta, NodeState, go_micro};

/// Where things are kept.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    namespace: String,
    format: Format,
}

impl Keys {
    pub(super) fn new(namespace: &str, format: Format) -> Self {
        Self { namespace: namespace.to_owned(), format }
    }

    /// In which form nodes of this process are written.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// What all records of Go Micro begin with.
    pub(super) fn record_prefix(&self) -> &'static str {
        go_micro::PREFIX
    }

    /// What all keys of nodes begin with.
    pub(super) fn node_prefix(&self) -> String {
        format!("{}_", self.namespace)
    }

    pub(super) fn meta_prefix(&self) -> String {
        format!("/{}/nodes/", self.namespace)
    }

    pub(super) fn drain_prefix(&self) -> String {
        format!("/{}/drain/", self.namespace)
    }

    /// The key of a node of this process.
    pub(super) fn node(&self, id: &NodeId) -> String {
        match self.format {
            Format::Goms => id.key(&self.namespace),
            Format::GoMicro => go_micro::key(id),
        }
    }

    /// The keys under which a known node may stand; `record` is that of a foreign one.
    pub(super) fn of(&self, id: &NodeId, record: Option<&str>) -> Vec<String> {
        match record {
            Some(record) => vec![record.to_owned()],
            None => vec![id.key(&self.namespace), go_micro::key(id)],
        }
    }

    /// The node's metadata as JSON, on the same lease.
    pub(super) fn meta(&self, id: &NodeId) -> String {
        self.meta_prefix() + &path(id)
    }

    /// Someone took the node out of rotation; on the same lease.
    pub(super) fn drain(&self, id: &NodeId) -> String {
        self.drain_prefix() + &path(id)
    }
}

/// A node below the prefixes of metadata and marks.
fn path(id: &NodeId) -> String {
    format!("{}/{id}", id.service)
}

/// One key and its value, or its deletion.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) key: String,
    /// `None`: deleted.
    pub(super) value: Option<Vec<u8>>,
    /// The revision of this change.
    pub(super) revision: i64,
    /// The revision at which the key came to be; tells the order of joining.
    pub(super) created: i64,
}

/// The nodes as etcd told last.
#[derive(Debug)]
pub(super) struct View {
    keys: Keys,
    grace: Duration,
    known: bool,
    nodes: HashMap<NodeId, Entry>,
    metas: HashMap<String, (i64, NodeMeta)>,
    marks: HashMap<String, i64>,
    /// Keys of Go Micro's records, and whom each tells of.
    records: HashMap<String, Vec<NodeId>>,
    /// Who hears topics, by their keys.
    hearers: BTreeMap<String, Vec<Hearer>>,
    /// A gap ended less than one grace period ago.
    unsettled_until: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    created: i64,
    /// Usually one; a key with a fifth field is the same node's.
    keys: HashSet<String>,
    /// Set while the node is missing: when to drop it.
    missing: Option<Instant>,
    /// Its metadata was read, or there is none.
    explained: bool,
}

impl View {
    pub(super) fn new(keys: Keys, grace: Duration) -> Self {
        Self {
            keys,
            grace,
            known: false,
            nodes: HashMap::new(),
            metas: HashMap::new(),
            marks: HashMap::new(),
            records: HashMap::new(),
            hearers: BTreeMap::new(),
            unsettled_until: None,
        }
    }

    /// etcd did not answer for a while, so that leases may have run out that their owners wanted to renew.
    pub(super) fn gap(&mut self, now: Instant) {
        self.unsettled_until = Some(now + self.grace);
    }

    /// Takes a whole read over.
    pub(super) fn read(&mut self, found: Vec<Change>, now: Instant, malformed: &Malformed) {
        let before = std::mem::take(&mut self.nodes);
        let old_metas = std::mem::take(&mut self.metas);
        let old_marks = std::mem::take(&mut self.marks);
        self.records.clear();
        self.hearers.clear(); // each tells itself again where it was lost
        for change in found {
            self.put(change, now, malformed);
        }
        self.nodes.values_mut().for_each(|entry| entry.explained = true);
        for (id, mut entry) in before {
            let path = path(&id);
            let draining = old_metas.get(&path).is_some_and(|(_, meta)| meta.draining);
            if self.nodes.contains_key(&id) || draining {
                continue;
            }
            entry.missing = entry.missing.or(Some(now + self.grace));
            entry.keys.clear();
            self.nodes.insert(id, entry);
            // What was known of it, at a revision before any that may come (an empty store counts from 1 again).
            if let Some((_, meta)) = old_metas.get(&path) {
                self.metas.insert(path.clone(), (0, meta.clone()));
            }
            if old_marks.contains_key(&path) {
                self.marks.insert(path, 0);
            }
        }
        if self.known {
            self.gap(now);
        }
        self.known = true;
    }

    /// Takes one event over. `own` tells the nodes of this process, which put themselves back.
    pub(super) fn apply(&mut self, change: Change, now: Instant, own: impl Fn(&NodeId) -> bool, malformed: &Malformed) {
        if change.value.is_some() {
            self.put(change, now, malformed);
        } else if hearer::is_key(&change.key) {
            self.hearers.remove(&change.key);
        } else if change.key.starts_with(self.keys.record_prefix()) {
            for id in self.records.remove(&change.key).unwrap_or_default() {
                self.delete(&id, &change, now, own(&id));
            }
        } else if let Some(path) = change.key.strip_prefix(&self.keys.meta_prefix()) {
            // Goes with its node; while that is there or missed, the last word stands.
            if !self.has(path) {
                self.metas.remove(path);
            }
        } else if let Some(path) = change.key.strip_prefix(&self.keys.drain_prefix()) {
            self.unmark(path, change.revision);
        } else if let Ok(id) = NodeId::parse_key(&self.keys.namespace, &change.key) {
            self.delete(&id, &change, now, own(&id));
        }
    }

    /// Drops what was missing for too long. Returns whether anything was.
    pub(super) fn expire(&mut self, now: Instant, own: impl Fn(&NodeId) -> bool) -> bool {
        let due = |(id, entry): (&NodeId, &Entry)| {
            (entry.missing.is_some_and(|until| until <= now) && !own(id)).then(|| id.clone())
        };
        let gone: Vec<NodeId> = self.nodes.iter().filter_map(due).collect();
        for id in &gone {
            self.forget(id, i64::MAX);
        }
        !gone.is_empty()
    }

    /// When [`View::expire`] has something to do.
    pub(super) fn next_expiry(&self, own: impl Fn(&NodeId) -> bool) -> Option<Instant> {
        self.nodes.iter().filter(|(id, _)| !own(id)).filter_map(|(_, entry)| entry.missing).min()
    }

    /// Whether the node's own key is there.
    pub(super) fn is_present(&self, id: &NodeId) -> bool {
        self.nodes.get(id).is_some_and(|entry| entry.keys.contains(&self.keys.node(id)))
    }

    /// Nodes that joined while what belongs to them did not arrive yet. The watches of keys and metadata are not in
    /// step, so that is to be looked up (and given to [`View::apply`]) before such a node is shown. Tells each once.
    pub(super) fn take_unexplained(&mut self) -> Vec<NodeId> {
        let metas = &self.metas;
        let fresh = self
            .nodes
            .iter_mut()
            .filter_map(|(id, entry)| (!std::mem::replace(&mut entry.explained, true)).then_some(id));
        fresh.filter(|id| !metas.contains_key(&path(id))).cloned().collect()
    }

    /// All nodes in the order they joined.
    pub(super) fn nodes(&self) -> Vec<Node> {
        let mut sorted = BTreeMap::new();
        for (id, entry) in &self.nodes {
            let path = path(id);
            let meta = self.metas.get(&path).map(|(_, meta)| meta.clone()).unwrap_or_default();
            let mut node = Node::new(id.clone(), meta);
            node.state = match () {
                () if node.meta.draining || self.marks.contains_key(&path) => NodeState::Draining,
                () if entry.missing.is_some() => NodeState::Stale,
                () => NodeState::Ready,
            };
            sorted.insert((entry.created, self.keys.node(id)), node);
        }
        sorted.into_values().collect()
    }

    /// Who hears topics, in the order of their keys.
    pub(super) fn hearers(&self) -> Vec<Hearer> {
        self.hearers.values().flatten().cloned().collect()
    }

    /// Whether a hearer's key is there.
    pub(super) fn is_heard(&self, id: &str) -> bool {
        self.hearers.contains_key(&hearer::key(id))
    }

    fn put(&mut self, change: Change, now: Instant, malformed: &Malformed) {
        if hearer::is_key(&change.key) {
            match hearer::read(change.value.as_deref().unwrap_or_default()) {
                Ok(hearers) => drop(self.hearers.insert(change.key, hearers)),
                Err(error) => malformed.skip(&change.key, &error),
            }
            return;
        }
        if change.key.starts_with(self.keys.record_prefix()) {
            return self.put_record(&change, now, malformed);
        }
        let value = change.value.unwrap_or_default();
        if let Some(path) = change.key.strip_prefix(&self.keys.meta_prefix()) {
            match serde_json::from_slice(&value) {
                // What was looked up may be newer than what the watch brings.
                Ok(_) if self.metas.get(path).is_some_and(|(said, _)| *said > change.revision) => {}
                Ok(meta) => drop(self.metas.insert(path.to_owned(), (change.revision, meta))),
                Err(error) => malformed.skip(&change.key, &error),
            }
        } else if let Some(path) = change.key.strip_prefix(&self.keys.drain_prefix()) {
            self.marks.insert(path.to_owned(), change.revision);
        } else {
            match NodeId::parse_key(&self.keys.namespace, &change.key) {
                Ok(id) => self.put_node(id, change.key, change.revision, change.created),
                Err(error) => malformed.skip(&change.key, &error),
            }
        }
    }

    /// A record tells key and metadata at once. One that cannot be read changes nothing.
    fn put_record(&mut self, change: &Change, now: Instant, malformed: &Malformed) {
        let nodes = match go_micro::read(&change.key, change.value.as_deref().unwrap_or_default()) {
            Ok(nodes) => nodes,
            Err(error) => return malformed.skip(&change.key, &error),
        };
        let ids = nodes.iter().map(|node| node.id.clone()).collect();
        for gone in self.records.insert(change.key.clone(), ids).unwrap_or_default() {
            if nodes.iter().all(|node| node.id != gone) {
                self.delete(&gone, change, now, false);
            }
        }
        for Node { id, meta, .. } in nodes {
            let path = path(&id);
            self.put_node(id.clone(), change.key.clone(), change.revision, change.created);
            if let Some(entry) = self.nodes.get_mut(&id) {
                entry.explained = true;
            }
            if self.metas.get(&path).is_none_or(|(said, _)| *said <= change.revision) {
                self.metas.insert(path, (change.revision, meta));
            }
        }
    }

    fn put_node(&mut self, id: NodeId, key: String, revision: i64, created: i64) {
        if self.nodes.get(&id).is_some_and(|entry| entry.missing.is_some()) {
            self.forget(&id, revision - 1); // what its former life said
        }
        let fresh = || Entry { created, keys: HashSet::new(), missing: None, explained: false };
        self.nodes.entry(id).or_insert_with(fresh).keys.insert(key);
    }

    fn delete(&mut self, id: &NodeId, change: &Change, now: Instant, own: bool) {
        let unsettled = self.unsettled_until.is_some_and(|until| now < until);
        let draining = self.metas.get(&path(id)).is_some_and(|(_, meta)| meta.draining);
        let Some(entry) = self.nodes.get_mut(id) else { return };
        entry.keys.remove(&change.key);
        if !entry.keys.is_empty() || entry.missing.is_some() {
            return;
        }
        if own || (unsettled && !draining) {
            entry.missing = Some(now + self.grace);
        } else {
            self.forget(id, change.revision);
        }
    }

    /// Removes a mark, but not one that goes with its missing node: that is out of rotation still.
    fn unmark(&mut self, path: &str, revision: i64) {
        let missing = self.nodes.iter().any(|(id, entry)| entry.missing.is_some() && self::path(id) == path);
        if !missing && self.marks.get(path).is_some_and(|marked| *marked <= revision) {
            self.marks.remove(path);
        }
    }

    fn has(&self, path: &str) -> bool {
        self.nodes.keys().any(|id| self::path(id) == path)
    }

    /// Drops a node and what was said of it up to that revision.
    fn forget(&mut self, id: &NodeId, revision: i64) {
        let path = path(id);
        self.nodes.remove(id);
        if self.metas.get(&path).is_some_and(|(said, _)| *said <= revision) {
            self.metas.remove(&path);
        }
        if self.marks.get(&path).is_some_and(|said| *said <= revision) {
            self.marks.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests;

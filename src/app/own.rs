//! Whose events come to the trace consumers of this cluster by themselves: of every process whose nodes the registry names, or named
//! until a moment ago. Spans that such a process sends besides would count its requests twice.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::consumer::OwnProcesses;
use crate::registry::CatalogWatch;
use crate::shutdown::Shutdown;
use crate::trace;

/// For so long a process that left may still bring spans: its own queue is given up after seconds, one of a collector in between
/// after some minutes.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Each process, by when it left; `None`: it is there.
type Known = Arc<Mutex<HashMap<String, Option<Instant>>>>;

/// Follows the catalog until `background` ends.
pub fn follow(mut catalog: CatalogWatch, background: &Shutdown) -> OwnProcesses {
    let known = Known::default();
    note(&known, &catalog, Instant::now());
    let (noted, ending) = (known.clone(), background.clone());
    background.spawn(async move {
        loop {
            tokio::select! {
                () = ending.begun() => return,
                changed = catalog.changed() => if changed.is_err() {
                    return;
                }
            }
            note(&noted, &catalog, Instant::now());
        }
    });
    OwnProcesses::new(move |instance| {
        instance == trace::instance() || known.lock().unwrap_or_else(PoisonError::into_inner).contains_key(instance)
    })
}

fn note(known: &Known, catalog: &CatalogWatch, now: Instant) {
    let Some(catalog) = catalog.borrow().clone() else { return };
    let there: HashSet<&str> =
        catalog.all().map(|node| node.meta.instance.as_str()).filter(|id| !id.is_empty()).collect();
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|id, left| {
        *left = if there.contains(id.as_str()) { None } else { left.or(Some(now)) };
        left.is_none_or(|left| now.duration_since(left) < REMEMBERED)
    });
    for id in there {
        if !known.contains_key(id) {
            known.insert(id.to_owned(), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{HostPort, Node, NodeId, NodeMeta, Publisher};

    #[test]
    fn who_left_is_known_for_a_while() {
        let node = |port, instance: &str| {
            let at = HostPort::new([127, 0, 0, 1].into(), port);
            let id = NodeId { service: "user".into(), rpc: at, http: at };
            Node::new(id, NodeMeta { instance: instance.into(), ..NodeMeta::default() })
        };
        let (publisher, known) = (Publisher::new(), Known::default());
        let (catalog, start) = (publisher.subscribe(), Instant::now());
        let ids = |after: Duration| {
            note(&known, &catalog, start + after);
            let mut ids: Vec<String> = known.lock().unwrap().keys().cloned().collect();
            ids.sort();
            ids
        };
        assert!(ids(Duration::ZERO).is_empty());
        publisher.publish(vec![node(1, "a"), node(2, "b"), node(3, "")]);
        assert_eq!(ids(Duration::ZERO), ["a", "b"]);
        publisher.publish(vec![node(1, "a")]);
        assert_eq!(ids(REMEMBERED), ["a", "b"], "from now on it is gone");
        assert_eq!(ids(REMEMBERED * 2), ["a"]);
    }
}

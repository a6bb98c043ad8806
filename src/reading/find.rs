//! The events of a request and of its trace.

use std::collections::HashSet;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::Shown;
use crate::store::{Order, Query, StoreError, TraceStore};

/// Traces that the events of one request belong to: one, or a few where somebody sent an id twice.
const MAX_TRACES: usize = 8;

/// Events that are asked for at once: with the longest bodies that traces keep (16 KiB each way) 16 MiB.
const PAGE: usize = 500;

/// How much is read.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Events.
    pub events: usize,
    /// Their JSON: nothing more is read once it has this length.
    pub bytes: usize,
}

impl Most {
    /// However long they are.
    #[must_use]
    pub fn events(events: usize) -> Self {
        Self { events, bytes: usize::MAX }
    }
}

/// What belongs to one id, in order of time.
#[derive(Default)]
pub struct Found {
    pub events: Vec<(Shown, Box<RawValue>)>,
    /// Bytes of the events' JSON.
    pub bytes: usize,
    /// Whether there is more than was asked for.
    pub is_cut: bool,
}

/// Finds the events of a request id (or a trace id), and those that other requests and programs told of its trace.
///
/// # Errors
/// Those of the store.
pub async fn find(store: &dyn TraceStore, id: &str, most: Most) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let mut known: HashSet<String> = HashSet::new();
    let (request_id, own_trace) = match Uuid::try_parse(id.trim()) {
        // spans of other programs have their trace id as their request id
        Ok(uuid) => (uuid.to_string(), Some(uuid.simple().to_string())),
        Err(_) => (id.trim().to_owned(), None),
    };
    add(store, Query { request_id: Some(request_id), ..Query::default() }, most, &mut known, &mut found).await?;
    let mut traces: Vec<String> = own_trace.into_iter().collect();
    for (shown, _) in &found.events {
        if !shown.trace_id.is_empty() && !traces.contains(&shown.trace_id) && traces.len() < MAX_TRACES {
            traces.push(shown.trace_id.clone());
        }
    }
    for trace_id in traces {
        if found.is_cut {
            break;
        }
        add(store, Query { trace_id: Some(trace_id), ..Query::default() }, most, &mut known, &mut found).await?;
    }
    found.events.sort_by_key(|(shown, _)| shown.place());
    Ok(found)
}

/// The oldest events that a question finds.
///
/// # Errors
/// Those of the store.
pub async fn oldest(store: &dyn TraceStore, query: Query, most: Most) -> Result<Found, StoreError> {
    let mut found = Found::default();
    add(store, query, most, &mut HashSet::new(), &mut found).await?;
    Ok(found)
}

/// Adds those that are not known yet, page by page, until there is no room for one of them.
async fn add(
    store: &dyn TraceStore,
    query: Query,
    most: Most,
    known: &mut HashSet<String>,
    found: &mut Found,
) -> Result<(), StoreError> {
    let mut query = Query { order: Order::Oldest, limit: PAGE.min(most.events.saturating_add(1)), ..query };
    loop {
        let page = store.query(&query).await?;
        for event in page.events {
            let shown = Shown::read(&event);
            if !known.insert(shown.key(&event).to_owned()) {
                continue;
            }
            if found.events.len() >= most.events || found.bytes >= most.bytes {
                found.is_cut = true;
                return Ok(());
            }
            found.bytes += event.get().len();
            found.events.push((shown, event));
        }
        query.after = page.next;
        if query.after.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::memory::Memory;
    use serde_json::json;

    const REQUEST: &str = "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6";
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    async fn names(store: &Memory, id: &str) -> Vec<String> {
        let found = find(store, id, Most::events(100)).await.expect("found");
        found.events.into_iter().map(|(shown, _)| shown.event_id).collect()
    }

    #[tokio::test]
    async fn a_trace_is_found_by_either_id() {
        let store = Memory::of([
            json!({"eventId": "own", "requestId": REQUEST, "traceId": TRACE, "event": "request.end", "timeMs": 2}),
            json!({"eventId": "foreign", "requestId": "0af76519-16cd-43dd-8448-eb211c80319c", "traceId": TRACE,
                   "event": "span.end", "timeMs": 1}),
            json!({"eventId": "other", "requestId": "other", "traceId": "x", "event": "span.end", "timeMs": 1}),
        ]);
        for id in [REQUEST, TRACE, "0AF76519-16cd-43dd-8448-eb211c80319c"] {
            assert_eq!(names(&store, id).await, ["foreign", "own"], "{id}");
        }
        assert_eq!(names(&store, "other").await, ["other"]);
        assert!(names(&store, "nothing").await.is_empty());
        let cut = find(&store, REQUEST, Most::events(1)).await.expect("found");
        assert!(cut.is_cut && cut.events.len() == 1);
        let whole = find(&store, REQUEST, Most::events(2)).await.expect("found");
        assert!(!whole.is_cut && whole.events.len() == 2, "exactly as many as there are");
    }

    #[tokio::test]
    async fn it_stops_where_there_is_no_room() {
        let body = "b".repeat(1_000);
        let event = |number: usize| json!({"eventId": format!("{number:05}"), "requestId": REQUEST, "traceId": TRACE, "timeMs": number, "body": body});
        let store = Memory::of((0..3_000).map(event));
        let all = find(&store, REQUEST, Most::events(3_000)).await.expect("found");
        assert!(!all.is_cut && all.events.len() == 3_000 && all.bytes > 3_000_000);
        let asked = || std::mem::take(&mut *store.queries.lock().expect("no test panicked"));
        asked();
        let few = find(&store, REQUEST, Most { events: 3_000, bytes: 500_000 }).await.expect("found");
        assert!(few.is_cut && few.bytes < 502_000 && few.events.len() < 500, "{}", few.bytes);
        assert_eq!((few.events[0].0.time_ms, asked()), (0, 1), "the first, and no more is asked for");
        let list = Query { trace_id: Some(TRACE.to_owned()), ..Query::default() };
        let list = oldest(&store, list, Most::events(1_200)).await.expect("found");
        assert!(list.is_cut && list.events.len() == 1_200);
    }
}

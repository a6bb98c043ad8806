//! The events of a request and of its trace.

use std::collections::HashSet;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::Shown;
use crate::store::{Order, Query, StoreError, TraceStore};

/// Traces that the events of one request belong to: one, or a few where somebody sent an id twice.
const MAX_TRACES: usize = 8;

/// What belongs to one id, in order of time.
pub struct Found {
    pub events: Vec<(Shown, Box<RawValue>)>,
    /// Whether there is more than was asked for.
    pub is_cut: bool,
}

/// Finds the events of a request id (or a trace id), and those that other requests and programs told of its trace.
pub async fn find(store: &dyn TraceStore, id: &str, limit: usize) -> Result<Found, StoreError> {
    let mut found = Found { events: Vec::new(), is_cut: false };
    let mut known: HashSet<String> = HashSet::new();
    let (request_id, own_trace) = match Uuid::try_parse(id.trim()) {
        // spans of other programs have their trace id as their request id
        Ok(uuid) => (uuid.to_string(), Some(uuid.simple().to_string())),
        Err(_) => (id.trim().to_owned(), None),
    };
    let base = Query { order: Order::Oldest, limit, ..Query::default() };
    let of_request = Query { request_id: Some(request_id), ..base.clone() };
    add(store, &of_request, &mut known, &mut found).await?;
    let mut traces: Vec<String> = own_trace.into_iter().collect();
    for (shown, _) in &found.events {
        if !shown.trace_id.is_empty() && !traces.contains(&shown.trace_id) && traces.len() < MAX_TRACES {
            traces.push(shown.trace_id.clone());
        }
    }
    for trace_id in traces {
        let of_trace = Query { trace_id: Some(trace_id), ..base.clone() };
        add(store, &of_trace, &mut known, &mut found).await?;
    }
    found.is_cut |= found.events.len() > limit;
    found.events.truncate(limit);
    found.events.sort_by_key(|(shown, _)| shown.place());
    Ok(found)
}

async fn add(
    store: &dyn TraceStore,
    query: &Query,
    known: &mut HashSet<String>,
    found: &mut Found,
) -> Result<(), StoreError> {
    let page = store.query(query).await?;
    found.is_cut |= page.next.is_some();
    for event in page.events {
        let shown = Shown::read(&event);
        if known.insert(shown.key(&event).to_owned()) {
            found.events.push((shown, event));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::memory::Memory;
    use serde_json::json;

    const REQUEST: &str = "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6";
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    async fn names(store: &Memory, id: &str) -> Vec<String> {
        let found = find(store, id, 100).await.expect("found");
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
        let cut = find(&store, REQUEST, 1).await.expect("found");
        assert!(cut.is_cut && cut.events.len() == 1);
    }
}

//! Whose a span is that others name as their parent: so that what answers knows the service that called it.
//!
//! A program sends its spans as they end and in batches of seconds, so a caller's span may come before its callee's, with
//! it or after it. Here the first two are found; what comes after finds the callee stored already, called by nobody known.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Spans that are remembered: at some 100 bytes each 13 MB, and at 10,000 a second the last 13 s.
const MAX_SPANS: usize = 131_072;

/// Trace and span.
type Id = (u128, u64);

/// The last spans that were taken, by all listeners.
#[derive(Debug, Default)]
pub(super) struct Callers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    spans: HashMap<Id, Caller>,
    /// In the order of coming.
    order: VecDeque<Id>,
}

#[derive(Debug)]
struct Caller {
    service: Arc<str>,
    /// Whether it answers itself, as a server's half of a call may that has the client's id.
    answers: bool,
}

impl Callers {
    /// Remembers a span. Of two halves with one id it is the client's that calls.
    pub fn note(&self, id: Id, service: &str, answers: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { spans, order } = &mut *known;
        match spans.get_mut(&id) {
            Some(there) if there.answers && !answers => *there = Caller { service: service.into(), answers },
            Some(_) => {}
            None => {
                spans.insert(id, Caller { service: service.into(), answers });
                order.push_back(id);
                if order.len() > MAX_SPANS
                    && let Some(oldest) = order.pop_front()
                {
                    spans.remove(&oldest);
                }
            }
        }
    }

    /// The service whose span `parent` is, for the span `id` of the same trace.
    pub fn of(&self, (trace_id, span_id): Id, parent: u64) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = known.spans.get(&(trace_id, parent))?;
        // its own half is no caller
        (parent != span_id || !caller.answers).then(|| caller.service.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_known_by_its_span() {
        let callers = Callers::default();
        assert_eq!(callers.of((1, 2), 1), None);
        callers.note((1, 1), "front", false);
        assert_eq!(callers.of((1, 2), 1).as_deref(), Some("front"));
        assert_eq!(callers.of((2, 2), 1), None, "another trace");
        // a call whose halves have one id, the server's first
        callers.note((1, 5), "back", true);
        assert_eq!(callers.of((1, 5), 5), None);
        assert_eq!(callers.of((1, 6), 5).as_deref(), Some("back"), "one that the server calls without a span between");
        callers.note((1, 5), "front", false);
        callers.note((1, 5), "back", true);
        assert_eq!(callers.of((1, 5), 5).as_deref(), Some("front"));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let callers = Callers::default();
        for span in 0..MAX_SPANS as u64 + 10 {
            callers.note((7, span), "s", false);
        }
        assert_eq!((callers.of((7, 0), 9), callers.of((7, 0), 10).as_deref()), (None, Some("s")));
        let known = callers.0.lock().unwrap();
        assert_eq!((known.spans.len(), known.order.len()), (MAX_SPANS, MAX_SPANS));
    }
}

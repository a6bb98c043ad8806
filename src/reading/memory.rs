//! A store in memory, for tests of the commands.

use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Shown;
use crate::store::{Document, Order, Outcome, Page, Query, Stats, StatsQuery, StoreError, TraceStore};

#[derive(Default)]
pub struct Memory {
    pub events: Mutex<Vec<Value>>,
    /// How many queries were asked.
    pub queries: Mutex<usize>,
}

impl Memory {
    pub fn of(events: impl IntoIterator<Item = Value>) -> Self {
        Self { events: Mutex::new(events.into_iter().collect()), queries: Mutex::default() }
    }

    pub fn add(&self, event: Value) {
        self.events.lock().expect("no test panicked").push(event);
    }
}

#[async_trait]
impl TraceStore for Memory {
    async fn write(&self, _batch: &[Document]) -> Result<Vec<Outcome>, StoreError> {
        Err(StoreError::Query("only read".to_owned()))
    }

    /// The cursor is a number of events.
    async fn query(&self, query: &Query) -> Result<Page, StoreError> {
        *self.queries.lock().expect("no test panicked") += 1;
        let events = self.events.lock().expect("no test panicked");
        let is = |wanted: &Option<String>, value: &Value| wanted.as_deref().is_none_or(|wanted| value == wanted);
        let mut found: Vec<(i64, Box<RawValue>)> = Vec::new();
        for event in events.iter() {
            let time = event["timeMs"].as_i64().unwrap_or(0);
            let matches = is(&query.request_id, &event["requestId"])
                && is(&query.trace_id, &event["traceId"])
                && is(&query.event, &event["event"])
                && is(&query.service, &event["serviceName"])
                && query.since_ms.is_none_or(|since| time >= since)
                && query.until_ms.is_none_or(|until| time < until);
            if matches {
                found.push((time, serde_json::value::to_raw_value(event).expect("JSON")));
            }
        }
        found.sort_by_key(|(time, event)| (*time, Shown::read(event).event_id));
        if query.order != Order::Oldest {
            found.reverse();
        }
        let total = found.len();
        let skip = query.after.as_deref().map_or(0, |after| after.parse().expect("own cursor"));
        let page: Vec<_> = found.into_iter().skip(skip).take(query.limit).map(|(_, event)| event).collect();
        let next = (skip + page.len() < total && !page.is_empty()).then(|| (skip + page.len()).to_string());
        Ok(Page { total: total as u64, events: page, next })
    }

    async fn stats(&self, _query: &StatsQuery) -> Result<Stats, StoreError> {
        Ok(Stats::default())
    }
}

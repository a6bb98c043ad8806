//! What the server answers to the searches of a count.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::super::super::{GroupBy, Summary};
use super::Key;

#[derive(Deserialize)]
pub(super) struct GroupsAnswer {
    pub aggregations: Option<GroupsFound>,
}

#[derive(Deserialize)]
pub(super) struct GroupsFound {
    pub groups: Groups,
}

#[derive(Deserialize)]
pub(super) struct Time {
    value: Option<f64>,
}

impl Time {
    /// A double holds every millisecond that can be stored (`MAX_TIME_MS`).
    pub fn millis(&self) -> Option<i64> {
        self.value.map(|ms| ms as i64)
    }
}

#[derive(Deserialize)]
pub(super) struct Groups {
    pub after_key: Option<Value>,
    pub buckets: Vec<GroupCount>,
}

#[derive(Deserialize)]
pub(super) struct GroupCount {
    pub key: GroupKey,
    pub doc_count: u64,
}

#[derive(Deserialize)]
pub(super) struct GroupKey {
    pub caller: Option<String>,
    pub service: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct CellsAnswer {
    pub aggregations: Option<CellsFound>,
}

#[derive(Deserialize)]
pub(super) struct CellsFound {
    pub first: Time,
    pub last: Time,
    callers: Option<Terms>,
    services: Option<Terms>,
}

#[derive(Deserialize)]
struct Terms {
    buckets: Vec<Term>,
}

#[derive(Deserialize)]
struct Term {
    key: String,
    services: Option<Terms>,
    #[serde(flatten)]
    cell: Cell,
}

#[derive(Deserialize)]
pub(super) struct Cell {
    doc_count: u64,
    errors: Option<Errors>,
    took: Option<Took>,
    pub times: Option<Times>,
}

#[derive(Deserialize)]
struct Errors {
    doc_count: u64,
}

#[derive(Deserialize)]
struct Took {
    values: BTreeMap<String, Option<f64>>,
}

#[derive(Deserialize)]
pub(super) struct Times {
    pub buckets: Vec<TimeCell>,
}

#[derive(Deserialize)]
pub(super) struct TimeCell {
    pub key: i64,
    #[serde(flatten)]
    pub cell: Cell,
}

impl Cell {
    pub fn summary(&self) -> Summary {
        let took = |percent: &str| {
            let value = self.took.as_ref().and_then(|took| *took.values.get(percent)?);
            // nanoseconds of 292 years
            value.filter(|ns| ns.is_finite()).map_or(0, |ns| ns.max(0.0) as u64)
        };
        Summary {
            count: self.doc_count,
            errors: self.errors.as_ref().map_or(0, |errors| errors.doc_count),
            p50_ns: took("50.0"),
            p95_ns: took("95.0"),
            p99_ns: took("99.0"),
        }
    }
}

/// The cells of an answer that were asked for: a part holds every caller with every service.
pub(super) fn cells(answer: CellsAnswer, keys: &BTreeSet<Key>, by: GroupBy) -> Vec<(Key, Cell)> {
    let Some(found) = answer.aggregations else { return Vec::new() };
    let mut cells = Vec::new();
    let mut add = |caller: &str, services: Option<Terms>| {
        for Term { key, cell, .. } in services.map(|terms| terms.buckets).unwrap_or_default() {
            let key = (caller.to_owned(), key);
            if keys.contains(&key) {
                cells.push((key, cell));
            }
        }
    };
    match by {
        GroupBy::Service => add("", found.services),
        GroupBy::Edge => {
            for term in found.callers.map(|terms| terms.buckets).unwrap_or_default() {
                add(&term.key, term.services);
            }
        }
    }
    cells
}

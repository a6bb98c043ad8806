//! The searches of a count.

use serde_json::{Value, json};

use super::super::super::stats::COUNTED;
use super::super::super::{FIRST_ERROR, GroupBy, Order, Query, StatsQuery};
use super::super::mapping::Names;
use super::super::search::{MAX_TIME_MS, filters};
use super::Part;

/// Groups of one page; Elasticsearch allows 65,536 (`search.max_buckets`).
pub(super) const GROUPS_A_PAGE: usize = 10_000;

/// The filters of what is counted.
fn counted(query: &StatsQuery, names: &Names) -> Value {
    // the order would filter, too
    let filter = Query { order: Order::Newest, ..query.filter.clone() };
    let mut filters = filters(&filter, names);
    filters.push(json!({"terms": {&names.event: COUNTED}}));
    json!({"bool": {"filter": filters}})
}

pub(super) fn groups_body(query: &StatsQuery, names: &Names, after: Option<&Value>) -> Value {
    let source = |field: &String| json!({"terms": {"field": field, "missing_bucket": true}});
    let mut sources = vec![json!({"service": source(&names.service)})];
    if query.by == GroupBy::Edge {
        sources.push(json!({"caller": source(&names.caller)}));
    }
    let mut groups = json!({"composite": {"size": GROUPS_A_PAGE, "sources": sources}});
    if let Some(after) = after {
        groups["composite"]["after"] = after.clone();
    }
    json!({
        "size": 0, "track_total_hits": false, "query": counted(query, names),
        "aggs": {"groups": groups},
    })
}

/// What of each group is asked for at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Totals,
    Buckets,
    Both,
}

/// The totals or buckets of a part of the groups, and the time of the first and of the last event that counts.
pub(super) fn cells_body(query: &StatsQuery, names: &Names, part: &Part, wanted: Wanted) -> Value {
    let mut aggs = if wanted == Wanted::Buckets { json!({}) } else { summary_aggs() };
    if wanted != Wanted::Totals {
        let step = format!("{}ms", bucket_ms(query));
        aggs["times"] = json!({
            "date_histogram": {"field": "timeMs", "fixed_interval": step, "min_doc_count": 1},
            "aggs": summary_aggs(),
        });
    }
    // as many as are named: exact on every shard
    let terms = |field: &String, values: &[String]| json!({"field": field, "missing": "", "include": values, "size": values.len(), "shard_size": values.len()});
    let services = json!({"services": {"terms": terms(&names.service, &part.services), "aggs": aggs}});
    let mut aggs = match query.by {
        GroupBy::Service => services,
        GroupBy::Edge => json!({"callers": {"terms": terms(&names.caller, &part.callers), "aggs": services}}),
    };
    aggs["first"] = json!({"min": {"field": "timeMs"}});
    aggs["last"] = json!({"max": {"field": "timeMs"}});
    json!({"size": 0, "track_total_hits": false, "query": counted(query, names), "aggs": aggs})
}

pub(super) fn bucket_ms(query: &StatsQuery) -> i64 {
    // one that is longer than all time begins at 0 as well
    query.bucket_ms.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(MAX_TIME_MS).clamp(1, MAX_TIME_MS)
}

fn summary_aggs() -> Value {
    json!({
        "errors": {"filter": {"range": {"status": {"gte": FIRST_ERROR}}}},
        "took": {"percentiles": {"field": "durationNs", "percents": [50, 95, 99], "hdr": {"number_of_significant_value_digits": 3}}},
    })
}

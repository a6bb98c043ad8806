//! Reading: a query in Elasticsearch's JSON, and its answer.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::cursor::Cursor;
use super::super::{MAX_LIMIT, Order, Page, Query, StoreError, text};
use super::lines::without_words;
use super::mapping::{Names, WORDS};

/// The year 287,396. Elasticsearch cannot read an `epoch_millis` near the end of 64 bits, nor (before version 8) one
/// below 0, so it holds none either.
pub(super) const MAX_TIME_MS: i64 = 1 << 53;

/// The body of a search.
pub(super) fn body(query: &Query, names: &Names) -> Result<Value, StoreError> {
    let limit = query.limit.min(MAX_LIMIT);
    let key = match query.order {
        Order::Slowest => "durationNs",
        Order::Newest | Order::Oldest => "timeMs",
    };
    let direction = if query.order == Order::Oldest { "asc" } else { "desc" };
    let mut body = json!({
        // one more than asked tells whether there is a next page
        "size": if limit == 0 { 0 } else { (limit + 1).min(MAX_LIMIT) },
        "track_total_hits": true,
        "query": {"bool": {"filter": filters(query, names)}},
        "sort": [
            {key: {"order": direction, "missing": "_last", "unmapped_type": "long"}},
            {&names.tie: {"order": "asc", "unmapped_type": "keyword"}},
        ],
    });
    if let Some(after) = query.after.as_deref() {
        let after = Cursor::decode(after, query.order)?;
        let key = i64::try_from(after.key)
            .map_err(|_| StoreError::Query("`after` comes from another store; begin again without it".to_owned()))?;
        body["search_after"] = json!([key, after.tie]);
    }
    Ok(body)
}

/// What a query asks for, without its order and place.
pub(super) fn filters(query: &Query, names: &Names) -> Vec<Value> {
    let mut filters = Vec::new();
    let exact = [
        (&names.request_id, &query.request_id),
        (&names.service, &query.service),
        (&names.node, &query.node),
        (&names.event, &query.event),
        (&names.url, &query.url),
        (&names.trace_id, &query.trace_id),
        (&names.action, &query.action),
        (&names.caller, &query.caller),
    ];
    for (name, value) in exact {
        if let Some(value) = value {
            filters.push(json!({"term": {name: value}}));
        }
    }
    if let Some((low, high)) = query.status {
        filters.push(json!({"range": {"status": {"gte": low, "lte": high}}}));
    }
    // only events with a duration have a place in this order
    let least = query.min_duration_ns.or((query.order == Order::Slowest).then_some(0));
    if let Some(least) = least {
        let least = i64::try_from(least).unwrap_or(i64::MAX);
        filters.push(json!({"range": {"durationNs": {"gte": least}}}));
    }
    match (query.since_ms, query.until_ms) {
        (None, None) => {}
        // Elasticsearch may refuse a range that ends before it starts
        (Some(since), Some(until)) if since >= until => filters.push(json!({"match_none": {}})),
        (since, until) => {
            let within = |ms: i64| Value::from(ms.clamp(0, MAX_TIME_MS));
            let mut range = serde_json::Map::new();
            range.extend(since.map(|ms| ("gte".to_owned(), within(ms))));
            range.extend(until.map(|ms| ("lt".to_owned(), within(ms))));
            filters.push(json!({"range": {"timeMs": range}}));
        }
    }
    filters.extend(query.text.as_deref().into_iter().flat_map(|text| text_filters(text, names)));
    filters
}

/// Each word for itself, as a value and never as query syntax.
fn text_filters(text: &str, names: &Names) -> Vec<Value> {
    if names.words {
        return text::words(text).into_iter().map(|word| json!({"term": {WORDS: word}})).collect();
    }
    text.split_whitespace()
        .filter(|part| !text::words(part).is_empty())
        .map(|part| json!({"multi_match": {"query": part, "fields": ["*"], "operator": "and", "lenient": true}}))
        .collect()
}

/// The answer to a search.
#[derive(Deserialize)]
pub(super) struct Answer {
    hits: Hits,
}

#[derive(Deserialize)]
struct Hits {
    total: Total,
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Total {
    value: u64,
}

#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_source")]
    source: Box<RawValue>,
    #[serde(default)]
    sort: Vec<Value>,
}

/// The page that an answer holds.
pub(super) fn page(answer: Answer, query: &Query) -> Page {
    let limit = query.limit.min(MAX_LIMIT);
    let Hits { total, mut hits } = answer.hits;
    // at the highest limit there is no room for one more; a full page then may be followed by an empty one
    let more = hits.len() > limit || (hits.len() == MAX_LIMIT && total.value > MAX_LIMIT as u64);
    hits.truncate(limit);
    let next = hits.last().filter(|_| more).and_then(|hit| {
        let [key, tie] = hit.sort.as_slice() else { return None };
        let cursor = Cursor { key: key.as_i64()?.into(), tie: tie.as_str()?.to_owned() };
        Some(cursor.encode(query.order))
    });
    let events = hits.into_iter().map(|hit| without_words(hit.source)).collect();
    Page { total: total.value, events, next }
}

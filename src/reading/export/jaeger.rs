//! A trace as Jaeger's query API answers it: <https://www.jaegertracing.io/docs/latest/apis/>, `model/json` of its source.
//!
//! ```text
//! {"traceID":"32 hex","spans":[{"traceID","spanID","operationName","references":[{"refType":"CHILD_OF","traceID","spanID"}],
//!  "startTime":µs,"duration":µs,"tags":[{"key","type","value"}],"logs":[],"processID":"p1","warnings":null|[…]}],
//!  "processes":{"p1":{"serviceName","tags":[…]}},"warnings":null}
//! ```

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{facts, ids, trace_id};
use crate::reading::{Shown, Span, pair};
use crate::store::FIRST_ERROR;

/// The trace of these events, which belong to one; `None` where there is no span.
#[must_use]
pub fn trace(events: &[Shown]) -> Option<Value> {
    let mut names: BTreeMap<(&str, &str), String> = BTreeMap::new();
    let mut processes = Map::new();
    let mut spans = Vec::new();
    let mut whole_id = None;
    for span in pair(events) {
        let Some(told) = span.end.or(span.start) else { continue };
        let Some(trace_id) = trace_id(told) else { continue };
        let next = format!("p{}", names.len() + 1);
        let process = names.entry((&told.service_name, &told.node)).or_insert_with(|| {
            processes.insert(next.clone(), of_process(told));
            next
        });
        spans.push(of_span(&span, told, &trace_id, process));
        whole_id.get_or_insert(trace_id);
    }
    let trace_id = whole_id?;
    Some(json!({"traceID": trace_id, "spans": spans, "processes": processes, "warnings": null}))
}

fn of_process(told: &Shown) -> Value {
    let tags = match told.node.as_str() {
        "" => json!([]),
        node => json!([{"key": "service.instance.id", "type": "string", "value": node}]),
    };
    json!({"serviceName": told.service_name, "tags": tags})
}

fn of_span(span: &Span<'_>, told: &Shown, trace_id: &str, process: &str) -> Value {
    let (span_id, parent_id) = ids(told);
    // both halves of a Zipkin call have one id: Jaeger would look for the caller in the span itself
    let parent_id = parent_id.filter(|parent| *parent != span_id);
    let references: Vec<Value> =
        parent_id.iter().map(|id| json!({"refType": "CHILD_OF", "traceID": trace_id, "spanID": id})).collect();
    let mut tags: Vec<Value> = facts(told).into_iter().map(|(key, value)| tagged(&key, value)).collect();
    tags.push(tagged("span.kind", json!(kind(told))));
    if is_failed(told) {
        tags.push(tagged("error", json!(true)));
        if !told.span.error.is_empty() {
            tags.push(tagged("otel.status_description", json!(told.span.error)));
        }
    }
    json!({
        "traceID": trace_id, "spanID": span_id, "flags": 1, "operationName": operation(told), "references": references,
        "startTime": u64::try_from(span.began_ns() / 1_000).unwrap_or(0), "duration": span.duration_ns() / 1_000,
        "tags": tags, "logs": [], "processID": process,
        "warnings": if span.end.is_none() { json!(["no end has come: it runs, or its node is gone"]) } else { Value::Null },
    })
}

/// What Jaeger calls the operation: the action, which the store searches; without one, what was asked.
#[must_use]
pub fn operation(told: &Shown) -> String {
    match (told.action.as_str(), told.name.as_str()) {
        ("", "") => told.line(),
        ("", name) => name.to_owned(),
        (action, _) => action.to_owned(),
    }
}

/// The value of a tag of an event as text; the names of OpenTelemetry and the older ones of OpenTracing are the same.
#[must_use]
pub fn tag(told: &Shown, key: &str) -> Option<String> {
    let key = match key {
        "http.status_code" => "http.response.status_code",
        "http.method" => "http.request.method",
        "http.target" | "http.path" => "url.path",
        "error" => return Some(is_failed(told).to_string()),
        "span.kind" => return Some(kind(told).to_owned()),
        "service.instance.id" => return Some(told.node.clone()),
        key => key,
    };
    facts(told).into_iter().find(|(name, _)| name == key).map(|(_, value)| match value {
        Value::String(text) => text,
        other => other.to_string(),
    })
}

fn kind(told: &Shown) -> &str {
    match told.span.kind.as_str() {
        "" if told.event.starts_with("span.") => "internal",
        "" => "server",
        kind => kind,
    }
}

fn is_failed(told: &Shown) -> bool {
    told.status.is_some_and(|status| status >= FIRST_ERROR) || !told.span.error.is_empty()
}

fn tagged(key: &str, value: Value) -> Value {
    let (kind, value) = match value {
        Value::Bool(_) => ("bool", value),
        Value::Number(ref number) if number.is_f64() => ("float64", value),
        Value::Number(_) => ("int64", value),
        Value::String(_) => ("string", value),
        other => ("string", json!(other.to_string())),
    };
    json!({"key": key, "type": kind, "value": value})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::ShownRequest;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn event(kind: &str, service: &str, span: &str, parent: &str, time_ms: i64, end: Option<(u16, u64)>) -> Shown {
        Shown {
            request_id: "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6".into(),
            trace_id: TRACE.into(),
            event: kind.into(),
            service_name: service.into(),
            node: format!("node of {service}"),
            action: "user/login".into(),
            request: ShownRequest { method: "GET".into(), url: "/login".into(), ..ShownRequest::default() },
            span_id: span.into(),
            parent_id: parent.into(),
            time_ms,
            status: end.map(|(status, _)| status),
            duration_ns: end.map(|(_, took_ns)| took_ns),
            ..Shown::default()
        }
    }

    #[test]
    fn events_are_a_trace_of_jaeger() {
        let (gateway, user) = ("b7ad6b7169203331", "00f067aa0ba902b7");
        let trace = trace(&[
            event("request.start", "gateway", gateway, "", 1_000, None),
            event("service.start", "user", user, gateway, 1_001, None),
            event("service.end", "user", user, gateway, 1_003, Some((503, 1_500_000))),
            event("request.end", "gateway", gateway, "", 1_004, Some((200, 4_000_000))),
            event("service.start", "lost", "00f067aa0ba902b8", user, 1_002, None),
        ])
        .expect("a trace");
        assert_eq!((&trace["traceID"], trace["spans"].as_array().map(Vec::len)), (&json!(TRACE), Some(3)));
        let span = |at: usize| &trace["spans"][at];
        assert_eq!((&span(0)["spanID"], &span(0)["references"]), (&json!(gateway), &json!([])));
        assert_eq!((&span(0)["startTime"], &span(0)["duration"]), (&json!(1_000_000), &json!(4_000)));
        assert_eq!(span(1)["references"], json!([{"refType": "CHILD_OF", "traceID": TRACE, "spanID": gateway}]));
        assert_eq!(span(1)["operationName"], "user/login");
        let tags = span(1)["tags"].as_array().expect("tags");
        for tag in [
            json!({"key": "http.response.status_code", "type": "int64", "value": 503}),
            json!({"key": "error", "type": "bool", "value": true}),
            json!({"key": "span.kind", "type": "string", "value": "server"}),
            json!({"key": "url.path", "type": "string", "value": "/login"}),
        ] {
            assert!(tags.contains(&tag), "{tag} in {tags:?}");
        }
        let process = &trace["processes"][span(1)["processID"].as_str().expect("a process")];
        assert_eq!(process["serviceName"], "user");
        assert!(span(2)["warnings"][0].as_str().is_some_and(|text| text.contains("no end")), "{}", span(2));
        assert!(super::trace(&[]).is_none());
    }

    #[test]
    fn tags_go_by_their_older_names_too() {
        let shown = event("service.end", "user", "a", "", 1, Some((404, 1)));
        let of = |key: &str| tag(&shown, key).unwrap_or_default();
        assert_eq!([of("http.status_code"), of("http.method"), of("error")], ["404", "GET", "false"]);
        assert_eq!((of("service.instance.id"), tag(&shown, "nothing")), ("node of user".to_owned(), None));
    }
}

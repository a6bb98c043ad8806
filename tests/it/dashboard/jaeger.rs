//! Jaeger's query API, as Grafana's data source and Jaeger's own page ask it, on spans that are known.

use serde_json::{Value, json};

use super::Up;
use crate::support::goms::{Folder, PATIENCE};
use crate::support::http::{get, post};
use crate::support::servers;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const OTHER: &str = "000000000000000000000000000000ab";

/// A cluster whose store has two traces: a request with its service and a query, and one that failed.
fn with_spans(flags: &[&str]) -> (Up, i64) {
    let up = Up::start(flags);
    let address = up.goms.wait_for("  trace consumer  http://").rsplit('/').next().expect("an address").to_owned();
    let now = jiff::Timestamp::now().as_millisecond();
    let event = |trace: &str,
                 at: u64,
                 parent: Value,
                 service: &str,
                 kind: &str,
                 status: Value,
                 took: Value,
                 more: Value| {
        let mut event = json!({
            "eventId": format!("44444444-0000-4000-8000-{at:04}{:04}{:04}", kind.len(), trace.len() + usize::from(trace == OTHER)),
            "requestId": "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6", "traceId": trace, "spanId": format!("{at:016x}"), "parentId": parent,
            "event": kind, "serviceName": service, "node": format!("node-of-{service}"), "action": "shop/buy", "caller": null,
            "request": {"method": "POST", "url": "/buy"}, "status": status, "durationNs": took, "timeMs": now});
        for (key, value) in more.as_object().expect("an object") {
            event[key] = value.clone();
        }
        event
    };
    let parent = |at: u64| json!(format!("{at:016x}"));
    let events = json!([
        event(TRACE, 1, Value::Null, "gateway", "request.start", Value::Null, Value::Null, json!({"timeMs": now - 40})),
        event(TRACE, 1, Value::Null, "gateway", "request.end", json!(200), json!(40_000_000), json!({})),
        event(TRACE, 2, parent(1), "shop", "service.end", json!(200), json!(20_000_000), json!({"caller": "gateway"})),
        event(
            TRACE,
            3,
            parent(2),
            "shop",
            "span.end",
            Value::Null,
            json!(5_000_000),
            json!({"name": "SELECT", "action": "shop/SELECT",
            "span": {"kind": "client", "startNs": (now - 10) * 1_000_000, "attributes": {"db.system": "postgres", "rows": 3}}})
        ),
        event(
            OTHER,
            4,
            Value::Null,
            "shop",
            "service.end",
            json!(503),
            json!(900_000_000),
            json!({"caller": "gateway"})
        ),
    ]);
    let answer = post(&address, "/goms/events", &events.to_string()).expect("an answer");
    assert_eq!((answer.status, &answer.json()["stored"]), (200, &json!(5)), "{}", answer.text());
    (up, now)
}

fn data(up: &Up, path: &str) -> Value {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let answer = get(&up.admin, path).expect("an answer");
        // what is stored is found a moment later
        if answer.status == 200 && answer.json()["data"].as_array().is_some_and(|data| !data.is_empty()) {
            return answer.json()["data"].clone();
        }
        assert!(std::time::Instant::now() < deadline, "{path}: {} {}", answer.status, answer.text());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn ids(traces: &Value) -> Vec<&str> {
    let mut ids: Vec<&str> =
        traces.as_array().expect("traces").iter().map(|trace| trace["traceID"].as_str().expect("an id")).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_trace_is_read_span_by_span() {
    let (up, now) = with_spans(&[]);
    let traces = data(&up, &format!("/api/traces/{TRACE}?start=1&end=2"));
    let trace = &traces[0];
    assert_eq!((traces.as_array().map(Vec::len), &trace["traceID"]), (Some(1), &json!(TRACE)));
    let spans = trace["spans"].as_array().expect("spans");
    let of = |id: u64| spans.iter().find(|span| span["spanID"] == format!("{id:016x}")).expect("a span");
    assert_eq!(spans.len(), 3);
    assert_eq!((&of(1)["startTime"], &of(1)["duration"]), (&json!((now - 40) * 1_000), &json!(40_000)));
    assert_eq!((&of(1)["references"], &of(1)["operationName"]), (&json!([]), &json!("shop/buy")));
    let child_of = |id: u64| json!([{"refType": "CHILD_OF", "traceID": TRACE, "spanID": format!("{id:016x}")}]);
    assert_eq!((&of(2)["references"], &of(3)["references"]), (&child_of(1), &child_of(2)));
    assert_eq!((&of(3)["startTime"], &of(3)["duration"]), (&json!((now - 10) * 1_000), &json!(5_000)));
    let tags = of(3)["tags"].as_array().expect("tags");
    assert!(tags.contains(&json!({"key": "rows", "type": "int64", "value": 3})), "{tags:?}");
    assert!(tags.contains(&json!({"key": "db.system", "type": "string", "value": "postgres"})), "{tags:?}");
    assert!(tags.contains(&json!({"key": "span.kind", "type": "string", "value": "client"})), "{tags:?}");
    let process = &trace["processes"][of(3)["processID"].as_str().expect("a process")];
    assert_eq!(process["serviceName"], "shop");

    let short = data(&up, "/api/traces/ab");
    assert_eq!(ids(&short), [OTHER], "zeros in front may be left out");
    let missing = get(&up.admin, "/api/traces/ffffffffffffffffffffffffffffffff").expect("an answer");
    assert_eq!((missing.status, &missing.json()["errors"][0]["code"]), (404, &json!(404)));
}

#[test]
fn services_operations_and_dependencies_are_named() {
    let (up, _) = with_spans(&[]);
    assert_eq!(data(&up, "/api/services"), json!(["gateway", "shop"]));
    assert_eq!(data(&up, "/api/services/shop/operations"), json!(["shop/SELECT", "shop/buy"]));
    let operations = data(&up, "/api/operations?service=shop");
    assert_eq!(
        operations,
        json!([{"name": "shop/SELECT", "spanKind": "client"}, {"name": "shop/buy", "spanKind": "server"}])
    );
    let now = jiff::Timestamp::now().as_millisecond() + 1_000;
    let links = data(&up, &format!("/api/dependencies?endTs={now}&lookback=600000"));
    assert_eq!(links, json!([{"parent": "gateway", "child": "shop", "callCount": 2}]));
}

#[test]
fn a_search_passes_what_was_asked_for() {
    let (up, now) = with_spans(&[]);
    searches(&up, now);
}

#[test]
fn elasticsearch_is_searched_alike() {
    let Some(es) = servers::elasticsearch() else { return };
    let folder = Folder::new();
    let index = servers::unique("trace_logs-");
    let config = folder
        .write("config.yml", &format!("esAddr: \"{es}\"\nesIndex: {index}\nservices: {{user: {{login: /login}}}}\n"));
    let (up, now) = with_spans(&["--config", &config]);
    searches(&up, now);
    assert_eq!(data(&up, "/api/services/shop/operations"), json!(["shop/SELECT", "shop/buy"]));
    let page = get(&up.admin, "/traces?service=shop&since=all&order=slowest").expect("an answer");
    assert!(page.status == 200 && page.text().contains("<h2>3 events match</h2>"), "{}", page.text());
    assert_eq!(page.text().matches("class=\"failed\" d=").count(), 1, "a point of the plot");
    let shown = get(&up.admin, &format!("/traces/{TRACE}")).expect("an answer").text();
    assert!(shown.contains("shop/SELECT") && shown.contains("postgres"), "{shown}");
}

/// Searches of the two traces.
fn searches(up: &Up, now: i64) {
    assert_eq!(ids(&data(up, "/api/traces?service=shop")), [OTHER, TRACE]);
    let (start, end) = ((now - 60_000) * 1_000, (now + 60_000) * 1_000);
    for (query, wanted) in [
        (format!("service=shop&operation=shop%2Fbuy&start={start}&end={end}&lookback=1h&limit=20"), vec![OTHER, TRACE]),
        ("service=shop&operation=shop%2FSELECT".to_owned(), vec![TRACE]),
        ("service=shop&minDuration=500ms".to_owned(), vec![OTHER]),
        ("service=shop&maxDuration=500ms".to_owned(), vec![TRACE]),
        ("service=shop&tags=%7B%22error%22%3A%22true%22%7D".to_owned(), vec![OTHER]),
        ("service=shop&tags=%7B%22http.status_code%22%3A%22200%22%7D".to_owned(), vec![TRACE]),
        ("service=shop&tags=%7B%22db.system%22%3A%22postgres%22%2C%22rows%22%3A%223%22%7D".to_owned(), vec![TRACE]),
        (format!("traceID={TRACE}&traceID=ab"), vec![OTHER, TRACE]),
    ] {
        assert_eq!(ids(&data(up, &format!("/api/traces?{query}"))), wanted, "{query}");
    }
    for query in [
        format!("service=shop&end={start}"),
        "service=nobody".to_owned(),
        "service=shop&tags=%7B%22rows%22%3A%224%22%7D".to_owned(),
        "service=shop&maxDuration=1us".to_owned(),
    ] {
        let answer = get(&up.admin, &format!("/api/traces?{query}")).expect("an answer");
        assert_eq!((answer.status, &answer.json()["data"]), (200, &json!([])), "{query}");
    }
    assert_eq!(data(up, "/api/traces?service=shop&limit=1").as_array().map(Vec::len), Some(1));
    let refused = get(&up.admin, "/api/traces?operation=x").expect("an answer");
    assert_eq!((refused.status, &refused.json()["data"]), (400, &Value::Null));
}

use super::*;
use crate::reading::Memory;
use serde_json::{Value, json};

fn gateway_end(id: u64, more: Value) -> Value {
    let mut event = json!({
        "eventId": format!("e{id}"), "requestId": format!("00000000-0000-4000-8000-{id:012x}"),
        "traceId": format!("0000000000004000800{:013x}", id + (1 << 51)), "spanId": format!("{:016x}", 2 * id + 1),
        "event": "request.end", "serviceName": "gateway", "node": "127.0.0.1:8180_127.0.0.1:8080",
        "request": {"method": "POST", "url": "/api/user/login", "urlParam": "?a=1&b=%20x", "clientIp": "127.0.0.1",
                    "headers": {"Content-Type": "application/json", "Accept": "*/*"}, "body": {"n": 1.5}},
        "action": "user/login", "status": 200, "durationNs": 2_000_000, "timeMs": 1_795_247_767_123_i64,
        "time": "2026-11-21 07:53:51",
    });
    for (key, value) in more.as_object().expect("an object") {
        match value {
            Value::Object(fields) if key == "request" => {
                for (key, value) in fields {
                    event["request"][key] = value.clone();
                }
            }
            value => event[key] = value.clone(),
        }
    }
    event
}

fn export_of(format: ExportFormat, events: Vec<Value>) -> String {
    let mut writer = Format::from(format).writer(None);
    let mut out = Vec::new();
    let store = Memory::of(events);
    let query = Query { order: Order::Oldest, limit: PAGE, ..Query::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let written = runtime.block_on(all(&store, query, format, &mut *writer, &mut out));
    assert!(written.is_ok());
    String::from_utf8(out).expect("text")
}

#[test]
fn four_events_are_two_spans_with_a_parent() {
    let id = "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6";
    let event = |kind: &str, service: &str, span: &str, parent: Value, time: i64, took: Value| {
        json!({"eventId": format!("{kind}{service}"), "requestId": id, "traceId": "0af7651916cd43dd8448eb211c80319c",
               "spanId": span, "parentId": parent, "event": kind, "serviceName": service, "timeMs": time,
               "durationNs": took, "status": if took.is_null() { Value::Null } else { json!(503) },
               "request": {"method": "GET", "url": "/login"}, "action": "user/login"})
    };
    let (gateway, user) = ("b7ad6b7169203331", "00f067aa0ba902b7");
    let text = export_of(
        ExportFormat::Otlp,
        vec![
            event("request.start", "gateway", gateway, Value::Null, 1_000, Value::Null),
            event("service.start", "user", user, json!(gateway), 1_001, Value::Null),
            event("service.end", "user", user, json!(gateway), 1_003, json!(1_500_000)),
            event("request.end", "gateway", gateway, Value::Null, 1_004, json!(4_000_000)),
            event("service.start", "lost", "00f067aa0ba902b8", json!(gateway), 1_002, Value::Null),
        ],
    );
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let parts = document["resourceSpans"].as_array().expect("parts");
    let spans: Vec<&Value> = parts
        .iter()
        .map(|part| &part["scopeSpans"][0]["spans"])
        .flat_map(|spans| spans.as_array().expect("spans"))
        .collect();
    assert_eq!(spans.len(), 3, "{text}");
    let of = |id: &str| spans.iter().find(|span| span["spanId"] == id).expect("it is there");
    assert_eq!(of(user)["parentSpanId"], gateway);
    assert_eq!(of(user)["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(
        (&of(user)["startTimeUnixNano"], &of(user)["endTimeUnixNano"]),
        (&json!("1001500000"), &json!("1003000000"))
    );
    assert_eq!(
        (&of(user)["kind"], &of(user)["status"]["code"], &of(user)["name"]),
        (&json!(2), &json!(2), &json!("GET user/login"))
    );
    assert!(of(gateway).get("parentSpanId").is_none());
    assert!(of("00f067aa0ba902b8")["attributes"].to_string().contains("goms.unfinished"));
    assert_eq!(
        parts[0]["resource"]["attributes"][0],
        json!({"key": "service.name", "value": {"stringValue": "gateway"}})
    );
}

#[test]
fn spans_of_go_nodes_get_ids_of_their_own() {
    let event = |kind: &str, service: &str| {
        json!({"requestId": "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6", "event": kind, "serviceName": service, "timeMs": 5,
               "request": {"url": "/login"}, "durationNs": 7})
    };
    let document: Value = serde_json::from_str(&export_of(
        ExportFormat::Otlp,
        vec![event("request.end", "gateway"), event("service.end", "user")],
    ))
    .expect("JSON");
    let span = |part: usize| &document["resourceSpans"][part]["scopeSpans"][0]["spans"][0];
    assert_eq!(span(0)["spanId"].as_str().map(str::len), Some(16));
    assert_eq!(span(1)["parentSpanId"], span(0)["spanId"]);
    assert_ne!(span(1)["spanId"], span(0)["spanId"]);
}

#[test]
fn a_har_entry_says_what_was_recorded_and_no_more() {
    let text = export_of(
        ExportFormat::Har,
        vec![
            gateway_end(1, json!({})),
            gateway_end(2, json!({"request": {"body": {"goms": "body of 20000 bytes not recorded"}}})),
            gateway_end(3, json!({"request": {"method": "GET", "body": {}}})),
        ],
    );
    let har: Value = serde_json::from_str(&text).expect("JSON");
    let entry = |at: usize| &har["log"]["entries"][at];
    assert_eq!(har["log"]["version"], "1.2");
    let request = &entry(0)["request"];
    assert_eq!(request["url"], "http://127.0.0.1:8080/api/user/login?a=1&b=%20x");
    assert_eq!(request["queryString"], json!([{"name": "a", "value": "1"}, {"name": "b", "value": " x"}]));
    assert_eq!((&request["postData"]["text"], &request["bodySize"]), (&json!("{\"n\":1.5}"), &json!(-1)));
    assert_eq!(entry(0)["startedDateTime"], "2026-11-21T07:56:07.121Z");
    assert_eq!((&entry(0)["time"], &entry(0)["response"]["status"]), (&json!(2.0), &json!(200)));
    assert_eq!(entry(1)["request"]["postData"]["text"], "");
    assert!(entry(1)["request"]["postData"]["comment"].to_string().contains("20000 bytes"));
    assert!(entry(2)["request"].get("postData").is_none());
    assert_eq!(har["log"]["entries"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_curl_command_is_quoted_and_notes_what_is_missing() {
    let text = export_of(
        ExportFormat::Curl,
        vec![gateway_end(
            1,
            json!({"request": {"headers": {
                "Authorization": "[redacted]", "Content-Length": "9", "Content-Type": "application/x-www-form-urlencoded",
                "X-Empty": "", "X-Odd": "it's $(rm) `x`", "X-Request-Id": "1"}, "body": {"a b": "1&2", "c": "ü"}}}),
        )],
    );
    assert_eq!(
        text,
        r"# 2026-11-21 07:53:51 200 00000000-0000-4000-8000-000000000001
# note: header `Authorization` was redacted: add it
curl --globoff --path-as-is \
  -X 'POST' \
  'http://127.0.0.1:8080/api/user/login?a=1&b=%20x' \
  -H 'Content-Type: application/x-www-form-urlencoded' \
  -H 'X-Empty;' \
  -H 'X-Odd: it'\''s $(rm) `x`' \
  --data-raw 'a+b=1%262&c=%C3%BC'
"
    );
}

#[test]
fn no_event_slips_a_command_into_the_script() {
    let evil = "'; touch owned; '\n touch owned\r\n";
    let text = export_of(
        ExportFormat::Curl,
        vec![gateway_end(
            1,
            json!({"requestId": evil, "time": evil, "node": evil,
                   "request": {"method": evil, "url": evil, "urlParam": evil, "body": {"a": evil},
                               "headers": {evil: "[redacted]", "X": evil, "Content-Type": evil}}}),
        )],
    );
    let folder = tempfile::tempdir().expect("a folder");
    // `curl` is a function that takes whatever it gets
    let script = format!("curl() {{ printf '%s\\0' \"$@\" > words; }}\n{text}");
    let done = std::process::Command::new("sh").arg("-c").arg(script).current_dir(folder.path()).status();
    assert!(done.expect("sh runs").success(), "{text}");
    let words = std::fs::read_to_string(folder.path().join("words")).expect("curl was called");
    assert!(words.split('\0').any(|word| word == format!("X: {evil}")), "{words:?}");
    assert!(!folder.path().join("owned").exists(), "{text}");
}

#[test]
fn many_pages_come_whole_and_in_order() {
    let count = 3 * PAGE as u64 + 7;
    let events = (0..count).map(|id| gateway_end(id, json!({"timeMs": 1_000 + id as i64}))).collect();
    let text = export_of(ExportFormat::Har, events);
    let har: Value = serde_json::from_str(&text).expect("JSON");
    let entries = har["log"]["entries"].as_array().expect("entries");
    assert_eq!(entries.len() as u64, count);
    let times: Vec<&str> = entries.iter().map(|entry| entry["startedDateTime"].as_str().expect("a time")).collect();
    assert!(times.is_sorted());
}

#[test]
fn a_span_of_another_program_is_exported_as_it_came() {
    let text = export_of(
        ExportFormat::Otlp,
        vec![json!({
            "eventId": "e", "requestId": "0af76519-16cd-43dd-8448-eb211c80319c", "traceId": "0af7651916cd43dd8448eb211c80319c",
            "spanId": "00f067aa0ba902b7", "event": "span.end", "serviceName": "shop", "name": "SELECT stock", "status": 500,
            "action": "shop/SELECT stock", "timeMs": 9, "durationNs": 4_000_001,
            "span": {"kind": "client", "startNs": 5_000_007, "error": "gone",
                     "attributes": {"n": 1, "d": 1.5, "b": true, "l": ["x", null], "m": {"k": "v"}}},
        })],
    );
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let span = &document["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!((&span["name"], &span["kind"]), (&json!("SELECT stock"), &json!(3)));
    assert_eq!((&span["startTimeUnixNano"], &span["endTimeUnixNano"]), (&json!("5000007"), &json!("9000008")));
    assert_eq!(span["status"], json!({"code": 2, "message": "gone"}));
    let expected = json!([
        {"key": "b", "value": {"boolValue": true}},
        {"key": "d", "value": {"doubleValue": 1.5}},
        {"key": "l", "value": {"arrayValue": {"values": [{"stringValue": "x"}, {}]}}},
        {"key": "m", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}]}}},
        {"key": "n", "value": {"intValue": "1"}},
    ]);
    assert_eq!(span["attributes"], expected);
}

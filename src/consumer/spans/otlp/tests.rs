use serde_json::json;

use super::*;
use crate::trace::event::Parsed;

/// A server's span and its call of another service, as an SDK sends them.
const SHOP: &str = r#"{"resourceSpans":[{
  "resource":{"attributes":[
    {"key":"service.name","value":{"stringValue":"shop"}},
    {"key":"service.namespace","value":{"stringValue":"market"}},
    {"key":"service.instance.id","value":{"stringValue":"shop-7"}},
    {"key":"telemetry.sdk.language","value":{"stringValue":"python"}}]},
  "scopeSpans":[{"scope":{"name":"flask","version":"0.1"},"spans":[
    {"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"00f067aa0ba902b7","parentSpanId":"b7ad6b7169203331",
     "traceState":"goms=gateway","name":"POST /cart/{id}","kind":2,
     "startTimeUnixNano":"1700000000000400000","endTimeUnixNano":"1700000000025900000",
     "attributes":[
       {"key":"http.request.method","value":{"stringValue":"POST"}},
       {"key":"http.route","value":{"stringValue":"/cart/{id}"}},
       {"key":"url.path","value":{"stringValue":"/cart/42"}},
       {"key":"url.query","value":{"stringValue":"full=1"}},
       {"key":"client.address","value":{"stringValue":"10.1.2.3"}},
       {"key":"http.request.header.x_tenant","value":{"arrayValue":{"values":[{"stringValue":"blue"}]}}},
       {"key":"http.response.status_code","value":{"intValue":"503"}}],
     "events":[{"timeUnixNano":"1700000000020000000","name":"exception",
       "attributes":[{"key":"exception.type","value":{"stringValue":"KeyError"}}]}],
     "links":[{"traceId":"000000000000000000000000000000aa","spanId":"00000000000000bb"}],
     "status":{"code":2,"message":"no stock"}},
    {"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"00f067aa0ba902b8","parentSpanId":"00f067aa0ba902b7",
     "name":"SELECT stock","kind":3,
     "startTimeUnixNano":"1700000000005000000","endTimeUnixNano":"1700000000009000000",
     "attributes":[{"key":"db.system","value":{"stringValue":"postgresql"}},{"key":"server.port","value":{"intValue":5432}}]}
  ]}]}]}"#;

fn spans_of(json: &str) -> Vec<Result<Span, String>> {
    spans(decode(json.as_bytes(), Encoding::Json).unwrap()).collect()
}

fn events_of(json: &str) -> Vec<Parsed> {
    spans_of(json).into_iter().flat_map(|span| span.unwrap().events().unwrap()).collect()
}

fn json_of(event: &Parsed) -> Value {
    serde_json::from_str(event.json.get()).unwrap()
}

/// One span with these fields besides its ids and times.
fn span_with(fields: &str) -> String {
    format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"00f067aa0ba902b7",
        "startTimeUnixNano":"1000000","endTimeUnixNano":"2000000",{fields}}}]}}]}}]}}"#
    )
}

#[test]
fn a_servers_span_is_a_services_work() {
    let events = events_of(SHOP);
    let kinds: Vec<&str> = events.iter().map(|event| event.fields.event.as_str()).collect();
    assert_eq!(kinds, ["service.start", "service.end", "span.end"]);
    let end = json_of(&events[1]);
    for (field, value) in [
        ("requestId", json!("0af76519-16cd-43dd-8448-eb211c80319c")),
        ("traceId", json!("0af7651916cd43dd8448eb211c80319c")),
        ("spanId", json!("00f067aa0ba902b7")),
        ("parentId", json!("b7ad6b7169203331")),
        ("serviceName", json!("shop")),
        ("projectName", json!("market")),
        ("node", json!("shop-7")),
        ("caller", json!("gateway")),
        ("action", json!("shop/cart/{id}")),
        ("status", json!(503)),
        ("durationNs", json!(25_500_000)),
        ("timeMs", json!(1_700_000_000_025_i64)),
        ("name", json!("POST /cart/{id}")),
        ("trace", json!({"timing": "25.5ms"})),
    ] {
        assert_eq!(end[field], value, "{field}");
    }
    assert_eq!(
        end["request"],
        json!({"method": "POST", "url": "/cart/42", "urlParam": "?full=1", "clientIp": "10.1.2.3",
               "headers": {"X-Tenant": "blue"}, "body": {}})
    );
    let span = &end["span"];
    assert_eq!((&span["kind"], &span["startNs"]), (&json!("server"), &json!(1_700_000_000_000_400_000_u64)));
    assert_eq!((&span["scope"], &span["error"]), (&json!("flask 0.1"), &json!("no stock")));
    assert_eq!(span["attributes"]["http.response.status_code"], 503);
    assert_eq!(span["resource"]["telemetry.sdk.language"], "python");
    assert_eq!(span["events"][0]["attributes"]["exception.type"], "KeyError");
    assert_eq!(span["links"][0], json!({"traceId": "000000000000000000000000000000aa", "spanId": "00000000000000bb"}));

    let start = json_of(&events[0]);
    assert_eq!((&start["timeMs"], &start["status"]), (&json!(1_700_000_000_000_i64), &Value::Null));
    assert_eq!(
        start["span"],
        json!({"kind": "server", "startNs": 1_700_000_000_000_400_000_u64, "scope": "flask 0.1", "error": "no stock"})
    );

    // what stands in the columns of a store is what the JSON says
    let fields = &events[1].fields;
    assert_eq!((fields.service.as_str(), fields.caller.as_str(), fields.status), ("shop", "gateway", Some(503)));
    assert_eq!(
        (fields.url.as_str(), fields.node.as_str(), fields.duration_ns),
        ("/cart/42", "shop-7", Some(25_500_000))
    );
}

#[test]
fn a_clients_span_is_shown_and_not_counted() {
    let query = json_of(&events_of(SHOP)[2]);
    assert_eq!((&query["event"], &query["name"]), (&json!("span.end"), &json!("SELECT stock")));
    assert_eq!((&query["parentId"], &query["caller"]), (&json!("00f067aa0ba902b7"), &Value::Null));
    assert_eq!((&query["status"], &query["request"]["method"]), (&Value::Null, &json!("")));
    assert_eq!((&query["action"], &query["span"]["kind"]), (&json!("shop/SELECT stock"), &json!("client")));
    assert_eq!(query["span"]["attributes"], json!({"db.system": "postgresql", "server.port": 5432}));
}

#[test]
fn ids_are_of_the_span_and_the_kind_of_event() {
    let ids = |json: &str| events_of(json).into_iter().map(|event| event.id).collect::<Vec<_>>();
    let first = ids(SHOP);
    assert_eq!(ids(&SHOP.replace("25900000", "25900001")), first, "what is sent again has the same ids");
    let other = ids(&SHOP.replace("\"00f067aa0ba902b7\",\"parent", "\"00f067aa0ba902b9\",\"parent"));
    assert_eq!(first.iter().filter(|id| other.contains(id)).count(), 1, "only the other span's");
    assert_eq!(first.iter().collect::<std::collections::HashSet<_>>().len(), 3);
    assert!(first.iter().all(|id| uuid::Uuid::try_parse(id).unwrap().get_version_num() == 8));
}

#[test]
fn a_status_is_what_was_answered_or_whether_it_failed() {
    let status = |fields: &str| json_of(events_of(&span_with(fields)).last().unwrap())["status"].clone();
    let code = |key: &str, value: &str| format!(r#""attributes":[{{"key":"{key}","value":{value}}}]"#);
    for (fields, expected) in [
        (r#""kind":2"#.to_owned(), json!(200)),
        (r#""kind":5"#.to_owned(), json!(200)),
        (r#""kind":2,"status":{"code":2}"#.to_owned(), json!(500)),
        (r#""kind":3"#.to_owned(), Value::Null),
        (r#""kind":1,"status":{"code":1}"#.to_owned(), Value::Null),
        (r#""kind":4,"status":{"code":2}"#.to_owned(), json!(500)),
        (
            format!(r#""kind":2,"status":{{"code":2}},{}"#, code("http.status_code", r#"{"intValue":"404"}"#)),
            json!(404),
        ),
        (format!(r#""kind":3,{}"#, code("http.response.status_code", r#"{"stringValue":"302"}"#)), json!(302)),
        (format!(r#""kind":2,{}"#, code("http.status_code", r#"{"intValue":0}"#)), json!(200)),
    ] {
        assert_eq!(status(&fields), expected, "{fields}");
    }
}

#[test]
fn the_caller_is_told_by_goms_by_the_parent_or_by_the_span() {
    let caller = |json: &str| {
        let events = events_of(json);
        let end = events.iter().find(|event| event.fields.event == "service.end").unwrap();
        end.fields.caller.clone()
    };
    assert_eq!(caller(SHOP), "gateway", "by the tracestate");
    assert_eq!(caller(&SHOP.replace("goms=gateway", "other=1")), "");
    let peer = |key: &str| {
        span_with(&format!(
            r#""kind":2,"traceState":"goms=far","attributes":[{{"key":"{key}","value":{{"stringValue":"near"}}}}]"#
        ))
    };
    assert_eq!([caller(&peer("goms.caller")), caller(&peer("peer.service"))], ["near", "near"]);
    assert_eq!(caller(&peer("other")), "far");
}

#[test]
fn spans_of_goms_become_what_they_were() {
    let attribute = |key: &str, value: &str| format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#);
    let fields = [
        attribute("goms.event", "request.end"),
        attribute("goms.request_id", "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6"),
        attribute("goms.action", "user/login"),
        attribute("http.request.method", "POST"),
        attribute("url.path", "/api/user/login"),
    ];
    let events =
        events_of(&span_with(&format!(r#""kind":2,"name":"POST user/login","attributes":[{}]"#, fields.join(","))));
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.fields.event.as_str(), event.fields.request_id.as_str(), event.fields.action.as_str()))
        .collect();
    let id = "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6";
    assert_eq!(told, [("request.start", id, "user/login"), ("request.end", id, "user/login")]);
    assert_eq!(events[1].fields.trace_id, "0af7651916cd43dd8448eb211c80319c");
}

#[test]
fn paths_and_actions_are_found_under_every_name() {
    for (key, value, url, param, action) in [
        ("http.target", "/a/b?x=1#f", "/a/b", "?x=1", "unknown_service/a/b"),
        ("http.url", "https://h:1/a/b?x=1", "/a/b", "?x=1", "unknown_service/a/b"),
        ("url.full", "http://h", "/", "", "unknown_service"),
        ("url.full", "http://h?x=1", "", "?x=1", "unknown_service/run"),
        ("rpc.method", "Say", "", "", "unknown_service/run"),
    ] {
        let fields =
            format!(r#""kind":2,"name":"run","attributes":[{{"key":"{key}","value":{{"stringValue":"{value}"}}}}]"#);
        let event = json_of(&events_of(&span_with(&fields))[1]);
        let request = &event["request"];
        assert_eq!(
            (&request["url"], &request["urlParam"], &event["action"]),
            (&json!(url), &json!(param), &json!(action))
        );
    }
}

#[test]
fn what_is_no_span_is_refused_alone() {
    for (of, to, says) in [
        ("\"00f067aa0ba902b7\",\"parent", "\"0000000000000000\",\"parent", "no valid trace id"),
        ("\"00f067aa0ba902b7\",\"parent", "\"00f0\",\"parent", "no valid trace id"),
        (
            "0af7651916cd43dd8448eb211c80319c\",\"spanId\":\"00f067aa0ba902b7",
            "xyz\",\"spanId\":\"00f067aa0ba902b7",
            "no valid",
        ),
    ] {
        assert!(SHOP.contains(of));
        let found = spans_of(&SHOP.replacen(of, to, 1));
        assert!(found[0].as_ref().unwrap_err().contains(says) && found[1].is_ok(), "{to}");
    }
    let timeless = SHOP.replace("1700000000000400000", "0").replace("1700000000025900000", "0");
    assert_eq!(spans_of(&timeless)[0].as_ref().unwrap_err(), "span `POST /cart/{id}` of `shop` has no time");
    // one of two times is enough, and a clock that went back costs the duration
    let backwards = SHOP.replace("1700000000025900000", "1600000000000000000");
    assert_eq!(spans_of(&backwards)[0].as_ref().unwrap().duration_ns, 0);
}

#[test]
fn values_are_plain_json() {
    let value = |value| plain(AnyValue { value: Some(value) });
    assert_eq!(value(otlp::Value::Bytes(b"goms!".to_vec())), json!("Z29tcyE="));
    assert_eq!(value(otlp::Value::Double(f64::NAN)), json!("NaN"));
    let list =
        otlp::KeyValueList { values: vec![KeyValue::int("a\u{0}", 1), KeyValue { key: "b".into(), value: None }] };
    assert_eq!(value(otlp::Value::List(list)), json!({"a": 1, "b": null}));
}

/// Bytes of a request, each time with some others in it.
fn mutated(body: &[u8], round: u64) -> Vec<u8> {
    let mut body = body.to_vec();
    let mut state = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1; // xorshift64, Marsaglia 2003
    for _ in 0..=round % 6 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = (state >> 8) as usize % body.len();
        match state % 3 {
            0 => body[at] = (state >> 40) as u8,
            1 => drop(body.remove(at)),
            _ => body.insert(at, (state >> 40) as u8),
        }
    }
    body
}

#[test]
fn no_body_makes_it_panic() {
    let protobuf = decode(SHOP.as_bytes(), Encoding::Json).unwrap().encode_to_vec();
    let mut read = 0;
    for round in 0..4_000 {
        for (encoding, body) in [(Encoding::Protobuf, protobuf.as_slice()), (Encoding::Json, SHOP.as_bytes())] {
            let body = mutated(body, round);
            let weight = if encoding == Encoding::Json { json_weight(&body) } else { protobuf_weight(&body) };
            assert!(weight < 1 << 20, "{weight}");
            let Ok(export) = decode(&body, encoding) else { continue };
            for span in spans(export).flatten() {
                assert!(!span.events().unwrap().is_empty());
                read += 1;
            }
        }
    }
    assert!(read > 1_000, "{read}");
}

use serde_json::json;

use super::*;

/// A client's half and the server's half of one call, which share an id, as Brave tells them.
const CALL: &str = r#"[
  {"traceId":"86154a4ba6e91385","id":"4d1e00c0db9010db","kind":"CLIENT","name":"get","timestamp":1700000000001000,"duration":9000,
   "localEndpoint":{"serviceName":"frontend","ipv4":"10.0.0.1"},"remoteEndpoint":{"serviceName":"backend"},
   "tags":{"http.method":"GET","http.path":"/api"}},
  {"traceId":"86154a4ba6e91385","parentId":"86154a4ba6e91385","id":"4d1e00c0db9010db","kind":"SERVER","name":"get /api",
   "timestamp":1700000000003000,"duration":5000,"shared":true,
   "localEndpoint":{"serviceName":"backend","ipv4":"10.0.0.2","port":9000},"remoteEndpoint":{"serviceName":"frontend","ipv4":"10.0.0.1","port":63840},
   "annotations":[{"timestamp":1700000000004000,"value":"ws"}],
   "tags":{"http.method":"GET","http.path":"/api","http.status_code":"500","error":"boom"}}]"#;

fn spans_of(json: &str) -> Vec<Result<Span, String>> {
    let told: Vec<Told> = serde_json::from_str(json).unwrap();
    told.into_iter().map(|told| span_of(told, 7_000)).collect()
}

fn ends_of(json: &str) -> Vec<Value> {
    let spans = spans_of(json).into_iter().map(Result::unwrap);
    spans.map(|span| serde_json::from_str(span.events().unwrap().last().unwrap().json.get()).unwrap()).collect()
}

#[test]
fn a_call_is_the_clients_span_and_the_servers_work() {
    let ends = ends_of(CALL);
    let (client, server) = (&ends[0], &ends[1]);
    for (event, field, value) in [
        (client, "event", json!("span.end")),
        (client, "serviceName", json!("frontend")),
        (client, "node", json!("10.0.0.1")),
        (client, "name", json!("get")),
        (client, "parentId", Value::Null),
        (client, "traceId", json!("000000000000000086154a4ba6e91385")),
        (client, "requestId", json!("00000000-0000-0000-8615-4a4ba6e91385")),
        (server, "event", json!("service.end")),
        (server, "serviceName", json!("backend")),
        (server, "node", json!("10.0.0.2:9000")),
        (server, "caller", json!("frontend")),
        (server, "action", json!("backend/api")),
        (server, "status", json!(500)),
        (server, "durationNs", json!(5_000_000)),
        (server, "timeMs", json!(1_700_000_000_008_i64)),
        (server, "spanId", json!("4d1e00c0db9010db")),
    ] {
        assert_eq!(event[field], value, "{field}");
    }
    assert_eq!(server["parentId"], server["spanId"], "the half with the same id called it");
    assert_eq!(client["span"]["attributes"]["peer.service"], "backend");
    assert_eq!(server["request"]["clientIp"], "10.0.0.1");
    assert_eq!(
        (&server["span"]["error"], &server["span"]["startNs"]),
        (&json!("boom"), &json!(1_700_000_000_003_000_000_u64))
    );
    assert_eq!(server["span"]["events"][0], json!({"name": "ws", "timeNs": 1_700_000_000_004_000_000_u64}));
    assert_ne!(client["eventId"], server["eventId"]);
}

#[test]
fn what_may_be_left_out_may() {
    let bare = &ends_of(r#"[{"traceId":"1","id":"2"}]"#)[0];
    assert_eq!(
        (&bare["event"], &bare["serviceName"], &bare["timeMs"]),
        (&json!("span.end"), &json!("unknown_service"), &json!(7))
    );
    let nulls = r#"[{"traceId":"1","id":"2","parentId":null,"name":null,"kind":null,"timestamp":null,"localEndpoint":null,
        "annotations":[{"timestamp":9000000,"value":"x"}],"tags":null,"debug":true}]"#;
    assert_eq!(ends_of(nulls)[0]["timeMs"], 9_000);
    let ipv6 = r#"[{"traceId":"1","id":"2","localEndpoint":{"ipv6":"::1","port":80}}]"#;
    assert_eq!(ends_of(ipv6)[0]["node"], "[::1]:80");
}

#[test]
fn a_tag_error_fails_a_span_whatever_it_holds() {
    let status = |tags: &str| {
        ends_of(&format!(r#"[{{"traceId":"1","id":"2","kind":"server","timestamp":1,"tags":{tags}}}]"#))[0]["status"]
            .clone()
    };
    for (tags, expected) in [
        ("{}", 200),
        (r#"{"error":""}"#, 500),
        (r#"{"error":"true"}"#, 500),
        (r#"{"error":"false"}"#, 200),
        (r#"{"otel.status_code":"ERROR"}"#, 500),
        (r#"{"error":"x","http.status_code":"404"}"#, 404),
    ] {
        assert_eq!(status(tags), expected, "{tags}");
    }
}

#[test]
fn bad_ids_are_refused() {
    for ids in [
        r#""traceId":"","id":"2""#,
        r#""traceId":"0","id":"2""#,
        r#""traceId":"1","id":"00000000000000000""#,
        r#""traceId":"1","id":"+2""#,
        r#""traceId":"0af7651916cd43dd8448eb211c80319c1","id":"2""#,
    ] {
        let refused = spans_of(&format!("[{{{ids},\"name\":\"n\"}}]")).remove(0).unwrap_err();
        assert!(refused.starts_with("span `n` has no valid traceId"), "{refused}");
    }
}

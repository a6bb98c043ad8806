//! Events byte for byte.

use std::time::Instant;

use super::super::batch::OpenBatch;
use super::super::go_form::local_time_text;
use super::*;

/// A captured line of an original gateway, up to and with `trace`.
const CAPTURED: &str = r#"{"requestId":"cdb08456-d8a7-4d53-93c2-a5e3f01f56d6","request":{"method":"POST","url":"/api/user/login","urlParam":"?field_1=1\u0026field_2=2=","clientIp":"127.0.0.1","headers":{"Accept":"*/*","Accept-Encoding":"gzip, deflate, br","User-Agent":"curl/7.88.1"},"body":{"ds1":"11","ds2":"111"}},"event":"request.end","time":"TIME","serviceName":"gateway","serviceId":"goms_gateway_127.0.0.1:18180_127.0.0.1:18080","projectName":"goms","trace":{"timing":"14.596968ms"}"#;

fn event() -> Event {
    let mut head = Head::new("POST", "/api/user/login", "?field_1=1&field_2=2=", "127.0.0.1", 3);
    head.push_header("User-Agent", "curl/7.88.1");
    head.push_header("Accept", "*/*");
    head.push_header("Accept-Encoding", "gzip, deflate, br");
    let id = Uuid::from_u128(0xcdb0_8456_d8a7_4d53_93c2_a5e3_f01f_56d6);
    Event {
        kind: EventKind::RequestEnd,
        context: TraceContext {
            request_id: id,
            trace_id: id.as_u128(),
            span_id: 0xb7ad_6b71_6920_3331,
            parent_id: None,
            sampled: true,
        },
        request: Arc::new(RequestInfo {
            head,
            body: Bytes::from_static(br#"{"ds1":"11","ds2":"111"}"#),
            action: Some("user/login".into()),
            caller: None,
        }),
        origin: Arc::new(Origin {
            service_name: "gateway".into(),
            service_id: "goms_gateway_127.0.0.1:18180_127.0.0.1:18080".into(),
            project_name: "goms".into(),
            node: "127.0.0.1:18180_127.0.0.1:18080".into(),
        }),
        time_ms: 1_795_247_767_123,
        duration: Some(Duration::from_nanos(14_596_968)),
        status: Some(200),
        id: Uuid::from_u128(7),
    }
}

#[test]
fn an_end_event_is_byte_for_byte_the_originals_with_new_fields_behind() {
    let expected = CAPTURED.replace("TIME", &local_time_text(1_795_247_767_123))
        + r#","eventId":"00000000-0000-0000-0000-000000000007","traceId":"cdb08456d8a74d5393c2a5e3f01f56d6","spanId":"b7ad6b7169203331","parentId":null,"status":200,"node":"127.0.0.1:18180_127.0.0.1:18080","durationNs":14596968,"timeMs":1795247767123,"action":"user/login","caller":null}"#;
    assert_eq!(String::from_utf8_lossy(&event().to_json()), expected);
}

#[test]
fn each_origin_shows_its_own_fields() {
    let one = event();
    let mut other = event();
    other.origin = Arc::new(Origin {
        service_name: "user".into(),
        service_id: "i\"d".into(),
        project_name: "p".into(),
        node: "n".into(),
    });
    for _ in 0..2 {
        let json = String::from_utf8(other.to_json()).unwrap();
        assert!(json.contains(r#""serviceName":"user","serviceId":"i\"d","projectName":"p""#), "{json}");
        assert!(json.contains(r#""node":"n""#), "{json}");
        let json = String::from_utf8(one.to_json()).unwrap();
        assert!(json.contains(r#""serviceName":"gateway""#) && !json.contains(r#""node":"n""#), "{json}");
    }
}

#[test]
fn a_start_event_has_no_timing() {
    let mut start = event();
    (start.kind, start.duration, start.status) = (EventKind::RequestStart, None, None);
    start.context.parent_id = Some(1);
    let request = Arc::make_mut(&mut start.request);
    (request.action, request.caller) = (None, Some("order".into()));
    let json = String::from_utf8(start.to_json()).unwrap();
    assert!(json.contains(r#""event":"request.start""#), "{json}");
    assert!(json.contains(r#""projectName":"goms","trace":null,"eventId""#), "{json}");
    assert!(json.contains(r#""parentId":"0000000000000001","status":null"#), "{json}");
    assert!(json.contains(r#""durationNs":null,"timeMs":1795247767123,"caller":"order"}"#), "{json}");
}

#[test]
fn numbers_are_written_as_format_writes_them() {
    for value in [0, 7, 10, 200, 1_795_247_767_123, u64::MAX] {
        let (mut digits, mut hex) = (Vec::new(), Vec::new());
        push_digits(&mut digits, value);
        push_hex(&mut hex, value);
        assert_eq!(String::from_utf8(digits).unwrap(), value.to_string());
        assert_eq!(String::from_utf8(hex).unwrap(), format!("{value:016x}"));
    }
}

#[test]
fn a_body_that_is_no_json_or_none_does_not_spoil_the_event() {
    for (body, shown) in [
        ("", r#""body":{}}"#),
        ("[1, 2]", r#""body":[1, 2]}"#),
        ("{\"a\":1.10}", r#""body":{"a":1.10}}"#),
        ("{broken", r#""body":"{broken"}"#),
    ] {
        let mut event = event();
        Arc::make_mut(&mut event.request).body = Bytes::from(body.to_owned());
        let json = String::from_utf8(event.to_json()).unwrap();
        assert!(json.contains(shown), "{json}");
        assert!(serde_json::from_str::<&RawValue>(&json).is_ok(), "{json}");
    }
}

#[test]
fn the_end_of_a_request_is_the_same_whether_its_start_is_in_the_batch_before_it_or_far() {
    let end = event();
    let expected = String::from_utf8(end.to_json()).unwrap();
    for batches_between in [0, 1, 2] {
        let request = Arc::new((*end.request).clone());
        let start = Event { kind: EventKind::RequestStart, request: request.clone(), ..end.clone() };
        let end = Event { request, ..end.clone() };
        let mut open = OpenBatch::default();
        let mut push = |event: &Event, seals: usize| {
            open.push_with(|json, pages| event.push_json(json, Some(pages)), Instant::now());
            let mut sealed = Vec::new();
            for _ in 0..seals {
                sealed.extend(open.seal().unwrap().singles());
                open.push(b"{}", Instant::now());
            }
            sealed
        };
        push(&start, batches_between);
        let place = start.request.head.written.place().map(|place| place.bytes.clone()).unwrap();
        assert_eq!(place.len(), expected.find(",\"event\"").unwrap() - expected.find("{\"method\"").unwrap());
        let last = push(&end, 1).pop().unwrap();
        assert_eq!(String::from_utf8_lossy(&last), expected, "{batches_between}");
    }
}

use goms::trace::EventKind;

use super::*;
use crate::support::origin::Origin;

#[tokio::test]
async fn a_request_tells_its_start_and_its_end() {
    let origin = Origin::echo().await;
    let mut door = Door::open(&[origin.address]).await;
    let got = door.ask("POST", "/api/user/login?a=1", FORM, "x=1&x=2").await;
    let (start, end) = (door.event().await, door.event().await);
    assert_eq!((start.kind, end.kind), (EventKind::RequestStart, EventKind::RequestEnd));
    assert_eq!((start.status, start.duration, end.status), (None, None, Some(200)));
    assert!(end.duration.unwrap() > Duration::ZERO && end.time_ms >= start.time_ms && start.id != end.id);
    let info = &start.request;
    let head = &info.head;
    assert_eq!((head.method(), head.url(), head.url_param()), ("POST", "/api/user/login", "?a=1"));
    assert_eq!(&info.body[..], br#"{"x":["1","2"]}"#);
    assert!(Arc::ptr_eq(&start.request, &end.request));
    assert_eq!(start.context.request_id.to_string(), got.header("x-request-id").unwrap());
    assert!(door.metrics.render().contains(r#"goms_requests_total{action="login",service="user",status="2xx"} 1"#));
}

#[tokio::test]
async fn defect_12_a_client_with_a_request_id_gets_request_events_too() {
    let origin = Origin::echo().await;
    let mut door = Door::open(&[origin.address]).await;
    let id = "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6";
    door.post(&format!("X-Request-Id: {id}\r\n"), "").await;
    let events = [door.event().await, door.event().await];
    assert_eq!(events.each_ref().map(|event| event.kind), [EventKind::RequestStart, EventKind::RequestEnd]);
    assert!(events.iter().all(|event| event.context.request_id.to_string() == id));
}

#[tokio::test]
async fn errors_are_told_too() {
    let mut door = Door::open(&[]).await;
    for (path, status) in [("/nowhere", 404), ("/api/user/logn", 404), ("/api/user/login", 503)] {
        door.ask("POST", path, "", "").await;
        let (start, end) = (door.event().await, door.event().await);
        assert_eq!((start.kind, end.kind, end.status), (EventKind::RequestStart, EventKind::RequestEnd, Some(status)));
        assert_eq!(start.request.head.url(), path);
    }
}

#[tokio::test]
async fn what_is_not_sampled_is_not_told() {
    let origin = Origin::echo().await;
    let mut door = Door::open(&[origin.address]).await;
    door.post("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n", "").await;
    assert_eq!(door.post("", "").await.status, 200);
    assert_eq!(door.event().await.context.parent_id, None, "the second request's");
}

#[tokio::test]
async fn what_is_to_be_hidden_reaches_the_service_but_no_event() {
    let origin = Origin::echo().await;
    let publisher = Publisher::new();
    publisher.publish(vec![node("user", origin.address)]);
    let mut settings = Settings::default();
    settings.services.entry("user".into()).or_default().actions.insert("login".into(), action("/login"));
    let mut traces = trace_settings();
    traces.redact.query = vec!["token".into()];
    traces.redact.body = ["password", "cards[*].number"].map(|path| trace::BodyPath::parse(path).unwrap()).to_vec();
    let mut door = Door::with_traces(publisher, settings, &traces);
    let body = r#"{"user":"u","password":"s1","cards":[{"number":2.50,"n":1.50}],"id":12345678901234567890}"#;
    let got = door.ask("POST", "/api/user/login?a=1&token=s2&call-service-key=s3", JSON, body).await;
    assert!(["s1", "token=s2", "2.50"].iter().all(|secret| got.text().contains(secret)), "{}", got.text());
    for event in [door.event().await, door.event().await] {
        assert_eq!(event.request.head.url_param(), "?a=1&token=[redacted]&call-service-key=[redacted]");
        let shown = r#"{"user":"u","password":"[redacted]","cards":[{"number":"[redacted]","n":1.50}],"id":12345678901234567890}"#;
        assert!(String::from_utf8(event.to_json()).unwrap().contains(&format!(r#""body":{shown}}}"#)));
    }
    let form = door.ask("POST", "/api/user/login", FORM, "password=s4&password=s5&b=1").await;
    assert_eq!(form.status, 200);
    assert_eq!(&door.event().await.request.body[..], br#"{"password":"[redacted]","b":"1"}"#);
}

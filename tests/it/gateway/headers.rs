use super::*;
use crate::support::origin::Origin;

#[tokio::test]
async fn the_service_learns_who_asks() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    door.post("X-Mine: 1\r\nX-Mine: 2\r\nAuthorization: Bearer x\r\n", "{}").await;
    let seen = origin.only();
    for (name, value) in [
        ("call-service-key", "the key"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "example.test"),
        ("authorization", "Bearer x"),
        ("host", &origin.address.to_string()),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    let id = seen.header("x-request-id").unwrap().replace('-', "");
    assert!(seen.header("traceparent").unwrap().starts_with(&format!("00-{id}-")));
    assert_eq!(seen.headers.iter().filter(|(name, _)| name == "x-mine").count(), 2);
    for absent in ["user-agent", "accept-encoding", "connection"] {
        assert_eq!(seen.header(absent), None, "{absent}");
    }
}

#[tokio::test]
async fn the_service_sees_what_the_client_sent_and_what_goms_says() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    let mut client = door.connect().await;
    let own = [
        "call-service-key",
        "traceparent",
        "tracestate",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-request-id",
    ];
    for _ in 0..2 {
        client.ask("GET", "/api/user/login", "Accept: */*\r\n", "").await; // the second one on a connection in use
    }
    let json = ["content-length", "content-type"];
    client.ask("POST", "/api/user/login", "Accept: */*\r\n", "{}").await;
    for (number, seen) in origin.seen().iter().enumerate() {
        let mut names: Vec<&str> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
        let mut expected = [&own[..], &["accept", "host"], if number < 2 { &[] } else { &json[..] }].concat();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected, "request {number}");
    }
}

#[tokio::test]
async fn a_clients_own_date_passes() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    door.post("Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n", "{}").await;
    assert_eq!(origin.only().header("date"), Some("Tue, 15 Nov 1994 08:12:31 GMT"));
}

#[tokio::test]
async fn a_body_that_looks_like_a_head_passes_untouched() {
    let origin = Origin::echo().await;
    let door = Door::with(&[origin.address], |settings| login(settings).encode = Encode::None).await;
    let mut client = door.connect().await;
    let body = "x\r\ndate: Sat, 21 Nov 2026 11:00:00 GMT\r\n\r\n".repeat(5000);
    for _ in 0..2 {
        client.ask("POST", "/api/user/login", "Content-Type: text/plain\r\n", &body).await;
    }
    let seen = origin.seen();
    assert!(seen.len() == 2 && seen.iter().all(|seen| seen.text() == body && seen.header("date").is_none()));
}

#[tokio::test]
async fn a_trace_is_continued() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    door.post(&format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\ntracestate: a=b\r\n"), "{}").await;
    let seen = origin.only();
    let parent = seen.header("traceparent").unwrap();
    assert!(parent.starts_with(&format!("00-{trace}-")) && !parent.contains("b7ad6b7169203331"), "{parent}");
    assert_eq!(seen.header("tracestate"), Some("goms=gateway,a=b"));
}

#[tokio::test]
async fn a_client_cannot_say_who_calls() {
    let origin = Origin::echo().await;
    let mut door = Door::open(&[origin.address]).await;
    let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    // every line goes on, in order; a client's `goms` does not
    door.post(&format!("{parent}tracestate: a=1,goms=user\r\ntracestate: b=2\r\n"), "{}").await;
    // without a trace that it belongs to, a state means nothing
    door.post("tracestate: a=1,goms=user\r\n", "{}").await;
    let seen = origin.seen();
    let states = |number: usize| -> Vec<&str> {
        let lines = seen[number].headers.iter().filter(|(name, _)| name == "tracestate");
        lines.map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!((states(0), states(1)), (vec!["goms=gateway,a=1,b=2"], vec!["goms=gateway"]));
    for _ in 0..4 {
        let info = door.event().await.request;
        assert_eq!((info.caller.as_deref(), info.action.as_deref()), (None, Some("user/login")));
    }
    door.ask("GET", "/nowhere", "", "").await;
    assert_eq!(door.event().await.request.action, None);
}

#[tokio::test]
async fn what_concerns_one_hop_does_not_pass() {
    let origin = Origin::echo().await;
    let door = Door::open(&[origin.address]).await;
    door.post("Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: x\r\nX-End: 1\r\n", "{}").await;
    let seen = origin.only();
    for absent in ["connection", "x-hop", "keep-alive", "te", "proxy-authorization"] {
        assert_eq!(seen.header(absent), None, "{absent}");
    }
    assert_eq!(seen.header("x-end"), Some("1"));
}

#[tokio::test]
async fn defect_11_a_client_cannot_bring_a_call_key() {
    let origin = Origin::echo().await;
    let mut door = Door::open(&[origin.address]).await;
    let fakes = "Call-Service-Key: mine\r\ncall_service_key: mine\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\n\
        X-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Port: 1\r\n";
    let got = door.post(fakes, "{}").await;
    assert_eq!(got.status, 200);
    let seen = origin.only();
    let keys: Vec<_> = seen.headers.iter().filter(|(name, _)| name.replace('_', "-") == "call-service-key").collect();
    assert_eq!(keys, [&("call-service-key".to_owned(), "the key".to_owned())]);
    assert!(
        !seen.headers.iter().any(|(_, value)| value.contains("6.6.6.6") || value == "evil" || value == "mine"),
        "{seen:?}"
    );
    let event = door.event().await;
    assert_eq!(event.request.head.client_ip(), "127.0.0.1");
    assert!(!format!("{event:?}").contains("mine") && !format!("{event:?}").contains("the key"), "{event:?}");
}

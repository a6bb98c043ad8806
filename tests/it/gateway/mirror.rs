//! Copies of requests for another service, and what is told of its answers.

use super::rules::door;
use super::*;
use crate::support::origin::{Origin, Reply, answer, dead, echo, json};

const ROUTES: &str = r#"
callServiceKey: k
services: { user: { login: { path: /login, mirror: { service: next } } } }
routes:
  - { name: half, match: { path: /half }, service: user, mirror: { service: next, share: 50% } }
  - { name: status, match: { path: /status }, service: user, mirror: { service: next, compare: status } }
  - { name: stream, match: { path: /stream }, service: user, mirror: { service: next } }
"#;

/// Waits until so many copies of a route had this result.
async fn results(door: &Door, route: &str, result: &str, count: usize) {
    let line = format!("goms_mirrored_total{{result=\"{result}\",route=\"{route}\"}} {count}\n");
    wait_for(&line, || door.metrics.render().contains(&line)).await;
}

#[tokio::test]
async fn a_copy_is_the_same_request_and_its_answer_is_compared() {
    let (user, next) = (Origin::echo().await, Origin::echo().await);
    let door = door(ROUTES, &[("user", user.address), ("next", next.address)]);
    let headers = "Content-Type: application/x-www-form-urlencoded\r\nX-A: b\r\nCookie: c=d\r\n";
    let got = door.ask("POST", "/api/user/login?x=1", headers, "a=1&b=2").await;
    assert_eq!(got.status, 200);
    results(&door, "user/login", "same", 1).await;
    let (one, copy) = (user.only(), next.only());
    assert_eq!((&one.method, &one.target, &one.body), (&copy.method, &copy.target, &copy.body));
    assert_eq!(copy.text(), r#"{"a":"1","b":"2"}"#);
    for name in ["x-a", "cookie", "call-service-key", "x-request-id", "traceparent", "x-forwarded-for", "content-type"]
    {
        assert_eq!((one.header(name).is_some(), one.header(name)), (true, copy.header(name)), "{name}");
    }
    let metrics = door.metrics.render();
    for side in ["service", "mirror"] {
        let line = format!("goms_mirror_seconds_count{{route=\"user/login\",side=\"{side}\"}} 1\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn what_differs_is_told_and_no_client_sees_it() {
    let user = Origin::answering(json(r#"{"a":1}"#)).await;
    let next = Origin::start(|_, number| match number {
        0 => Reply::Bytes(json(r#"{"a":2}"#)),
        1 => Reply::Bytes(answer("500 Internal Server Error", "", "broken")),
        2 => Reply::Close(b"no HTTP\r\n\r\n".to_vec()),
        _ => Reply::Bytes(json(r#"{"a":3}"#)),
    })
    .await;
    let door = door(ROUTES, &[("user", user.address), ("next", next.address)]);
    for (target, route, result) in [
        ("/api/user/login", "user/login", "body"),
        ("/api/user/login", "user/login", "status"),
        ("/api/user/login", "user/login", "mirror_failed"),
        ("/status", "status", "same"),
    ] {
        let got = door.ask("GET", target, "", "").await;
        assert_eq!((got.status, got.json()["a"].as_i64()), (200, Some(1)), "{target}");
        results(&door, route, result, 1).await;
    }
    assert_eq!(next.seen().len(), 4, "a copy has one try");
}

#[tokio::test]
async fn a_client_waits_for_no_mirror() {
    let user = Origin::start(|seen, _| Reply::Bytes(echo(seen))).await;
    let next = Origin::start(|_, _| Reply::Never).await;
    let door = door(ROUTES, &[("user", user.address), ("next", next.address)]);
    // had a client waited for a copy, this would take a deadline of 10 s each
    let begin = std::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(door.ask("GET", "/api/user/login", "", "").await.status, 200);
    }
    assert!(begin.elapsed() < Duration::from_secs(10));
    wait_for("the copies to be on their way", || next.seen().len() == 20).await;
}

#[tokio::test]
async fn a_share_is_exact() {
    let (user, next) = (Origin::echo().await, Origin::echo().await);
    let door = door(ROUTES, &[("user", user.address), ("next", next.address)]);
    for _ in 0..10 {
        assert_eq!(door.ask("GET", "/half", "", "").await.status, 200);
    }
    results(&door, "half", "same", 5).await;
    assert_eq!(next.seen().len(), 5);
}

#[tokio::test]
async fn what_streams_is_copied_once_it_has_passed() {
    let (user, next) = (Origin::echo().await, Origin::echo().await);
    let door = door(ROUTES, &[("user", user.address), ("next", next.address)]);
    let chunked = "PUT /stream HTTP/1.1\r\nHost: example.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let begin = async |body: String| {
        let mut client = door.connect().await;
        client.send(format!("{chunked}{body}")).await;
        client
    };
    let long = |bytes: usize| format!("{bytes:x}\r\n{}\r\n", "a".repeat(bytes));
    assert_eq!(door.ask("PUT", "/stream", "", "a body").await.status, 200);
    results(&door, "stream", "same", 1).await;
    let mut client = begin("3\r\none\r\n4\r\ntwo!\r\n".into()).await;
    wait_for("the first parts", || user.seen().len() == 1).await; // the second request has no end yet
    assert_eq!(next.seen().len(), 1, "not before its end");
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer(false).await.unwrap().status, 200);
    results(&door, "stream", "same", 2).await;
    let seen = next.seen();
    assert_eq!((seen[0].text(), seen[1].text()), ("a body".into(), "onetwo!".into()));
    assert_eq!(user.seen().iter().map(Seen::text).collect::<Vec<_>>(), ["a body", "onetwo!"]);
    // what is too long, by its announcement or once it is, and what does not end
    let skipped = async |reason: &str, count: usize| {
        let line = format!("goms_mirror_skipped_total{{reason=\"{reason}\",route=\"stream\"}} {count}\n");
        wait_for(&line, || door.metrics.render().contains(&line)).await;
    };
    assert_eq!(door.ask("PUT", "/stream", "", "a".repeat(300_000)).await.status, 200);
    skipped("long", 1).await;
    let mut client = begin(long(200_000) + &long(100_000) + "0\r\n\r\n").await;
    assert_eq!(client.answer(false).await.unwrap().status, 200);
    skipped("long", 2).await;
    drop(begin("3\r\none\r\n".into()).await);
    skipped("unfinished", 1).await;
    results(&door, "stream", "skipped", 3).await;
    assert_eq!((next.seen().len(), user.seen().len()), (2, 4));
}

#[tokio::test]
async fn a_call_that_failed_is_told_apart() {
    let next = Origin::echo().await;
    let door = door(ROUTES, &[("user", dead()), ("next", next.address)]);
    assert_eq!(door.ask("GET", "/status", "", "").await.status, 502);
    results(&door, "status", "call_failed", 1).await;
}

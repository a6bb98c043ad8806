//! Rules for header fields, and how long a route's bodies may be.

use super::rules::door;
use super::*;
use crate::support::origin::{Origin, answer};

#[tokio::test]
async fn header_fields_are_removed_set_and_added() {
    let origin =
        Origin::answering(answer("200 OK", "Server: x/1\r\nX-B: theirs\r\nX-C: 1\r\nCache-Control: a\r\n", "hello"))
            .await;
    let door = door(
        r#"
defaults: { responseHeaders: { set: { strict-transport-security: "max-age=1" }, remove: [server] } }
routes:
  - match: { path: /a }
    service: s
    requestHeaders: { remove: [x-a], set: { x-b: "own, 1", X-Mine: "2" }, add: { x-c: ["3", "4"] } }
    responseHeaders: { remove: [Server], set: { x-b: ours }, add: { x-c: "2" } }
  - { match: { path: /plain }, service: s }
  - { match: { path: /fixed }, respond: {} }
  - { match: { path: /gone }, service: nobody, responseHeaders: { add: { x-c: "2" } } }
"#,
        &[("s", origin.address)],
    );
    let got = door.ask("GET", "/a", "X-A: 1\r\nX_A: 1\r\nx-B: 1\r\nx_b: 1\r\nX-B: 2\r\nX-C: 1\r\nX-D: 1\r\nConnection: x-mine, x-e\r\nX-E: 1\r\n", "").await;
    let seen = origin.only();
    let sent: Vec<_> =
        seen.headers.iter().filter(|(name, _)| name.starts_with("x-") || name.starts_with("x_")).collect();
    let mut sent: Vec<_> = sent.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    sent.retain(|(name, _)| !name.starts_with("x-forwarded") && *name != "x-request-id");
    sent.sort_unstable();
    assert_eq!(sent, [("x-b", "own, 1"), ("x-c", "1"), ("x-c", "3"), ("x-c", "4"), ("x-d", "1"), ("x-mine", "2")]);
    let all = |got: &Got, name: &str| {
        let fields = got.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone());
        fields.collect::<Vec<_>>()
    };
    assert_eq!(all(&got, "x-b"), ["ours"]);
    assert_eq!(
        (all(&got, "x-c"), got.header("server"), got.header("cache-control")),
        (vec!["1".into(), "2".into()], None, Some("a"))
    );
    assert_eq!(got.header("strict-transport-security"), None, "its own rules go over the default's");
    let got = door.ask("GET", "/plain", "", "").await;
    assert_eq!((got.header("strict-transport-security"), got.header("server")), (Some("max-age=1"), None));
    let got = door.ask("GET", "/fixed", "", "").await;
    assert_eq!(got.header("strict-transport-security"), Some("max-age=1"));
    let got = door.ask("GET", "/gone", "", "").await;
    assert_eq!((got.status, all(&got, "x-c")), (503, vec!["2".to_owned()]), "of the gateway's own answers too");
}

#[tokio::test]
async fn bodies_are_bounded_where_a_route_says_so() {
    let origin = Origin::echo().await;
    let door = door(
        r#"
services: { user: { login: { path: /login, bodyBytes: 20 }, register: /register } }
routes:
  - { match: { path: /up }, service: user, bodyBytes: 10 }
  - { match: { path: /free }, service: user }
"#,
        &[("user", origin.address)],
    );
    let chunked = "Transfer-Encoding: chunked\r\n";
    let parts = |count: usize| format!("{}0\r\n\r\n", "5\r\nhello\r\n".repeat(count));
    assert_eq!(door.ask("POST", "/up", "", "0123456789").await.status, 200);
    assert_eq!(door.ask("POST", "/free", "", "x".repeat(100_000)).await.status, 200);
    assert_eq!(door.ask("POST", "/api/user/login", JSON, "{\"a\":\"0123456789\"}").await.status, 200);
    let before = origin.seen().len();
    for (target, headers, body) in
        [("/up", "", "0123456789x".to_owned()), ("/api/user/login", JSON, format!("{{\"a\":\"{}\"}}", "0".repeat(20)))]
    {
        let got = door.ask("POST", target, headers, body).await;
        assert_eq!(got.status, 413, "{target}");
    }
    assert_eq!(origin.seen().len(), before, "known beforehand: nothing was sent");
    // of a body without a length it is known only on the way: the call is cut and never complete
    for (count, status) in [(2, 200), (3, 413)] {
        let mut client = door.connect().await;
        client.send(format!("POST /up HTTP/1.1\r\nHost: x\r\n{chunked}\r\n{}", parts(count))).await;
        let got = client.answer(false).await.unwrap();
        assert_eq!(got.status, status, "{}", got.text());
        if status == 413 {
            assert_eq!(got.json()["msg"], "the body has more than 10 bytes, the limit of this gateway");
        }
    }
    assert_eq!(origin.seen().len(), before + 1);
}

//! `routes` of the config, from the file to the service.

use goms::cli;
use goms::config::Config;

use super::*;
use crate::support::origin::{Origin, Reply};

/// A gateway with what the text says; `nodes` are services with where each has a node.
pub(super) fn door(text: &str, nodes: &[(&str, SocketAddr)]) -> Door {
    let cli = cli::parse(["goms", "gateway"].map(Into::into)).unwrap();
    let config =
        Config::parse("config.yml", text, &cli.common, &cli.node()).unwrap_or_else(|faults| panic!("{faults}"));
    let publisher = Publisher::new();
    publisher.publish(nodes.iter().map(|(service, address)| node(service, *address)).collect());
    Door::with_publisher(publisher, config.gateway)
}

#[tokio::test]
async fn the_route_that_says_most_takes_the_request() {
    let origin = Origin::echo().await;
    let door = door(
        r#"
services: { user: { login: /login } }
routes:
  - { name: all, match: { path: "/*" }, service: s, rewrite: /all }
  - { match: { path: "/files/*" }, service: s, strip: /files }
  - { match: { path: "/files/list" }, service: s, rewrite: /exact }
  - { match: { path: "/u/{id}/o/{order}" }, service: s, rewrite: "/orders/{order}/of/{id}" }
  - { match: { path: "/u/{id}/*" }, service: s }
  - { match: { path: "/u/{id}/*", methods: [DELETE] }, service: s, rewrite: /deleted }
  - { match: { path: "/u/{id}/*", methods: [GET], headers: { x-beta: "*" } }, service: s, rewrite: /beta }
  - { match: { path: "/u/{id}/*", methods: [POST], query: { "a b": "ä" } }, service: s, rewrite: "/query" }
  - { match: { path: "/files/list", host: "*.example.com" }, service: s, rewrite: /below }
  - { match: { path: "/*", host: shop.example.com }, service: s, rewrite: /shop }
"#,
        &[("s", origin.address), ("user", origin.address)],
    );
    for (method, target, headers, seen) in [
        ("GET", "/", "", "/all"),
        ("GET", "/nothing?x=1", "", "/all?x=1"),
        ("GET", "/files", "", "/"),
        ("GET", "/files/", "", "/"),
        ("GET", "/files/a%20b//c?x", "", "/a%20b//c?x"),
        ("GET", "/filesystem", "", "/all"),
        ("GET", "/files/list", "", "/exact"),
        ("GET", "/f%69les/%6cist", "", "/exact"),
        ("GET", "/files/list/", "", "/list/"),
        ("GET", "/u/7/o/9", "", "/orders/9/of/7"),
        ("GET", "/u/7/o/9/x?y", "", "/u/7/o/9/x?y"),
        ("DELETE", "/u/7", "", "/deleted"),
        ("GET", "/u/7", "X-Beta: 0\r\n", "/beta"),
        ("POST", "/u/7?b=1&a+b=%C3%A4", "", "/query?b=1&a+b=%C3%A4"),
        ("GET", "/api/user/login", "", "/login"),
        ("GET", "/api/user/other", "", "/all"),
    ] {
        let got = door.ask(method, target, headers, "").await;
        assert_eq!(got.status, 200, "{method} {target}: {}", got.text());
        assert_eq!(origin.seen().pop().unwrap().target, seen, "{method} {target} {headers}");
    }
    for (host, seen) in [
        ("shop.example.com:80", "/shop"),
        ("SHOP.EXAMPLE.COM", "/shop"),
        ("a.example.com", "/below"),
        ("example.com", "/exact"),
    ] {
        let mut client = door.connect().await;
        client.send(format!("GET /files/list HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(client.answer(false).await.unwrap().status, 200);
        assert_eq!(origin.seen().pop().unwrap().target, seen, "{host}");
    }
}

#[tokio::test]
async fn nobody_passes_a_rule_by_another_spelling() {
    let origin = Origin::echo().await;
    let door = door(
        "routes: [{ match: { path: '/*' }, service: s }, { match: { path: '/admin/*' }, respond: { status: 403 } }]",
        &[("s", origin.address)],
    );
    for (target, status) in [
        ("/admin/x", 403),
        ("/%61dmin/x", 403),
        ("/x/../admin/x", 400),
        ("/x/%2E%2e/admin", 400),
        ("/./admin", 400),
        ("/x%00", 400),
        ("/x%", 400),
    ] {
        let got = door.ask("GET", target, "", "").await;
        assert_eq!(got.status, status, "{target}");
    }
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
    let got = door.ask("GET", "/x/../y", "", "").await;
    assert_eq!(got.json()["msg"], "the path has a `.` or `..` segment");
}

#[tokio::test]
async fn services_share_a_route_by_their_weights() {
    let (stable, next) = (Origin::echo().await, Origin::echo().await);
    let door = door(
        "routes: [{ match: { path: /a }, services: { stable: 3, next: 1, none: 0 } }]",
        &[("stable", stable.address), ("next", next.address)],
    );
    for _ in 0..40 {
        assert_eq!(door.ask("GET", "/a", "", "").await.status, 200);
    }
    assert_eq!((stable.seen().len(), next.seen().len()), (30, 10));
}

#[tokio::test]
async fn the_gateway_redirects_and_answers_itself() {
    let mut door = door(
        r#"
routes:
  - { name: moved, match: { path: "/old/{id}/*" }, redirect: "https://new.example.com/{id}/v2/*" }
  - { match: { path: /found }, redirect: { to: "/?a=1", status: 302 } }
  - { match: { path: /robots.txt }, respond: { body: "User-agent: *\n" } }
  - { match: { path: /gone, methods: [GET] }, respond: { status: 410, body: "{}", type: application/json } }
  - { match: { path: /gone, methods: [PUT] }, respond: {} }
"#,
        &[],
    );
    let got = door.ask("POST", "/old/7/a/b?x=1", "", "body").await;
    assert_eq!((got.status, got.header("location")), (308, Some("https://new.example.com/7/v2/a/b?x=1")));
    let event = door.event().await;
    assert_eq!(event.request.action.as_deref(), Some("moved"));
    let metrics = door.metrics.render();
    assert!(metrics.contains(r#"goms_requests_total{action="moved",service="",status="3xx"} 1"#), "{metrics}");
    let got = door.ask("GET", "/found?b=2", "", "").await;
    assert_eq!((got.status, got.header("location")), (302, Some("/?a=1")), "its own query stays");
    let got = door.ask("GET", "/robots.txt", "", "").await;
    assert_eq!((got.status, got.text().as_str()), (200, "User-agent: *\n"));
    assert_eq!(got.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(got.header("x-request-id").is_some());
    let got = door.ask("GET", "/gone", "", "").await;
    assert_eq!((got.status, got.text().as_str(), got.header("content-type")), (410, "{}", Some("application/json")));
    let got = door.ask("DELETE", "/gone", "", "").await;
    assert_eq!((got.status, got.header("allow")), (405, Some("GET, PUT")));
    let got = door.ask("GET", "/nowhere", "", "").await;
    assert_eq!((got.status, &got.json()["msg"]), (404, &"no route `/nowhere`; none of `routes` takes it".into()));
}

#[tokio::test]
async fn what_is_no_action_passes_as_it_is() {
    let origin =
        Origin::answering("HTTP/1.1 201 Made\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}")
            .await;
    let door = door("routes: [{ match: { path: '/*' }, service: s }]", &[("s", origin.address)]);
    let got = door.ask("POST", "/x", "Content-Type: application/x-www-form-urlencoded\r\n", "a=1&b").await;
    assert_eq!((got.status, got.text().as_str()), (201, "{\"a\":1}"));
    let seen = origin.only();
    assert_eq!(
        (seen.text().as_str(), seen.header("content-type")),
        ("a=1&b", Some("application/x-www-form-urlencoded"))
    );
}

#[tokio::test]
async fn a_request_keeps_the_settings_with_which_it_began() {
    let origin = Origin::start(|seen, _| {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
        if seen.target == "/slow" { Reply::Late(Duration::from_millis(300), answer) } else { Reply::Bytes(answer) }
    })
    .await;
    let door = door("routes: [{ match: { path: '/*' }, service: s }]", &[("s", origin.address)]);
    let (mut slow, mut kept) = (door.connect().await, door.connect().await);
    assert_eq!(kept.ask("GET", "/fast", "", "").await.status, 200);
    slow.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    wait_for("the slow request to reach the service", || origin.seen().len() == 2).await;
    door.live.replace(Settings::default());
    assert_eq!(kept.ask("GET", "/fast", "", "").await.status, 404, "a connection from before");
    assert_eq!(slow.answer(false).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_redirect_stays_with_its_host() {
    let door = door("routes: [{ match: { path: \"/old/*\" }, redirect: \"/*\" }]", &[]);
    for (target, location) in [
        ("/old/a//b", "/a//b"),
        ("/old//evil.test/a", "/evil.test/a"),
        ("/old///evil.test", "/evil.test"),
        ("/old/\\evil.test", "/evil.test"),
        ("/old/%5Cevil.test", "/%5Cevil.test"),
        ("/old", "/"),
    ] {
        let got = door.ask("GET", target, "", "").await;
        assert_eq!(got.header("location"), Some(location), "{target} {}", got.status);
    }
}

//! Pages of other origins.

use super::rules::door;
use super::*;
use crate::support::origin::{Origin, answer};

const TEXT: &str = r#"
auth: { keys: { apiKeys: { keys: { acme: "the key of acme, long" } } } }
routes:
  - match: { path: /shop, methods: [GET, PUT] }
    service: s
    auth: keys
    cors: { origins: ["https://*.example.com", "https://app.test:8443"], headers: [x-api-key, content-type], expose: [x-total], credentials: true, maxAge: 5m }
  - { match: { path: /open }, service: s, cors: "*" }
  - { match: { path: /plain }, service: s }
  - { match: { path: /fixed }, respond: { body: hello }, cors: "https://a.test" }
"#;

/// The fields of CORS, in order, without their common beginning.
fn told(got: &Got) -> Vec<(&str, &str)> {
    let fields = got.headers.iter().filter_map(|(name, value)| {
        Some((name.strip_prefix("access-control-").or_else(|| (name == "vary").then_some("vary"))?, value.as_str()))
    });
    let mut fields: Vec<_> = fields.collect();
    fields.sort_unstable();
    fields
}

fn preflight(origin: &str, method: &str, headers: &str) -> String {
    let headers =
        if headers.is_empty() { String::new() } else { format!("Access-Control-Request-Headers: {headers}\r\n") };
    format!("Origin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n{headers}")
}

const VARY: [(&str, &str); 3] =
    [("vary", "access-control-request-headers"), ("vary", "access-control-request-method"), ("vary", "origin")];

#[tokio::test]
async fn the_gateway_answers_preflights_before_any_proof() {
    let origin = Origin::echo().await;
    let door = door(TEXT, &[("s", origin.address)]);
    let ask = async |target: &str, headers: String| door.ask("OPTIONS", target, &headers, "").await;
    let got = ask("/shop", preflight("https://a.example.com", "PUT", "x-api-key")).await;
    assert_eq!((got.status, got.body.len()), (204, 0));
    let mut all = vec![
        ("allow-credentials", "true"),
        ("allow-headers", "x-api-key, content-type"),
        ("allow-methods", "GET, PUT"),
        ("allow-origin", "https://a.example.com"),
        ("max-age", "300"),
    ];
    all.extend(VARY);
    assert_eq!(told(&got), all);
    let got = ask("/open", preflight("null", "DELETE", "X-Any, x-other")).await;
    let mut all = vec![
        ("allow-headers", "X-Any, x-other"),
        ("allow-methods", "DELETE"),
        ("allow-origin", "*"),
        ("max-age", "600"),
    ];
    all.extend(VARY);
    assert_eq!((got.status, told(&got)), (204, all));
    for (target, headers, status) in [
        ("/shop", preflight("https://evil.test", "PUT", ""), 403),
        ("/shop", preflight("https://app.test:8443", "GET", ""), 204),
        ("/shop", preflight("https://a.example.com", "DELETE", ""), 405), // the route does not take it
        ("/nowhere", preflight("https://a.example.com", "GET", ""), 404),
        ("/fixed", preflight("https://a.test", "GET", ""), 204),
    ] {
        let got = ask(target, headers).await;
        assert_eq!(got.status, status, "{target} {}", got.text());
        // of a method that the route does not take, too: the browser says then what is wrong
        assert_eq!(got.header("access-control-allow-origin").is_some(), [204, 405].contains(&status));
    }
    assert!(origin.seen().is_empty());
    // what is no preflight, and a route without rules, are the service's
    assert_eq!(ask("/open", "Origin: https://a.test\r\n".into()).await.status, 200);
    assert_eq!(ask("/plain", preflight("https://a.test", "GET", "")).await.status, 200);
    assert_eq!(ask("/shop", String::new()).await.status, 405);
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn answers_tell_the_browser_whatever_they_are() {
    let of_its_own = "Access-Control-Allow-Origin: https://evil.test\r\nAccess-Control-Allow-Credentials: true\r\nVary: accept\r\nX-Total: 7\r\n";
    let origin = Origin::answering(answer("200 OK", of_its_own, "hello")).await;
    let door = door(TEXT, &[("s", origin.address)]);
    let key = "X-Api-Key: the key of acme, long\r\n";
    let page = |origin: &str| format!("Origin: {origin}\r\n");
    let got = door.ask("GET", "/shop", &(page("https://a.example.com") + key), "").await;
    let good = [
        ("allow-credentials", "true"),
        ("allow-origin", "https://a.example.com"),
        ("expose-headers", "x-total"),
        ("vary", "accept"),
        ("vary", "origin"),
    ];
    assert_eq!((got.status, told(&got)), (200, good.to_vec()));
    let got = door.ask("GET", "/shop", &page("https://a.example.com"), "").await;
    assert_eq!(
        (got.status, got.header("access-control-allow-origin")),
        (401, Some("https://a.example.com")),
        "readable"
    );
    for headers in [page("https://evil.test") + key, key.to_owned()] {
        let got = door.ask("GET", "/shop", &headers, "").await;
        assert_eq!((got.status, told(&got)), (200, vec![("vary", "accept"), ("vary", "origin")]));
    }
    let got = door.ask("GET", "/open", "", "").await;
    assert_eq!(told(&got), [("vary", "accept")], "no page asks");
    let got = door.ask("GET", "/open", &page("https://a.test"), "").await;
    assert_eq!(told(&got), [("allow-origin", "*"), ("vary", "accept")]);
    let got = door.ask("GET", "/plain", &page("https://a.test"), "").await;
    assert_eq!(got.header("access-control-allow-origin"), Some("https://evil.test"), "what the service says");
    let got = door.ask("GET", "/fixed", &page("https://a.test"), "").await;
    assert_eq!(
        (got.text().as_str(), told(&got)),
        ("hello", vec![("allow-origin", "https://a.test"), ("vary", "origin")])
    );
}

const STRAYS: &str = r#"
auth: { keys: { apiKeys: { keys: { acme: "the key of acme, long" } } } }
defaults: { cors: "https://a.test" }
upstreams: { b: { cors: "https://b.test" }, none: { cors: none } }
services:
  b: { get: { path: /get, methods: [GET], auth: keys, allow: { addresses: [127.0.0.1] } }, closed: { path: /x, deny: { addresses: [127.0.0.1] } } }
  none: { get: { path: /get, methods: [GET] } }
  away: { get: { path: /get, rateLimit: 1/h } }
routes:
  - { match: { path: /shop, methods: [GET] }, service: s, cors: "https://shop.test", auth: keys }
"#;

#[tokio::test]
async fn a_page_reads_what_the_gateway_itself_refuses() {
    let door = door(STRAYS, &[]);
    for (method, target, origin, status, readable) in [
        ("GET", "/nowhere", "https://a.test", 404, true),
        ("GET", "/nowhere", "https://b.test", 404, false),
        ("GET", "/a/../b", "https://a.test", 400, true),
        ("GET", "/api/b/nothing", "https://b.test", 404, true),
        ("GET", "/api/b/nothing", "https://a.test", 404, false),
        ("GET", "/api/none/nothing", "https://a.test", 404, false),
        ("POST", "/api/b/get", "https://b.test", 405, true),
        ("POST", "/api/none/get", "https://a.test", 405, false),
        ("POST", "/shop", "https://shop.test", 405, true),
        ("GET", "/shop", "https://shop.test", 401, true),
        ("GET", "/shop", "https://a.test", 401, false),
        ("GET", "/api/b/closed", "https://b.test", 403, true),
        ("GET", "/api/away/get", "https://a.test", 503, true),
        ("GET", "/api/away/get", "https://a.test", 429, true),
        // so that what is more than a simple request comes to read its 404
        ("OPTIONS", "/nowhere", "https://a.test", 204, true),
        ("OPTIONS", "/nowhere", "https://b.test", 403, false),
        ("OPTIONS", "/api/b/nothing", "https://b.test", 204, true),
        ("OPTIONS", "/api/none/nothing", "https://a.test", 404, false),
    ] {
        let got = door.ask(method, target, &preflight(origin, "PUT", ""), "").await;
        let told = got.header("access-control-allow-origin");
        assert_eq!(
            (got.status, told),
            (status, readable.then_some(origin)),
            "{method} {target} {origin} {}",
            got.text()
        );
        assert_eq!(got.header("www-authenticate").is_some(), status == 401);
    }
}

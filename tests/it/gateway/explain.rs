//! `X-Goms-Explain`: what became of a request, for who holds the call key.

use super::rules::door;
use crate::support::origin::{Origin, dead, json};

const ROUTES: &str = r#"
callServiceKey: [new, old]
services: { user: { login: { path: /login, retry: { on: [503] } } } }
routes:
  - { name: beta, match: { path: /a, headers: { x-beta: "1" } }, service: user }
  - { name: elsewhere, match: { path: /a }, redirect: /b }
"#;

#[tokio::test]
async fn it_tells_routes_nodes_and_tries() {
    let busy = Origin::answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    let good = Origin::answering(json("{}")).await;
    let door = door(ROUTES, &[("user", dead()), ("user", busy.address), ("user", good.address)]);
    let asks = "X-Goms-Explain: 1\r\nCall-Service-Key: old\r\n";
    let mut results = Vec::new();
    for _ in 0..3 {
        let told = door.ask("GET", "/api/user/login", asks, "").await.json();
        assert_eq!(told["answer"]["status"], 200);
        assert_eq!(told["answer"]["headers"]["content-type"], "application/json");
        assert_eq!(told["outcome"]["target"], "/login");
        assert_eq!(told["services"]["user"]["nodes"].as_array().unwrap().len(), 3);
        let tries = told["tries"].as_array().unwrap();
        assert!(tries.iter().all(|tried| tried["service"] == "user" && tried["node"].is_string()));
        results.extend(tries.iter().map(|tried| tried["result"].as_str().unwrap().to_owned()));
    }
    results.sort();
    results.dedup();
    assert_eq!(results[..2], ["200", "503"]);
    assert!(results[2].contains("cannot be reached: cannot connect"), "{results:?}");
    assert!(
        good.seen().iter().all(|seen| seen.header("call-service-key") == Some("new")),
        "the caller's goes no further"
    );

    let told = door.ask("GET", "/a", asks, "").await.json();
    assert_eq!(told["tried"][0]["refusal"], "the header `x-beta` is not `1`");
    assert_eq!((&told["outcome"]["kind"], &told["answer"]["status"]), (&"redirect".into(), &308.into()));
    let told = door.ask("GET", "/nothing", asks, "").await.json();
    assert_eq!((told["answer"]["status"].as_u64(), told["tries"].as_array().map(Vec::len)), (Some(404), Some(0)));
    assert!(told["error"].as_str().unwrap().starts_with("no route `/nothing`"));
}

#[tokio::test]
async fn nobody_else_may_know() {
    let origin = Origin::answering(json("{}")).await;
    let with_key = door(ROUTES, &[("user", origin.address)]);
    for headers in [
        "X-Goms-Explain: 1\r\n",
        "X-Goms-Explain: 1\r\nCall-Service-Key: wrong\r\n",
        "X-Goms-Explain: 1\r\nCall-Service-Key: new\r\nCall-Service-Key: new\r\n",
        "X-Goms-Explain: 0\r\nCall-Service-Key: new\r\n",
    ] {
        assert_eq!(with_key.ask("GET", "/api/user/login", headers, "").await.text(), r#"{"status":true}"#, "{headers}");
    }
    let without = door(&ROUTES.replace("callServiceKey: [new, old]", ""), &[("user", origin.address)]);
    let told = without.ask("GET", "/api/user/login", "X-Goms-Explain: 1\r\n", "").await.json();
    assert_eq!(told["answer"]["status"], 200, "from this machine");
    for field in ["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP"] {
        let through = format!("X-Goms-Explain: 1\r\n{field}: 192.0.2.7\r\n");
        let got = without.ask("GET", "/api/user/login", &through, "").await.text();
        assert_eq!(got, r#"{"status":true}"#, "{field}");
    }
    let text = ROUTES.replace("callServiceKey: [new, old]", "trustedProxies: [127.0.0.1]");
    let behind = door(&text, &[("user", origin.address)]);
    let got = behind.ask("GET", "/api/user/login", "X-Goms-Explain: 1\r\n", "").await.text();
    assert_eq!(got, r#"{"status":true}"#, "a proxy that adds no field");
}

#[tokio::test]
async fn each_limit_of_a_route_is_told() {
    let origin = Origin::echo().await;
    let text = "routes: [{ match: { path: /x }, service: user, rateLimit: [5/s, { rate: 10/m, by: ip }] }]";
    let door = door(text, &[("user", origin.address)]);
    let told = door.ask("GET", "/x", "X-Goms-Explain: 1\r\n", "").await.json();
    assert_eq!(told["terms"]["rateLimit"], "5/1s by route; 10/60s by ip");
}

//! How often: by route, caller and address.

use goms::gateway::rate::{By, RateLimit};

use super::rules::door;
use super::*;
use crate::support::origin::Origin;

const AUTH: &str =
    r#"auth: { keys: { apiKeys: { keys: { acme: "the key of acme, long", globex: "the key of globex, long" } } } }"#;
const ACME: &str = "X-Api-Key: the key of acme, long\r\n";
const GLOBEX: &str = "X-Api-Key: the key of globex, long\r\n";

#[tokio::test]
async fn what_is_too_much_is_refused_and_told() {
    let origin = Origin::echo().await;
    let text = "services: { user: { login: { path: /login, rateLimit: 3/h }, register: /register } }";
    let door = door(text, &[("user", origin.address)]);
    for left in [2, 1, 0] {
        let got = door.get().await;
        assert_eq!((got.status, got.header("ratelimit-policy")), (200, Some("\"route\";q=3;w=3600")));
        assert_eq!(got.header("ratelimit").unwrap(), format!("\"route\";r={left};t={}", (3 - left) * 1200));
    }
    let got = door.get().await;
    assert_eq!(got.status, 429);
    assert_eq!(got.header("ratelimit"), Some("\"route\";r=0;t=3600"));
    assert_eq!(got.header("ratelimit-policy"), Some("\"route\";q=3;w=3600"));
    let retry_after: u64 = got.header("retry-after").unwrap().parse().unwrap();
    assert!((1190..=1200).contains(&retry_after), "{retry_after}");
    let told = got.json()["msg"].as_str().unwrap().to_owned();
    assert_eq!(told, format!("too many requests, 3/3600s by route may come; try again in {retry_after} s"));
    let got = door.ask("GET", "/api/user/register", "", "").await;
    assert_eq!((got.status, got.header("ratelimit")), (200, None), "another route");
    assert_eq!(origin.seen().len(), 4, "what is refused goes nowhere");
    let metrics = door.metrics.render();
    assert!(metrics.contains(r#"goms_rate_limited_total{action="login",by="route",service="user"} 1"#), "{metrics}");
}

#[tokio::test]
async fn each_caller_has_a_budget_and_a_refused_guess_costs_none() {
    let origin = Origin::echo().await;
    let text = format!(
        "{AUTH}\nservices: {{ user: {{ login: {{ path: /login, auth: keys, rateLimit: [{{ rate: 2/h, by: caller }}, {{ rate: 100/h, burst: 3 }}] }} }} }}"
    );
    let door = door(&text, &[("user", origin.address)]);
    let ask = async |headers: &str| door.ask("GET", "/api/user/login", headers, "").await;
    for _ in 0..10 {
        assert_eq!(ask("").await.status, 401);
    }
    assert_eq!((ask(ACME).await.status, ask(ACME).await.status), (200, 200));
    let got = ask(ACME).await;
    assert_eq!((got.status, got.header("ratelimit")), (429, Some("\"caller\";r=0;t=3600")));
    let got = ask(GLOBEX).await;
    assert_eq!((got.status, got.header("ratelimit")), (200, Some("\"caller\";r=1;t=1800, \"route\";r=0;t=108")));
    assert_eq!(got.header("ratelimit-policy"), Some("\"caller\";q=2;w=3600, \"route\";q=3;w=108"));
    assert_eq!(ask(GLOBEX).await.status, 429, "the route's is used up");
}

#[tokio::test]
async fn guesses_from_one_address_are_limited() {
    let origin = Origin::echo().await;
    let text = format!(
        "{AUTH}\ndefaults: {{ auth: keys, rateLimit: {{ rate: 4/h, by: ip, name: door }} }}\nservices: {{ user: {{ login: /login, register: /register }} }}"
    );
    let door = door(&text, &[("user", origin.address)]);
    for target in ["/api/user/login", "/api/user/register", "/api/user/login"] {
        assert_eq!(door.ask("GET", target, "", "").await.status, 401);
    }
    let got = door.ask("GET", "/api/user/register", ACME, "").await;
    assert_eq!(
        (got.status, got.header("ratelimit")),
        (200, Some("\"door\";r=0;t=3600")),
        "routes of a name count together"
    );
    assert_eq!(door.ask("GET", "/api/user/login", ACME, "").await.status, 429);
}

#[tokio::test]
async fn a_reload_leaves_budgets_as_they_are() {
    let origin = Origin::echo().await;
    let text = "services: { user: { login: { path: /login, rateLimit: 3/h } } }";
    let door = door(text, &[("user", origin.address)]);
    assert_eq!((door.get().await.status, door.get().await.status), (200, 200));
    let mut settings = door.live.settings();
    settings.limits.in_flight += 1;
    settings.services.get_mut("user").unwrap().actions.insert("other".into(), action("/other"));
    door.live.replace(settings.clone());
    assert_eq!((door.get().await.status, door.get().await.status), (200, 429));
    let limit = RateLimit { count: 4, per: Duration::from_secs(3600), burst: 4, by: By::Route, name: None };
    login(&mut settings).terms.rates = vec![limit];
    door.live.replace(settings.clone());
    assert_eq!(door.get().await.header("ratelimit"), Some("\"route\";r=3;t=900"), "another limit begins anew");
    login(&mut settings).terms.rates.clear();
    door.live.replace(settings);
    assert_eq!(door.get().await.header("ratelimit"), None);
}

/// Behind a load balancer every request comes from one address.
#[tokio::test]
async fn the_address_is_the_one_that_a_trusted_proxy_tells() {
    let origin = Origin::echo().await;
    let text = "trustedProxies: [127.0.0.1]\nservices: { user: { login: { path: /login, rateLimit: { rate: 1/h, by: ip } } } }";
    let door = door(text, &[("user", origin.address)]);
    let ask = async |client: &str| {
        let told = format!("X-Forwarded-For: 6.6.6.6, {client}\r\n");
        door.ask("GET", "/api/user/login", &told, "").await.status
    };
    assert_eq!((ask("192.0.2.1").await, ask("192.0.2.2").await), (200, 200));
    assert_eq!((ask("192.0.2.1").await, ask("192.0.2.2").await), (429, 429));
    assert_eq!(ask("192.0.2.3").await, 200);
}

#[tokio::test]
async fn workers_count_together_and_exactly() {
    let origin = Origin::echo().await;
    let text = "services: { user: { login: { path: /login, rateLimit: [{ rate: 30/h, by: ip }, 40/h] } } }";
    let door = door(text, &[("user", origin.address)]);
    let asked = (0..20).map(|_| async {
        let mut client = door.connect().await;
        let mut statuses = Vec::new();
        for _ in 0..5 {
            statuses.push(client.ask("GET", "/api/user/login", "", "").await.status);
        }
        statuses
    });
    let statuses = futures_util::future::join_all(asked).await.concat();
    let count = |status| statuses.iter().filter(|known| **known == status).count();
    assert_eq!((count(200), count(429), origin.seen().len()), (30, 70, 30));
}

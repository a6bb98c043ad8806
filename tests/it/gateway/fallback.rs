//! What is done where no node of a service could be asked.

use super::rules::door;
use super::*;
use crate::support::origin::{Origin, Reply, answer, dead};

const ROUTES: &str = r#"
routes:
  - { match: { path: /page }, service: shop, fallback: { respond: { status: 503, type: text/html, body: "<h1>closed</h1>" } } }
  - { match: { path: /other }, service: shop, encode: json, fallback: { service: backup } }
  - { match: { path: /stream }, service: shop, fallback: { service: backup } }
  - { match: { path: /nothing }, service: nobody, fallback: { service: nobodyelse } }
upstreams:
  shop: { breaker: { failures: 2, open: 1h }, ejection: off, retry: { attempts: 1 } }
"#;

#[tokio::test]
async fn a_service_that_is_not_reached_has_another_or_an_answer_in_its_place() {
    let backup = Origin::echo().await;
    let door = door(ROUTES, &[("shop", dead()), ("backup", backup.address)]);
    let got = door.ask("GET", "/page", "", "").await;
    assert_eq!((got.status, got.text().as_str()), (503, "<h1>closed</h1>"));
    assert_eq!(got.header("content-type"), Some("text/html"));
    // it was surely not sent, so any method and body goes to the other one
    let got = door.ask("POST", "/other", JSON, r#"{"a":1}"#).await;
    assert_eq!((got.status, backup.only().text().as_str()), (200, r#"{"a":1}"#));
    let got = door.ask("PUT", "/stream", "", "streamed").await;
    assert_eq!((got.status, backup.seen()[1].text().as_str()), (200, "streamed"));
    let got = door.ask("GET", "/nothing", "", "").await;
    assert_eq!((got.status, got.json()["msg"].as_str().unwrap().contains("`nobodyelse`")), (503, true));
    assert!(door.metrics.render().contains("goms_fallbacks_total{service=\"shop\"} 2\n"), "{}", door.metrics.render());
}

#[tokio::test]
async fn an_open_breaker_leads_there_at_once_and_a_failed_call_does_not() {
    let (shop, backup) = (Origin::start(|_, _| Reply::Close(Vec::new())).await, Origin::echo().await);
    let door = door(ROUTES, &[("shop", shop.address), ("backup", backup.address)]);
    for _ in 0..2 {
        let got = door.ask("GET", "/other", "", "").await;
        assert_eq!(got.status, 502, "the service had it, and may have carried it out");
    }
    let reached = shop.seen().len();
    for _ in 0..3 {
        assert_eq!(door.ask("POST", "/other", JSON, "{}").await.status, 200);
        assert_eq!(door.ask("GET", "/page", "", "").await.text(), "<h1>closed</h1>");
    }
    assert_eq!((shop.seen().len(), backup.seen().len()), (reached, 3));
}

#[tokio::test]
async fn an_answer_of_the_service_stays_whatever_it_says() {
    let (shop, backup) = (Origin::answering(answer("503 Service Unavailable", "", "mine")).await, Origin::echo().await);
    let door = door(ROUTES, &[("shop", shop.address), ("backup", backup.address)]);
    let got = door.ask("GET", "/other", "", "").await;
    assert_eq!((got.status, got.text().as_str(), backup.seen().len()), (503, "mine", 0));
}

//! The service graph.

use serde_json::{Value, json};

use super::Up;
use crate::support::browser::Browser;
use crate::support::http::{get, post};

/// Spans of a request to `shop`, which calls `cart` and `prices`, which call others, as Zipkin's clients send them.
fn spans(number: u64, hostile: &str) -> Value {
    let now = u64::try_from(jiff::Timestamp::now().as_microsecond()).expect("after 1970");
    let span = |id: u64, parent: Option<u64>, service: &str, micros: u64, status: &str| {
        let mut span = json!({
            "traceId": format!("{:032x}", number + 1), "id": format!("{id:016x}"), "kind": "SERVER", "name": "get /",
            "timestamp": now, "duration": micros, "localEndpoint": {"serviceName": service},
            "tags": {"http.path": "/", "http.method": "GET", "http.status_code": status},
        });
        if let Some(parent) = parent {
            span["parentId"] = json!(format!("{parent:016x}"));
        }
        span
    };
    let prices = if number.is_multiple_of(4) { "503" } else { "200" };
    json!([
        span(1, None, "shop", 9_000, "200"),
        span(2, Some(1), "cart", 4_000, "200"),
        span(3, Some(1), "prices", 3_000, prices),
        span(4, Some(2), "stock", 1_500, "200"),
        span(5, Some(3), "stock", 900, "200"),
        span(6, Some(1), "stock", 700, "200"),
        span(7, Some(4), hostile, 100, "200"),
        span(8, Some(4), "cart", 50, "200"),
    ])
}

#[test]
fn calls_are_drawn_and_an_arrow_leads_to_its_traces() {
    let Some(browser) = Browser::start() else { return };
    let up = Up::start(&["--zipkin", "127.0.0.1:0"]);
    let line = up.goms.wait_for("zipkin spans");
    let zipkin = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address").to_owned();
    let mut page = browser.open(&up.url("/graph"));
    page.wait_for_text("main", "No calls in the last 15 minutes");
    page.assert_looks("graph-empty");
    page.wait_for_text("#live-state", "Live");
    for number in 0..40 {
        let sent =
            post(&zipkin, "/api/v2/spans", &spans(number, "<script>window.ran=1</script> and \"more\"").to_string());
        assert_eq!(sent.expect("an answer").status, 202);
        get(&up.gateway, "/api/user/login").expect("an answer");
    }
    page.wait_for("document.querySelectorAll('svg.graph .edge').length >= 10");
    page.wait_for_text("main", "25.0% failed");
    let prices = "svg.graph a.edge[href='/traces?service=prices&caller=shop&since=15m']";
    assert_eq!(page.count(prices), 1);
    assert_eq!(page.count("svg.graph a.edge[href='/traces?service=user&caller=gateway&since=15m']"), 1);
    assert_eq!(page.count("svg.graph a.edge[href='/traces?service=gateway&since=15m']"), 1);
    assert_eq!(page.count(&format!("{prices} .way.bad")), 1);
    assert_eq!(page.count("svg.graph .edge .bad.halo"), 1, "only that one fails");
    // stands before what it calls
    let left = |name: &str| {
        format!(
            "Number(document.querySelector('svg.graph a.node[href^=\"/services/{name}?\"] rect').getAttribute('x'))"
        )
    };
    let order = format!("{} < {} && {} < {}", left("shop"), left("prices"), left("prices"), left("stock"));
    assert_eq!(page.eval(&order), true);
    assert_eq!(page.eval("window.ran ?? null"), Value::Null);
    page.assert_looks("graph");
    page.follow("svg.graph a.node[href^='/services/prices?']");
    assert_eq!(page.text("h1"), "prices");
    page.wait_for_text("#numbers", "25.0%");
    page.finish();
}

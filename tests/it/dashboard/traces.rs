//! The pages of traces, on real traffic and on events made for them.

use serde_json::{Value, json};

use super::Up;
use crate::support::browser::Browser;
use crate::support::goms::PATIENCE;
use crate::support::http::{get, post, request};

const EVIL: &str = "\"><img src=x onerror=window.ran=1></pre><script>window.ran=1</script>";

/// Sends a request to the gateway and gives its id, once its events are stored.
fn traced(up: &Up, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let deadline = std::time::Instant::now() + PATIENCE;
    let id = loop {
        let answer = request("POST", &up.gateway, path, headers, Some(body.as_bytes())).expect("an answer");
        // until the gateway has found the nodes
        if answer.status != 503 || path.contains("/order/") {
            break answer.header("x-request-id").expect("an id").to_owned();
        }
        assert!(std::time::Instant::now() < deadline, "no node of {path}");
    };
    let wanted = if path.contains("/order/") { 2 } else { 4 };
    stored(up, &id, wanted);
    id
}

/// Waits until so many events of a request or trace are stored.
fn stored(up: &Up, id: &str, wanted: usize) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let shown = get(&up.admin, &format!("/traces/{id}/download/json")).expect("an answer");
        let found = if shown.status == 200 { shown.json().as_array().map_or(0, Vec::len) } else { 0 };
        if found >= wanted {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{found} of {wanted} events of {id} are stored");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Has the trace consumer of the process store these events.
fn store(up: &Up, events: &[Value]) {
    let line = up.goms.wait_for("  trace consumer  http://");
    let address = line.rsplit('/').next().expect("an address").to_owned();
    let text = json!(events).to_string().replace("\"DIGITS\"", "1.10");
    let answer = post(&address, "/goms/events", &text).expect("an answer");
    assert_eq!((answer.status, &answer.json()["refused"]), (200, &json!(0)), "{}", answer.text());
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn start(config: &str) -> Up {
    let folder = crate::support::goms::Folder::new();
    let path = folder.write("config.yml", config);
    let up = Up::start(&["--config", &path]);
    drop(folder); // read already
    up
}

const CONFIG: &str = "services: {user: {login: /login}, order: {submit: /order/submit}}\n";

#[test]
fn a_search_narrows_sorts_and_leads_to_the_request() {
    let Some(browser) = Browser::start() else { return };
    let up = start(CONFIG);
    let mut page = browser.open(&up.url("/traces"));
    page.wait_for_text("main", "Nothing matches");
    assert_eq!(page.count("#services option[value=user]"), 1);
    let id = traced(&up, "/api/user/login?a=1", &[("Content-Type", "application/json")], "{\"user\":\"alice\"}");
    let failed = traced(&up, "/api/order/submit", &[], "{}");
    page.go(&up.url("/traces"));
    assert_eq!(page.count(".hits tbody tr"), 2);
    assert_eq!((page.count(".plot path.ok"), page.count(".plot path.failed")), (2, 1));
    page.assert_looks("traces");

    page.fill("#f-status", "5xx");
    page.submit();
    assert!(page.url().contains("status=5xx"), "{}", page.url());
    assert_eq!(page.texts(".hits a.request"), ["POST /api/order/submit"]);
    page.fill("#f-status", "6xx");
    page.fill("#f-min-duration", "soon");
    page.submit();
    assert_eq!(page.text("#e-status"), "`6xx` is no HTTP status; write `500`, `5xx` or `200-299`");
    assert!(page.text("#e-min-duration").contains("`soon` is no duration"));
    assert_eq!(page.attribute("#f-status", "aria-describedby").as_deref(), Some("e-status"));
    page.assert_looks("traces-faults");

    page.go(&up.url("/traces?text=alice&order=slowest"));
    assert_eq!(page.text(".segments [aria-current]"), "Slowest");
    page.follow(".hits a.request");
    assert!(page.url().ends_with(&format!("/traces/{id}")), "{}", page.url());
    page.go(&up.url(&format!("/traces?request-id={failed}&since=all&event=all")));
    assert!(page.text("main").contains("2 events match"), "{}", page.text("main"));
    page.finish();
}

#[test]
fn a_page_ends_and_the_next_goes_on() {
    let up = start(CONFIG);
    let events: Vec<Value> = (0..25)
        .map(|at| {
            json!({"eventId": format!("00000000-0000-4000-8000-{at:012}"), "requestId": format!("11111111-0000-4000-8000-{at:012}"),
                   "event": "service.end", "serviceName": "user", "action": "user/login", "status": 200,
                   "request": {"method": "GET", "url": format!("/number/{at}")}, "durationNs": 1_000_000 + at, "timeMs": now_ms() - at})
        })
        .collect();
    store(&up, &events);
    let mut path = "/traces?service=user&action=user%2Flogin&limit=10&order=slowest".to_owned();
    let mut lines = Vec::new();
    for _ in 0..3 {
        let text = get(&up.admin, &path).expect("an answer").text();
        assert!(text.contains("<h2>25 events match</h2>"), "{text}");
        lines.extend(
            text.split("<bdi>GET /number/").skip(1).filter_map(|rest| rest.split('<').next()?.parse::<u64>().ok()),
        );
        let next = text.split("rel=\"next\" href=\"").nth(1).and_then(|rest| rest.split('"').next());
        path = next.unwrap_or_default().replace("&amp;", "&");
    }
    assert_eq!(lines, (0..25).rev().collect::<Vec<_>>(), "each once, the slowest first");
    assert_eq!(path, "", "the last page has no next one");
}

#[test]
fn a_request_shows_what_it_was_and_hostile_data_is_only_text() {
    let Some(browser) = Browser::start() else { return };
    let up = start(CONFIG);
    let headers = [("Content-Type", "application/json"), ("X-Evil", EVIL), ("X-Long", &"long".repeat(1_500))];
    let body = json!({"name": EVIL, "\u{202e}rtl": "<b>"}).to_string();
    let id = traced(&up, "/api/user/login?q=%3Cscript%3E&%22onerror=1", &headers, &body);
    let mut page = browser.open(&up.url(&format!("/traces/{id}")));
    assert_eq!(page.texts(".span .what strong"), ["gateway", "user"]);
    assert_eq!(page.texts("main .jump").len(), 0);
    // by keyboard
    page.eval("document.querySelector('#s1 > summary').focus()");
    page.press("Enter");
    page.wait_for("document.querySelector('#s1').open");
    let inside = page.text("#s1 .inside");
    assert!(
        inside.contains("onerror=window.ran=1") && inside.contains("X-Evil") && inside.contains("of 5.9 KiB"),
        "{inside}"
    );
    assert!(page.text("#s1 .inside pre").contains("</pre><script>"));
    assert_eq!(page.eval("window.ran ?? null"), Value::Null);
    page.assert_looks("trace");
    page.go(&up.url(&format!("/traces?text={id}")));
    assert_eq!(page.eval("window.ran ?? null"), Value::Null);
    page.go(&up.url("/traces/tail"));
    page.wait_for_text("#tail tbody", "%3Cscript%3E");
    assert_eq!(page.eval("window.ran ?? null"), Value::Null);

    for (format, part) in
        [("otlp", "resourceSpans"), ("har", "startedDateTime"), ("curl", "curl --globoff"), ("json", "requestId")]
    {
        let file = get(&up.admin, &format!("/traces/{id}/download/{format}")).expect("an answer");
        assert!(file.status == 200 && file.text().contains(part), "{format}: {}", file.text());
        assert!(file.header("content-disposition").is_some_and(|text| text.starts_with("attachment")), "{format}");
    }
    let address = page_of(&up, &id, "/events/");
    let event = get(&up.admin, &address).expect("an answer");
    assert_eq!(event.json()["requestId"], id);
    assert_eq!(event.header("content-type"), Some("application/json"));
    page.finish();
}

/// The first link of a request's page that holds a text.
fn page_of(up: &Up, id: &str, part: &str) -> String {
    let text = get(&up.admin, &format!("/traces/{id}")).expect("an answer").text();
    let links = text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    links.into_iter().find(|link| link.contains(part)).expect("a link").replace("&amp;", "&")
}

#[test]
fn a_failed_request_leads_to_its_error() {
    let Some(browser) = Browser::start() else { return };
    let up = start(CONFIG);
    let id = "22222222-0000-4000-8000-000000000001";
    let span = |at: u64, parent: Option<u64>, service: &str, kind: &str, status: Value, took: Value| {
        json!({"eventId": format!("22222222-0000-4000-8000-{at:06}{:06}", kind.len() + service.len()), "requestId": id,
               "traceId": id.replace('-', ""), "spanId": format!("{at:016x}"), "parentId": parent.map(|parent| format!("{parent:016x}")),
               "event": kind, "serviceName": service, "action": "user/login", "status": status, "node": "127.0.0.1:1_127.0.0.1:2",
               "request": {"method": "POST", "url": "/login", "headers": {"A": "b"}, "body": {"n": "DIGITS"}},
               "durationNs": took, "timeMs": now_ms() - 1_000 + at as i64})
    };
    store(
        &up,
        &[
            span(1, None, "gateway", "request.start", Value::Null, Value::Null),
            span(2, Some(1), "user", "service.start", Value::Null, Value::Null),
            span(2, Some(1), "user", "service.end", json!(500), json!(400_000)),
            span(3, Some(1), "user", "service.start", Value::Null, Value::Null),
            span(3, Some(1), "user", "service.end", json!(200), json!(300_000)),
            span(4, Some(3), "stock", "service.start", Value::Null, Value::Null),
            span(1, None, "gateway", "request.end", json!(200), json!(9_000_000)),
        ],
    );
    stored(&up, id, 7);
    let mut page = browser.open(&up.url(&format!("/traces/{id}")));
    assert_eq!(page.texts(".span .badge.accent"), ["try 1 of 2", "try 2 of 2"]);
    assert_eq!(page.texts(".span.open-end .status"), ["no end"]);
    assert_eq!(page.texts(".errors li a strong"), ["user"]);
    page.follow(".jump");
    assert!(page.url().ends_with("open=1#s1"), "{}", page.url());
    page.wait_for("document.querySelector('#s1').open && document.querySelector('#s1.failed')");
    assert!(page.text("#s1 .inside pre").contains("1.10"), "numbers keep their digits");
    page.assert_looks("trace-failed");
    page.finish();
}

#[test]
fn ten_thousand_events_and_a_megabyte_of_body_make_a_small_page() {
    let Some(browser) = Browser::start() else { return };
    let up = start(CONFIG);
    let id = "33333333-0000-4000-8000-000000000001";
    let event = |at: usize| {
        let body =
            if at == 0 { json!({"big": "x".repeat(1 << 20)}) } else { json!({"n": at, "text": "y".repeat(300)}) };
        json!({"eventId": format!("33333333-0000-4000-9000-{at:012}"), "requestId": id, "traceId": id.replace('-', ""),
               "spanId": format!("{:016x}", at + 1), "parentId": (at > 0).then(|| format!("{:016x}", 1)), "event": "service.end",
               "serviceName": format!("service-{}", at % 7), "status": if at == 3_000 { 503 } else { 200 },
               "request": {"method": "GET", "url": "/x", "headers": {"A": "b".repeat(200)}, "body": body},
               "durationNs": 1_000_000, "timeMs": now_ms()})
    };
    for part in 0..5 {
        store(&up, &(part * 2_000..(part + 1) * 2_000).map(event).collect::<Vec<_>>());
    }
    stored(&up, id, 4_000);
    let mut page = browser.open(&up.url(&format!("/traces/{id}")));
    let notice = page.text(".notice");
    assert!(notice.contains("more events than a page reads; these are 4,000"), "{notice}");
    assert_eq!(page.count(".span"), 100);
    let whole = get(&up.admin, &format!("/traces/{id}")).expect("an answer").body;
    assert!(whole.len() < 200_000, "{} bytes", whole.len());
    page.follow(".pager [rel=next]");
    assert_eq!(page.count("#s100"), 1);
    let text = String::from_utf8_lossy(&whole);
    let file = get(&up.admin, &format!("/traces/{id}/download/json")).expect("an answer");
    assert!(file.header("content-disposition").is_some_and(|name| name.contains("-first-4000-events.json")));
    assert!(text.contains("This page is full") && text.contains("of 1.0 MiB"), "{}", text.len());
    page.finish();
}

#[test]
fn two_requests_are_compared() {
    let Some(browser) = Browser::start() else { return };
    let up = start(CONFIG);
    let json_type = [("Content-Type", "application/json")];
    traced(&up, "/api/user/login", &json_type, "{\"user\":\"alice\",\"same\":1}");
    traced(&up, "/api/user/login", &json_type, "{\"user\":\"<b>bob\",\"same\":1}");
    let mut page = browser.open(&up.url("/traces?action=user%2Flogin&event=request.end&order=oldest"));
    let count = page.count(".hits tbody tr");
    assert!(page.eval("document.querySelector('button[form=compare]').disabled").as_bool() == Some(true));
    page.click(&format!("#pick-{}", count - 2));
    page.click(&format!("#pick-{}", count - 1));
    page.follow("button[form=compare]");
    assert_eq!(page.count(".compared tbody tr"), 2);
    let (gone, come) = (page.texts(".diff del").join(""), page.texts(".diff ins").join(""));
    assert!(gone.contains("\"user\": \"alice\"") && come.contains("\"user\": \"<b>bob\""), "{gone} {come}");
    page.assert_looks("traces-compared");
    page.go(&up.url("/traces/compare?a=x"));
    assert_eq!(page.attribute("#a", "value").as_deref(), Some("x"));
    page.finish();
}

#[test]
fn a_request_is_sent_again_once_all_is_filled_in() {
    let Some(browser) = Browser::start() else { return };
    let up = start("callServiceKey: secret\nservices: {user: {login: /login}}\n");
    let headers = [("Content-Type", "application/json"), ("Authorization", "Bearer old")];
    let id = traced(&up, "/api/user/login", &headers, "{\"user\":\"alice\"}");
    let mut page = browser.open(&up.url(&format!("/traces/{id}")));
    page.follow("a[href$='/replay']");
    assert!(page.text("form.replay").contains("Send it although it may change something"));
    page.assert_looks("trace-replay");
    page.follow("form.replay button");
    assert!(page.text(".notice.bad").contains("header `Authorization` was redacted"), "{}", page.text(".notice.bad"));
    page.eval("document.querySelector('#headers').value = document.querySelector('#headers').value.replace('[redacted]', 'new')");
    page.follow("form.replay button");
    assert!(page.text(".notice.bad").contains("may change something"), "{}", page.text(".notice.bad"));
    page.eval("document.querySelector('#body').value = JSON.stringify({user: '<b>bob'})");
    page.click("#sure");
    page.follow("form.replay button");
    assert_eq!(page.text("h1"), "Sent again");
    assert!(page.text(".inside pre").contains("<b>bob"), "{}", page.text(".inside pre"));
    page.assert_looks("trace-replayed");
    let compare = page.attribute("a[href*='/traces/compare']", "href").expect("a link");
    let new_id = compare.split("b=").nth(1).expect("an id").to_owned();
    stored(&up, &new_id, 4);
    page.go(&up.url(&compare));
    assert!(page.texts(".diff ins").join("").contains("<b>bob"));

    // the service's own call, to a node of it, with the call key that the node wants
    page.go(&up.url(&format!("/traces/{id}/replay?row=1")));
    assert_eq!(page.count("#node option"), 3);
    page.eval("document.querySelector('#headers').value = 'Content-Type: application/json'");
    page.click("#sure");
    page.follow("form.replay button");
    assert_eq!(page.texts(".sides .badge"), ["200", "200"]);
    page.take_problems(); // Chromium logs each 422 of a page
    page.finish();

    let form = "row=0&node=127.0.0.1%3A1&method=GET&target=%2F";
    let page = get(&up.admin, &format!("/traces/{id}/replay")).expect("an answer").text();
    let csrf = page.split("name=\"csrf\" content=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    let send = |headers: &[(&str, &str)]| {
        let headers = [&[("Content-Type", "application/x-www-form-urlencoded")], headers].concat();
        let path = format!("/traces/{id}/replay");
        request("POST", &up.admin, &path, &headers, Some(form.as_bytes())).expect("an answer")
    };
    assert_eq!(send(&[]).status, 403);
    assert_eq!(send(&[("X-CSRF-Token", csrf), ("Sec-Fetch-Site", "cross-site")]).status, 403);
    let refused = send(&[("X-CSRF-Token", csrf)]);
    assert!(refused.text().contains("is no node of gateway"), "{}", refused.text());
}

#[test]
fn the_tail_follows_pauses_and_goes_on_after_a_break() {
    let Some(browser) = Browser::start() else { return };
    let up = start(CONFIG);
    let json_type = [("Content-Type", "application/json")];
    let mut page = browser.open(&up.url("/traces/tail?event=request.end"));
    page.wait_for_text("#live-state", "Live");
    traced(&up, "/api/user/login?n=1", &json_type, "{}");
    page.wait_for_text("#tail tbody", "/api/user/login?n=1");
    let rows = "[...document.querySelectorAll('#tail tbody tr')].filter(row => row.innerText.includes('?n=')).length";
    assert_eq!(page.eval(rows), json!(1), "only what ended at the gateway");
    page.assert_looks("traces-tail");
    page.click("#tail-pause");
    traced(&up, "/api/user/login?n=2", &json_type, "{}");
    page.wait_for_text("#tail-count", "1 wait");
    assert_eq!(page.eval(rows), json!(1));
    page.click("#tail-pause");
    page.wait_for_text("#tail tbody", "?n=2");
    // what the browser does by itself after a break: it comes again, and says up to when it has seen
    let stream = |last: Option<i64>| {
        use std::io::{BufRead, BufReader, Write};
        let mut socket = std::net::TcpStream::connect(&up.admin).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let last = last.map_or_else(String::new, |last| format!("Last-Event-ID: {last}\r\n"));
        let head = format!("GET /live/traces?event=request.end HTTP/1.1\r\nHost: {}\r\n{last}\r\n", up.admin);
        socket.write_all(head.as_bytes()).expect("sent");
        let lines = BufReader::new(socket).lines().map_while(Result::ok);
        lines.into_iter().find(|line| line.starts_with("data: ")).expect("a message")
    };
    let told = stream(Some(now_ms() - 300_000));
    assert!(told.contains("?n=1") && told.contains("?n=2"), "{told}");
    page.finish();
    // a stream does not hold up the end of the process
    let code = up.goms.terminate();
    assert_eq!(code, 0);
}

#[test]
fn a_store_that_is_away_is_said_on_the_page() {
    let Some(browser) = Browser::start() else { return };
    let folder = crate::support::goms::Folder::new();
    let flags = ["gateway", "--http-port", "0", "--rpc-port", "0", "--admin-port", "0"];
    let (_gateway, admin) = super::with_admin(&folder, &flags);
    crate::support::http::wait_for_status(&admin, "/readyz", 200);
    let mut page = browser.open(&format!("http://{admin}/traces"));
    page.wait_for_text(".notice", "The trace store is away");
    assert!(page.text(".notice").contains("goms trace-consumer"), "{}", page.text(".notice"));
    assert_eq!(get(&admin, "/traces").expect("an answer").status, 503);
    page.assert_looks("traces-away");
    page.take_problems(); // Chromium logs each 503 of a page
    page.finish();
}

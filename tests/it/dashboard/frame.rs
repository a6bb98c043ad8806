//! What every page has: the frame, the files that it names, and what keeps visitors safe.

use super::Up;
use crate::support::browser::Browser;
use crate::support::http::{get, request};

#[test]
fn curl_gets_text_and_a_browser_a_page() {
    let up = Up::start(&[]);
    let text = get(&up.admin, "/").expect("an answer");
    assert!(text.status == 200 && text.text().starts_with("goms admin port: /healthz /readyz"), "{}", text.text());
    assert_eq!(get(&up.admin, "/api").expect("an answer").body, text.body);
    let html = [("Accept", "text/html,application/xhtml+xml")];
    let page = request("GET", &up.admin, "/", &html, None).expect("an answer");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let policy = page.header("content-security-policy").expect("a policy");
    for part in
        ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let text = page.text();
    assert!(!text.contains(" style=") && !text.contains("<script>") && !text.contains(" onclick="), "{text}");
    // what a page names is kept for ever, under an address that only this text has
    let assets: Vec<&str> = text.split('"').filter(|part| part.starts_with("/assets/")).collect();
    assert!(assets.len() >= 3, "{assets:?}");
    for asset in assets {
        let answer = get(&up.admin, asset).expect("an answer");
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("public, max-age=31536000, immutable")));
        assert!(answer.header("content-security-policy").is_some());
    }
    assert_eq!(get(&up.admin, "/assets/0000000000000000/dashboard.css").expect("an answer").status, 404);
    for path in ["/healthz", "/readyz", "/metrics", "/api/nodes", "/api/cluster", "/api/routes", "/api/keys"] {
        assert_eq!(get(&up.admin, path).expect("an answer").status, 200, "{path}");
    }
}

#[test]
fn what_goes_wrong_on_a_page_is_noticed() {
    let Some(browser) = Browser::start() else { return };
    let up = Up::start(&[]);
    let mut page = browser.open(&up.url("/"));
    assert_eq!(page.take_problems(), Vec::<String>::new());
    page.eval("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))");
    page.eval("document.body.setAttribute('style', 'color: red')");
    page.eval("setTimeout(() => { throw new Error('thrown') }); console.error('told')");
    page.eval("fetch('/nothing').then(() => 0)");
    let problems = page.take_problems().join("\n");
    for part in ["script-src 'self'", "style-src 'self'", "thrown", "told", "404"] {
        assert!(problems.contains(part), "`{part}` was not noticed:\n{problems}");
    }
    assert_eq!(page.eval("window.ran ?? null"), serde_json::Value::Null, "an inline script does not run");
    page.finish();
}

#[test]
fn a_page_that_is_none_says_where_to_go() {
    let Some(browser) = Browser::start() else { return };
    let up = Up::start(&[]);
    let mut page = browser.open(&up.url("/no/such/page"));
    assert!(page.take_problems().join("").contains("404"));
    assert_eq!(page.text("h1"), "Not found");
    page.assert_readable("not found");
    page.follow("main a");
    assert_eq!(page.text("h1"), "Overview");
    page.finish();
}

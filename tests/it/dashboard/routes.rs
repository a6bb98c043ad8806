//! The routes in force, and which of them takes a request.

use super::Up;
use crate::support::browser::Browser;
use crate::support::http::get;

const CONFIG: &str = "
services:
  user:
    login: { path: /login, methods: [GET, POST], timeout: 3s, rateLimit: 2/h }
  order: { submit: /order/submit }
routes:
  - { name: shop, match: { path: \"/shop/*\", headers: { x-kind: \"<b>bold</b>\" } }, service: shop, rewrite: /* }
  - { match: { path: /old }, redirect: { to: /new, status: 301 } }
";

#[test]
fn routes_are_shown_with_what_they_count_and_explained() {
    let Some(browser) = Browser::start() else { return };
    let folder = crate::support::goms::Folder::new();
    let config = folder.write("config.yml", CONFIG);
    let up = Up::start(&["--config", &config]);
    for status in [200, 200, 429] {
        assert_eq!(get(&up.gateway, "/api/user/login").expect("an answer").status, status);
    }
    assert_eq!(get(&up.gateway, "/api/order/submit").expect("an answer").status, 503, "nobody serves it");
    let mut page = browser.open(&up.url("/routes"));
    assert_eq!(page.count(".routes tbody tr"), 4);
    page.wait_for_text("main", "4 in force");
    let row = |name: &str| {
        format!(
            "[...document.querySelectorAll('.routes tbody tr')].find(r => r.querySelector('summary')?.innerText === '{name}')"
        )
    };
    let cells = |page: &mut crate::support::browser::Page, name: &str| {
        page.eval(&format!("[...{}.cells].slice(4).map(c => c.innerText)", row(name)))
    };
    assert_eq!(cells(&mut page, "user/login"), serde_json::json!(["3", "0%", "1"]));
    assert_eq!(cells(&mut page, "order/submit"), serde_json::json!(["1", "100.0%", "0"]));
    page.click(".routes tbody tr:nth-child(1) summary");
    page.wait_for("document.querySelector('.routes details[open]')");
    let opened = page.text(".routes details[open]");
    assert!(opened.contains("stands in"), "{opened}");
    page.assert_looks("routes");
    // as a form
    page.fill("#url", "/shop/<script>?a=1");
    page.fill("#headers", "x-kind: <b>bold</b>");
    page.follow("form.filters button.primary");
    page.wait_for_text("#explained", "taken by shop");
    page.fill("#headers", "");
    page.press("Backspace");
    page.follow("form.filters button.primary");
    page.wait_for_text("#explained", "refused");
    page.wait_for_text("#explained", "the header `x-kind` is not");
    page.assert_looks("routes-explained");
    page.fill("#url", "/api/user/login");
    page.choose("#method", "DELETE");
    page.follow("form.filters button.primary");
    page.wait_for_text("#explained", "the method is not");
    assert_eq!(page.attribute("#url", "value").as_deref(), Some("/api/user/login"));
    page.fill("input[name=q]", "shop");
    page.submit();
    assert_eq!(page.count(".routes tbody tr"), 1);
    page.fill("input[name=q]", "<nothing>");
    page.submit();
    page.wait_for_text("main", "No route is like that");
    page.finish();
}

//! A request of one's own.

use super::Up;
use crate::support::browser::Browser;

#[test]
fn a_request_is_sent_and_leads_to_its_trace() {
    let Some(browser) = Browser::start() else { return };
    let up = Up::start(&[]);
    let mut page = browser.open(&up.url("/playground"));
    assert!(page.text("#to option").starts_with("gateway 127.0.0.1:"), "the front door is the first choice");
    page.choose("#method", "POST");
    page.fill("#target", "/api/user/login?a=<b>");
    page.fill("#headers", "content-type: application/json");
    page.fill("#body", "{\"username\": \"<script>window.ran=1</script>\"}");
    page.follow("#send");
    page.wait_for_text("#answer", "200");
    page.wait_for_text("#answer pre", "<script>window.ran=1</script>");
    page.wait_for_text("#answer pre", "\"status\": true");
    assert_eq!(page.eval("window.ran ?? null"), serde_json::Value::Null);
    assert_eq!(page.eval("document.querySelector('#target').value"), "/api/user/login?a=<b>", "to be sent again");
    page.assert_looks("playground");
    let id = page.attribute("#answer a.button", "href").expect("a trace").rsplit('/').next().expect("an id").to_owned();
    super::traces_of(&up, &id);
    page.follow("#answer a.button");
    page.wait_for_text("main", "user");
    page.go(&up.url("/playground"));
    page.fill("#target", "no-path");
    page.follow("#send");
    page.wait_for_text("#fault", "begins with `/`");
    assert!(page.take_problems().iter().all(|problem| problem.contains("422")));
    page.finish();
}

//! The first page, on real traffic.

use super::Up;
use crate::support::browser::Browser;
use crate::support::http::{get, request};

#[test]
fn traffic_shows_by_itself() {
    let Some(browser) = Browser::start() else { return };
    let up = Up::start(&[]);
    let mut page = browser.open(&up.url("/"));
    page.wait_for_text("#live-state", "Live");
    page.wait_for_text("#services", "No requests in the last 15 minutes");
    page.wait_for_text("#services", "user");
    page.assert_looks("overview-quiet");
    for number in 0..30 {
        let path = format!("/api/user/login?number={number}");
        assert_eq!(get(&up.gateway, &path).expect("an answer").status, 200);
    }
    let service = |name: &str| format!("document.querySelector('.services a[href=\"/services/{name}\"]')");
    page.wait_for(&format!("{}?.closest('tr').querySelector('svg.spark .line')", service("user")));
    page.wait_for("document.querySelector('#summary dd').innerText !== '0/s'");
    assert_eq!(page.count("#services svg.errors"), 0);
    let row = page.eval(&format!("{}.closest('tr').innerText", service("user"))).to_string();
    assert!(row.contains("0%") && (row.contains("ms") || row.contains("µs")), "{row}");
    page.assert_looks("overview");
    page.finish();
}

#[test]
fn what_requests_bring_is_only_text() {
    let Some(browser) = Browser::start() else { return };
    let up = Up::start(&[]);
    let long = "long".repeat(2_500);
    let hostile =
        ["%3Cscript%3Ewindow.ran=1%3C/script%3E", "%22%3E%3Cimg%20src=x%20onerror=alert(1)%3E", "%E2%80%AErtl", &long];
    for path in hostile {
        let headers = [("User-Agent", "<script>window.ran=1</script>"), ("X-Quote", "\"'><svg onload=alert(1)>")];
        let path = format!("/api/user/login?q={path}");
        let answer = request("POST", &up.gateway, &path, &headers, Some(b"username=<script>window.ran=1</script>"));
        answer.expect("an answer");
    }
    let mut page = browser.open(&up.url("/"));
    page.wait_for("document.querySelector('.services svg.spark .line')");
    assert_eq!(page.eval("window.ran ?? null"), serde_json::Value::Null);
    page.finish();
}

#[test]
fn a_node_that_leaves_and_a_reload_are_told() {
    let Some(browser) = Browser::start() else { return };
    let folder = crate::support::goms::Folder::new();
    let config = folder.write("config.yml", "services: {user: {login: /login}}\n");
    let up = Up::start(&["--config", &config]);
    let mut page = browser.open(&up.url("/"));
    page.wait_for_text("#nodes", "5 ready");
    let node = crate::support::http::get(&up.admin, "/api/cluster").expect("an answer").json();
    let user = node.as_array().expect("nodes").iter().find(|node| node["service"] == "user").expect("a node").clone();
    let name = user["node"].as_str().expect("a name").to_owned();
    let drained = crate::support::goms::run(up.folder.path(), &["cluster", "drain", &name]);
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    page.wait_for_text("#nodes", "1 draining");
    page.wait_for_text("#happened", name.rsplit('_').next().expect("an address"));
    folder.write("config.yml", "services: {user: {login: /login}, order: {submit: /order/submit}}\n");
    page.wait_for_text("#happened", "reloaded");
    folder.write("config.yml", "services: {user: {logn: {pth: <b>}}}\n");
    page.wait_for_text("#happened", "stays in force");
    page.wait_for_text("#happened", "pth");
    page.assert_looks("overview-happened");
    page.finish();
}

#[test]
fn the_keyboard_reaches_everything_and_stays_where_it_was() {
    let Some(browser) = Browser::start() else { return };
    let up = Up::start(&[]);
    assert_eq!(get(&up.gateway, "/api/user/login").expect("an answer").status, 200);
    let mut page = browser.open(&up.url("/"));
    page.press("Tab");
    assert_eq!(page.eval("document.activeElement.className"), "skip");
    page.press("Enter");
    assert_eq!(page.eval("document.activeElement.id"), "main");
    page.wait_for_text("#live-state", "Live");
    let on_user = "document.activeElement.getAttribute('href') === '/services/user'";
    for _ in 0..30 {
        page.press("Tab");
        if page.eval(on_user) == true {
            break;
        }
    }
    assert_eq!(page.eval(on_user), true, "the service can be reached");
    page.eval("window.before = document.activeElement; 0");
    for _ in 0..5 {
        get(&up.gateway, "/api/user/login").expect("an answer");
    }
    page.wait_for("window.before !== document.activeElement");
    assert_eq!(page.eval(on_user), true, "what has the keyboard keeps it when its table is new");
    page.finish();
}

#[test]
fn a_stream_comes_back_after_a_break() {
    let Some(browser) = Browser::start() else { return };
    let mut up = Up::start(&["--drain-timeout", "1s"]);
    let mut page = browser.open(&up.url("/"));
    page.wait_for_text("#live-state", "Live");
    let port = up.admin.rsplit(':').next().expect("a port").to_owned();
    up.goms.signal("TERM");
    assert_eq!(up.goms.exit_code(), 0, "an open stream holds up no end: {}", up.goms.log());
    page.wait_for_text("#live-state", "Connection lost");
    let args = ["up", "--http-port", "0", "--rpc-port", "0", "--admin-port", &port];
    let again = crate::support::goms::Goms::start_in(up.folder.path(), &args);
    again.wait_for("  dashboard       http://");
    page.wait_for_text("#live-state", "Live");
    page.wait_for_text("#happened", "join");
    page.take_problems(); // the connection that was refused
    page.finish();
    assert_eq!(again.terminate(), 0);
}

//! Two thousand nodes, and the page of one service.

use super::Up;
use crate::service::RUNTIME;
use crate::support::browser::Browser;
use crate::support::goms::{Folder, Goms};
use crate::support::http::{get, request};
use crate::support::origin::{Origin, Reply};

/// A gateway whose registry is a file with these nodes of service `user`; gives the address of its admin port.
fn gateway(folder: &Folder, nodes: usize) -> (Goms, String) {
    let mut listing = "services:\n  user:\n".to_owned();
    for node in 0..nodes {
        let state = if node % 500 == 7 { ", draining: true" } else { "" };
        let (high, low) = (node / 250, node % 250 + 1);
        listing.push_str(&format!(
            "    - {{ http: \"10.1.{high}.{low}:80\", version: \"1.{}\", zone: z{}{state} }}\n",
            node % 3,
            node % 2
        ));
    }
    let file = folder.write("nodes.yml", &listing);
    let config = folder.write("config.yml", "services: {user: {login: /login}}\n");
    let args = ["gateway", "--bind", "127.0.0.1", "--http-port", "0", "--rpc-port", "0", "--admin-port", "0"];
    let more = ["--registry", "static", "--registry-address", &file, "--config", &config];
    let (goms, admin) = super::with_admin(folder, &[&args[..], &more[..]].concat());
    crate::support::http::wait_for_status(&admin, "/readyz", 200);
    (goms, admin)
}

#[test]
fn two_thousand_nodes_are_a_small_page() {
    let folder = Folder::new();
    let (_goms, admin) = gateway(&folder, 2_000);
    let html = [("Accept", "text/html")];
    for path in ["/", "/services/user", "/services/user?state=ready&page=40"] {
        let began = std::time::Instant::now();
        let page = request("GET", &admin, path, &html, None).expect("an answer");
        eprintln!("{path}: {} bytes in {:?}", page.body.len(), began.elapsed());
        assert_eq!(page.status, 200, "{path}");
        assert!(page.body.len() < 200_000, "{path}: {} bytes", page.body.len());
    }
    let Some(browser) = Browser::start() else { return };
    let mut page = browser.open(&format!("http://{admin}/"));
    page.wait_for_text("#nodes", "4 draining");
    page.wait_for_text("#services", "1,996 of 2,000");
    page.assert_looks("overview-2000");
    page.follow("#services a[href='/services/user']");
    assert_eq!(page.text("h1"), "user");
    assert_eq!(page.count("#nodes tbody tr"), 50);
    page.wait_for_text("#nodes", "Page 1 of 40, 2,000 nodes");
    assert_eq!(page.texts("#nodes tbody .badge")[..5], ["draining", "draining", "draining", "draining", "ready"]);
    page.assert_looks("service-2000");
    page.follow("#nodes .pager a[rel=next]");
    page.wait_for_text("#nodes", "Page 2 of 40");
    page.fill("input[name=q]", "10.1.3.");
    page.choose("select[name=state]", "ready");
    page.follow("form.filters button");
    page.wait_for_text("#nodes", "Page 1 of 5, 250 nodes");
    assert!(page.texts("#nodes tbody td:first-child").iter().all(|address| address.starts_with("10.1.3.")));
    page.fill("input[name=q]", "<script>nobody</script>");
    page.submit();
    page.wait_for_text("#nodes", "No node is like that");
    page.finish();
}

#[test]
fn a_service_shows_its_traffic() {
    let Some(browser) = Browser::start() else { return };
    let up = Up::start(&[]);
    for _ in 0..20 {
        assert_eq!(get(&up.gateway, "/api/user/login").expect("an answer").status, 200);
    }
    let mut page = browser.open(&up.url("/services/user?range=1h"));
    page.wait_for("document.querySelector('#numbers svg .line')?.getAttribute('d').length > 100");
    assert_eq!(page.count("#nodes tbody tr"), 3);
    let answered: u32 =
        page.texts("#nodes tbody td:nth-child(4)").iter().map(|count| count.parse::<u32>().expect("a number")).sum();
    assert_eq!(answered, 20);
    assert_eq!(page.attribute(".links a", "href").as_deref(), Some("/traces?service=user&since=1h"));
    page.assert_looks("service");
    page.go(&up.url("/services/%3Cscript%3E"));
    assert!(page.take_problems().join("").contains("404"));
    assert_eq!(page.text("h1"), "No such service");
    page.finish();
}

#[test]
fn a_service_is_shown_as_other_gateways_see_it() {
    let folder = Folder::new();
    let slow = RUNTIME.block_on(Origin::start(|_, _| Reply::Never));
    let config = folder.write("config.yml", "services: {shop: {stock: /stock}}\n");
    let with = |args: &[&str]| -> Vec<String> {
        let more =
            ["--bind", "127.0.0.1", "--http-port", "0", "--rpc-port", "0", "--admin-port", "0", "--config", &config];
        args.iter().chain(&more).map(|arg| (*arg).to_owned()).collect()
    };
    let start = |args: &[&str]| {
        let args = with(args);
        super::with_admin(&folder, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let app = format!("http://{}", slow.address);
    let (_shop, shop) = start(&["service", "shop", "--app", &app]);
    crate::support::http::wait_for_status(&shop, "/readyz", 200);
    let (_one, one) = start(&["gateway"]);
    let (other, two) = start(&["gateway"]);
    for admin in [&one, &two] {
        crate::support::http::wait_for_status(admin, "/readyz", 200);
    }
    let line = other.wait_for("Http Listen on port: ");
    let door = format!("127.0.0.1:{}", line.trim_end().rsplit(' ').next().expect("a port"));
    let waiting = std::thread::spawn(move || get(&door, "/api/shop/stock"));
    let html = [("Accept", "text/html")];
    let deadline = std::time::Instant::now() + crate::support::goms::PATIENCE;
    let seen = loop {
        let page = request("GET", &one, "/services/shop", &html, None).expect("an answer").text();
        let seen = page.split("As seen by gateway").nth(1).map(str::to_owned);
        match seen.filter(|seen| seen.contains(&two)) {
            Some(seen) => break seen,
            None => assert!(std::time::Instant::now() < deadline, "{page}"),
        }
    };
    assert!(seen.contains("<td class=\"num\">1</td>"), "{seen}");
    let own = get(&one, "/api/balance").expect("an answer").json();
    assert_eq!(own["nodes"], serde_json::json!([]), "the first gateway sends nothing there");
    assert_eq!(get(&two, "/api/balance").expect("an answer").json()["nodes"][0]["inFlight"], 1);
    drop(slow);
    waiting.join().expect("no panic").expect("an answer");
}

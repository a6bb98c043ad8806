//! What a gateway asks of clients, from the file to the answer, and what is said of it.

use super::gateway;
use crate::support::goms::{Folder, run};
use crate::support::http::{get, wait_for_status};

const OPEN: &str = "routes: [{ match: { path: /hello }, respond: { body: hello } }]\n";
const GUARDED: &str = "auth: { partners: { apiKeys: { query: key, keys: { acme: the key of acme long } } } }
defaults: { auth: partners, rateLimit: 1000/m, cors: 'https://a.test' }
routes: [{ match: { path: /hello }, respond: { body: hello } }]
";

#[test]
fn a_route_is_guarded_from_one_moment_to_the_next_and_one_can_see_it() {
    let folder = Folder::new();
    let config = folder.write("config.yml", OPEN);
    let with = ["--config", config.as_str()];
    let (gateway, address) = gateway(&folder, &with);
    wait_for_status(&address, "/hello", 200);
    folder.write("config.yml", GUARDED);
    gateway.wait_for("config reloaded");
    assert_eq!(get(&address, "/hello").expect("an answer").status, 401);
    assert_eq!(get(&address, "/cluster").expect("an answer").status, 401, "the gateway's own page too");
    let key = "key=the%20key%20of%20acme%20long";
    assert_eq!(get(&address, &format!("/cluster?{key}")).expect("an answer").status, 200);
    let answer = get(&address, "/hello?key=the%20key%20of%20acme%20long").expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    assert_eq!(answer.header("ratelimit-policy"), Some("\"route\";q=1000;w=60"));
    assert!(!gateway.log().contains("a restart is needed"), "{}", gateway.log());
    assert!(!gateway.log().contains("the key of") && !gateway.log().contains("the%20key"), "{}", gateway.log());

    let text = |args: &[&str]| {
        let shown = run(folder.path(), &[args, &with[..]].concat());
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    let explained = text(&["explain", "GET", "/hello"]);
    for line in ["auth      partners", "rateLimit 1000/60s by route", "cors      https://a.test"] {
        assert!(explained.contains(line), "{line} in\n{explained}");
    }
    let explained: serde_json::Value =
        serde_json::from_str(&text(&["explain", "GET", "/hello", "--output", "json"])).expect("JSON");
    assert_eq!(explained["terms"]["auth"], "partners");
    let printed = text(&["config", "print"]);
    assert!(printed.contains("query: key") && printed.contains("auth:\n  - partners"), "{printed}");
    assert!(!printed.contains("the key of acme"), "{printed}");
}

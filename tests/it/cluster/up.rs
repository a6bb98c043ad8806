//! `goms up`: nothing but the binary.

use super::{four_events, until};
use crate::support::goms::{Folder, Goms, run};
use crate::support::http::request;

#[test]
fn a_cluster_from_nothing_answers_traces_and_ends_cleanly() {
    let folder = Folder::new();
    let mut up = Goms::start_in(folder.path(), &["up", "--http-port", "0", "--rpc-port", "0"]);
    let address = up.wait_for("  gateway         http://").rsplit('/').next().expect("an address").to_owned();
    // the line that it tells its user to paste
    let curl = up.wait_for("curl -i ");
    assert!(
        curl.contains(&format!("'http://{address}/api/user/login?a=1&b=3' -d 'username=test&password=test'")),
        "{curl}"
    );
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let answer = request("POST", &address, "/api/user/login?a=1&b=3", &form, Some(b"username=test&password=test"))
        .expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    assert_eq!(json["data"]["body"], serde_json::json!({"username": "test", "password": "test"}));
    assert_eq!((json["data"]["urlParam"].as_str(), json["status"].as_bool()), (Some("?a=1&b=3"), Some(true)));
    let id = answer.header("x-request-id").expect("an id").to_owned();

    let events = four_events(&folder, &id, &[]);
    let mut kinds: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["request.end", "request.start", "service.end", "service.start"]);
    let search = run(folder.path(), &["trace", "search"]);
    let table = String::from_utf8_lossy(&search.stdout).into_owned();
    assert!(table.contains("4 of 4 events") && table.matches(&id).count() == 1, "{table}");
    let drawn = run(folder.path(), &["trace", "show", &id]);
    let drawn = String::from_utf8_lossy(&drawn.stdout).into_owned();
    assert!(drawn.contains("4 events: request.start, service.start, service.end, request.end"), "{drawn}");

    let status = run(folder.path(), &["cluster", "status", "--output", "json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&status.stdout).expect("rows");
    let of = |service: &str| rows.iter().filter(|row| row["service"] == service).count();
    assert_eq!((of("gateway"), of("user"), of("traceConsumer")), (1, 3, 1));
    let answered: u64 =
        rows.iter().filter(|row| row["service"] == "user").filter_map(|row| row["answered"].as_u64()).sum();
    assert_eq!(answered, 1);

    up.signal("INT");
    assert_eq!(up.exit_code(), 0);
    assert!(!up.log().contains("ERROR") && !up.log().contains("WARN"), "{}", up.log());
}

#[test]
fn an_authorization_and_a_call_key_never_reach_the_store() {
    let folder = Folder::new();
    let config = folder.write("config.yml", "callServiceKey: the-real-key\nservices: {user: {login: /login}}\n");
    let args = ["up", "--http-port", "0", "--rpc-port", "0", "--config", &config];
    let up = Goms::start_in(folder.path(), &args);
    let address = up.wait_for("  gateway         http://").rsplit('/').next().expect("an address").to_owned();
    let headers = [
        ("Authorization", "Bearer hidden-1"),
        ("Cookie", "session=hidden-2"),
        ("Call-Service-Key", "hidden-3"),
        ("Proxy-Authorization", "hidden-4"),
    ];
    let answer = request("GET", &address, "/api/user/login", &headers, None).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.text().contains("the-real-key") && !answer.text().contains("hidden-3"), "{}", answer.text());
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let events = four_events(&folder, &id, &["--config", &config]);
    let text = serde_json::to_string(&events).expect("json");
    assert!(!text.contains("hidden-") && !text.contains("the-real-key"), "{text}");
    assert_eq!(text.matches("\"Authorization\":\"[redacted]\"").count(), 4, "{text}");
    assert_eq!(up.terminate(), 0);
}

#[test]
fn a_second_cluster_on_the_same_ports_says_which() {
    let folder = Folder::new();
    let up = Goms::start_in(folder.path(), &["up", "--http-port", "0", "--rpc-port", "0"]);
    let address = up.wait_for("  gateway         http://").rsplit('/').next().expect("an address").to_owned();
    let port = address.rsplit(':').next().expect("a port");
    let second = run(folder.path(), &["up", "--http-port", port, "--rpc-port", "0"]);
    assert_eq!(second.status.code(), Some(69));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&format!("cannot listen on {address}")) && said.contains("`--http-port`"), "{said}");
    until("the first goes on", || {
        (request("GET", &address, "/api/user/login", &[], None).ok()?.status == 200).then_some(())
    });
    assert_eq!(up.terminate(), 0);
}

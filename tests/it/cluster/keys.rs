//! `goms cluster keys`: a call key is changed step by step.

use serde_json::Value;

use super::{four_events, gateway, service, until};
use crate::support::goms::{Folder, Goms, run};
use crate::support::http::{get, wait_for_status};

// of `a new key` and `an old key`
const NEW: &str = "69e899ee1a6b";
const OLD: &str = "adbffb221d91";

/// Fingerprint, whether it signs, and whether it was used, of each key of the node of this service.
fn keys(folder: &Folder, service: &str) -> Vec<(String, bool, bool)> {
    let shown = run(folder.path(), &["cluster", "keys", "--output", "json"]);
    let rows: Value = serde_json::from_slice(&shown.stdout).unwrap_or_else(|error| panic!("{error}: {shown:?}"));
    let row = rows.as_array().expect("rows").iter().find(|row| row["service"] == service).expect("the node");
    let keys = row["keys"].as_array().unwrap_or_else(|| panic!("{row}")).iter();
    let text = |key: &Value| key["fingerprint"].as_str().unwrap_or_default().to_owned();
    keys.map(|key| (text(key), key["signs"] == true, key["lastUsedMs"].as_i64().is_some_and(|ms| ms > 0))).collect()
}

#[test]
fn one_sees_when_the_old_key_can_go() {
    let folder = Folder::new();
    let both = folder.write("both.yml", "callServiceKey: [a new key, an old key]\nservices: {user: {login: /login}}\n");
    let old = folder.write("gateway.yml", "callServiceKey: an old key\nservices: {user: {login: /login}}\n");
    let (_user, _) = service(&folder, "user", &["--config", &both]);
    let (gateway, address) = gateway(&folder, &["--config", &old]);
    until("both nodes", || {
        let shown = run(folder.path(), &["cluster", "keys", "--output", "json"]);
        let rows: Value = serde_json::from_slice(&shown.stdout).ok()?;
        (rows.as_array()?.len() == 2).then_some(())
    });
    assert_eq!(keys(&folder, "user"), [(NEW.to_owned(), true, false), (OLD.to_owned(), false, false)]);
    assert_eq!(keys(&folder, "gateway"), [(OLD.to_owned(), true, false)]);
    wait_for_status(&address, "/api/user/login", 200);
    assert_eq!(keys(&folder, "user"), [(NEW.to_owned(), true, false), (OLD.to_owned(), false, true)]);

    folder.write("gateway.yml", "callServiceKey: [a new key, an old key]\nservices: {user: {login: /login}}\n");
    gateway.wait_for("config reloaded");
    assert_eq!(get(&address, "/api/user/login").expect("an answer").status, 200);
    assert_eq!(keys(&folder, "gateway"), [(NEW.to_owned(), true, false), (OLD.to_owned(), false, false)]);
    assert_eq!(keys(&folder, "user"), [(NEW.to_owned(), true, true), (OLD.to_owned(), false, true)]);

    let shown = run(folder.path(), &["cluster", "keys"]);
    let table = String::from_utf8_lossy(&shown.stdout).into_owned();
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["SERVICE", "ADDRESS", "KEY", "SIGNS", "LAST", "USED"], "{table}");
    assert_eq!((words[1][0], &words[1][2..]), ("gateway", &[NEW, "yes", "-"][..]), "{table}");
    assert_eq!((words[3][0], words[3][2], words[3].last()), ("user", NEW, Some(&"ago")), "{table}");
    assert!(!table.contains("key "), "no key itself: {table}");
}

/// What a gateway sends to a consumer, and what its dashboard asks of one, is signed with the key that is in force now.
#[test]
fn traces_follow_the_key_of_a_reloaded_gateway() {
    let folder = Folder::new();
    let with = |key: &str| format!("callServiceKey: {key}\nservices: {{user: {{login: /login}}}}\n");
    let (theirs, own) = (folder.write("theirs.yml", &with("a new key")), folder.write("own.yml", &with("an old key")));
    let args = ["trace-consumer", "--http-port", "0", "--rpc-port", "0", "--bind", "127.0.0.1", "--config", &theirs];
    let consumer = Goms::start_in(folder.path(), &args);
    consumer.wait_for("Registering node");
    let (_user, _) = service(&folder, "user", &["--config", &theirs]);
    let (gateway, address) = gateway(&folder, &["--config", &own, "--admin-port", "0", "-v"]);
    let admin = gateway.wait_for("admin port address=").rsplit('=').next().expect("an address").to_owned();
    wait_for_status(&address, "/api/user/login", 502);
    let page = get(&admin, "/traces").expect("a page").text();
    assert!(page.contains("callServiceKey"), "the page says what is wrong: {page}");

    folder.write("own.yml", &with("a new key"));
    gateway.wait_for("config reloaded");
    let answer = get(&address, "/api/user/login").expect("an answer");
    assert_eq!(answer.status, 200);
    let id = answer.header("x-request-id").expect("an id").to_owned();
    assert_eq!(four_events(&folder, &id, &["--config", &theirs]).len(), 4);
    let page = get(&admin, &format!("/traces/{id}")).expect("a page");
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.text().contains("/api/user/login"), "{}", page.text());
}

#[test]
fn without_a_key_there_is_no_guard_and_it_says_so() {
    let folder = Folder::new();
    let (_user, _) = service(&folder, "user", &[]);
    let table = until("the node", || {
        let shown = run(folder.path(), &["cluster", "keys"]);
        let table = String::from_utf8_lossy(&shown.stdout).into_owned();
        (table.lines().count() == 2).then_some(table)
    });
    assert!(table.ends_with("no guard\n"), "{table}");
}

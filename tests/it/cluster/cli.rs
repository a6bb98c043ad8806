//! The command line as its users meet it: exit codes and messages.

use crate::support::goms::{Folder, run};

fn outcome(folder: &Folder, args: &[&str]) -> (i32, String, String) {
    let ended = run(folder.path(), args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ended.status.code().unwrap_or(-1), text(&ended.stdout), text(&ended.stderr))
}

#[test]
fn versions_in_every_spelling() {
    let folder = Folder::new();
    for flag in ["--version", "-V", "-version"] {
        assert_eq!(outcome(&folder, &[flag]), (0, format!("goms {}\n", env!("CARGO_PKG_VERSION")), String::new()));
    }
}

#[test]
fn a_wrong_command_line_is_64_and_a_wrong_config_78() {
    let folder = Folder::new();
    let (code, _, said) = outcome(&folder, &["gatway"]);
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("gateway"), "{said}");
    let (code, _, said) = outcome(&folder, &["gateway", "--config", "missing.yml"]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("missing.yml"), "{said}");
    let bad = folder.write(
        "bad.yml",
        "callServicekeys: x\nservices:\n  user:\n    login: login\n    logout: {path: /o, timeout: 0s}\n",
    );
    let (code, _, said) = outcome(&folder, &["config", "check", "--config", &bad]);
    assert_eq!(code, 78, "{said}");
    for part in
        ["bad.yml:1", "did you mean `callServiceKey`", "bad.yml:4", "begin with `/`", "bad.yml:5", "greater than 0"]
    {
        assert!(said.contains(part), "no `{part}` in: {said}");
    }
    let (code, _, said) = outcome(&folder, &["service", "usr"]);
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("no service `usr`") && said.contains("order, user"), "{said}");
}

#[test]
fn reading_without_a_cluster_is_69_with_a_way_out() {
    let folder = Folder::new();
    let (code, _, said) = outcome(&folder, &["trace", "search"]);
    assert_eq!(code, 69);
    assert!(said.contains("goms trace-consumer"), "{said}");
    let (code, _, said) = outcome(&folder, &["healthcheck", "--admin-addr", "127.0.0.1:1"]);
    assert_eq!(code, 69);
    assert!(said.contains("127.0.0.1:1 does not answer"), "{said}");
    let (code, shown, _) = outcome(&folder, &["cluster", "status"]);
    assert_eq!((code, shown.lines().last()), (0, Some("0 services, 0 nodes")));
}

#[test]
fn the_config_in_force_is_printed_and_good() {
    let folder = Folder::new();
    let (code, shown, said) = outcome(&folder, &["config", "print"]);
    assert_eq!(code, 0, "{said}");
    let printed = folder.write("printed.yml", &shown);
    assert!(shown.contains("login"), "{shown}");
    let (code, shown, said) = outcome(&folder, &["config", "check", "--config", &printed]);
    assert_eq!(code, 0, "{said}");
    assert!(shown.contains("2 services, 3 actions"), "{shown}");
    assert_eq!(outcome(&folder, &["completions", "bash"]).0, 0);
}

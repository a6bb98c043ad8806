//! `goms new`, and `goms config diff`.

use std::process::Command;
use std::time::Duration;

use super::until;
use crate::support::goms::{Folder, Goms, command, run};
use crate::support::http::request;

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn a_new_service_has_its_files_and_refuses_what_is_there() {
    let folder = Folder::new();
    let made = run(folder.path(), &["new", "my-shop"]);
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    let read = |file: &str| std::fs::read_to_string(folder.path().join("my-shop").join(file)).expect(file);
    assert!(read("Cargo.toml").contains("name = \"my-shop\"") && read("Cargo.toml").contains("goms = \"0.1.0\""));
    assert!(read("src/main.rs").contains("rpc(\"MyShop.Hello\", hello)"));
    assert!(read(".gitignore").contains("/target"));
    for file in ["Cargo.toml", "src/main.rs", "goms.yml", "README.md"] {
        assert!(!read(file).contains("{{"), "{file}");
    }
    let config = folder.path().join("my-shop/goms.yml");
    let checked = run(folder.path(), &["config", "check", "--config", config.to_str().expect("utf-8")]);
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));

    let again = run(folder.path(), &["new", "my-shop"]);
    assert_eq!((again.status.code(), said(&again).contains("`my-shop` is here already")), (Some(64), true));
    for bad in ["Shop", "../shop", "my_shop", "fn"] {
        let refused = run(folder.path(), &["new", bad]);
        assert_eq!(refused.status.code(), Some(64), "{bad}");
        assert!(said(&refused).contains(&format!("`{bad}` is no name for a service's package")), "{}", said(&refused));
    }
    let refused = run(folder.path(), &["new", "shop", "--goms", "."]);
    assert_eq!((refused.status.code(), said(&refused).contains("is no checkout of goms")), (Some(64), true));
    assert!(!folder.path().join("shop").exists());
}

/// Compiles goms for another package, which takes minutes where that was not done before.
#[test]
fn a_new_service_compiles_passes_its_tests_and_runs() {
    if std::env::var_os("GOMS_TEST_ALL").is_none() {
        eprintln!("SKIPPED: a_new_service_compiles_passes_its_tests_and_runs takes minutes; see scripts/test --all");
        return;
    }
    let folder = Folder::new();
    let tree = env!("CARGO_MANIFEST_DIR");
    assert_eq!(run(folder.path(), &["new", "shop", "--goms", tree]).status.code(), Some(0));
    let shop = folder.path().join("shop");
    // the versions that the tree is built with are at hand, so nothing is fetched
    std::fs::copy(format!("{tree}/Cargo.lock"), shop.join("Cargo.lock")).expect("copied");
    let target = format!("{tree}/target/new");
    let tested = Command::new("cargo")
        .args(["test", "--offline", "--quiet"])
        .current_dir(&shop)
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .expect("cargo runs");
    assert!(tested.status.success(), "{}", said(&tested));
    assert!(said(&tested).contains("3 passed"), "{}", said(&tested));

    let mut up = command(&shop, &["up", "--http-port", "0", "--rpc-port", "0"]);
    up.env("CARGO_TARGET_DIR", &target).env("CARGO_NET_OFFLINE", "true");
    let up = Goms::spawn(up);
    let line = up.wait_for_count("  gateway         http://", 1, Duration::from_secs(600));
    let address = line.rsplit('/').next().expect("an address").to_owned();
    let json = [("Content-Type", "application/json")];
    for (path, hello) in [("hello", "Ann"), ("twice", "Ann Ann"), ("byrpc", "Ann")] {
        let answer = until(&format!("{path} is served"), || {
            let path = format!("/api/shop/{path}");
            request("POST", &address, &path, &json, Some(b"{\"name\":\"Ann\"}")).ok().filter(|got| got.status == 200)
        });
        assert!(answer.text().contains(&format!("\"hello\":\"{hello}\"")), "{}", answer.text());
    }
    assert_eq!(up.terminate(), 0);
}

#[test]
fn a_diff_tells_what_changes_and_what_of_it_needs_a_restart() {
    let folder = Folder::new();
    let old = folder.write(
        "old.yml",
        "callServiceKey: one\nservices: { user: { login: /login, gone: /gone } }\nlimits: { idleTimeout: 75s }\nroutes: [{ name: files, match: { path: /files }, service: files }]\n",
    );
    let new = folder.write(
        "new.yml",
        "callServiceKey: two\nservices: { user: { login: { path: /login, timeout: 3s } } }\nlimits: { idleTimeout: 30s, inFlight: 5 }\nregistry: { ttl: 20s }\nroutes: [{ name: more, match: { path: /more }, service: files }, { name: files, match: { path: /files }, service: files }]\n",
    );
    let diff = run(folder.path(), &["config", "diff", &old, &new]);
    let text = said(&diff);
    assert_eq!(diff.status.code(), Some(0), "{text}");
    for line in [
        "~ callServiceKey: another, hidden -> another, hidden\n",
        "~ limits.idleTimeout: 1m15s -> 30s   (needs a restart)\n",
        "~ limits.inFlight: 20000 -> 5\n",
        "~ registry.ttl: 10s -> 20s   (needs a restart)\n",
        "+ routes[more].name: more\n",
        "- services.user.gone.path: /gone\n",
        "~ services.user.login.timeout: 10s -> 3s\n",
        "of which 2 need a restart\n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(!text.contains("routes[files]") && !text.contains(": one") && !text.contains("-> two"), "{text}");
    let json = run(folder.path(), &["config", "diff", &old, &new, "--output", "json"]);
    let changes: Vec<serde_json::Value> = serde_json::from_slice(&json.stdout).expect("json");
    let ttl = changes.iter().find(|change| change["path"] == "registry.ttl").expect("the change");
    assert_eq!(*ttl, serde_json::json!({"path": "registry.ttl", "old": "10s", "new": "20s", "needsRestart": true}));
    let same = run(folder.path(), &["config", "diff", &old, &old]);
    assert_eq!(said(&same), "nothing changes\n");
    assert_eq!(run(folder.path(), &["config", "diff", &old, "none.yml"]).status.code(), Some(78));
}

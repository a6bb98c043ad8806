//! A changed config file is taken over while requests go on.

use super::{gateway, service};
use crate::support::goms::{Folder, Goms, run};
use crate::support::http::{get, request, wait_for_status};
use crate::support::load::Load;

const CONFIG: &str = "services: {user: {login: /login}}\n";

fn metric(goms: &Goms, name: &str) -> String {
    let admin = goms.wait_for("admin port address=");
    let admin = admin.rsplit('=').next().expect("an address");
    let metrics = get(admin, "/metrics").expect("the admin port answers").text();
    let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in\n{metrics}"));
    line.rsplit(' ').next().expect("a value").to_owned()
}

#[test]
fn a_good_config_is_taken_over_and_a_bad_one_is_told_and_changes_nothing() {
    let folder = Folder::new();
    let config = folder.write("config.yml", CONFIG);
    let with = ["--config", config.as_str(), "-v"];
    let (_user, _) = service(&folder, "user", &with);
    let (gateway, address) = gateway(&folder, &with);
    wait_for_status(&address, "/api/user/login", 200);
    assert_eq!(get(&address, "/hello").expect("an answer").status, 404);
    let load = Load::start(&address, "GET", "/api/user/login", 4);
    load.wait_for(100);

    folder
        .write("config.yml", &format!("{CONFIG}routes: [{{ match: {{ path: /hello }}, respond: {{ body: one }} }}]\n"));
    gateway.wait_for("config reloaded");
    wait_for_status(&address, "/hello", 200);
    assert_eq!(metric(&gateway, "goms_config_last_reload_successful"), "1");
    let shown = run(folder.path(), &["cluster", "routes"]);
    let lines = String::from_utf8_lossy(&shown.stdout).into_owned();
    let lines: Vec<Vec<&str>> = lines.lines().map(|line| line.split_whitespace().collect()).collect();
    let expected = [
        vec!["ROUTE", "TAKES", "DOES"],
        vec!["/hello", "/hello", "answers", "200"],
        vec!["user/login", "/api/user/login", "user", "/login"],
    ];
    assert_eq!(lines, expected, "{shown:?}");

    let bad = format!("{CONFIG}routes: [{{ match: {{ path: hello }}, respond: {{ body: two }} }}]\n");
    folder.write("config.yml", &bad);
    gateway.wait_for("config not reloaded, the one before stays in force");
    let fault = gateway.wait_for("routes[0].match.path: must begin with `/`, got `hello`");
    assert!(fault.contains("config.yml:2"), "{fault}");
    assert_eq!(get(&address, "/hello").expect("an answer").text(), "one");
    assert_eq!(metric(&gateway, "goms_config_last_reload_successful"), "0");

    // another file in its place, as editors and deployment tools do it, that also says what cannot be followed
    let next = format!(
        "{CONFIG}routes: [{{ match: {{ path: /hello }}, respond: {{ body: three }} }}]\ntraces: {{ sample: 0 }}\nlimits: {{ idleTimeout: 5s, bodyBytes: 4 }}\n"
    );
    let beside = folder.write("next.yml", &next);
    std::fs::rename(beside, &config).expect("renamed");
    gateway.wait_for_count("config reloaded", 2, crate::support::goms::PATIENCE);
    let warning = gateway.wait_for("a restart is needed for");
    assert!(warning.contains("traces, limits.idleTimeout"), "{warning}");
    assert_eq!(get(&address, "/hello").expect("an answer").text(), "three");
    let got = crate::support::http::post(&address, "/api/user/login", "{\"a\":1}").expect("an answer");
    assert_eq!(got.status, 413, "the new limit holds");

    gateway.signal("HUP");
    gateway.wait_for_count("config reloaded", 3, crate::support::goms::PATIENCE);
    load.wait_for(100);
    let outcomes = load.stop();
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["200"], "{outcomes:?}");
    assert_eq!(gateway.terminate(), 0);
}

/// A descriptor file that changes is read again, and a bad one changes nothing.
#[test]
fn a_descriptor_file_is_followed() {
    let folder = Folder::new();
    let file = folder.path().join("health.pb");
    std::fs::write(&file, tonic_health::pb::FILE_DESCRIPTOR_SET).expect("written");
    let config = folder.write(
        "config.yml",
        &format!(
            "services: {{health: {{check: {{rpc: Health.Check}}}}}}\nupstreams: {{health: {{descriptors: '{}'}}}}\n",
            file.display()
        ),
    );
    let (gateway, _) = gateway(&folder, &["--config", config.as_str(), "-v"]);
    let beside = folder.path().join("next.pb");
    std::fs::write(&beside, [tonic_health::pb::FILE_DESCRIPTOR_SET, b"\x0a\x00"].concat()).expect("written");
    std::fs::rename(&beside, &file).expect("renamed");
    gateway.wait_for("config reloaded");
    std::fs::write(&beside, "junk").expect("written");
    std::fs::rename(&beside, &file).expect("renamed");
    gateway.wait_for("config not reloaded, the one before stays in force");
    let fault = gateway.wait_for("upstreams.health.descriptors: cannot use `");
    assert!(fault.contains("this is no descriptor set"), "{fault}");
    assert_eq!(gateway.terminate(), 0);
}

/// It stayed refused until somebody touched the config.
#[test]
fn a_refused_config_is_taken_once_the_file_that_it_names_is_there() {
    let folder = Folder::new();
    let config = folder.write("config.yml", CONFIG);
    let (gateway, _) = gateway(&folder, &["--config", config.as_str()]);
    let file = folder.path().join("health.pb");
    let changed = format!(
        "services: {{health: {{check: {{rpc: Health.Check}}}}}}\nupstreams: {{health: {{descriptors: '{}'}}}}\n",
        file.display()
    );
    folder.write("config.yml", &changed);
    gateway.wait_for("config not reloaded, the one before stays in force");
    gateway.wait_for("upstreams.health.descriptors: cannot read `");
    std::fs::write(&file, tonic_health::pb::FILE_DESCRIPTOR_SET).expect("written");
    gateway.wait_for("config reloaded");
    assert_eq!(gateway.terminate(), 0);
}

#[test]
fn a_call_key_is_rotated_without_a_failed_request() {
    let folder = Folder::new();
    let both = folder.write("both.yml", &format!("callServiceKey: [old, new]\n{CONFIG}"));
    let config = folder.write("config.yml", &format!("callServiceKey: old\n{CONFIG}"));
    let (_user, _) = service(&folder, "user", &["--config", &both]);
    let (gateway, address) = gateway(&folder, &["--config", &config]);
    wait_for_status(&address, "/api/user/login", 200);
    let load = Load::start(&address, "GET", "/api/user/login", 2);
    load.wait_for(50);
    folder.write("config.yml", &format!("callServiceKey: new\n{CONFIG}"));
    gateway.wait_for("config reloaded");
    load.wait_for(50);
    let outcomes = load.stop();
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["200"], "{outcomes:?}");
    // and it is the new one that signs: the service refuses any third
    folder.write("config.yml", &format!("callServiceKey: third\n{CONFIG}"));
    gateway.wait_for_count("config reloaded", 2, crate::support::goms::PATIENCE);
    wait_for_status(&address, "/api/user/login", 403);
}

/// The key that a service asks for, how much it logs and which share it traces follow the config; the rest is named.
#[test]
fn a_service_follows_its_config() {
    let folder = Folder::new();
    let config = folder.write("config.yml", &format!("callServiceKey: old\nlog: {{ level: warn }}\n{CONFIG}"));
    let own = folder.write("gateway.yml", &format!("callServiceKey: new\n{CONFIG}"));
    let args = ["service", "user", "--bind", "127.0.0.1", "--config", config.as_str()];
    let user = Goms::start_in(folder.path(), &args);
    super::wait_for_nodes(&folder, "user", 1, &[]);
    let (_gateway, address) = gateway(&folder, &["--config", &own]);
    wait_for_status(&address, "/api/user/login", 403);
    let load = Load::start(&address, "GET", "/api/user/login", 2);
    load.wait_for(20);
    assert!(!user.log().contains("Http Listen"), "it logs warnings only");
    let followed = "callServiceKey: [new, old]\nlog: { level: debug }\ntraces: { sample: 0.5 }\n";
    folder.write("config.yml", &format!("{followed}{CONFIG}routes: [{{ match: {{ path: /x }}, respond: {{}} }}]\n"));
    user.wait_for("config reloaded");
    wait_for_status(&address, "/api/user/login", 200);
    assert!(!user.log().contains("a restart is needed"), "{}", user.log());
    // a bad one changes nothing, and what it cannot follow is named
    folder.write("config.yml", "callServiceKey: third\nlog: { level: loud }\n");
    user.wait_for("config not reloaded, the one before stays in force");
    folder.write("config.yml", &format!("{followed}{CONFIG}limits: {{ bodyBytes: 4 }}\n"));
    let warning = user.wait_for("a restart is needed for");
    assert!(warning.ends_with("a restart is needed for limits"), "{warning}");
    user.signal("HUP");
    user.wait_for_count("config reloaded", 3, crate::support::goms::PATIENCE);
    let outcomes = load.stop();
    let statuses: std::collections::BTreeSet<&str> = outcomes.keys().filter_map(|told| told.get(..3)).collect();
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), ["200", "403"], "nothing else came of any request");
    assert_eq!(user.terminate(), 0);
}

/// Whoever writes a file anew empties it first, and one that lost its keys must not open a service to everybody.
#[test]
fn a_file_without_its_call_keys_leaves_the_guard_on() {
    let folder = Folder::new();
    let config = folder.write("config.yml", &format!("callServiceKey: secret\n{CONFIG}"));
    let with = ["--config", config.as_str()];
    let (user, own) = service(&folder, "user", &with);
    let (gateway, address) = gateway(&folder, &with);
    wait_for_status(&address, "/api/user/login", 200);
    let is_guarded = |when: &str| {
        assert_eq!(get(&own, "/login").expect("an answer").status, 403, "{when}");
        assert_eq!(get(&address, "/api/user/login").expect("an answer").status, 200, "{when}: the gateway signs");
    };
    is_guarded("before");
    folder.write("config.yml", "\n");
    for process in [&user, &gateway] {
        process.wait_for("config not reloaded, the one before stays in force");
        process.wait_for("config.yml: is empty");
    }
    is_guarded("a blank file");
    folder.write("config.yml", CONFIG);
    for process in [&user, &gateway] {
        let warning = process.wait_for("a restart is needed for");
        assert!(warning.ends_with("a restart is needed for callServiceKey"), "{warning}");
        process.wait_for("config reloaded");
    }
    is_guarded("a file without keys");
    folder.write("config.yml", &format!("callServiceKey: third\n{CONFIG}"));
    user.wait_for_count("config reloaded", 2, crate::support::goms::PATIENCE);
    gateway.wait_for_count("config reloaded", 2, crate::support::goms::PATIENCE);
    is_guarded("other keys are followed");
}

/// Hosts share a config, and each has its own certificates only.
#[test]
fn nobody_needs_the_certificates_of_another_role() {
    let folder = Folder::new();
    let text = |key: &str| {
        format!("callServiceKey: {key}\n{CONFIG}tls: {{ certificates: [{{ cert: away.pem, key: away-key.pem }}] }}\n")
    };
    let config = folder.write("config.yml", &text("old"));
    let (user, address) = service(&folder, "user", &["--config", config.as_str()]);
    let ask =
        |key: &str| request("GET", &address, "/login", &[("Call-Service-Key", key)], None).expect("an answer").status;
    assert_eq!((ask("old"), ask("new")), (200, 403));
    folder.write("config.yml", &text("new"));
    user.wait_for("config reloaded");
    assert_eq!((ask("old"), ask("new")), (403, 200));
    assert_eq!(user.terminate(), 0);

    let own = "serviceTls: { certificates: [{ cert: away.pem, key: away-key.pem }] }\n";
    let config = folder.write("gateway.yml", &format!("{CONFIG}{own}"));
    let (gateway, address) = gateway(&folder, &["--config", config.as_str()]);
    folder.write("gateway.yml", &format!("{CONFIG}{own}routes: [{{ match: {{ path: /x }}, respond: {{}} }}]\n"));
    gateway.wait_for("config reloaded");
    wait_for_status(&address, "/x", 200);
    assert_eq!(gateway.terminate(), 0);
}

//! What `scripts/kubernetes` and `scripts/systemd` start: command lines and a config that this binary takes.

use std::path::Path;

use crate::support::goms::{Folder, run};

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file of this repository")
}

/// Reads a command line without running it: `--help` comes last.
fn is_taken(folder: &Folder, words: &[&str]) {
    let mut args: Vec<&str> = words.to_vec();
    args.push("--help");
    let ended = run(folder.path(), &args);
    assert_eq!(ended.status.code(), Some(0), "{words:?}: {}", String::from_utf8_lossy(&ended.stderr));
    // a flag that there is none of ends before the help
    for flag in words.iter().filter(|word| word.starts_with("--")) {
        assert!(String::from_utf8_lossy(&ended.stdout).contains(flag), "{flag} of {words:?}");
    }
}

#[test]
fn the_manifest_of_kubernetes_starts_what_there_is() {
    let folder = Folder::new();
    let text = read("scripts/kubernetes/goms.yaml");
    let started: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("args: [")).collect();
    assert_eq!(started.len(), 3, "{started:?}");
    for line in started {
        let words: Vec<&str> =
            line.trim_end_matches(']').split(',').map(|word| word.trim().trim_matches('"')).collect();
        is_taken(&folder, &words);
    }
    let inside = text.split("config.yml: |\n").nth(1).expect("a config");
    let config: String =
        inside.lines().map_while(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect();
    let file = folder.write("inside.yml", &config);
    let checked = run(folder.path(), &["config", "check", "--config", &file]);
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("1 services, 2 actions"), "{config}");
}

#[test]
fn the_units_of_systemd_start_what_there_is() {
    let folder = Folder::new();
    for unit in ["goms-gateway", "goms-service@", "goms-trace-consumer"] {
        let text = read(&format!("scripts/systemd/{unit}.service"));
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/goms ")).expect("a start");
        let words: Vec<&str> = start.split(' ').map(|word| if word == "%i" { "shop" } else { word }).collect();
        is_taken(&folder, &words);
    }
}

#[test]
fn the_containers_of_compose_start_what_there_is() {
    let folder = Folder::new();
    let of = |file: &str| -> serde_json::Value { serde_yaml::from_str(&read(file)).expect(file) };
    let (servers, system) = (of("scripts/compose.yml"), of("scripts/compose.goms.yml"));
    let known = |name: &str| !servers["services"][name].is_null() || !system["services"][name].is_null();
    let mut started = Vec::new();
    for (name, service) in system["services"].as_object().expect("services") {
        let common = &service["<<"];
        let of_both = |key: &str| [&service[key], &common[key]].into_iter().find(|value| !value.is_null()).cloned();
        let awaited = of_both("depends_on").expect("what it needs");
        assert!(awaited.as_object().expect("names").keys().all(|name| known(name)), "{name}: {awaited}");
        let image = of_both("image").expect("an image").as_str().expect("a name").to_owned();
        if image == "goms" {
            let command = service["command"].as_array().expect("a command");
            is_taken(&folder, &command.iter().map(|word| word.as_str().expect("a word")).collect::<Vec<_>>());
            started.push(name.as_str());
        } else {
            assert!(image.contains(':') && !image.ends_with(":latest"), "{image} is of no version");
        }
    }
    assert_eq!(started, ["gateway", "trace-consumer", "user"]);
    // what it sets, and where its health is asked for
    assert!(read("Dockerfile").contains("GOMS_ADMIN_PORT=8280") && read("Dockerfile").contains("\nUSER goms\n"));
}

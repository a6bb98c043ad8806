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

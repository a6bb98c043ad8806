//! `/metrics`: what Prometheus reads, and what `scripts/prometheus` and `scripts/grafana` make of it.

use std::collections::BTreeSet;

use super::four_events;
use crate::support::goms::{Folder, Goms};
use crate::support::http::{get, request};

const OPEN_METRICS: (&str, &str) = ("Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");

#[test]
fn a_duration_in_open_metrics_names_a_trace_that_is_kept() {
    let folder = Folder::new();
    let up = Goms::start_in(folder.path(), &["up", "--http-port", "0", "--rpc-port", "0"]);
    let address =
        |line: &str| line.split("http://").nth(1).and_then(|rest| rest.split(['/', ' ']).next().map(str::to_owned));
    let admin = address(&up.wait_for("  dashboard       http://")).expect("an address");
    let gateway = address(&up.wait_for("  gateway         http://")).expect("an address");
    let first = request("GET", &admin, "/metrics", &[OPEN_METRICS], None).expect("metrics");
    assert_eq!(
        first.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{}",
        first.text()
    );
    let id = get(&gateway, "/api/user/login").expect("an answer").header("x-request-id").expect("an id").to_owned();
    assert_eq!(four_events(&folder, &id, &[]).len(), 4);

    let text = request("GET", &admin, "/metrics", &[OPEN_METRICS], None).expect("metrics").text();
    let example = format!("trace_id=\"{}\"", id.replace('-', ""));
    let named = |metric: &str| text.lines().any(|line| line.starts_with(metric) && line.contains(&example));
    assert!(named("goms_request_seconds_bucket{service=\"user\"") && text.ends_with("# EOF\n"), "{text}");
    assert!(named("goms_service_request_seconds_bucket{node="), "{text}");
    assert!(text.contains("\ngoms_requests_total{action=\"login\",service=\"user\",status=\"2xx\"} 1\n"), "{text}");
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");

    // who does not ask for it gets the older form, which knows no examples
    let older = get(&admin, "/metrics").expect("metrics");
    assert_eq!(older.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let version = format!("goms_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    assert!(older.text().contains(&version) && !older.text().contains("trace_id"), "{}", older.text());
    assert_eq!(up.terminate(), 0);
}

/// A name misspelt in an alert is an alert that never comes.
#[test]
fn alerts_and_dashboard_name_metrics_that_there_are() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("a file of this repository");
    let mut used = BTreeSet::new();
    for file in ["scripts/prometheus/alerts.yml", "scripts/prometheus/alerts_test.yml", "scripts/grafana/goms.json"] {
        let text = read(file);
        let is_part = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        for word in text.split(|letter| !is_part(letter)).filter_map(|word| word.strip_prefix("goms_")) {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            used.insert(base.to_owned());
        }
    }
    assert!(used.len() > 25, "{used:?}");
    let mut code = String::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                code.push_str(&std::fs::read_to_string(path).expect("source"));
            }
        }
    }
    let unknown: Vec<_> = used.iter().filter(|name| !code.contains(&format!("\"{name}\""))).collect();
    assert!(unknown.is_empty(), "no instrument is named {unknown:?}");
}

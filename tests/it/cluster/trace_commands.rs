//! `goms trace` against a running `goms up`, as users read it.

use super::{four_events, until};
use crate::support::goms::{Folder, Goms, run};
use crate::support::http::post;

/// The exit code and what was printed on stdout and stderr.
fn outcome(folder: &Folder, args: &[&str]) -> (i32, String, String) {
    let ended = run(folder.path(), args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ended.status.code().unwrap_or(-1), text(&ended.stdout), text(&ended.stderr))
}

fn json(folder: &Folder, args: &[&str]) -> serde_json::Value {
    let (code, shown, said) = outcome(folder, args);
    assert_eq!(code, 0, "{args:?}: {said}");
    serde_json::from_str(&shown).expect("JSON")
}

#[test]
fn a_request_is_found_shown_and_exported() {
    let folder = Folder::new();
    let up = Goms::start_in(folder.path(), &["up", "--http-port", "0", "--rpc-port", "0"]);
    let address = up.wait_for("  gateway         http://").rsplit('/').next().expect("an address").to_owned();
    let answer = until("an answer", || {
        post(&address, "/api/user/login?a=1", "{\"a\":\"it's\"}").ok().filter(|answer| answer.status == 200)
    });
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let events = four_events(&folder, &id, &[]);
    let trace_id = events[0]["traceId"].as_str().expect("a trace id").to_owned();

    let (code, shown, _) = outcome(&folder, &["trace", "show", &trace_id]);
    assert_eq!(code, 0);
    assert!(shown.contains(&id) && shown.contains("└ user"), "{shown}");

    let spans = json(&folder, &["trace", "export", &id, "--format", "otlp"]);
    let parts = spans["resourceSpans"].as_array().expect("parts");
    let span = |part: usize| &parts[part]["scopeSpans"][0]["spans"][0];
    assert_eq!((parts.len(), span(0)["traceId"].as_str()), (2, Some(trace_id.as_str())));
    assert_eq!(span(1)["parentSpanId"], span(0)["spanId"]);

    let file = folder.path().join("out.har");
    let file = file.to_str().expect("UTF-8");
    let (code, _, said) = outcome(&folder, &["trace", "export", "--since", "10m", "--format", "har", "--file", file]);
    assert_eq!(code, 0, "{said}");
    let har: serde_json::Value = serde_json::from_slice(&std::fs::read(file).expect("a file")).expect("JSON");
    let entries = har["log"]["entries"].as_array().expect("entries");
    let ours = entries.iter().find(|entry| entry["comment"].as_str().is_some_and(|text| text.contains(&id)));
    let ours = ours.expect("the request");
    assert_eq!(ours["request"]["url"], format!("http://{address}/api/user/login?a=1"));
    assert_eq!(ours["request"]["postData"]["text"], "{\"a\":\"it's\"}");

    let (_, command, _) = outcome(&folder, &["trace", "export", &id, "--format", "curl"]);
    assert!(command.contains(&format!("'http://{address}/api/user/login?a=1'")), "{command}");
    assert!(command.contains(r#"--data-raw '{"a":"it'\''s"}'"#), "{command}");
}

#[test]
fn stats_and_graph_count_what_a_cluster_answered() {
    let folder = Folder::new();
    let config = folder.write("config.yml", "services: {user: {login: /login}, order: {submit: /order/submit}}\n");
    let up = Goms::start_in(folder.path(), &["up", "--http-port", "0", "--rpc-port", "0", "--config", &config]);
    let address = up.wait_for("  gateway         http://").rsplit('/').next().expect("an address").to_owned();
    let call = |path: &str| post(&address, path, "{}").map_or(0, |answer| answer.status);
    until("an answer", || (call("/api/user/login") == 200).then_some(()));
    let before = json(&folder, &["trace", "stats", "--output", "json"]);
    assert!(before["groups"].is_array(), "{before}");
    for _ in 0..20 {
        assert_eq!(call("/api/user/login"), 200);
    }
    for _ in 0..5 {
        assert_eq!(call("/api/order/submit"), 503, "there is no node of it");
    }
    let total = |groups: &serde_json::Value, service: &str, caller: Option<&str>| {
        let groups = groups["groups"].as_array().expect("groups");
        let of = groups.iter().find(|group| group["service"] == service && group["caller"].as_str() == caller);
        of.map_or((0, 0), |group| {
            (group["total"]["count"].as_u64().unwrap_or(0), group["total"]["errors"].as_u64().unwrap_or(0))
        })
    };
    let with = |command: &str| json(&folder, &["trace", command, "--since", "10m", "--output", "json"]);
    let stats = until("all are counted", || {
        let stats = with("stats");
        (total(&stats, "gateway", None).0 >= 26 && total(&stats, "user", None).0 >= 21).then_some(stats)
    });
    // the first request may have taken several tries until the nodes were found, each an error of the gateway
    let ((requests, errors), (calls, failed)) = (total(&stats, "gateway", None), total(&stats, "user", None));
    assert_eq!((requests - errors, calls, failed), (21, 21, 0), "{stats}");
    assert!(errors >= 5, "{stats}");
    let group = &stats["groups"].as_array().expect("groups")[0]["total"];
    let percentile = |name: &str| group[name].as_u64().expect("nanoseconds");
    assert!(
        0 < percentile("p50Ns")
            && percentile("p50Ns") <= percentile("p95Ns")
            && percentile("p95Ns") <= percentile("p99Ns")
    );

    let graph = with("graph");
    assert_eq!(total(&graph, "gateway", None), (requests, errors), "{graph}");
    assert_eq!(total(&graph, "user", Some("gateway")), (21, 0), "{graph}");
    assert_eq!(graph["groups"].as_array().map(Vec::len), Some(2), "{graph}");
    let (_, tree, _) = outcome(&folder, &["trace", "graph", "--since", "10m"]);
    let lines: Vec<&str> = tree.lines().collect();
    assert!(lines[0].starts_with("CALLS") && lines[1] == "client", "{tree}");
    assert!(lines[2].starts_with("└─ gateway") && lines[3].starts_with("   └─ user"), "{tree}");
    assert!(lines[4].starts_with("2 edges from "), "{tree}");
    let (_, dot, _) = outcome(&folder, &["trace", "graph", "--since", "10m", "--output", "dot"]);
    assert!(dot.contains("\"gateway\" -> \"user\""), "{dot}");

    let buckets = json(&folder, &["trace", "stats", "--since", "10m", "--bucket", "1m", "--output", "json"]);
    for group in buckets["groups"].as_array().expect("groups") {
        let cells = group["buckets"].as_array().expect("buckets");
        let count: u64 = cells.iter().map(|cell| cell["count"].as_u64().expect("a number")).sum();
        assert_eq!(count, group["total"]["count"].as_u64().expect("a number"), "{buckets}");
    }
    let (_, table, _) = outcome(&folder, &["trace", "stats", "--service", "user", "--since", "10m"]);
    assert!(table.contains("21 requests from") && !table.contains("gateway"), "{table}");
    assert_eq!(up.terminate(), 0);
}

#[test]
fn every_mistake_says_what_to_do() {
    let folder = Folder::new();
    let cases: [(&[&str], i32, &str); 8] = [
        (&["trace", "stats"], 69, "goms trace-consumer"),
        (&["trace", "graph", "--output", "png"], 64, "mermaid"),
        (&["trace", "stats", "--bucket", "0s"], 64, "greater than 0"),
        (&["trace", "stats", "--since", "1h", "--until", "2h"], 64, "before `--until`"),
        (&["trace", "search", "--limit", "0"], 64, "goms trace export"),
        (&["trace", "search", "--trace-id", "xyz"], 64, "32 hex digits"),
        (&["trace", "export", "--format", "xml"], 64, "otlp"),
        (&["trace", "export", "--format", "har", "--base-url", "nowhere"], 64, "http://127.0.0.1:8080"),
    ];
    for (args, wanted, part) in cases {
        let (code, _, said) = outcome(&folder, args);
        assert_eq!(code, wanted, "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
    }
}

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

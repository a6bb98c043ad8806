//! Spans of other programs, sent to the built binary and read with `goms trace`, on both stores.

use serde_json::{Value, json};

use super::{consumer, four_events, until};
use crate::support::goms::{Folder, Goms, command, run};
use crate::support::http::{Answer, post, request, wait_for_status};
use crate::support::otlp::{CLIENT, SERVER, export, gzip, ids, span};
use crate::support::proxy::Proxy;
use crate::support::servers;

/// `host:port` where a protocol is taken, from the line of the log.
fn intake(goms: &Goms, protocol: &str) -> String {
    let line = goms.wait_for(&format!("takes spans protocol={protocol} url=http://"));
    let (_, url) = line.split_once("url=http://").expect("a URL");
    url.split('/').next().expect("an address").to_owned()
}

fn said(folder: &Folder, args: &[&str]) -> String {
    let ended = run(folder.path(), args);
    assert!(ended.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

fn json_of(folder: &Folder, args: &[&str]) -> Value {
    serde_json::from_str(&said(folder, args)).expect("JSON")
}

/// The events of a trace, once there are so many.
fn events(folder: &Folder, id: &str, count: usize, more: &[&str]) -> Vec<Value> {
    let args = [&["trace", "show", id, "--output", "json"], more].concat();
    until(&format!("{count} events"), || {
        let events: Vec<Value> = serde_json::from_slice(&run(folder.path(), &args).stdout).ok()?;
        (events.len() == count).then_some(events)
    })
}

/// `words`: how many events hold an attribute's value for the store.
fn takes_and_finds(folder: &Folder, more: &[&str], words: u64) {
    let consumer = consumer(folder, &[&["--otlp", "127.0.0.1:0", "--zipkin", "127.0.0.1:0"], more].concat());
    let (otlp, zipkin) = (intake(&consumer, "otlp"), intake(&consumer, "zipkin"));
    let (trace, root) = ids();
    let (call, charge) = (ids().1, ids().1);
    // names of attributes that no mapping could hold as fields of their own: a value and a table, and a thousand more
    let mut odd: Vec<(String, Value)> = (0..1_200).map(|number| (format!("own.k{number}"), json!("v"))).collect();
    odd.extend([("own".to_owned(), json!(1)), ("http.request.method".to_owned(), json!("GET"))]);
    odd.extend([("url.path".to_owned(), json!("/cart/7")), ("http.response.status_code".to_owned(), json!(200))]);
    odd.push(("note".to_owned(), json!("x".repeat(100_000))));
    let odd: Vec<(&str, Value)> = odd.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let shop = export(
        "shop",
        &[
            span(&trace, &root, "", SERVER, "GET /cart/{id}", &odd),
            span(
                &trace,
                &call,
                &root,
                CLIENT,
                "POST",
                &[("url.full", json!("http://pay/charge")), ("zone", json!("blue-7"))],
            ),
        ],
    );
    let now_us = jiff::Timestamp::now().as_microsecond();
    let pay = json!([{"traceId": trace, "id": charge, "parentId": call, "kind": "SERVER", "name": "post /charge",
        "timestamp": now_us - 700, "duration": 500, "localEndpoint": {"serviceName": "pay"},
        "remoteEndpoint": {"serviceName": "shop"}, "tags": {"http.method": "POST", "http.path": "/charge", "error": "no card"}}]);
    // sent twice, as whoever heard no answer does
    for _ in 0..2 {
        let headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
        let send = || request("POST", &otlp, "/v1/traces", &headers, Some(&gzip(shop.as_bytes()))).expect("an answer");
        assert_eq!(taken(send), (200, "{}".to_owned()));
        let send = || post(&zipkin, "/api/v2/spans", &pay.to_string()).expect("an answer");
        assert_eq!(taken(send), (202, String::new()));
    }
    let found = events(folder, &trace, 5, more);
    let mut kinds: Vec<&str> = found.iter().filter_map(|event| event["event"].as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["service.end", "service.end", "service.start", "service.start", "span.end"]);
    let of_root = |event: &&Value| event["spanId"] == root.as_str() && event["event"] == "service.end";
    let attributes = &found.iter().find(of_root).expect("the root's end")["span"]["attributes"];
    assert_eq!((&attributes["own"], &attributes["own.k1199"]), (&json!(1), &json!("v")));
    assert_eq!(attributes["note"].as_str().map(str::len), Some(100_000));

    let with = |args: &[&str]| said(folder, &[args, more].concat());
    let drawn = with(&["trace", "show", &trace]);
    let lines: Vec<&str> = drawn.lines().skip(2).take(3).collect();
    assert!(lines[0].starts_with("shop") && lines[0].ends_with("GET /cart/7"), "{drawn}");
    assert!(lines[1].starts_with("└ shop") && lines[1].ends_with("POST http://pay/charge"), "{drawn}");
    assert!(
        lines[2].starts_with("  └ pay") && lines[2].contains("500") && lines[2].ends_with("POST /charge"),
        "{drawn}"
    );
    let total = |args: &[&str]| {
        let args = [&["trace", "search", "--trace-id", &trace, "--output", "json"], args, more].concat();
        json_of(folder, &args)["total"].clone()
    };
    for (filter, expected) in [
        (&["--service", "shop"][..], 3),
        (&["--event", "span.end"], 1),
        (&["--status", "5xx"], 1),
        (&["--caller", "shop"], 2),
        (&["--text", "blue-7"], words),
        (&["--url", "/charge"], 2),
        (&["--action", "pay/charge"], 2),
    ] {
        assert_eq!(total(filter), expected, "{filter:?}");
    }
    let graph = json_of(folder, &[&["trace", "graph", "--trace-id", &trace, "--output", "json"], more].concat());
    let edges: Vec<_> = graph["groups"].as_array().expect("edges").iter().map(edge).collect();
    assert_eq!(edges, [("shop -> pay".to_owned(), 1, 1), (" -> shop".to_owned(), 1, 0)]);
    let stats = with(&["trace", "stats", "--trace-id", &trace]);
    assert!(stats.contains("2 requests from"), "{stats}");

    // what is exported can be taken again, and is the same
    let exported = with(&["trace", "export", &trace, "--format", "otlp"]);
    assert_eq!(post(&otlp, "/v1/traces", &exported).expect("an answer").status, 200);
    assert_eq!(events(folder, &trace, 5, more).len(), 5);
    assert_eq!(consumer.terminate(), 0);
}

/// The answer, once it is no 503: a shared server may be slow to make an index, and then senders come again.
fn taken(send: impl Fn() -> Answer) -> (u16, String) {
    let answer = until("it is taken", || Some(send()).filter(|answer| answer.status != 503));
    (answer.status, answer.text())
}

/// Who calls whom, how often, and how often it failed.
fn edge(group: &Value) -> (String, u64, u64) {
    let number = |name: &str| group["total"][name].as_u64().expect("a number");
    let edge = format!(
        "{} -> {}",
        group["caller"].as_str().unwrap_or_default(),
        group["service"].as_str().unwrap_or_default()
    );
    (edge, number("count"), number("errors"))
}

#[test]
fn spans_are_found_in_the_embedded_store() {
    takes_and_finds(&Folder::new(), &[], 1);
}

#[test]
fn spans_are_found_in_elasticsearch() {
    let Some(es) = servers::elasticsearch() else { return };
    let folder = Folder::new();
    let index = servers::unique("trace_logs-");
    let config =
        folder.write("config.yml", &format!("esAddr: \"{es}\"\nesIndex: {index}\nservices: {{a: {{b: /b}}}}\n"));
    takes_and_finds(&folder, &["--config", &config], 1);
}

#[test]
fn spans_do_not_explode_an_index_that_maps_whatever_comes() {
    let Some(es) = servers::elasticsearch() else { return };
    let folder = Folder::new();
    let index = servers::unique("go_logs-");
    let address = es.trim_start_matches("http://").to_owned();
    // as a Go consumer's first document makes it
    let made = request("PUT", &address, &format!("/{index}"), &[], None).expect("an answer");
    assert_eq!(made.status, 200, "{}", made.text());
    let config =
        folder.write("config.yml", &format!("esAddr: \"{es}\"\nesIndex: {index}\nservices: {{a: {{b: /b}}}}\n"));
    // such an index has no words of goms, and attributes are kept there, not indexed
    takes_and_finds(&folder, &["--config", &config], 0);
    let mapping = crate::support::http::get(&address, &format!("/{index}/_mapping")).expect("an answer").json();
    let fields = &mapping[&index]["mappings"]["properties"];
    assert_eq!(fields["span"], json!({"type": "object", "enabled": false}), "{fields}");
    request("DELETE", &address, &format!("/{index}"), &[], None).expect("an answer");
}

#[test]
fn one_goms_takes_the_spans_of_another() {
    let (near, far) = (Folder::new(), Folder::new());
    let consumer = consumer(&far, &["--otlp", "127.0.0.1:0"]);
    let otlp = intake(&consumer, "otlp");
    let mut up = command(near.path(), &["up", "--http-port", "0", "--rpc-port", "0"]);
    up.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{otlp}"));
    let up = Goms::spawn(up);
    let address = up.wait_for("  gateway         http://").rsplit('/').next().expect("an address").to_owned();
    wait_for_status(&address, "/api/user/login", 200);
    let answer = post(&address, "/api/user/login?x=1", "{}").expect("an answer");
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let told = |folder: &Folder| {
        let mut told: Vec<Vec<Value>> = four_events(folder, &id, &[])
            .iter()
            .map(|event| {
                let parts = [
                    "event",
                    "serviceName",
                    "requestId",
                    "traceId",
                    "spanId",
                    "parentId",
                    "status",
                    "node",
                    "action",
                    "caller",
                ];
                let mut told: Vec<Value> = parts.iter().map(|part| event[*part].clone()).collect();
                told.extend(["method", "url", "urlParam"].map(|part| event["request"][part].clone()));
                told
            })
            .collect();
        told.sort_by_key(|told| told[0].to_string());
        told
    };
    assert_eq!(told(&near), told(&far));
    let drawn = said(&far, &["trace", "show", &id]);
    assert!(drawn.contains("└ user") && drawn.contains("POST /api/user/login?x=1"), "{drawn}");
    // a trace that came as a file says the same again
    let exported = said(&near, &["trace", "export", &id, "--format", "otlp"]);
    assert_eq!(post(&otlp, "/v1/traces", &exported).expect("an answer").status, 200);
    assert_eq!(told(&near), told(&far));
    assert_eq!(up.terminate(), 0);
    assert_eq!(consumer.terminate(), 0);
}

/// Nodes that send their spans to where their events go anyway.
#[test]
fn the_clusters_own_spans_count_once() {
    let folder = Folder::new();
    let consumer = consumer(&folder, &["--otlp", "127.0.0.1:0", "-v"]);
    let endpoint = format!("http://{}", intake(&consumer, "otlp"));
    let start = |args: &[&str]| {
        let mut goms = command(folder.path(), args);
        goms.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
        Goms::spawn(goms)
    };
    let user = start(&["service", "user", "--bind", "127.0.0.1"]);
    let gateway = start(&["gateway", "--http-port", "0", "--rpc-port", "0", "--bind", "127.0.0.1"]);
    let address = super::listening(&gateway, "gateway");
    super::wait_for_nodes(&folder, "user", 1, &[]);
    super::listening(&user, "user");
    crate::support::http::wait_for_status(&address, "/api/user/login", 200);
    let answer = request("GET", &address, "/api/user/login", &[], None).expect("an answer");
    let id = answer.header("x-request-id").expect("an id").to_owned();
    four_events(&folder, &id, &[]);
    let admin = consumer.wait_for("admin port address=").rsplit('=').next().expect("an address").to_owned();
    let spans = |outcome: &str| {
        let metrics = crate::support::http::get(&admin, "/metrics").expect("metrics").text();
        let name = format!("goms_consumer_spans_total{{outcome=\"{outcome}\",protocol=\"otlp\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap_or(0)
    };
    // of both nodes, of at least one request each
    until("its spans came", || (spans("own") >= 2).then_some(()));
    assert_eq!(spans("taken"), 0);
    assert_eq!(events(&folder, &id, 4, &[]).len(), 4);
    for goms in [gateway, user, consumer] {
        assert_eq!(goms.terminate(), 0);
    }
}

#[test]
fn a_trace_through_goms_and_others_is_one() {
    let folder = Folder::new();
    let up =
        Goms::start_in(folder.path(), &["up", "--http-port", "0", "--rpc-port", "0", "--otlp", "0", "--zipkin=off"]);
    let address = up.wait_for("  gateway         http://").rsplit('/').next().expect("an address").to_owned();
    let greeted = up.wait_for("  otlp spans      http://127.0.0.1:");
    let otlp =
        greeted.trim().split("http://").nth(1).and_then(|url| url.split('/').next()).expect("an address").to_owned();
    wait_for_status(&address, "/api/user/login", 200);
    let (trace, browser) = ids();
    let parent = format!("00-{trace}-{browser}-01");
    let headers = [("Content-Type", "application/json"), ("traceparent", parent.as_str())];
    let answer = request("POST", &address, "/api/user/login", &headers, Some(b"{}")).expect("an answer");
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let tail = Goms::start_in(folder.path(), &["trace", "tail", "--service", "mobile"]);
    let mobile = export("mobile", &[span(&trace, &browser, "", CLIENT, "log in", &[])]);
    assert_eq!(post(&otlp, "/v1/traces", &mobile).expect("an answer").status, 200);
    // tail shows what happens once it follows, which only what it shows tells
    until("a span in tail", || {
        let (trace, id) = ids();
        let later = export("mobile", &[span(&trace, &id, "", CLIENT, "look around", &[])]);
        assert_eq!(post(&otlp, "/v1/traces", &later).expect("an answer").status, 200);
        tail.log().lines().any(|line| line.contains("span.end") && line.ends_with("look around")).then_some(())
    });
    for id in [&trace, &id] {
        events(&folder, id, 5, &[]);
        let drawn = said(&folder, &["trace", "show", id]);
        let lines: Vec<&str> = drawn.lines().skip(3).take(3).collect();
        assert!(lines[0].starts_with("mobile") && lines[0].ends_with("log in"), "{drawn}");
        assert!(lines[1].starts_with("└ gateway") && lines[2].starts_with("  └ user"), "{drawn}");
    }
    assert!(!up.log().contains("WARN"), "{}", up.log());
    assert_eq!(up.terminate(), 0);
}

#[test]
fn a_port_that_is_taken_is_named_with_its_flag() {
    let folder = Folder::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for flag in ["--otlp", "--zipkin"] {
        let ended = run(folder.path(), &["trace-consumer", flag, &address]);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(69), "{said}");
        assert!(said.contains(&format!("cannot listen on {address}")) && said.contains(&format!("`{flag}`")), "{said}");
    }
    let ended = run(folder.path(), &["up", "--otlp", "nowhere"]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(64), "{said}");
    assert!(said.contains("`127.0.0.1:4318`"), "{said}");
}

/// One span of its own trace.
fn one(number: usize) -> String {
    let (trace, id) = ids();
    export("shop", &[span(&trace, &id, "", CLIENT, &format!("job {number}"), &[])])
}

fn total(folder: &Folder, more: &[&str]) -> u64 {
    let args = [&["trace", "search", "--service", "shop", "--limit", "1", "--output", "json"], more].concat();
    json_of(folder, &args)["total"].as_u64().expect("a number")
}

#[test]
fn elasticsearch_away_is_told_and_what_is_sent_again_is_stored_once() {
    let Some(es) = servers::elasticsearch() else { return };
    let proxy = Proxy::start(es.trim_start_matches("http://"));
    let folder = Folder::new();
    let index = servers::unique("trace_logs-");
    let text = format!("esAddr: \"http://{}\"\nesIndex: {index}\nservices: {{a: {{b: /b}}}}\n", proxy.address);
    let config = folder.write("config.yml", &text);
    let with = ["--config", config.as_str()];
    let consumer = consumer(&folder, &[&["--otlp", "127.0.0.1:0"], &with[..]].concat());
    let otlp = intake(&consumer, "otlp");
    let send = |body: &str| post(&otlp, "/v1/traces", body).expect("an answer");
    let bodies: Vec<String> = (0..3).map(one).collect();
    assert_eq!(taken(|| send(&bodies[0])).0, 200);
    proxy.away(true);
    for body in &bodies {
        let answer = send(body);
        assert_eq!((answer.status, answer.json()["code"].as_u64()), (503, Some(14)), "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
    }
    proxy.away(false);
    for body in &bodies {
        assert_eq!(taken(|| send(body)).0, 200);
    }
    until("all are found", || (total(&folder, &with) == 3).then_some(()));
    assert_eq!(consumer.terminate(), 0);
}

#[test]
fn what_was_answered_survives_a_kill() {
    let folder = Folder::new();
    let mut answered = 0;
    for round in 1..=3 {
        let consumer = consumer(&folder, &["--otlp", "127.0.0.1:0"]);
        let otlp = intake(&consumer, "otlp");
        for number in 0..20 {
            assert_eq!(post(&otlp, "/v1/traces", &one(number)).expect("an answer").status, 200);
            answered += 1;
        }
        if round < 3 {
            consumer.kill();
        } else {
            assert_eq!(total(&folder, &[]), answered);
            assert_eq!(consumer.terminate(), 0);
        }
    }
}

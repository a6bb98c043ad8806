//! Elasticsearch as the tests need it: a look into an index, a server of a test's own to stop and kill, and one between
//! that misbehaves.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{post, request};
use super::origin::{self, Origin, Reply};
use super::wire::Seen;

/// The ids of all documents of an index or alias, as often as they are there, sorted; none where there is no such index.
/// `address` is `host:port`.
pub fn ids(address: &str, index: &str) -> Vec<String> {
    if post(address, &format!("/{index}/_refresh"), "").map_or(500, |answer| answer.status) != 200 {
        return Vec::new();
    }
    let query = json!({"size": 10_000, "_source": false, "query": {"match_all": {}}}).to_string();
    let found = post(address, &format!("/{index}/_search"), &query).expect("elasticsearch answers").json();
    let hits = found["hits"]["hits"].as_array().cloned().unwrap_or_default();
    assert!(hits.len() < 10_000, "more than a page");
    let mut ids: Vec<String> = hits.iter().filter_map(|hit| hit["_id"].as_str().map(str::to_owned)).collect();
    ids.sort_unstable();
    ids
}

/// `PUT` of a JSON body that must succeed.
pub fn put(address: &str, path: &str, body: &Value) {
    let body = body.to_string();
    let answer = request("PUT", address, path, &[("Content-Type", "application/json")], Some(body.as_bytes()));
    let answer = answer.expect("elasticsearch answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// A server of its own, from scripts/services, ended with the value.
pub struct Elasticsearch {
    dir: tempfile::TempDir,
    port: u16,
}

impl Elasticsearch {
    /// `None` (a loud skip, a failure in CI) where tests have no servers.
    pub fn start() -> Option<Self> {
        super::servers::elasticsearch()?;
        let dir = tempfile::tempdir().expect("a folder");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let server = Self { dir, port };
        server.up();
        Some(server)
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it (again) on the same folder and waits until its shards are there.
    pub fn up(&self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services");
        let done = Command::new(script)
            .args(["up", "--es-port", &self.port.to_string(), "elasticsearch", "--dir"])
            .arg(self.dir.path())
            .env("GOMS_SERVICES", "packages")
            .env("ES_HEAP", "256m")
            .stdin(Stdio::null())
            .output()
            .expect("scripts/services runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Stops its process where it stands, or lets it go on.
    pub fn freeze(&self, on: bool) {
        self.signal(if on { "-STOP" } else { "-CONT" });
    }

    /// Ends it as a power cut would.
    pub fn kill(&self) {
        self.signal("-KILL");
        let give_up = std::time::Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            assert!(std::time::Instant::now() < give_up, "elasticsearch does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::remove_file(self.pid_file()).ok(); // else `up` finds it running while the process is a zombie
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.path().join("elasticsearch/pid")
    }

    fn signal(&self, signal: &str) {
        let text = std::fs::read_to_string(self.pid_file()).expect("a pid file");
        let pid = text.split_whitespace().next().expect("a pid");
        let done = Command::new("kill").args([signal, pid]).status().expect("kill runs");
        assert!(done.success(), "cannot send {signal} to elasticsearch");
    }
}

impl Drop for Elasticsearch {
    fn drop(&mut self) {
        if self.pid_file().exists() {
            self.kill();
        }
    }
}

/// How bulk requests fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// They are answered late.
    Slow(Duration),
    /// 429 to the whole.
    TooMany,
    /// 429 to every third document; the others are passed on.
    SomeTooMany,
    /// A whole in which this text stands is refused by something between that is not Elasticsearch.
    Dislikes(&'static str),
}

/// In front of a real server.
pub struct Between {
    trouble: Arc<Mutex<Trouble>>,
    pub origin: Origin,
}

impl Between {
    pub async fn start(target: &str) -> Self {
        let trouble = Arc::new(Mutex::new(Trouble::None));
        let (mood, target) = (trouble.clone(), target.to_owned());
        let origin = Origin::start(move |seen, _| {
            let mood = *mood.lock().expect("no test panicked");
            match mood {
                _ if !seen.target.contains("_bulk") => Reply::Bytes(forward(&target, seen, &seen.body)),
                Trouble::None => Reply::Bytes(forward(&target, seen, &seen.body)),
                Trouble::Slow(wait) => Reply::Late(wait, forward(&target, seen, &seen.body)),
                Trouble::TooMany => Reply::Bytes(origin::answer(
                    "429 Too Many Requests",
                    "Content-Type: application/json\r\n",
                    r#"{"error":{"type":"es_rejected_execution_exception","reason":"full"},"status":429}"#,
                )),
                Trouble::SomeTooMany => Reply::Bytes(all_but_some(&target, seen)),
                Trouble::Dislikes(text) if seen.text().contains(text) => {
                    Reply::Bytes(origin::answer("400 Bad Request", "Content-Type: text/html\r\n", "<h1>no</h1>"))
                }
                Trouble::Dislikes(_) => Reply::Bytes(forward(&target, seen, &seen.body)),
            }
        });
        Self { trouble, origin: origin.await }
    }

    pub fn set(&self, trouble: Trouble) {
        *self.trouble.lock().expect("no test panicked") = trouble;
    }
}

fn forward(target: &str, seen: &Seen, body: &[u8]) -> Vec<u8> {
    let kind = seen.header("content-type").unwrap_or("application/json");
    let headers = [("Content-Type", kind)];
    let body = (!seen.body.is_empty()).then_some(body);
    let answer = request(&seen.method, target, &seen.target, &headers, body).expect("elasticsearch answers");
    let kind = answer.header("content-type").unwrap_or("application/json").to_owned();
    let product = "X-elastic-product: Elasticsearch\r\n";
    origin::answer(&answer.status.to_string(), &format!("Content-Type: {kind}\r\n{product}"), &answer.body)
}

fn all_but_some(target: &str, seen: &Seen) -> Vec<u8> {
    let text = seen.text();
    let lines: Vec<&str> = text.lines().collect();
    let (mut passed, mut refused) = (String::new(), HashMap::new());
    for (at, pair) in lines.chunks(2).enumerate() {
        if at % 3 == 0 {
            refused.insert(at, json!({"index": {"status": 429, "error": {"type": "busy", "reason": "full"}}}));
        } else {
            pair.iter().for_each(|line| passed.extend([*line, "\n"]));
        }
    }
    let mut items = Vec::new();
    if !passed.is_empty() {
        let headers = [("Content-Type", "application/x-ndjson")];
        let answer = request("POST", target, &seen.target, &headers, Some(passed.as_bytes()));
        items = answer.expect("elasticsearch answers").json()["items"].as_array().cloned().expect("items");
    }
    items.reverse();
    let count = lines.len().div_ceil(2);
    let all: Vec<Value> = (0..count).filter_map(|at| refused.remove(&at).or_else(|| items.pop())).collect();
    origin::json(&json!({"took": 1, "errors": true, "items": all}).to_string())
}

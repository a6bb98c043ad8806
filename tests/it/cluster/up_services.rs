//! `goms up` with a team's own services: programs, their lines, and their restarts.

use std::path::Path;
use std::time::Duration;

use super::{four_events, until};
use crate::support::goms::{Folder, Goms, command};
use crate::support::http::{get, request, wait_for_status};
use crate::support::load::Load;
use crate::support::ports::free_port;

/// Answers every request with its version and its pid, and says so; exits at once where it is told to.
const SHOP: &str = r#"
import os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        print("asked", self.path, self.headers.get("X-Request-Id"), flush=True)
        body = ('{"version": "VERSION", "pid": %d, "stock": "%s"}' % (os.getpid(), os.environ.get("STOCK"))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *args): pass

class Server(ThreadingHTTPServer):
    request_queue_size = 128

if sys.argv[1:] and sys.argv[1] != os.environ["PORT"]:
    sys.exit(4)
Server(("127.0.0.1", int(os.environ["PORT"])), Shop).serve_forever()
"#;

pub(super) const UP: &str = "callServiceKey: k
services: { shop: { stock: /stock } }
up:
  services:
    shop:
      command: [python3, -B, shop.py, '{port}']
      dir: shop
      env: { STOCK: 10 }
      instances: 2
      watch: [shop.py]
";

pub(super) fn write_shop(folder: &Path, version: &str) {
    let text = SHOP.replace("VERSION", version);
    // as an editor does: the file is never half there
    let (new, file) = (folder.join("shop/shop.py.new"), folder.join("shop/shop.py"));
    std::fs::write(&new, text).expect("written");
    std::fs::rename(new, file).expect("renamed");
}

pub(super) fn shop_folder(config: &str) -> Folder {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("shop")).expect("a folder");
    write_shop(folder.path(), "1");
    folder.write("goms.yml", config);
    folder
}

const FOUND: &str = "11111111-1111-4111-8111-111111111111";
const OTHER: &str = "22222222-2222-4222-8222-222222222222";

pub(super) const PORTS: [&str; 5] = ["up", "--http-port", "0", "--rpc-port", "0"];

pub(super) fn address(up: &Goms) -> String {
    up.wait_for("  gateway         http://").rsplit('/').next().expect("an address").to_owned()
}

/// What the shop said last: its version and its pid.
pub(super) fn stock(address: &str) -> (String, u64) {
    let answer = get(address, "/api/shop/stock").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    assert_eq!(json["data"]["stock"].as_str().or(json["stock"].as_str()), Some("10"), "{json}");
    let told = if json["data"].is_object() { &json["data"] } else { &json };
    (told["version"].as_str().expect("a version").to_owned(), told["pid"].as_u64().expect("a pid"))
}

pub(super) fn is_alive(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn two_instances_of_a_program_take_turns_are_guarded_and_traced_and_end_with_the_cluster() {
    for signal in ["TERM", "INT"] {
        let folder = shop_folder(UP);
        let mut up = Goms::start_in(folder.path(), &PORTS);
        let address = address(&up);
        let mut pids: Vec<u64> = (0..4).map(|_| stock(&address).1).collect();
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 2, "{}", up.log());
        // no demo besides, and nobody gets past the gateway
        assert_eq!(get(&address, "/api/user/login").expect("an answer").status, 404);
        let nodes = up.wait_for("  shop            http://");
        let node = nodes.rsplit("http://").next().expect("a node");
        assert_eq!(get(node, "/stock").expect("an answer").status, 403);

        let headers = [("X-Request-Id", FOUND)];
        let answer = request("GET", &address, "/api/shop/stock", &headers, None).expect("an answer");
        assert_eq!(answer.header("x-request-id"), Some(FOUND));
        four_events(&folder, FOUND, &[]); // goms.yml is found by every command
        let line = up.wait_for(&format!("asked /stock {FOUND}"));
        assert!(line.starts_with("shop#1 ") || line.starts_with("shop#2 "), "{line}");
        assert!(line.contains(" | asked /stock"), "{line}");
        let line = up.wait_for(&format!("requestId={FOUND}"));
        assert!(line.starts_with("shop#"), "the node's line: {line}");

        up.signal(signal);
        assert_eq!(up.exit_code(), 0, "{}", up.log());
        assert!(pids.iter().all(|pid| !is_alive(*pid)), "{signal} leaves none behind");
        assert!(!up.log().contains("ERROR"), "{}", up.log());
    }
}

#[test]
fn a_changed_file_restarts_one_instance_after_the_other_and_fails_no_request() {
    let folder = shop_folder(UP);
    let up = Goms::start_in(folder.path(), &PORTS);
    let address = address(&up);
    assert_eq!(stock(&address).0, "1");
    let load = Load::start(&address, "POST", "/api/shop/stock", 4);
    load.wait_for(100);
    write_shop(folder.path(), "2");
    up.wait_for("shop.py changed, restarting, one after the other");
    // each comes back; the greeting's two joins are of the start
    let patience = Duration::from_secs(40);
    up.wait_for_count("the program is up, the node is back", 2, patience);
    load.wait_for(100);
    let outcomes = load.stop();
    assert_eq!(outcomes.keys().map(String::as_str).collect::<Vec<_>>(), ["200"], "{outcomes:?}");
    until("both are new", || {
        let versions: Vec<String> = (0..4).map(|_| stock(&address).0).collect();
        (versions == ["2"; 4]).then_some(())
    });

    // what does not start is told once, and the other goes on with the code before
    std::fs::write(folder.path().join("shop/shop.py"), "print('half a thought')\nraise SystemError('no')\n")
        .expect("written");
    up.wait_for("program does not start, trying again at the next change of a file");
    up.wait_for("    SystemError: no");
    up.wait_for("] the others stay as they were");
    assert_eq!(stock(&address).0, "2");
    write_shop(folder.path(), "3");
    up.wait_for_count("the program is up, the node is back", 4, patience);
    until("both are new again", || {
        let versions: Vec<String> = (0..4).map(|_| stock(&address).0).collect();
        (versions == ["3"; 4]).then_some(())
    });
    assert_eq!(up.log().matches("program does not start").count(), 1, "{}", up.log());
    assert_eq!(up.terminate(), 0);
}

#[test]
fn a_program_that_does_not_start_at_first_waits_for_a_better_one() {
    let folder = shop_folder(UP);
    std::fs::write(folder.path().join("shop/shop.py"), "raise SystemError('not yet')\n").expect("written");
    let up = Goms::start_in(folder.path(), &PORTS);
    let address = address(&up);
    up.wait_for("    SystemError: not yet");
    assert_eq!(get(&address, "/api/shop/stock").expect("an answer").status, 503);
    write_shop(folder.path(), "1");
    wait_for_status(&address, "/api/shop/stock", 200);
    assert_eq!(up.terminate(), 0);
}

#[test]
fn a_program_of_goms_service_is_restarted_too() {
    let folder = shop_folder("services: { shop: { stock: /stock } }\n");
    let (_gateway, address) = super::gateway(&folder, &[]);
    let port = free_port().to_string();
    let url = format!("http://127.0.0.1:{port}");
    let args = [
        "service",
        "shop",
        "--bind",
        "127.0.0.1",
        "--app",
        &url,
        "--watch",
        "shop",
        "--",
        "python3",
        "-B",
        "shop/shop.py",
    ];
    let mut command = command(folder.path(), &args);
    command.env("PORT", &port).env("STOCK", "10");
    let shop = Goms::spawn(command);
    wait_for_status(&address, "/api/shop/stock", 200);
    assert_eq!(stock(&address).0, "1");
    write_shop(folder.path(), "2");
    shop.wait_for("the program is new, requests waited meanwhile");
    until("it is new", || {
        (get(&address, "/api/shop/stock").ok()?.status == 200).then(|| stock(&address).0 == "2")?.then_some(())
    });
    assert_eq!(shop.terminate(), 0);
}

#[test]
fn lines_are_prefixed_whole_in_colour_if_asked_for_and_hold_up_nobody() {
    // half a line at first, more lines than anybody reads, and an end without a line's end
    let talker = "import os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
sys.stdout.write('first half,'); sys.stdout.flush()
sys.stderr.write('no end')
class Talker(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header('Content-Length', '0'); self.end_headers()
    def log_message(self, *args): pass
server = HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Talker)
print(' second half', flush=True)
for n in range(50000): print('flood', n)
print('{\"own\": true}', flush=True)
print('the flood is over', flush=True)
server.serve_forever()
";
    let config = "services: { talk: { talk: /talk } }\nup: { services: { talk: { command: python3 talk.py } } }\n";
    let start = |format: &str, variable: &str| {
        let folder = Folder::new();
        folder.write("talk.py", talker);
        folder.write("goms.yml", config);
        let mut command = command(folder.path(), &[&PORTS[..], &["--log-format", format]].concat());
        command.env_remove("NO_COLOR").env_remove("FORCE_COLOR").env(variable, "1");
        (Goms::spawn(command), folder)
    };
    let (plain, _folder) = start("text", "NO_COLOR");
    wait_for_status(&address(&plain), "/api/talk/talk", 200);
    assert!(plain.wait_for("first half").ends_with("| first half, second half"), "{}", plain.wait_for("first half"));
    assert_eq!(plain.terminate(), 0);

    let (coloured, _folder) = start("text", "FORCE_COLOR");
    let line = coloured.wait_for("first half");
    assert!(
        line.starts_with("\x1b[") && line.contains("talk#1 ") && line.ends_with("|\x1b[0m first half, second half"),
        "{line}"
    );
    wait_for_status(&address(&coloured), "/api/talk/talk", 200);
    assert_eq!(coloured.terminate(), 0);

    let (json, _folder) = start("json", "NO_COLOR");
    let line = json.wait_for("first half");
    let object: serde_json::Value = serde_json::from_str(&line).expect("json");
    assert_eq!(
        (object["node"].as_str(), object["message"].as_str()),
        (Some("talk#1"), Some("first half, second half"))
    );
    wait_for_status(&address(&json), "/api/talk/talk", 200);
    let own = json.wait_for("\"own\"");
    assert_eq!(own, r#"{"node":"talk#1","own": true}"#);
    assert_eq!(json.terminate(), 0);
}

#[test]
fn followed_are_only_the_lines_of_one_request() {
    let folder = shop_folder(UP);
    let up = Goms::start_in(folder.path(), &[&PORTS[..], &["--follow", FOUND]].concat());
    let address = address(&up);
    for id in [OTHER, FOUND, OTHER] {
        let answer = request("GET", &address, "/api/shop/stock", &[("X-Request-Id", id)], None).expect("an answer");
        assert_eq!(answer.status, 200);
    }
    up.wait_for(&format!("| asked /stock {FOUND}"));
    up.wait_for(&format!("requestId={FOUND}"));
    let gateway = up.wait_for(&format!("request_id={FOUND}"));
    assert!(gateway.starts_with("gateway"), "{gateway}");
    assert!(!up.log().contains(OTHER), "{}", up.log());
    assert!(!up.log().contains("Http Listen"), "{}", up.log());
}

#[test]
fn what_is_wrong_with_up_is_told_with_its_line() {
    let folder = Folder::new();
    let config = folder.write(
        "bad.yml",
        "services: { shop: { stock: /stock } }
up:
  services:
    shop: { app: \"http://127.0.0.1:5000\", instances: 2, command: [a] }
    cart: { app: \"http://127.0.0.1:{port}\" }
    desk: { app: \"https://127.0.0.1:1\", command: a | b }
    till: { app: \"http://127.0.0.1:1\", watch: [a], restart: sometimes }
    my_bar: { command: a }
",
    );
    let ended = crate::support::goms::run(folder.path(), &["up", "--config", &config]);
    assert_eq!(ended.status.code(), Some(78));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    for part in [
        ":4: up.services.shop.instances: several instances need a port each",
        ":5: up.services.cart: needs a `command`",
        ":6: up.services.desk.app: `https://127.0.0.1:1` is no address of a program",
        ":6: up.services.desk.command: is not read by a shell",
        ":7: up.services.till.watch: `watch` is for a program that goms starts",
        ":7: up.services.till.restart: unknown word `sometimes`",
        ":8: up.services: service name `my_bar` must not contain `_`",
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
}

//! A program in another language behind `goms service … --app`, and a service author's own binary.

use super::{consumer, four_events, gateway, until};
use crate::support::goms::{Folder, Goms};
use crate::support::http::{get, post, wait_for_status};
use crate::support::ports::free_port;

/// The README's program, on a port of its own.
const HELLO: &str = r#"
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Hello(BaseHTTPRequestHandler):
    def do_POST(self):
        body = b'{"hello": "from python"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST
    def log_message(self, *args): pass

HTTPServer(("127.0.0.1", int(sys.argv[1])), Hello).serve_forever()
"#;

#[test]
fn a_python_program_is_served_guarded_traced_and_restarted() {
    let folder = Folder::new();
    folder.write("hello.py", HELLO);
    let config = folder.write("config.yml", "callServiceKey: k\nservices: {order: {submit: /order/submit}}\n");
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let port_text = port.to_string();
    let _consumer = consumer(&folder, &["--config", &config]);
    let (_gateway, address) = gateway(&folder, &["--config", &config]);
    let args = [
        "service",
        "order",
        "--bind",
        "127.0.0.1",
        "--config",
        &config,
        "--app",
        &url,
        "--",
        "python3",
        "hello.py",
        &port_text,
    ];
    let order = Goms::start_in(folder.path(), &args);
    order.wait_for("[order] Http Listen on port: ");
    wait_for_status(&address, "/api/order/submit", 200);
    let answer = post(&address, "/api/order/submit", "{}").expect("an answer");
    assert_eq!(answer.text(), "{\"hello\": \"from python\",\"status\":true}");
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let events = four_events(&folder, &id, &["--config", &config]);
    assert_eq!(events.iter().filter(|event| event["serviceName"] == "order").count(), 2);

    // without the key nobody gets through
    let own = order.wait_for("[order] Http Listen on port: ");
    let own = format!("127.0.0.1:{}", own.rsplit(' ').next().expect("a port"));
    assert_eq!(get(&own, "/order/submit").expect("an answer").status, 403);

    // the program dies: its node leaves; goms starts it again: its node is back
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", order.pid())).expect("linux tells");
    let child: u32 = children.split_whitespace().next().expect("a child").parse().expect("a pid");
    let killed = std::process::Command::new("sh").args(["-c", &format!("kill -9 {child}")]).status();
    assert!(killed.expect("sh runs").success());
    order.wait_for("the program is down, the node leaves");
    order.wait_for("the program is up, the node is back");
    wait_for_status(&address, "/api/order/submit", 200);
    assert_eq!(order.terminate(), 0);
    until("the program is gone", || std::net::TcpStream::connect(("127.0.0.1", port)).is_err().then_some(()));
}

#[test]
fn a_program_that_does_not_come_up_is_an_error_with_its_name() {
    let folder = Folder::new();
    let url = format!("http://127.0.0.1:{}", free_port());
    let args = ["service", "order", "--app", &url, "--", "sh", "-c", "exit 3"];
    let ended = crate::support::goms::run(folder.path(), &args);
    assert_eq!(ended.status.code(), Some(69));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains('3') && said.contains("sh"), "{said}");
}

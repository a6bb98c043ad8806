//! goms in front of a program in another language: a real Python server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use goms::service::{
    PROGRAM_TIMEOUT, Program, ProgramError, ProgramSettings, ProgramState, ProgramUrl, Restart, Running, serve_program,
};
use goms::trace::EventKind;

use super::{Client, ID, JSON, ask, listener, next, parts, until};
use crate::support::origin::{Origin, Reply};

/// Answers with its process id, method, path, the headers that it got, and the body.
const SERVER: &str = r#"
import json, os, signal, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.headers.get("Transfer-Encoding") == "chunked":
            while (size := int(self.rfile.readline(), 16)):
                body += self.rfile.read(size).decode()
                self.rfile.readline()
            self.rfile.readline()
        if self.path == "/exit": os._exit(int(body))
        if self.path == "/break": return self.connection.shutdown(2)
        headers = {name.lower(): value for name, value in self.headers.items()}
        data = json.dumps({"pid": os.getpid(), "method": self.command, "path": self.path, "headers": headers, "body": body}).encode()
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Answer", "a")
        self.send_header("X-Answer", "b")
        self.send_header("Connection", "X-Hop, keep-alive")
        self.send_header("X-Hop", "1")
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (data[:10], data[10:], b""):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        else:
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD": self.wfile.write(data)
    do_GET = do_POST = do_PUT = do_HEAD = answer
    def log_message(self, *_): pass
def ended(*_):
    open(sys.argv[2], "w").write("SIGTERM")
    if "stubborn" not in sys.argv: os._exit(0)
signal.signal(signal.SIGTERM, ended)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

struct Files {
    folder: PathBuf,
}

impl Files {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(crate::support::servers::unique("goms-program-"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("server.py"), SERVER).unwrap();
        Self { folder }
    }

    /// What the program wrote when SIGTERM came.
    fn mark(&self) -> PathBuf {
        self.folder.join("ended")
    }

    fn settings(&self, extra: &[&str]) -> ProgramSettings {
        let port = listener().local_addr().unwrap().port();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut command =
            vec!["python3".to_owned(), text(&self.folder.join("server.py")), port.to_string(), text(&self.mark())];
        command.extend(extra.iter().map(|&word| word.to_owned()));
        ProgramSettings::new(format!("http://127.0.0.1:{port}").parse().unwrap(), Some(command))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn front(url: &ProgramUrl) -> (Running, tokio::sync::mpsc::Receiver<goms::trace::Event>) {
    let (mut parts, events) = parts("py");
    parts.call_keys = vec!["secret".to_owned()].into();
    parts.limits.body_bytes = 1 << 20;
    let _runtime = super::RUNTIME.enter();
    (serve_program(listener(), "py", url, PROGRAM_TIMEOUT, parts).unwrap(), events)
}

const KEY: (&str, &str) = ("Call-Service-Key", "secret");

fn pid(address: SocketAddr) -> i32 {
    let answer = ask(address, "GET", "/", &[KEY], "");
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    i32::try_from(body["pid"].as_i64().unwrap()).unwrap()
}

fn is_up(program: &Program) -> bool {
    matches!(*program.state().borrow(), ProgramState::Up)
}

fn reason(program: &Program) -> Option<String> {
    match &*program.state().borrow() {
        ProgramState::Ended(error) => Some(error.to_string()),
        _ => None,
    }
}

#[tokio::test]
async fn a_program_is_guarded_and_traced() {
    let files = Files::new();
    let settings = files.settings(&[]);
    let program = Program::start(settings.clone()).await.unwrap();
    let (running, mut events) = front(&settings.url);
    let mut client = Client::connect(running.address());

    let refused = client.send("GET", "/x", &[("Call-Service-Key", "wrong")], "");
    assert_eq!(refused.status, 403);
    assert!(refused.body.starts_with(r#"{"status":false,"code":403,"msg":""#), "{}", refused.body);

    let parent = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let ids = [KEY, JSON, ("X-Request-Id", ID), parent, ("tracestate", "a=1,goms=order")];
    let hop = [&ids[..], &[("Connection", "keep-alive, X-Mine"), ("X-Mine", "1"), ("X-Kept", "2")]].concat();
    let answer = client.send("POST", "/a/b?c=%20d", &hop, r#"{"n":1.10}"#);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("X-Request-Id"), Some(ID));
    assert_eq!(answer.header("X-Hop"), None);
    assert_eq!(answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-answer")).count(), 2);
    let got: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        (&got["method"], &got["path"], &got["body"]),
        (&"POST".into(), &"/a/b?c=%20d".into(), &r#"{"n":1.10}"#.into())
    );
    let headers = got["headers"].as_object().unwrap();
    assert_eq!(headers["x-request-id"], ID);
    assert_eq!(headers["x-kept"], "2");
    assert_eq!(headers["content-length"], "10");
    assert!(!headers.contains_key("call-service-key") && !headers.contains_key("x-mine"), "{headers:?}");

    let (begin, end) = (next(&mut events).await, next(&mut events).await);
    assert_eq!((begin.kind, end.kind, end.status), (EventKind::ServiceStart, EventKind::ServiceEnd, Some(200)));
    assert_eq!((begin.request.head.url(), &begin.request.body[..]), ("/a/b", &br#"{"n":1.10}"#[..]));
    assert_eq!(headers["traceparent"], begin.context.traceparent());
    let caller = begin.request.caller.as_deref();
    assert_eq!(
        (caller, &headers["tracestate"]),
        (Some("order"), &format!("goms={},a=1", begin.origin.service_name).into())
    );
    assert!(!format!("{:?}", begin.request).contains("secret"));

    assert!(running.stop(Duration::from_secs(5)).await);
    program.stop().await;
    assert_eq!(std::fs::read_to_string(files.mark()).unwrap(), "SIGTERM");
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let files = Files::new();
    let settings = files.settings(&[]);
    let program = Program::start(settings.clone()).await.unwrap();
    let (running, mut events) = front(&settings.url);
    let mut client = Client::connect(running.address());
    let body = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["body"].clone();

    let long = "x".repeat(500_000);
    let answer = client.send("PUT", "/long", &[KEY, ("Content-Type", "text/plain")], &long);
    assert_eq!(body(&answer.body), long);
    client.write("POST /parts HTTP/1.1\r\nHost: n\r\nCall-Service-Key: secret\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.write("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_eq!(body(&client.answer().body), "abcde");
    let answer = client.send("GET", "/chunked", &[KEY], "");
    assert_eq!((answer.header("transfer-encoding"), body(&answer.body).as_str()), (Some("chunked"), Some("")));
    assert_eq!(client.send("GET", "/missing", &[KEY], "").status, 404);
    client.write("HEAD / HTTP/1.1\r\nHost: n\r\nCall-Service-Key: secret\r\n\r\n");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = std::io::BufRead::read_line(&mut client.stream, &mut head).unwrap();
        assert!(read > 0, "the connection ended after: {head}");
    }
    let announced = head.to_ascii_lowercase().split("content-length: ").nth(1).map(|rest| rest.len());
    assert!(head.starts_with("HTTP/1.1 200") && announced.is_some(), "{head}");
    assert!(client.send("GET", "/after", &[KEY], "").body.contains("/after"));
    // `parts.limits.body_bytes` is for bodies that goms reads; the program says itself what is too long for it
    let long = ask(running.address(), "POST", "/", &[KEY, JSON], &"1".repeat((1 << 20) + 1));
    assert_eq!(long.status, 200);
    let broken = ask(running.address(), "POST", "/break", &[KEY], "");
    assert_eq!(broken.status, 502, "{broken:?}");

    assert!(running.stop(Duration::from_secs(5)).await);
    program.stop().await;
    let mut ends = Vec::new();
    while let Ok(event) = events.try_recv() {
        ends.extend(event.status);
    }
    assert_eq!(ends, [200, 200, 200, 404, 200, 200, 200, 502]);
}

#[tokio::test]
async fn a_killed_program_is_reported_and_restarted() {
    let files = Files::new();
    let settings = files.settings(&[]);
    let program = Program::start(settings.clone()).await.unwrap();
    let (running, _events) = front(&settings.url);
    let first = pid(running.address());
    assert!(is_up(&program));
    let mut changes = program.state();
    changes.mark_unchanged();
    kill(first, "KILL");
    changes.changed().await.unwrap();
    assert!(matches!(*changes.borrow_and_update(), ProgramState::Down));
    let refused = ask(running.address(), "GET", "/", &[KEY], "");
    assert!(refused.status == 502 || refused.status == 200, "{refused:?}"); // 200 when it is back by now
    until("it is up again", || is_up(&program)).await;
    let second = pid(running.address());
    assert_ne!(first, second);
    program.stop().await;
    assert_eq!(std::fs::read_to_string(files.mark()).unwrap(), "SIGTERM");
    let gone = ask(running.address(), "GET", "/", &[KEY], "");
    assert_eq!(gone.status, 502);
    assert!(gone.body.contains("is the program running?"), "{}", gone.body);
    assert!(running.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn the_restart_policy_decides() {
    for (restart, code, comes_back) in [
        (Restart::Never, "3", false),
        (Restart::OnFailure, "0", false),
        (Restart::OnFailure, "3", true),
        (Restart::Always, "0", true),
    ] {
        let files = Files::new();
        let settings = ProgramSettings { restart, ..files.settings(&[]) };
        let program = Program::start(settings.clone()).await.unwrap();
        let (running, _events) = front(&settings.url);
        let first = pid(running.address());
        let mut changes = program.state();
        changes.mark_unchanged();
        assert_eq!(ask(running.address(), "POST", "/exit", &[KEY], code).status, 502);
        changes.changed().await.unwrap();
        if comes_back {
            until("it is up again", || is_up(&program)).await;
            assert_ne!(pid(running.address()), first);
        } else {
            until("it has ended for good", || reason(&program).is_some()).await;
            let reason = reason(&program).unwrap();
            assert!(reason.ends_with(&format!("ended (exit status: {code})")), "{reason}");
        }
        program.stop().await;
        assert!(running.stop(Duration::from_secs(5)).await);
    }
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed() {
    let files = Files::new();
    let settings = ProgramSettings { stop_timeout: Duration::from_millis(300), ..files.settings(&["stubborn"]) };
    let program = Program::start(settings.clone()).await.unwrap();
    let began = Instant::now();
    program.stop().await;
    assert!(began.elapsed() >= Duration::from_millis(300) && began.elapsed() < Duration::from_secs(3));
    assert_eq!(std::fs::read_to_string(files.mark()).unwrap(), "SIGTERM");
    let (_, port) = settings.url.to_string().rsplit_once(':').map(|(_, port)| ((), port.to_owned())).unwrap();
    std::net::TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
}

#[tokio::test]
async fn a_program_that_cannot_start_says_why() {
    let files = Files::new();
    let start = async |change: &dyn Fn(&mut ProgramSettings)| {
        let mut settings = files.settings(&[]);
        change(&mut settings);
        Program::start(settings).await.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let command = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
    assert_eq!(
        start(&|settings| settings.command = command(&["/no/such/program", "x"])).await,
        "cannot start `/no/such/program x`"
    );
    assert_eq!(
        start(&|settings| settings.command = command(&["sh", "-c", "exit 7"])).await,
        "the program `sh -c exit 7` ended (exit status: 7)"
    );
    assert!(start(&|settings| settings.command = command(&[])).await.contains("is empty"));
    let deaf = start(&|settings| {
        settings.command = command(&["sleep", "60"]);
        settings.start_timeout = Duration::from_millis(200);
    })
    .await;
    assert!(deaf.starts_with("nothing accepted connections at http://127.0.0.1:") && deaf.contains("200ms"), "{deaf}");
    let taken = listener();
    let url: ProgramUrl = format!("http://{}", taken.local_addr().unwrap()).parse().unwrap();
    let error = Program::start(ProgramSettings { url, ..files.settings(&[]) }).await.unwrap_err();
    assert!(matches!(error, ProgramError::Taken(_)), "{error}");
}

#[tokio::test]
async fn a_program_that_somebody_else_runs_is_watched_by_its_port() {
    let files = Files::new();
    let settings = files.settings(&[]);
    let mut others = Program::start(settings.clone()).await.unwrap();
    let watched = Program::start(ProgramSettings { command: None, ..settings.clone() }).await.unwrap();
    assert!(is_up(&watched));
    others.stop().await;
    until("it is down", || !is_up(&watched)).await;
    others = Program::start(settings.clone()).await.unwrap();
    until("it is up again", || is_up(&watched)).await;
    watched.stop().await;
    assert!(is_up(&others), "what somebody else runs goes on");
    others.stop().await;
}

/// Sends a signal to one process by its id.
fn kill(pid: i32, signal: &str) {
    assert!(std::process::Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap().success());
}

/// A front before a scripted program.
async fn before(reply: impl Fn() -> Reply + Send + Sync + 'static) -> (Running, Origin) {
    let origin = Origin::start(move |_, _| reply()).await;
    let (running, _) = front(&format!("http://{}", origin.address).parse().unwrap());
    (running, origin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_framings_of_a_program_are_understood_and_ambiguous_ones_refused() {
    let get = |running: &Running| ask(running.address(), "GET", "/", &[KEY], "");
    // RFC 9112 section 6.3: a length beside a transfer coding ought to be handled as an error
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n";
    let (running, _origin) = before(|| Reply::Bytes(both.into())).await;
    assert_eq!(get(&running).status, 502);
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (running, _origin) = before(|| Reply::Bytes(interim.into())).await;
    assert_eq!(get(&running).body, "ok");
    // a body that ends with its connection
    let (running, _origin) = before(|| Reply::Close("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc".into())).await;
    assert_eq!(get(&running).body, "abc");
    let (running, _origin) = before(|| Reply::Close("HTTP/1.1 103 Early Hints\r\n\r\n".into())).await;
    assert_eq!(get(&running).status, 502);
    let (running, _origin) = before(|| Reply::Close(Vec::new())).await;
    let broken = get(&running);
    assert_eq!(broken.status, 502);
    assert!(broken.body.contains("broke off"), "{}", broken.body);
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_no_process_behind() {
    let files = Files::new();
    let mut settings = files.settings(&[]);
    let mark = files.mark();
    let script = format!("sleep 60 & echo $! > {0}.new; mv {0}.new {0}; wait", mark.display());
    settings.command = Some(vec!["sh".to_owned(), "-c".to_owned(), script]);
    let starting = tokio::time::timeout(Duration::from_secs(20), async {
        tokio::select! {
            started = Program::start(settings) => panic!("{:?}", started.err()),
            () = until("the script to run", || mark.exists()) => {}
        }
    });
    starting.await.unwrap();
    let below = PathBuf::from(format!("/proc/{}/stat", std::fs::read_to_string(&mark).unwrap().trim()));
    let runs = || std::fs::read_to_string(&below).is_ok_and(|stat| !stat.contains(") Z "));
    until("what the script started to end", || !runs()).await;
}

//! What `goms up` prints: the lines of goms and of every program in one stream, each with who said it before it.
//!
//! ```text
//! log records, programs' lines ──▶ bounded queue ──▶ one thread ──▶ stdout and stderr
//!                                   (full: left out and counted, nobody waits)
//! ```

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::config::LogFormat;
use crate::service::{Lines, Stream};

/// Lines that wait for the terminal; some megabytes of usual ones.
const QUEUE: usize = 16_384;
/// How long the end waits for a terminal that takes nothing.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// Cyan, yellow, green, magenta, blue, and their bright ones: no red, which looks like an error.
const COLOURS: [u8; 10] = [36, 33, 32, 35, 34, 96, 93, 92, 95, 94];

/// Prints lines from any thread; never waits.
#[derive(Clone)]
pub struct Console {
    sender: SyncSender<Printed>,
    shared: Arc<Shared>,
}

struct Shared {
    format: LogFormat,
    has_colours: bool,
    /// Only lines that hold one of these are printed: a request's id, with and without hyphens (as in `traceparent`).
    follow: Option<[String; 2]>,
    left_out: Arc<AtomicU64>,
    /// Of the longest name so far.
    width: AtomicUsize,
    /// In the order of their first lines, which decides on their colours.
    names: Mutex<Vec<String>>,
    /// `ip:rpc_ip:http` → `user#1`.
    nodes: Mutex<HashMap<String, String>>,
}

enum Printed {
    Line(Stream, String),
    Flush(SyncSender<()>),
}

impl Console {
    /// Starts the thread that prints.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(format: LogFormat, follow: Option<Uuid>) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let left_out = Arc::new(AtomicU64::new(0));
        let counter = left_out.clone();
        std::thread::Builder::new().name("console".to_owned()).spawn(move || print(&receiver, &counter))?;
        let shared = Shared {
            format,
            has_colours: has_colours(),
            follow: follow.map(|id| [id.hyphenated().to_string(), id.simple().to_string()]),
            left_out,
            width: AtomicUsize::new(4),
            names: Mutex::default(),
            nodes: Mutex::default(),
        };
        Ok(Self { sender, shared: Arc::new(shared) })
    }

    /// Tells what a node is called, by its identity as lines name it.
    pub fn name_node(&self, node: String, name: String) {
        self.shared.nodes.lock().unwrap_or_else(PoisonError::into_inner).insert(node, name);
    }

    /// Makes room for a name before its first line.
    pub fn expect(&self, name: &str) {
        self.shared.width.fetch_max(name.chars().count(), Ordering::Relaxed);
    }

    /// Takes the lines of a program.
    pub fn lines_of(&self, name: &str) -> Lines {
        let (console, name) = (self.clone(), name.to_owned());
        self.expect(&name);
        Lines::new(move |stream, line| console.program(&name, stream, line))
    }

    /// A line of a program.
    fn program(&self, name: &str, stream: Stream, line: &str) {
        let text = match self.shared.format {
            LogFormat::Text => self.prefixed(name, line),
            LogFormat::Json => json(name, stream, line),
        };
        self.send(stream, text);
    }

    /// A line of goms itself, as `logging` wrote it; `message` is what it says, `is_access` whether it tells of a request.
    pub fn own(&self, line: &str, message: &str, is_access: bool) {
        let text = match self.shared.format {
            LogFormat::Text => self.prefixed(&self.speaker(message, is_access), line),
            LogFormat::Json => line.to_owned(),
        };
        self.send(Stream::Err, text);
    }

    /// Waits until all is printed, for a while at most.
    pub fn flush(&self) {
        let (done, printed) = sync_channel(1);
        if self.sender.send(Printed::Flush(done)).is_ok() && printed.recv_timeout(FLUSH_LIMIT).is_err() {
            eprintln!("goms: the last lines could not be printed");
        }
    }

    fn send(&self, stream: Stream, text: String) {
        if self.shared.follow.as_ref().is_some_and(|forms| !forms.iter().any(|id| text.contains(id))) {
            return;
        }
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Printed::Line(stream, text)) {
            self.shared.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Who says `[user] [ip:rpc_ip:http] …`, `[user] …` or anything else.
    fn speaker(&self, message: &str, is_access: bool) -> String {
        let Some((service, rest)) = message.strip_prefix('[').and_then(|rest| rest.split_once("] ")) else {
            return if is_access { "gateway" } else { "goms" }.to_owned();
        };
        let node = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(node, _)| node);
        let nodes = self.shared.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        node.and_then(|node| nodes.get(node)).cloned().unwrap_or_else(|| service.to_owned())
    }

    fn prefixed(&self, name: &str, line: &str) -> String {
        let shared = &self.shared;
        self.expect(name);
        let width = shared.width.load(Ordering::Relaxed);
        if !shared.has_colours {
            return format!("{name:width$} | {line}");
        }
        let mut names = shared.names.lock().unwrap_or_else(PoisonError::into_inner);
        let index = names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        let colour = COLOURS[index % COLOURS.len()];
        format!("\x1b[{colour}m{name:width$} |\x1b[0m {line}")
    }
}

/// `NO_COLOR` (no-color.org) goes over `FORCE_COLOR`, which goes over what stderr is.
fn has_colours() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && (set("FORCE_COLOR") || std::io::stderr().is_terminal())
}

/// A program's own object stays as it is, with who said it; text becomes an object.
fn json(name: &str, stream: Stream, line: &str) -> String {
    let name = serde_json::Value::from(name);
    let is_object = line.starts_with('{') && serde_json::from_str::<serde_json::Map<_, _>>(line).is_ok();
    if let Some(rest) = line.strip_prefix('{').filter(|_| is_object) {
        let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
        return format!("{{\"node\":{name}{comma}{rest}");
    }
    let stream = if stream == Stream::Out { "stdout" } else { "stderr" };
    let time = jiff::Timestamp::now().to_string();
    serde_json::json!({"node": name, "time": time, "stream": stream, "message": line}).to_string()
}

fn print(receiver: &Receiver<Printed>, left_out: &AtomicU64) {
    while let Ok(first) = receiver.recv() {
        for printed in std::iter::once(first).chain(receiver.try_iter()) {
            match printed {
                Printed::Line(stream, mut line) => {
                    line.push('\n');
                    // a terminal that is gone ends nothing: the programs go on
                    drop(match stream {
                        Stream::Out => std::io::stdout().write_all(line.as_bytes()),
                        Stream::Err => std::io::stderr().write_all(line.as_bytes()),
                    });
                }
                Printed::Flush(done) => {
                    drop(std::io::stdout().flush());
                    // who waited may have given up
                    done.try_send(()).ok();
                }
            }
        }
        let lines = left_out.swap(0, Ordering::Relaxed);
        if lines > 0 {
            drop(writeln!(
                std::io::stderr(),
                "goms: {lines} lines came faster than they could be printed, and were left out"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(format: LogFormat) -> Console {
        Console::start(format, None).expect("a thread")
    }

    #[test]
    fn who_speaks_is_read_from_the_line() {
        let console = console(LogFormat::Text);
        console.name_node("127.0.0.1:1_127.0.0.1:2".to_owned(), "user#2".to_owned());
        for (message, is_access, name) in [
            ("[user] [127.0.0.1:1_127.0.0.1:2] GET /login 200", true, "user#2"),
            ("[user] node [127.0.0.1:1_127.0.0.1:2] join", false, "user"),
            ("[user] Http Listen on port: 1", false, "user"),
            ("127.0.0.1 GET /api/user/login 200", true, "gateway"),
            ("stopped", false, "goms"),
        ] {
            assert_eq!(console.speaker(message, is_access), name, "{message}");
        }
    }

    #[test]
    fn json_stays_json() {
        for (line, part) in [
            ("{\"level\":\"info\"}", r#"{"node":"shop#1","level":"info"}"#),
            ("{}", r#"{"node":"shop#1"}"#),
            ("{ }", r#"{"node":"shop#1" }"#),
            ("{ not json", r#""message":"{ not json""#),
            ("text \"quoted\"", r#""message":"text \"quoted\"""#),
        ] {
            let printed = json("shop#1", Stream::Out, line);
            assert!(printed.contains(part), "{printed}");
            let value: serde_json::Value = serde_json::from_str(&printed).expect("json");
            assert_eq!(value["node"], "shop#1");
        }
    }

    #[test]
    fn a_flood_waits_for_nobody() {
        let (sender, receiver) = sync_channel(2);
        let mut console = console(LogFormat::Text);
        console.sender = sender;
        (0..10).for_each(|n| console.program("shop#1", Stream::Out, &n.to_string()));
        assert_eq!(console.shared.left_out.load(Ordering::Relaxed), 8);
        drop(receiver);
        console.program("shop#1", Stream::Out, "nobody reads");
    }
}

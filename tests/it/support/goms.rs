//! The built `goms` binary, run in a temporary folder as a user would run it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a process may take to say or do what a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of its own, removed with everything in it when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new, empty one.
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(super::servers::unique("goms-test-"));
        std::fs::create_dir(&path).expect("a temporary folder can be made");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file into it; returns its path as text, to be put on a command line.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file can be written");
        path.to_str().expect("temporary paths are UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove `{}`: {error}", self.0.display());
        }
    }
}

/// `goms` with its data and runtime folder (and so its local registry) in `folder`, and nothing of this environment's settings.
pub fn command<A: AsRef<str>>(folder: &Path, args: &[A]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_goms"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("GOMS_") || text.starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    command
        .args(args.iter().map(AsRef::as_ref))
        .env_remove("RUST_LOG")
        .env("GOMS_DATA_DIR", folder)
        .env("GOMS_RUNTIME_DIR", folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a command that ends by itself, within [`PATIENCE`], and gives its exit code and what it printed.
pub fn run<A: AsRef<str>>(folder: &Path, args: &[A]) -> Output {
    let mut goms = Goms::spawn(command(folder, args));
    let status = goms.exit_status(PATIENCE);
    goms.join_readers();
    let lines = goms.lines();
    let of = |from: Stream| {
        lines.iter().filter(|line| line.0 == from).flat_map(|line| line.1.bytes().chain(*b"\n")).collect()
    };
    Output { status, stdout: of(Stream::Out), stderr: of(Stream::Err) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

type Lines = Vec<(Stream, String)>;

/// A running `goms`. Dropping it kills it.
#[derive(Debug)]
pub struct Goms {
    child: Child,
    log: Arc<(Mutex<Lines>, Condvar)>,
    readers: Vec<std::thread::JoinHandle<()>>,
    folder: Option<Folder>,
}

impl Goms {
    /// Starts it in a folder of its own.
    pub fn start<A: AsRef<str>>(args: &[A]) -> Self {
        let folder = Folder::new();
        let mut goms = Self::start_in(folder.path(), args);
        goms.folder = Some(folder);
        goms
    }

    /// Starts it in a folder shared with others, which so are one cluster on the local registry.
    pub fn start_in<A: AsRef<str>>(folder: &Path, args: &[A]) -> Self {
        Self::spawn(command(folder, args))
    }

    /// Starts a [`command`] that the test has added to (environment, folder).
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().expect("goms can be started");
        let log = Arc::new((Mutex::new(Lines::new()), Condvar::new()));
        let out = child.stdout.take().expect("stdout is piped");
        let err = child.stderr.take().expect("stderr is piped");
        let readers = vec![read(out, Stream::Out, Arc::clone(&log)), read(err, Stream::Err, Arc::clone(&log))];
        Self { child, log, readers, folder: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it printed so far, stdout and stderr in the order in which they were read.
    pub fn log(&self) -> String {
        self.lines().iter().map(|line| format!("{}\n", line.1)).collect()
    }

    /// The first line, printed already or within [`PATIENCE`], that contains `text`. Panics with the whole log if there is none.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_for_count(text, 1, PATIENCE)
    }

    /// The `count`th line that contains `text`.
    pub fn wait_for_count(&self, text: &str, count: usize, patience: Duration) -> String {
        let deadline = Instant::now() + patience;
        let mut lines = self.lines();
        loop {
            if let Some(line) = lines.iter().filter(|line| line.1.contains(text)).nth(count - 1) {
                return line.1.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(lines);
                panic!("goms did not print `{text}` ({count} times) in {patience:?}; it printed:\n{}", self.log());
            }
            lines = self.log.1.wait_timeout(lines, left).expect("no reader panics").0;
        }
    }

    /// SIGTERM; returns the exit code once it has ended by itself.
    pub fn terminate(mut self) -> i32 {
        self.signal("TERM");
        self.exit_code()
    }

    /// Sends a signal by its name, as `TERM`, `INT`, `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]).status();
        assert!(sent.expect("sh can be started").success(), "cannot send SIG{name} to {pid}");
    }

    /// SIGKILL, as a crash; returns when it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// Waits, at most [`PATIENCE`], until it ends by itself. -1 for an end by signal.
    pub fn exit_code(&mut self) -> i32 {
        self.exit_status(PATIENCE).code().unwrap_or(-1)
    }

    fn exit_status(&mut self, patience: Duration) -> std::process::ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "goms did not end in {patience:?}; it printed:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.log.0.lock().expect("no reader panics")
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().expect("no reader panics");
        }
    }

    fn end(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Goms {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("--- goms (pid {}) printed:\n{}---", self.pid(), self.log());
        }
    }
}

fn read(
    from: impl Read + Send + 'static,
    stream: Stream,
    log: Arc<(Mutex<Lines>, Condvar)>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            log.0.lock().expect("no test panics with the log locked").push((stream, line));
            log.1.notify_all();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_process_leaves_its_code_and_its_words() {
        let folder = Folder::new();
        let mut goms = Goms::spawn({
            let mut command = Command::new("sh");
            command.args(["-c", "echo out; echo err >&2; exit 7"]).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.current_dir(folder.path());
            command
        });
        goms.wait_for("out");
        goms.wait_for("err");
        assert_eq!(goms.exit_code(), 7);
    }

    #[test]
    fn sigterm_reaches_the_process_and_a_dropped_one_is_gone() {
        let script = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]).stdout(Stdio::piped()).stderr(Stdio::piped());
            Goms::spawn(command)
        };
        let goms = script("trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done");
        goms.wait_for("ready");
        assert_eq!(goms.terminate(), 3);
        let goms = script("echo ready; exec sleep 60");
        goms.wait_for("ready");
        let process = format!("/proc/{}", goms.pid());
        assert!(Path::new(&process).exists());
        goms.kill();
        assert!(!Path::new(&process).exists());
    }
}

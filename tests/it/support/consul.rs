//! A Consul agent of a test's own, which it may kill and restart.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::ports::free_port;

/// One agent that is its own server, all in memory: a restart is one that lost everything.
pub struct Consul {
    binary: String,
    child: Option<Child>,
    ports: [u16; 4],
    dir: PathBuf,
    extra: Vec<String>,
}

impl Consul {
    /// Starts one; `None` is a loud skip where there is none, and a failure in CI.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// One with more arguments.
    pub fn start_with(extra: &[&str]) -> Option<Self> {
        let binary = super::servers::consul_binary()?;
        let dir = std::env::temp_dir().join(super::servers::unique("goms-consul-"));
        std::fs::create_dir_all(&dir).expect("temporary folder");
        let ports = std::array::from_fn(|_| free_port());
        let extra = extra.iter().map(|text| (*text).to_owned()).collect();
        let mut consul = Self { binary, child: None, ports, dir, extra };
        consul.up();
        Some(consul)
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    pub fn up(&mut self) {
        assert!(self.child.is_none(), "consul runs already");
        let log = std::fs::File::create(self.dir.join("log")).expect("log file");
        let [http, server, lan, wan] = self.ports.map(|port| port.to_string());
        let child = Command::new(&self.binary)
            .args(["agent", "-dev", "-node", "one", "-bind", "127.0.0.1", "-client", "127.0.0.1", "-dns-port", "-1"])
            .args(["-grpc-port", "-1", "-grpc-tls-port", "-1", "-http-port", &http, "-server-port", &server])
            .args(["-serf-lan-port", &lan, "-serf-wan-port", &wan])
            .args(&self.extra)
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("consul starts");
        self.child = Some(child);
        let leader = format!("{}/v1/status/leader", self.address());
        let deadline = Instant::now() + Duration::from_secs(30);
        while !get(&leader).is_some_and(|text| text.contains(':')) {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "consul has no leader:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("consul is killed");
            child.wait().expect("consul is gone");
        }
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.kill();
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove `{}`: {error}", self.dir.display());
        }
    }
}

/// What a `GET` answers, if it is 200.
pub fn get(url: &str) -> Option<String> {
    curl(&[url])
}

/// What a `PUT` answers, if it is 200.
pub fn put(url: &str, body: &str) -> Option<String> {
    curl(&["-X", "PUT", "--data", body, url])
}

fn curl(arguments: &[&str]) -> Option<String> {
    let output = Command::new("curl").args(["-sf", "-g", "-m", "5"]).args(arguments).output().expect("curl runs");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

//! An etcd of a test's own, which it may stop, kill, freeze and restart.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::ports::free_port;

/// A running (or stopped) etcd in a temporary folder on ports of its own. Ends with its owner.
pub struct Etcd {
    child: Option<Child>,
    client_port: u16,
    peer_port: u16,
    dir: PathBuf,
    /// A restart with an empty store uses the next folder.
    life: u32,
    tls: Option<Tls>,
    name: String,
    /// All members of its cluster, as etcd takes them; `None`: it is alone.
    members: Option<String>,
}

#[derive(Clone)]
struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    /// Who vouches for clients, which then need a certificate.
    clients: Option<PathBuf>,
}

impl Etcd {
    /// Starts one; `None` is a loud skip where no etcd is installed, and a failure in CI.
    pub fn start() -> Option<Self> {
        Self::start_with(None)
    }

    /// One that speaks TLS only.
    pub fn start_tls(certificate: &Path, key: &Path) -> Option<Self> {
        Self::start_with(Some(Tls { certificate: certificate.to_owned(), key: key.to_owned(), clients: None }))
    }

    /// One that lets in only whom `ca` vouches for, as it does for the server.
    pub fn start_mutual_tls(certificate: &Path, key: &Path, ca: &Path) -> Option<Self> {
        let (certificate, key, clients) = (certificate.to_owned(), key.to_owned(), Some(ca.to_owned()));
        Self::start_with(Some(Tls { certificate, key, clients }))
    }

    fn start_with(tls: Option<Tls>) -> Option<Self> {
        let mut etcd = Self::stopped("one", tls)?;
        etcd.up();
        Some(etcd)
    }

    fn stopped(name: &str, tls: Option<Tls>) -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no etcd is installed (run scripts/test)");
            eprintln!("SKIPPED: no etcd is installed (run scripts/test)");
            return None;
        }
        let dir = std::env::temp_dir().join(super::servers::unique("goms-etcd-"));
        std::fs::create_dir_all(&dir).expect("temporary folder");
        let (client_port, peer_port, name) = (free_port(), free_port(), name.to_owned());
        Some(Self { child: None, client_port, peer_port, dir, life: 0, tls, name, members: None })
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("etcd runs").id()
    }

    /// Starts it again with the data it had.
    pub fn up(&mut self) {
        self.spawn();
        self.wait();
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none(), "etcd runs already");
        let (client, peer) = (self.client_port, self.peer_port);
        let log = std::fs::File::create(self.dir.join("log")).expect("log file");
        let mut command = Command::new("etcd");
        let mut scheme = "http";
        if let Some(Tls { certificate, key, clients }) = &self.tls {
            command.arg("--cert-file").arg(certificate).arg("--key-file").arg(key);
            if let Some(ca) = clients {
                command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(ca);
            }
            scheme = "https";
        }
        let alone = self.member();
        let child = command
            .args(["--name", &self.name, "--unsafe-no-fsync", "--heartbeat-interval=50", "--election-timeout=500"])
            .arg("--data-dir")
            .arg(self.dir.join(format!("data{}", self.life)))
            .arg(format!("--listen-client-urls={scheme}://127.0.0.1:{client}"))
            .arg(format!("--advertise-client-urls={scheme}://127.0.0.1:{client}"))
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"))
            .arg(format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"))
            .arg(format!("--initial-cluster={}", self.members.as_ref().unwrap_or(&alone)))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd starts");
        self.child = Some(child);
    }

    /// Itself, as `--initial-cluster` names it.
    fn member(&self) -> String {
        format!("{}=http://127.0.0.1:{}", self.name, self.peer_port)
    }

    /// Waits until it answers.
    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.try_ctl(&["put", "started", "1"]).0 {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "etcd does not answer:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it leads its cluster.
    pub fn leads(&self) -> bool {
        let text = self.ctl(&["endpoint", "status", "-w", "json"]);
        let status: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let status = &status[0]["Status"];
        status["leader"].is_number() && status["leader"] == status["header"]["member_id"]
    }

    /// Three that are one cluster.
    pub fn start_three() -> Option<[Self; 3]> {
        let mut all = [Self::stopped("one", None)?, Self::stopped("two", None)?, Self::stopped("three", None)?];
        let members = all.each_ref().map(Self::member).join(",");
        for etcd in &mut all {
            etcd.members = Some(members.clone());
            etcd.spawn();
        }
        all.iter().for_each(Self::wait);
        Some(all)
    }

    /// The same with an empty store.
    pub fn up_empty(&mut self) {
        self.life += 1;
        self.up();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("etcd is killed");
            child.wait().expect("etcd is gone");
        }
    }

    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    /// Runs etcdctl and returns what it prints.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let (ok, text) = self.try_ctl(arguments);
        assert!(ok, "etcdctl {arguments:?}: {text}");
        text
    }

    /// All keys with a prefix.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let text = self.ctl(&["get", "--prefix", "--keys-only", prefix]);
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    fn try_ctl(&self, arguments: &[&str]) -> (bool, String) {
        match &self.tls {
            None => ctl(&self.address(), arguments),
            Some(Tls { certificate, key, clients }) => {
                let ca = format!("--cacert={}", clients.as_ref().unwrap_or(certificate).display());
                let (certificate, key) =
                    (format!("--cert={}", certificate.display()), format!("--key={}", key.display()));
                let endpoint = format!("https://{}", self.address());
                let own = if clients.is_some() { &[certificate.as_str(), key.as_str()][..] } else { &[] };
                ctl(&endpoint, &[&[ca.as_str()], own, arguments].concat())
            }
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // SIGKILL ends a frozen process too.
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                eprintln!("etcd was not ended: {error}");
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove `{}`: {error}", self.dir.display());
        }
    }
}

/// Runs etcdctl against an address: whether it succeeded, and what it printed.
pub fn ctl(address: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", address, "--command-timeout=2s"])
        .args(arguments)
        .output()
        .expect("etcdctl runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

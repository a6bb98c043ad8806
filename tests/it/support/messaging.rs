//! A NATS or a Mosquitto of a test's own, which it may stop and restart.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::ports::free_port;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nats,
    Mosquitto,
}

/// A running (or stopped) server in a temporary folder. Ends with its owner.
pub struct Server {
    kind: Kind,
    child: Option<Child>,
    port: u16,
    dir: PathBuf,
    /// Certificate and key of a Mosquitto that speaks TLS.
    tls: Option<(PathBuf, PathBuf)>,
}

impl Server {
    /// `None` is a loud skip where the shared one is not there either.
    pub fn start(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Nats => super::servers::nats()?,
            Kind::Mosquitto => super::servers::mqtt()?,
        };
        let dir = std::env::temp_dir().join(super::servers::unique("goms-broker-"));
        std::fs::create_dir_all(&dir).expect("temporary folder");
        let mut server = Self { kind, child: None, port: free_port(), dir, tls: None };
        server.up();
        Some(server)
    }

    /// A Mosquitto that speaks TLS only.
    pub fn start_tls(certificate: &Path, key: &Path) -> Option<Self> {
        let mut server = Self::start(Kind::Mosquitto)?;
        server.down();
        server.tls = Some((certificate.to_owned(), key.to_owned()));
        server.up();
        Some(server)
    }

    pub fn url(&self) -> String {
        let scheme = match self.kind {
            Kind::Nats => "nats",
            Kind::Mosquitto if self.tls.is_some() => "mqtts",
            Kind::Mosquitto => "mqtt",
        };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// What it printed since it was started.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Starts it (again) on the same folder and waits until it takes connections.
    pub fn up(&mut self) {
        let log = std::fs::File::create(self.dir.join("log")).expect("log file");
        let (port, data) = (self.port.to_string(), self.dir.join("data"));
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("env");
        command.arg(format!("PATH={path}"));
        match self.kind {
            Kind::Nats => {
                command.args(["nats-server", "-a", "127.0.0.1", "-p", &port, "-js", "-sd"]).arg(&data);
            }
            Kind::Mosquitto => {
                std::fs::create_dir_all(&data).expect("data folder");
                let tls = self.tls.as_ref().map(|(certificate, key)| {
                    format!("certfile {}\nkeyfile {}\n", certificate.display(), key.display())
                });
                let conf = format!(
                    "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\nmax_queued_messages 0\n{}",
                    data.display(),
                    tls.unwrap_or_default()
                );
                let file = self.dir.join("conf");
                std::fs::write(&file, conf).expect("conf file");
                command.args(["mosquitto", "-c"]).arg(file);
            }
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().expect("log file")).stderr(log).spawn();
        self.child = Some(child.expect("the server starts"));
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{:?} does not start:\n{log}", self.kind);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it: NATS by SIGKILL, Mosquitto by SIGTERM, since it writes down what it has only at its end.
    pub fn down(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let signal = if self.kind == Kind::Nats { "-KILL" } else { "-TERM" };
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
        child.wait().expect("the server ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove `{}`: {error}", self.dir.display());
        }
    }
}

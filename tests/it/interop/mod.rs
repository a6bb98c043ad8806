//! Nodes of Go Micro in the cluster, real ones (`tests/interop`). Their records have no namespace: an etcd a test.

mod api;
mod broker;
mod calls;
mod registry;
mod served_streams;
mod streams;

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::etcd::Etcd;
use crate::support::goms::{self, Folder, Goms};
use crate::support::http;
use crate::support::servers;

/// An etcd with nodes of Go Micro and of goms around it.
pub struct Cluster {
    pub etcd: Etcd,
    pub folder: Folder,
}

/// Which Go Micro.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V2,
    V5,
}

impl Version {
    /// The built program; `None` is a loud skip.
    pub fn program(self) -> Option<String> {
        match self {
            Self::V2 => servers::go_micro_v2(),
            Self::V5 => servers::go_micro_v5(),
        }
    }
}

/// What a Go client counted.
#[derive(Debug, serde::Deserialize)]
pub struct Outcome {
    pub ok: usize,
    pub failed: usize,
    pub replies: std::collections::BTreeMap<String, usize>,
    pub errors: std::collections::BTreeMap<String, usize>,
}

impl Cluster {
    /// One with nothing in it; `None` is a loud skip where etcd or one of the programs is missing.
    pub fn start(versions: &[Version]) -> Option<Self> {
        if !versions.iter().all(|version| version.program().is_some()) {
            return None;
        }
        Some(Self { etcd: Etcd::start()?, folder: Folder::new() })
    }

    /// A program of Go Micro; a server has registered when this returns.
    pub fn go(&self, version: Version, args: &[&str]) -> Goms {
        let before = self.nodes();
        let node = Goms::spawn(self.go_command(version, args));
        let deadline = std::time::Instant::now() + goms::PATIENCE;
        while self.nodes() == before {
            assert!(std::time::Instant::now() < deadline, "it did not register:\n{}", node.log());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        node
    }

    /// A gateway of Go Micro v2. It reads the registry when it is asked.
    pub fn go_gateway(&self) -> Goms {
        Goms::spawn(self.go_command(Version::V2, &["-mode", "gateway"]))
    }

    fn go_command(&self, version: Version, args: &[&str]) -> Command {
        let mut command = Command::new(version.program().expect("asked for before"));
        command.args(["-registry", &self.etcd.address()]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a client to its end.
    pub fn go_client(&self, version: Version, args: &[&str]) -> Outcome {
        let mut client = Goms::spawn(self.go_command(version, &[&["-mode", "client"], args].concat()));
        let line = client.wait_for("{\"ok\":");
        client.exit_code();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// A node of goms on this etcd, on loopback.
    pub fn goms(&self, args: &[&str]) -> Goms {
        let etcd = self.etcd.address();
        let common = ["--registry", "etcd", "--registry-address", &etcd, "--bind", "127.0.0.1"];
        let before = self.nodes();
        let node = Goms::spawn(goms::command(self.path(), &[args, &common].concat()));
        if args.first() == Some(&"service") {
            node.wait_for("Registering node");
            let deadline = std::time::Instant::now() + goms::PATIENCE;
            while self.nodes() == before {
                assert!(std::time::Instant::now() < deadline, "it did not register:\n{}", node.log());
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        node
    }

    /// How many nodes are written down, in either form.
    fn nodes(&self) -> usize {
        self.etcd.keys("goms_").len() + self.etcd.keys("/micro/registry/").len()
    }

    /// A gateway that is one of Go Micro's, and its address. It knows `nodes` nodes besides itself when this returns.
    pub fn gateway(&self, args: &[&str], nodes: usize) -> (Goms, String) {
        let ports = ["gateway", "--http-port", "0", "--rpc-port", "0", "--admin-port", "0"];
        let gateway = self.goms(&[&ports, args].concat());
        let port = gateway.wait_for("Http Listen on port: ").rsplit(' ').next().expect("a port").to_owned();
        let address = format!("127.0.0.1:{port}");
        let deadline = std::time::Instant::now() + goms::PATIENCE;
        let known = || {
            let page = http::get(&address, "/cluster").map(|answer| answer.json()).unwrap_or_default();
            let services = page["services"].as_object().cloned().unwrap_or_default();
            let of = |(name, service): (&String, &Value)| {
                if name == "gateway" { 0 } else { service["Nodes"].as_array().map_or(0, Vec::len) }
            };
            services.iter().map(of).sum::<usize>()
        };
        while known() != nodes {
            assert!(std::time::Instant::now() < deadline, "the gateway knows {} nodes:\n{}", known(), gateway.log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        (gateway, address)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The records of a service.
    pub fn records(&self, service: &str) -> Vec<(String, Value)> {
        let prefix = format!("/micro/registry/{service}/");
        let keys = self.etcd.keys(&prefix);
        let value = |key: &String| {
            let text = self.etcd.ctl(&["get", "--print-value-only", key]);
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
        };
        keys.iter().map(|key| (key.clone(), value(key))).collect()
    }
}

//! mDNS between processes: of one machine, and of two network namespaces that stand for two machines.

use std::process::Command;
use std::time::Duration;

use goms::registry::Backend;

use super::{settings, simple, wait_for};
use crate::support::goms::{Folder, Goms, command};
use crate::support::servers::unique;

/// A killed node is missed at its next question, and has its time to answer.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn processes_find_each_other_and_leave_by_a_goodbye_or_by_silence() {
    let namespace = unique("goms-");
    let watcher = simple(&settings(Backend::Mdns, &namespace));
    let folder = Folder::new();
    let start = || {
        let flags = ["--registry=mdns", "--register-ttl=2s", "--namespace", &namespace, "--bind=127.0.0.1"];
        Goms::start_in(folder.path(), &[&["service", "user"][..], &flags].concat())
    };
    let (one, two) = (start(), start());
    let mut watch = watcher.catalog();
    let catalog = wait_for(&mut watch, LIMIT, "both", |catalog| catalog.nodes("user").len() == 2).await;
    assert!(catalog.all().all(|node| node.meta.started_ms > 0), "with their metadata");
    assert_eq!(one.terminate(), 0);
    wait_for(&mut watch, LIMIT, "one left", |catalog| catalog.nodes("user").len() == 1).await;
    two.kill();
    wait_for(&mut watch, LIMIT, "none", |catalog| catalog.nodes("user").is_empty()).await;
}

/// Two namespaces with a cable between them.
struct Pair {
    name: String,
}

impl Pair {
    const ADDRESSES: [&str; 2] = ["10.97.0.1", "10.97.0.2"];

    /// `None` is a loud skip where this may not be done.
    fn new() -> Option<Self> {
        let pair = Self { name: unique("g")[..9].to_owned() };
        let [a, b] = [pair.namespace(0), pair.namespace(1)];
        if !ip(&["netns", "add", &a]) || !ip(&["netns", "add", &b]) {
            eprintln!("SKIPPED: network namespaces cannot be made (needs root and `ip`)");
            return None;
        }
        let mut done = ip(&["link", "add", &a, "netns", &a, "type", "veth", "peer", "name", &b, "netns", &b]);
        for (namespace, address) in [&a, &b].into_iter().zip(Self::ADDRESSES) {
            done &= ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", namespace])
                && ip(&["-n", namespace, "link", "set", "lo", "up"])
                && ip(&["-n", namespace, "link", "set", namespace, "up"]);
        }
        if !done {
            eprintln!("SKIPPED: network namespaces cannot be connected (no veth?)");
            return None;
        }
        Some(pair)
    }

    fn namespace(&self, side: usize) -> String {
        format!("{}-{side}", self.name)
    }

    /// The same command on one side.
    fn inside(&self, side: usize, inner: &Command) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(side)]).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(folder) = inner.get_current_dir() {
            command.current_dir(folder);
        }
        command
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for side in [0, 1] {
            ip(&["netns", "del", &self.namespace(side)]);
        }
    }
}

fn ip(arguments: &[&str]) -> bool {
    let done = Command::new("ip").args(arguments).output();
    done.is_ok_and(|output| output.status.success())
}

#[test]
fn a_gateway_calls_a_node_of_another_network_namespace() {
    let Some(pair) = Pair::new() else { return };
    let folders = [Folder::new(), Folder::new()];
    let start = |side: usize, arguments: &[&str]| {
        let flags = ["--registry=mdns", "--advertise-ip", Pair::ADDRESSES[side]];
        let inner = command(folders[side].path(), &[arguments, &flags].concat());
        let mut outer = pair.inside(side, &inner);
        outer
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        Goms::spawn(outer)
    };
    let gateway = start(0, &["gateway"]);
    let service = start(1, &["service", "user"]);
    gateway.wait_for("[user] node [10.97.0.2:");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-m", "10", "-d", "username=huohuo", "http://10.97.0.1:8080/api/user/login"]);
    let answer = pair.inside(0, &curl).output().expect("curl runs");
    let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(answer.contains("huohuo"), "{answer}");
    service.signal("TERM");
    gateway.wait_for("leave");
}

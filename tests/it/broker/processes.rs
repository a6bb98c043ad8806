//! Members of a group in processes of their own, one of which is killed.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use goms::broker::{Backend, Message, Settings};
use goms::service::Subscribers;
use goms::{Context, Service, ServiceError};
use serde_json::Value;

use super::{hear, opened};
use crate::service::parts;
use crate::support::goms::Folder;
use crate::support::{servers, wait_for};

const TOPIC: &str = "user.registered";
const GROUP: &str = "mail";
/// Tells this program that it is a member: the broker, the namespace, and the file that it writes to, by spaces.
const MEMBER: &str = "GOMS_TEST_MEMBER";
/// Messages before the kill, and in all.
const BEFORE: usize = 200;
const ALL: usize = 600;

fn settings(url: &str, namespace: &str) -> Settings {
    let backend = Backend::Amqp(vec![url.to_owned()]);
    Settings {
        backend,
        namespace: namespace.to_owned(),
        attempts: 3,
        backoff: Duration::from_millis(20),
        runtime_dir: std::env::temp_dir(),
    }
}

/// No test by itself: what the test below starts as a process.
#[test]
fn a_member() {
    let Ok(told) = std::env::var(MEMBER) else { return };
    let [url, namespace, file] = *told.split(' ').collect::<Vec<_>>() else { panic!("{told}") };
    let file = std::path::PathBuf::from(file);
    let service = Service::new("mail").subscribe_group(TOPIC, GROUP, move |_: Context, body: Value| {
        let file = file.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(2)).await; // so that some are always half way
            let line = format!("{} {}\n", std::process::id(), body["number"]);
            let noted = std::fs::OpenOptions::new().append(true).create(true).open(&file);
            let noted = noted.and_then(|mut file| file.write_all(line.as_bytes()));
            noted.map_err(|error| ServiceError::new(500, error.to_string()))
        }
    });
    let (parts, _events) = parts("mail");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let settings = settings(url, namespace);
        let (broker, _shutdown) = opened(&settings).await;
        let _members = Subscribers::start(&service, parts, broker, settings).expect("started");
        std::future::pending::<()>().await; // until it is killed
    });
}

struct Member(Child);

impl Member {
    fn start(url: &str, namespace: &str, file: &Path) -> Self {
        let told = format!("{url} {namespace} {}", file.display());
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "broker::processes::a_member", "--nocapture"]).env(MEMBER, told);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("it starts"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("a member was not ended: {error}");
        }
    }
}

/// Which processes handled something, and the numbers that were handled.
fn noted(file: &Path) -> (BTreeSet<String>, BTreeSet<usize>) {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.filter_map(|(who, number)| Some((who.to_owned(), number.parse::<usize>().ok()?))).unzip()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_killed_loses_nothing_of_its_group() {
    let Some(url) = servers::amqp() else { return };
    let (folder, namespace) = (Folder::new(), servers::unique("g"));
    let file = folder.path().join("handled");
    let (broker, shutdown) = opened(&settings(&url, &namespace)).await;
    drop(hear(&broker, TOPIC, Some(GROUP)).await); // from now on the group keeps its messages
    let [one, _two] = [(); 2].map(|()| Member::start(&url, &namespace, &file));
    let publish = async |number: usize| {
        broker.publish(Message::new(TOPIC, format!(r#"{{"number":{number}}}"#))).await.expect("confirmed");
    };
    for number in 0..BEFORE {
        publish(number).await;
    }
    wait_for("both to have some", || noted(&file).0.len() == 2).await;
    // in the middle of what it has
    let killing = tokio::task::spawn_blocking(move || drop(one));
    for number in BEFORE..ALL {
        publish(number).await;
    }
    killing.await.expect("killed");
    wait_for("all", || noted(&file).1.len() == ALL).await;
    assert_eq!(noted(&file).1, (0..ALL).collect());
    shutdown.begin();
}

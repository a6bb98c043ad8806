//! What the registry of one machine must survive.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use goms::registry::{Backend, NodeState, RegistryError, Settings};

use super::{HERE, TempDir, expected, handle, node, node_at, ready, settings, simple, wait_told, wait_until};

const LIMIT: Duration = Duration::from_secs(5);
const CHILD: &str = "GOMS_TEST_LOCAL_CHILD";

fn local(dir: &TempDir) -> Settings {
    settings(Backend::Local { dir: dir.path().to_owned() }, "goms")
}

/// Not a test of its own: the process that `child` starts.
#[tokio::test]
async fn child_registers_until_it_is_killed() {
    let Ok(text) = std::env::var(CHILD) else { return };
    let (dir, port) = text.rsplit_once('|').expect("folder and port");
    let registry = simple(&settings(Backend::Local { dir: Path::new(dir).to_owned() }, "goms"));
    let node = node_at(HERE, "user", port.parse().expect("a port"));
    match registry.register(node).await {
        Ok(()) => println!("child: registered"),
        Err(error) => println!("child: {error}"),
    }
    // A test that fails does not leave a child for ever.
    tokio::time::sleep(Duration::from_secs(60)).await;
}

/// Another process that registers a node; and what it said.
fn child(dir: &TempDir, port: u16) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "registry::local::child_registers_until_it_is_killed", "--nocapture"])
        .env(CHILD, format!("{}|{port}", dir.path().display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test binary starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let said = lines.map_while(Result::ok).find_map(|line| line.split_once("child: ").map(|(_, said)| said.to_owned()));
    (child, said.expect("the child says something"))
}

fn files(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir.path().join("goms"))
        .expect("folder")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name != ".lock")
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_killed_process_leaves_at_once() {
    let dir = TempDir::new();
    let registry = simple(&local(&dir));
    let mut watch = registry.catalog();
    for port in [9001, 9002, 9003] {
        let killed = node_at(HERE, "user", port);
        let (mut child, said) = child(&dir, port);
        assert_eq!(said, "registered");
        wait_told(&mut watch, LIMIT, &ready(&[&killed])).await;
        registry.set_draining(&killed.id, true).await.expect("marked");
        wait_told(&mut watch, LIMIT, &expected(&[(&killed, NodeState::Draining)])).await;
        let began = Instant::now();
        child.kill().expect("killed");
        wait_told(&mut watch, LIMIT, &[]).await;
        let took = began.elapsed();
        child.wait().expect("gone");
        // Seen in a few milliseconds; the poll alone would take 1.5 s. The bound leaves room for busy machines.
        assert!(took < Duration::from_millis(500), "{took:?}");
        println!("a killed process left after {took:?}");
        wait_until(LIMIT, "file and mark are swept", || files(&dir).is_empty()).await;
    }
}

#[tokio::test]
async fn an_id_of_another_live_process_is_taken_and_left_alone() {
    let dir = TempDir::new();
    let registry = simple(&local(&dir));
    let held = node_at(HERE, "user", 9010);
    let (mut first, said) = child(&dir, 9010);
    assert_eq!(said, "registered");
    assert!(matches!(registry.register(held.clone()).await, Err(RegistryError::Taken(_))));
    let (mut second, said) = child(&dir, 9010);
    assert!(said.contains("already registered"), "{said}");
    second.kill().expect("killed");
    second.wait().expect("gone");
    wait_told(&mut registry.catalog(), LIMIT, &ready(&[&held])).await;
    first.kill().expect("killed");
    first.wait().expect("gone");
    registry.register(held.clone()).await.expect("free as soon as its owner is dead");
    wait_told(&mut registry.catalog(), LIMIT, &ready(&[&held])).await;
}

#[tokio::test]
async fn a_dropped_handle_gives_its_nodes_up() {
    let dir = TempDir::new();
    let (one, two) = (simple(&local(&dir)), simple(&local(&dir)));
    let lost = node("user");
    one.register(lost.clone()).await.expect("registered");
    wait_told(&mut two.catalog(), LIMIT, &ready(&[&lost])).await;
    drop(one);
    wait_told(&mut two.catalog(), LIMIT, &[]).await;
}

#[tokio::test]
async fn readers_never_disturb_a_registration() {
    let dir = TempDir::new();
    let settings = local(&dir);
    let readers: Vec<_> = (0..4).map(|_| simple(&settings)).collect();
    let writer = simple(&settings);
    for _ in 0..50 {
        let node = node("user");
        writer.register(node.clone()).await.expect("registered at the first try");
        writer.deregister(&node.id).await.expect("deregistered");
        writer.register(node.clone()).await.expect("registered again");
        writer.deregister(&node.id).await.expect("deregistered");
    }
    for reader in readers {
        wait_told(&mut reader.catalog(), LIMIT, &[]).await;
    }
}

#[tokio::test]
async fn junk_in_the_folder_is_set_aside_and_stale_files_are_swept() {
    let dir = TempDir::new();
    let (registry, _shutdown, metrics) = handle(&local(&dir));
    let folder = dir.path().join("goms");
    let mode = std::fs::metadata(&folder).expect("folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    std::fs::write(folder.join("goms_user_nonsense"), "").expect("written");
    std::fs::write(folder.join("goms_user_127.0.0.1:1_127.0.0.1:2"), "nobody holds it").expect("written");
    std::fs::write(folder.join(".new-left-behind"), "").expect("written");
    std::fs::create_dir(folder.join("goms_user_127.0.0.1:3_127.0.0.1:4")).expect("made");
    let held = node("user");
    registry.register(held.clone()).await.expect("registered");
    wait_told(&mut registry.catalog(), LIMIT, &ready(&[&held])).await;
    wait_until(LIMIT, "swept", || {
        files(&dir)
            == [held.id.key("goms").as_str(), "goms_user_127.0.0.1:3_127.0.0.1:4", "goms_user_nonsense"].sorted()
    })
    .await;
    wait_until(LIMIT, "counted", || metrics.render().contains("goms_registry_malformed_total 2")).await;
}

trait Sorted {
    fn sorted(self) -> Vec<String>;
}

impl<const N: usize> Sorted for [&str; N] {
    fn sorted(mut self) -> Vec<String> {
        self.sort_unstable();
        self.map(str::to_owned).to_vec()
    }
}

#[tokio::test]
async fn who_lost_its_file_to_another_process_leaves_that_one_alone() {
    let dir = TempDir::new();
    let (one, two) = (simple(&local(&dir)), simple(&local(&dir)));
    let node = node("user");
    one.register(node.clone()).await.expect("registered");
    let file = dir.path().join("goms").join(node.id.key("goms"));
    loop {
        std::fs::remove_file(&file).expect("removed by someone");
        match two.register(node.clone()).await {
            Ok(()) => break,
            Err(RegistryError::Taken(_)) => {} // it was put back in between
            Err(error) => panic!("{error}"),
        }
    }
    one.deregister(&node.id).await.expect("deregistered");
    assert!(file.exists(), "the file of the other process is gone");
    wait_told(&mut two.catalog(), LIMIT, &ready(&[&node])).await;
    two.deregister(&node.id).await.expect("deregistered");
    assert!(!file.exists());
}

#[tokio::test]
async fn a_removed_folder_is_made_and_filled_again() {
    let dir = TempDir::new();
    let (one, two) = (simple(&local(&dir)), simple(&local(&dir)));
    let own = node("user");
    one.register(own.clone()).await.expect("registered");
    let other = node("user");
    two.register(other.clone()).await.expect("registered");
    wait_told(&mut two.catalog(), LIMIT, &ready(&[&own, &other])).await;
    std::fs::remove_dir_all(dir.path().join("goms")).expect("removed");
    let mut names = [own.id.key("goms"), other.id.key("goms")];
    names.sort();
    wait_until(LIMIT, "both files are back", || dir.path().join("goms").exists() && files(&dir) == names).await;
    let both = |catalog: &goms::registry::Catalog| catalog.all().count() == 2;
    super::wait_for(&mut one.catalog(), LIMIT, "both nodes", both).await;
    super::wait_for(&mut two.catalog(), LIMIT, "both nodes", both).await;
    // And it is watched again.
    let late = node("user");
    one.register(late.clone()).await.expect("registered");
    super::wait_for(&mut two.catalog(), LIMIT, "the late one", |catalog| catalog.find(&late.id).is_some()).await;
}

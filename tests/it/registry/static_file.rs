//! The static registry: the file while it changes, goes bad and comes back.

use std::time::Duration;

use goms::metrics::Metrics;
use goms::registry::{Backend, NodeState, RegistryError, Settings, open};
use goms::shutdown::Shutdown;

use super::{TempDir, expected, id_at, node_at, ready, settings, simple, told, wait_for, wait_told};

const LIMIT: Duration = Duration::from_secs(10);

fn of(file: &std::path::Path) -> Settings {
    settings(Backend::Static { file: file.to_owned() }, "goms")
}

/// `user` nodes of 10.0.0.1 by their RPC ports.
fn listing(ports: &[u16]) -> String {
    let nodes = ports.iter().map(|port| format!("    - {{ http: \"10.0.0.1:80\", rpc: \"10.0.0.1:{port}\" }}\n"));
    format!("services:\n  user:\n{}", nodes.collect::<String>())
}

fn nodes(ports: &[u16]) -> Vec<(String, NodeState)> {
    ports.iter().map(|port| (format!("10.0.0.1:{port}_10.0.0.1:80"), NodeState::Ready)).collect()
}

#[tokio::test]
async fn the_file_is_followed_and_a_bad_one_changes_nothing() {
    let dir = TempDir::new();
    let file = dir.path().join("nodes.yml");
    std::fs::write(&file, listing(&[1, 2])).expect("written");
    let registry = simple(&of(&file));
    let mut watch = registry.catalog();
    wait_told(&mut watch, LIMIT, &nodes(&[1, 2])).await;
    // written in place
    std::fs::write(&file, listing(&[2, 3])).expect("written");
    wait_told(&mut watch, LIMIT, &nodes(&[2, 3])).await;
    // another moved there, as editors and tools do
    std::fs::write(dir.path().join("new"), listing(&[4])).expect("written");
    std::fs::rename(dir.path().join("new"), &file).expect("moved");
    wait_told(&mut watch, LIMIT, &nodes(&[4])).await;
    for (bad, wanted) in [("services: {user: [x]}", "`x` is no address"), ("servces: {}", "unknown field `servces`")] {
        std::fs::write(&file, bad).expect("written");
        wait_trouble(&*registry, wanted).await;
        assert_eq!(told(&watch.borrow().clone().expect("known")), nodes(&[4]), "the last good one stays");
    }
    std::fs::remove_file(&file).expect("removed");
    wait_trouble(&*registry, "cannot be read").await;
    assert_eq!(told(&watch.borrow().clone().expect("known")), nodes(&[4]));
    std::fs::write(&file, listing(&[5])).expect("written");
    wait_told(&mut watch, LIMIT, &nodes(&[5])).await;
    assert_eq!(registry.trouble(), None);
}

async fn wait_trouble(registry: &dyn goms::registry::Registry, wanted: &str) {
    super::wait_until(LIMIT, wanted, || registry.trouble().is_some_and(|said| said.contains(wanted))).await;
}

/// As Kubernetes mounts a ConfigMap: the file is a link through a folder that is switched.
#[tokio::test]
async fn a_switched_folder_behind_the_file_is_seen() {
    let dir = TempDir::new();
    let make = |name: &str, ports: &[u16]| {
        std::fs::create_dir(dir.path().join(name)).expect("made");
        std::fs::write(dir.path().join(name).join("nodes.yml"), listing(ports)).expect("written");
    };
    let link = |to: &str, from: &str| std::os::unix::fs::symlink(to, dir.path().join(from)).expect("linked");
    make("one", &[1]);
    link("one", "..data");
    link("..data/nodes.yml", "nodes.yml");
    let registry = simple(&of(&dir.path().join("nodes.yml")));
    wait_told(&mut registry.catalog(), LIMIT, &nodes(&[1])).await;
    make("two", &[2]);
    link("two", "..data_tmp");
    std::fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).expect("switched");
    wait_told(&mut registry.catalog(), LIMIT, &nodes(&[2])).await;
}

#[tokio::test]
async fn own_nodes_are_this_process_s_alone_and_win_over_the_file() {
    let dir = TempDir::new();
    let file = dir.path().join("nodes.yml");
    std::fs::write(&file, listing(&[1, 2])).expect("written");
    let (one, two) = (simple(&of(&file)), simple(&of(&file)));
    let own = node_at("10.0.0.1".parse().expect("an IP"), "user", 1);
    one.register(own.clone()).await.expect("registered");
    let catalog = wait_for(&mut one.catalog(), LIMIT, "own", |catalog| {
        catalog.find(&own.id).is_some_and(|node| node.meta == own.meta)
    })
    .await;
    assert_eq!(told(&catalog), nodes(&[1, 2]), "one node, not two");
    let elsewhere = two.catalog().borrow().clone().expect("known");
    assert_eq!(elsewhere.find(&own.id).map(|node| node.meta.weight), Some(1), "the file's word");
    one.deregister(&own.id).await.expect("deregistered");
    wait_told(&mut one.catalog(), LIMIT, &nodes(&[2])).await;
    assert_eq!(told(&two.catalog().borrow().clone().expect("known")), nodes(&[1, 2]));
    // another's node is drained by the file alone
    let other = node_at("10.0.0.1".parse().expect("an IP"), "user", 2);
    let result = one.set_draining(&other.id, true).await.map_err(|error| error.to_string());
    assert!(result.as_ref().is_err_and(|said| said.contains("set `draining: true` at the node in")), "{result:?}");
    std::fs::write(&file, "services: {user: [{http: \"10.0.0.1:80\", rpc: \"10.0.0.1:2\", draining: true}]}")
        .expect("written");
    wait_told(&mut one.catalog(), LIMIT, &expected(&[(&other, NodeState::Draining)])).await;
    let unknown = id_at("10.0.0.1".parse().expect("an IP"), "user", 9);
    assert!(matches!(one.set_draining(&unknown, true).await, Err(RegistryError::Unknown(_))));
    let joining = node_at("10.0.0.9".parse().expect("an IP"), "order", 1);
    one.register(joining.clone()).await.expect("registered");
    wait_for(&mut one.catalog(), LIMIT, "joined", |catalog| catalog.nodes("order").len() == 1).await;
    assert_eq!(ready(&[&joining]).len(), 1);
    assert!(two.catalog().borrow().as_ref().is_some_and(|catalog| catalog.nodes("order").is_empty()));
}

#[tokio::test]
async fn a_file_that_is_bad_or_missing_at_the_start_is_an_error_that_says_where() {
    let dir = TempDir::new();
    let file = dir.path().join("nodes.yml");
    let opened = || open(&of(&file), &Shutdown::new(), &Metrics::new()).map(drop).map_err(|error| error.to_string());
    let said = opened().expect_err("missing");
    assert!(said.contains("nodes.yml") && said.contains("No such file"), "{said}");
    std::fs::write(&file, "services:\n  user:\n    - 10.0.0.1:80\n    - { htp: \"10.0.0.1:80\" }\n").expect("written");
    let said = opened().expect_err("bad");
    assert!(said.contains("unknown field `htp`") && said.contains("line 4"), "{said}");
}

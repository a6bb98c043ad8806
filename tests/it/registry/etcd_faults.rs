//! What must hold while etcd is stopped, killed, frozen, emptied or compacted. Each test has an etcd of its own.

use std::time::{Duration, Instant};

use goms::registry::{Backend, NodeState, RegistryError};

use super::{HERE, TempDir, etcd_settings, expected, handle, node, node_at, ready, simple, told};
use super::{wait_for, wait_told, wait_until};
use crate::support::etcd::Etcd;
use crate::support::tls::{Authority, Identity, IdentityFiles};

const LIMIT: Duration = Duration::from_secs(8);
/// Everything is registered again this soon after etcd's return.
const RETURN: Duration = Duration::from_secs(5);
const NAMESPACE: &str = "goms";

/// How many times two handles' nodes are in etcd, and in each other's catalogs.
async fn registered_again(etcd: &Etcd, keys: &[String]) {
    let mut wanted = keys.to_vec();
    wanted.sort();
    let began = Instant::now();
    wait_until(RETURN, "every key is back", || etcd.keys("goms_") == wanted).await;
    println!("registered again after {:?}", began.elapsed());
}

#[tokio::test]
async fn etcd_away_at_the_start_is_not_known_then_known() {
    let Some(mut etcd) = Etcd::start() else { return };
    etcd.kill();
    let registry = simple(&etcd_settings(&etcd.address(), NAMESPACE));
    let node = node("user");
    let result = registry.register(node.clone()).await;
    assert!(matches!(result, Err(RegistryError::Unavailable { kind: "etcd", .. })), "{result:?}");
    assert!(registry.catalog().borrow().is_none(), "not known is not empty");
    etcd.up();
    wait_told(&mut registry.catalog(), RETURN, &[]).await;
    registry.register(node.clone()).await.expect("registered");
    wait_told(&mut registry.catalog(), LIMIT, &ready(&[&node])).await;
}

#[tokio::test]
async fn defect_02_a_restart_with_an_empty_store_registers_everyone_again() {
    let Some(mut etcd) = Etcd::start() else { return };
    let settings = etcd_settings(&etcd.address(), NAMESPACE);
    let (one, two) = (simple(&settings), simple(&settings));
    let (first, second) = (node("user"), node("user"));
    one.register(first.clone()).await.expect("registered");
    wait_told(&mut two.catalog(), LIMIT, &ready(&[&first])).await;
    two.register(second.clone()).await.expect("registered");
    wait_told(&mut one.catalog(), LIMIT, &ready(&[&first, &second])).await;
    wait_told(&mut two.catalog(), LIMIT, &ready(&[&first, &second])).await;
    // A revision that the new store will not reach: a watch from there would stay silent.
    for number in 0..50 {
        etcd.ctl(&["put", "noise", &number.to_string()]);
    }
    two.set_draining(&second.id, true).await.expect("marked");
    let drained = expected(&[(&first, NodeState::Ready), (&second, NodeState::Draining)]);
    wait_told(&mut two.catalog(), LIMIT, &drained).await;
    etcd.kill();
    etcd.up_empty();
    registered_again(&etcd, &[first.id.key(NAMESPACE), second.id.key(NAMESPACE)]).await;
    // In the same order, none doubled, and who was out of rotation stays so.
    wait_told(&mut one.catalog(), LIMIT, &drained).await;
    wait_told(&mut two.catalog(), LIMIT, &drained).await;
    let late = node("user");
    one.register(late.clone()).await.expect("registered");
    wait_for(&mut two.catalog(), LIMIT, "a join after it", |catalog| catalog.find(&late.id).is_some()).await;
}

#[tokio::test]
async fn defect_02_a_freeze_longer_than_the_ttl_registers_everyone_again() {
    freeze(Duration::from_secs(3), Duration::from_secs(5)).await;
}

/// Too short for any request to fail, yet leases run out.
#[tokio::test]
async fn defect_02_a_freeze_just_over_the_ttl_registers_everyone_again() {
    freeze(Duration::from_secs(2), Duration::from_millis(2700)).await;
}

async fn freeze(ttl: Duration, frozen: Duration) {
    let Some(etcd) = Etcd::start() else { return };
    let mut settings = etcd_settings(&etcd.address(), NAMESPACE);
    settings.register_ttl = ttl;
    let (one, two) = (simple(&settings), simple(&settings));
    let (first, second) = (node("user"), node("user"));
    one.register(first.clone()).await.expect("registered");
    two.register(second.clone()).await.expect("registered");
    let both = |catalog: &goms::registry::Catalog| catalog.all().count() == 2;
    let mut watches = [one.catalog(), two.catalog()];
    for watch in &mut watches {
        wait_for(watch, LIMIT, "both", both).await;
    }
    etcd.freeze();
    let until = Instant::now() + frozen;
    while Instant::now() < until {
        for watch in &mut watches {
            let catalog = watch.borrow_and_update().clone().expect("known");
            assert_eq!(catalog.all().count(), 2, "calls go on with the last known nodes");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    etcd.thaw();
    // Nobody is dropped while the leases run out and come back.
    let until = Instant::now() + RETURN;
    while Instant::now() < until {
        for watch in &mut watches {
            assert!(watch.borrow_and_update().as_deref().is_some_and(both), "a node was dropped");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    registered_again(&etcd, &[first.id.key(NAMESPACE), second.id.key(NAMESPACE)]).await;
    for watch in &mut watches {
        let all_ready = |catalog: &goms::registry::Catalog| {
            catalog.all().count() == 2 && catalog.all().all(|node| node.state == NodeState::Ready)
        };
        wait_for(watch, LIMIT, "both ready", all_ready).await;
    }
}

#[tokio::test]
async fn etcd_away_keeps_the_last_known_nodes_and_drops_the_dead_after_the_grace() {
    let Some(mut etcd) = Etcd::start() else { return };
    let settings = etcd_settings(&etcd.address(), NAMESPACE);
    let (one, two) = (simple(&settings), simple(&settings));
    let (stays, dies) = (node("user"), node("user"));
    one.register(stays.clone()).await.expect("registered");
    wait_told(&mut one.catalog(), LIMIT, &ready(&[&stays])).await;
    two.register(dies.clone()).await.expect("registered");
    let mut watch = one.catalog();
    wait_told(&mut watch, LIMIT, &ready(&[&stays, &dies])).await;
    etcd.kill();
    drop(two); // dies while nobody can tell
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        assert_eq!(watch.borrow_and_update().as_deref().map(told), Some(ready(&[&stays, &dies])));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    etcd.up_empty();
    let stale = expected(&[(&stays, NodeState::Ready), (&dies, NodeState::Stale)]);
    wait_told(&mut watch, RETURN, &stale).await;
    let began = Instant::now();
    wait_told(&mut watch, Duration::from_secs(6), &ready(&[&stays])).await;
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1500), "the grace of 3 s was cut short: {took:?}");
    registered_again(&etcd, &[stays.id.key(NAMESPACE)]).await;
}

#[tokio::test]
async fn a_short_restart_with_the_same_data_changes_nothing() {
    let Some(mut etcd) = Etcd::start() else { return };
    let settings = etcd_settings(&etcd.address(), NAMESPACE);
    let (one, two) = (simple(&settings), simple(&settings));
    let node = node("user");
    one.register(node.clone()).await.expect("registered");
    let mut watch = two.catalog();
    wait_told(&mut watch, LIMIT, &ready(&[&node])).await;
    etcd.kill();
    etcd.up();
    let late = node_at(HERE, "user", 9181);
    tokio::time::timeout(RETURN, async {
        while let Err(error) = two.register(late.clone()).await {
            assert!(matches!(error, RegistryError::Unavailable { .. }), "{error}");
        }
    })
    .await
    .expect("registered soon after the return");
    wait_told(&mut watch, LIMIT, &ready(&[&node, &late])).await;
    registered_again(&etcd, &[node.id.key(NAMESPACE), late.id.key(NAMESPACE)]).await;
}

#[tokio::test]
async fn a_key_deleted_by_hand_and_a_revoked_lease_are_put_back() {
    let Some(etcd) = Etcd::start() else { return };
    let settings = etcd_settings(&etcd.address(), NAMESPACE);
    let (one, two) = (simple(&settings), simple(&settings));
    let node = node("user");
    let key = node.id.key(NAMESPACE);
    one.register(node.clone()).await.expect("registered");
    wait_told(&mut two.catalog(), LIMIT, &ready(&[&node])).await;
    for _ in 0..3 {
        assert_eq!(etcd.ctl(&["del", &key]).trim(), "1");
        registered_again(&etcd, std::slice::from_ref(&key)).await;
        wait_told(&mut one.catalog(), LIMIT, &ready(&[&node])).await;
        wait_told(&mut two.catalog(), LIMIT, &ready(&[&node])).await;
    }
    let leases = etcd.ctl(&["lease", "list"]);
    let lease = leases.lines().nth(1).expect("one lease").to_owned();
    etcd.ctl(&["lease", "revoke", &lease]);
    registered_again(&etcd, std::slice::from_ref(&key)).await;
    wait_told(&mut two.catalog(), LIMIT, &ready(&[&node])).await;
    let catalog = two.catalog().borrow().clone().expect("known");
    assert_eq!(catalog.find(&node.id).map(|known| known.meta.clone()), Some(node.meta));
}

#[tokio::test]
async fn a_compaction_while_the_reader_is_cut_off_misses_nothing() {
    let Some(etcd) = Etcd::start() else { return };
    let settings = etcd_settings(&etcd.address(), NAMESPACE);
    let one = simple(&settings);
    let node = node("user");
    one.register(node.clone()).await.expect("registered");
    wait_told(&mut one.catalog(), LIMIT, &ready(&[&node])).await;
    let mut etcd = etcd;
    etcd.kill(); // cuts the watch
    etcd.up();
    for number in 0..20 {
        etcd.ctl(&["put", "noise", &number.to_string()]);
    }
    etcd.ctl(&["put", "goms_user_192.0.2.9:1_192.0.2.9:2", "0"]);
    let text = etcd.ctl(&["get", "noise", "-w", "fields"]);
    let revision = text.lines().find_map(|line| line.strip_prefix("\"Revision\" : ")).expect("a revision");
    etcd.ctl(&["compact", revision]);
    wait_for(&mut one.catalog(), LIMIT, "both", |catalog| catalog.all().count() == 2).await;
    etcd.ctl(&["del", "goms_user_192.0.2.9:1_192.0.2.9:2"]);
    wait_for(&mut one.catalog(), LIMIT, "the deletion", |catalog| {
        catalog.all().all(|known| known.id == node.id || known.state == NodeState::Stale)
    })
    .await;
}

#[tokio::test]
async fn defect_02_nothing_spins_while_etcd_is_away() {
    const CHILD: &str = "GOMS_TEST_IDLE_CHILD";
    // CPU is counted per process, and other tests run in this one: so a process of its own.
    let Ok(address) = std::env::var(CHILD) else {
        let Some(etcd) = Etcd::start() else { return };
        let status = tokio::process::Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "registry::etcd_faults::defect_02_nothing_spins_while_etcd_is_away", "--nocapture"])
            .env(CHILD, format!("{}|{}", etcd.address(), etcd.pid()))
            .status()
            .await
            .expect("the test binary starts");
        assert!(status.success(), "see above");
        return;
    };
    let (address, pid) = address.split_once('|').expect("address and pid");
    let settings = etcd_settings(address, NAMESPACE);
    let registries: Vec<_> = (0..5).map(|_| simple(&settings)).collect();
    let nodes: Vec<_> = (0..5).map(|_| node("user")).collect();
    for (registry, node) in registries.iter().zip(&nodes) {
        registry.register(node.clone()).await.expect("registered");
    }
    for registry in &registries {
        wait_for(&mut registry.catalog(), LIMIT, "all", |catalog| catalog.all().count() == 5).await;
    }
    let kill = |signal: &str| {
        assert!(std::process::Command::new("kill").args([signal, pid]).status().expect("kill runs").success());
    };
    for signal in ["-STOP", "-KILL"] {
        kill(signal);
        let began = Instant::now();
        let before = own_cpu_ticks();
        tokio::time::sleep(Duration::from_secs(4)).await;
        let used = own_cpu_ticks() - before;
        println!("{signal}: {used} ticks of 10 ms in {:?}", began.elapsed());
        assert!(used < 60, "{used} ticks of 10 ms in 4 s after {signal}: a loop spins");
    }
    for registry in &registries {
        assert_eq!(registry.catalog().borrow().as_ref().map(|catalog| catalog.all().count()), Some(5));
    }
}

/// User and system time of this process in 1/100 s.
fn own_cpu_ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let fields: Vec<&str> = text.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}

#[tokio::test]
async fn user_and_password_open_an_etcd_that_asks_for_them() {
    let Some(etcd) = Etcd::start() else { return };
    etcd.ctl(&["user", "add", "root:secret"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["auth", "enable"]);
    let with = |credentials: Option<(&str, &str)>| {
        let mut settings = etcd_settings(&etcd.address(), NAMESPACE);
        if let Backend::Etcd(etcd) = &mut settings.backend {
            etcd.credentials = credentials.map(|(user, password)| (user.to_owned(), password.to_owned()));
        }
        simple(&settings)
    };
    let node = node("user");
    for refused in [with(None), with(Some(("root", "wrong")))] {
        let result = refused.register(node.clone()).await;
        let Err(RegistryError::Unavailable { source, .. }) = result else { panic!("{result:?}") };
        assert!(source.to_string().ends_with("; check `etcd.user` and `etcd.password`"), "{source}");
        assert!(refused.catalog().borrow().is_none());
    }
    let registry = with(Some(("root", "secret")));
    registry.register(node.clone()).await.expect("registered");
    wait_told(&mut registry.catalog(), LIMIT, &ready(&[&node])).await;
    registry.deregister(&node.id).await.expect("deregistered");
    wait_told(&mut registry.catalog(), LIMIT, &[]).await;
}

#[tokio::test]
async fn the_end_of_the_process_waits_for_no_etcd_and_still_deregisters() {
    let Some(mut etcd) = Etcd::start() else { return };
    let (registry, shutdown, _metrics) = handle(&etcd_settings(&etcd.address(), NAMESPACE));
    let (first, second) = (node("user"), node("user"));
    for node in [&first, &second] {
        registry.register(node.clone()).await.expect("registered");
    }
    shutdown.begin();
    registry.deregister(&first.id).await.expect("deregistered while ending");
    assert_eq!(etcd.keys("goms_"), [second.id.key(NAMESPACE)]);
    assert!(shutdown.finished(Duration::from_secs(1)).await, "a background task goes on");
    etcd.kill();
    let result = registry.deregister(&second.id).await;
    assert!(matches!(result, Err(RegistryError::Unavailable { .. })), "{result:?}");
}

#[tokio::test]
async fn tls_is_spoken_and_the_server_must_be_vouched_for() {
    let dir = TempDir::new();
    let files = Identity::new().files(dir.path());
    let Some(etcd) = Etcd::start_tls(&files.certificate, &files.key) else { return };
    let with = |endpoint: &str, ca_file| {
        let mut settings = etcd_settings(endpoint, NAMESPACE);
        if let Backend::Etcd(etcd) = &mut settings.backend {
            etcd.ca_file = ca_file;
        }
        simple(&settings)
    };
    let node = node("user");
    // Without TLS, and with roots that do not vouch for it.
    for endpoint in [etcd.address(), format!("https://{}", etcd.address())] {
        let refused = with(&endpoint, None);
        let result = refused.register(node.clone()).await;
        assert!(matches!(result, Err(RegistryError::Unavailable { .. })), "{result:?}");
        assert!(refused.catalog().borrow().is_none());
    }
    let registry = with(&etcd.address(), Some(files.ca));
    registry.register(node.clone()).await.expect("registered");
    wait_told(&mut registry.catalog(), LIMIT, &ready(&[&node])).await;
}

#[tokio::test]
async fn a_client_certificate_lets_in_where_etcd_asks_for_one() {
    let (server_dir, client_dir, stranger_dir) = (TempDir::new(), TempDir::new(), TempDir::new());
    let authority = Authority::new();
    let server = authority.vouch(&["127.0.0.1"]).files(server_dir.path());
    let client = authority.vouch(&["a client"]).files(client_dir.path());
    let stranger = Identity::new().files(stranger_dir.path());
    let Some(etcd) = Etcd::start_mutual_tls(&server.certificate, &server.key, &server.ca) else { return };
    let with = |identity: Option<&IdentityFiles>| {
        let mut settings = etcd_settings(&format!("https://{}", etcd.address()), NAMESPACE);
        if let Backend::Etcd(etcd) = &mut settings.backend {
            etcd.ca_file = Some(server.ca.clone());
            etcd.identity_files = identity.map(|files| (files.certificate.clone(), files.key.clone()));
        }
        simple(&settings)
    };
    let node = node("user");
    for refused in [with(None), with(Some(&stranger))] {
        let result = refused.register(node.clone()).await;
        assert!(matches!(result, Err(RegistryError::Unavailable { .. })), "{result:?}");
        assert!(refused.catalog().borrow().is_none());
    }
    let registry = with(Some(&client));
    registry.register(node.clone()).await.expect("registered");
    wait_told(&mut registry.catalog(), LIMIT, &ready(&[&node])).await;
    assert_eq!(etcd.keys("goms_"), [node.id.key(NAMESPACE)]);
}

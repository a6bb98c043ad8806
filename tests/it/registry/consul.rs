//! Consul: what is written, and an agent that is away, forgets, or does not let us in.

use std::time::Duration;

use goms::registry::{Backend, ConsulSettings, NodeState, RegistryError};

use super::{HERE, TempDir, consul_settings, expected, handle, node, node_at, ready, settings, simple, told};
use super::{wait_for, wait_told, wait_until};
use crate::support::consul::{Consul, get, put};
use crate::support::proxy::Proxy;
use crate::support::servers::{self, unique};

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_node_is_a_service_with_a_check_that_consul_s_own_tools_understand() {
    let Some(address) = servers::consul() else { return };
    let namespace = unique("written");
    let mut settings = consul_settings(&address, &namespace);
    settings.register_ttl = Duration::from_secs(30);
    let registry = simple(&settings);
    let node = node(&unique("user"));
    registry.register(node.clone()).await.expect("registered");
    let url = format!("{address}/v1/health/service/{}?passing", node.id.service);
    let listed: serde_json::Value = serde_json::from_str(&get(&url).expect("an answer")).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    let service = &listed[0]["Service"];
    assert_eq!(service["ID"], node.id.key(&namespace).as_str());
    assert_eq!((&service["Address"], &service["Port"]), (&"192.0.2.7".into(), &80.into()));
    assert_eq!(service["Tags"], serde_json::json!([namespace]));
    assert_eq!(service["Weights"]["Passing"], 7);
    let checks = listed[0]["Checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["ServiceID"] == service["ID"]).expect("its check");
    assert_eq!(check["Type"], "ttl");
    registry.deregister(&node.id).await.expect("deregistered");
    wait_until(LIMIT, "gone from consul", || get(&url).as_deref().map(str::trim) == Some("[]")).await;
}

#[tokio::test]
async fn namespaces_are_apart_and_a_foreign_service_is_set_aside() {
    let Some(address) = servers::consul() else { return };
    let (namespace, other) = (unique("one"), unique("other"));
    let (registry, _shutdown, metrics) = handle(&consul_settings(&address, &namespace));
    let stranger = simple(&consul_settings(&address, &other));
    let (ours, theirs) = (node("user"), node("user"));
    registry.register(ours.clone()).await.expect("registered");
    stranger.register(theirs.clone()).await.expect("registered");
    wait_told(&mut registry.catalog(), LIMIT, &ready(&[&ours])).await;
    wait_told(&mut stranger.catalog(), LIMIT, &ready(&[&theirs])).await;
    let id = unique("web");
    let foreign = format!(
        r#"{{"ID":"{id}","Name":"web","Tags":["{namespace}"],"Check":{{"CheckID":"service:{id}","TTL":"60s","Status":"passing"}}}}"#
    );
    put(&format!("{address}/v1/agent/service/register"), &foreign).expect("taken");
    wait_until(LIMIT, "counted", || metrics.render().contains("goms_registry_malformed_total 1")).await;
    assert_eq!(registry.catalog().borrow().as_deref().map(told), Some(ready(&[&ours])));
    put(&format!("{address}/v1/agent/service/deregister/{id}"), "").expect("removed");
    registry.deregister(&ours.id).await.expect("deregistered");
    stranger.deregister(&theirs.id).await.expect("deregistered");
}

#[tokio::test]
async fn a_dead_process_s_node_goes_with_its_ttl_and_its_ports_may_be_taken_at_once() {
    let Some(address) = servers::consul() else { return };
    let settings = consul_settings(&address, &unique("dead"));
    let watcher = simple(&settings);
    let (elsewhere, here) = (node("user"), node_at(HERE, "order", 9180));
    let dying = simple(&settings);
    dying.register(elsewhere.clone()).await.expect("registered");
    dying.register(here.clone()).await.expect("registered");
    wait_for(&mut watcher.catalog(), LIMIT, "both", |catalog| catalog.all().count() == 2).await;
    drop(dying); // as a killed process: nobody renews
    let again = simple(&settings);
    again.register(here.clone()).await.expect("takes over");
    // the other goes when its TTL has passed, and is not shown as stale: there was no gap
    wait_told(&mut watcher.catalog(), LIMIT, &ready(&[&here])).await;
    again.register(elsewhere.clone()).await.expect("free now");
    for node in [&here, &elsewhere] {
        again.deregister(&node.id).await.expect("deregistered");
    }
    wait_told(&mut watcher.catalog(), LIMIT, &[]).await;
}

#[tokio::test]
async fn an_agent_that_is_away_changes_nothing_and_deregistering_does_not_hang() {
    let Some(address) = servers::consul() else { return };
    let proxy = Proxy::start(address.trim_start_matches("http://"));
    let (registry, _shutdown, metrics) = handle(&consul_settings(&proxy.address, &unique("away")));
    let (one, two) = (node("user"), node("user"));
    registry.register(one.clone()).await.expect("registered");
    wait_told(&mut registry.catalog(), LIMIT, &ready(&[&one])).await;
    proxy.away(true);
    wait_until(LIMIT, "trouble", || registry.trouble().is_some()).await;
    assert!(metrics.render().contains("goms_registry_connected 0"));
    assert_eq!(registry.catalog().borrow().as_deref().map(told), Some(ready(&[&one])));
    let refused = registry.register(two.clone()).await;
    assert!(matches!(refused, Err(RegistryError::Unavailable { kind: "consul", .. })), "{refused:?}");
    proxy.away(false);
    wait_until(LIMIT, "back", || registry.trouble().is_none()).await;
    registry.register(two.clone()).await.expect("registered, not taken by its own failure");
    wait_told(&mut registry.catalog(), LIMIT, &ready(&[&one, &two])).await;
    proxy.away(true);
    let left = registry.deregister(&one.id).await;
    assert!(matches!(left, Err(RegistryError::Unavailable { .. })), "{left:?}");
    proxy.away(false);
    // it was not renewed, so that it goes by itself
    wait_told(&mut registry.catalog(), LIMIT + LIMIT, &ready(&[&two])).await;
    registry.deregister(&two.id).await.expect("deregistered");
}

/// The agent comes back with nothing, and with indexes that begin anew.
#[tokio::test]
async fn an_agent_that_forgot_everything_is_told_again_and_the_missing_stay_for_the_grace() {
    let Some(mut consul) = Consul::start() else { return };
    let mut settings = consul_settings(&consul.address(), "goms");
    settings.grace = Duration::from_secs(4);
    let (watcher, keeper) = (simple(&settings), simple(&settings));
    let (kept, drained, lost) = (node("user"), node("user"), node("user"));
    keeper.register(kept.clone()).await.expect("registered");
    keeper.register(drained.clone()).await.expect("registered");
    let dying = simple(&settings);
    dying.register(lost.clone()).await.expect("registered");
    watcher.set_draining(&drained.id, true).await.expect("marked");
    let before = [(&kept, NodeState::Ready), (&drained, NodeState::Draining), (&lost, NodeState::Ready)];
    let mut watch = watcher.catalog();
    wait_told(&mut watch, LIMIT, &expected(&before)).await;
    consul.kill();
    drop(dying);
    wait_until(LIMIT, "trouble", || watcher.trouble().is_some()).await;
    assert_eq!(watch.borrow().as_deref().map(told), Some(expected(&before)), "an agent that is away changes nothing");
    consul.up();
    let back = [(&kept, NodeState::Ready), (&drained, NodeState::Draining), (&lost, NodeState::Stale)];
    wait_told(&mut watch, LIMIT, &expected(&back)).await;
    wait_told(&mut watch, LIMIT, &expected(&back[..2])).await;
    watcher.set_draining(&drained.id, false).await.expect("unmarked");
    wait_told(&mut watch, LIMIT, &ready(&[&kept, &drained])).await;
    for node in [&kept, &drained] {
        keeper.deregister(&node.id).await.expect("deregistered");
    }
    wait_told(&mut watch, LIMIT, &[]).await;
}

#[tokio::test]
async fn without_the_right_token_it_is_said_what_to_set() {
    const TOKEN: &str = "0f0f0f0f-1111-2222-3333-444444444444";
    let acl =
        format!("acl {{ enabled = true\n default_policy = \"deny\"\n tokens {{ initial_management = \"{TOKEN}\" }} }}");
    let Some(consul) = Consul::start_with(&["-hcl", &acl]) else { return };
    let open = |token: Option<&str>| {
        let token = token.map(str::to_owned);
        simple(&settings(Backend::Consul(ConsulSettings { address: consul.address(), token, ca_file: None }), "goms"))
    };
    let (known, anonymous) = (open(Some(TOKEN)), open(None));
    let node = node("user");
    known.register(node.clone()).await.expect("registered");
    wait_told(&mut known.catalog(), LIMIT, &ready(&[&node])).await;
    let refused = anonymous.register(super::node("user")).await.map_err(|error| goms::causes::chain(&error));
    assert!(refused.as_ref().is_err_and(|said| said.contains("set `registry.token`")), "{refused:?}");
    known.deregister(&node.id).await.expect("deregistered");
}

/// A handle that is opened while the agent is away has what another one kept.
#[tokio::test]
async fn a_catalog_on_disk_has_the_place_of_an_agent_that_is_away_at_the_start() {
    let Some(address) = servers::consul() else { return };
    let proxy = Proxy::start(address.trim_start_matches("http://"));
    let folder = TempDir::new();
    let mut settings = consul_settings(&proxy.address, &unique("kept"));
    let age = Duration::from_secs(60);
    settings.remember = Some(goms::registry::Remember { dir: folder.path().to_owned(), age });
    let (one, two) = (node("user"), node("order"));
    let (first, _shutdown, _metrics) = handle(&settings);
    first.register(one.clone()).await.expect("registered");
    let is_kept = |service: &str| {
        let files = std::fs::read_dir(folder.path()).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).any(|text| text.contains(service))
    };
    wait_until(LIMIT, "the file", || is_kept("\"user\"")).await;
    proxy.away(true);
    let (second, _shutdown_too, _metrics_too) = handle(&settings);
    wait_told(&mut second.catalog(), LIMIT, &expected(&[(&one, NodeState::Stale)])).await;
    second.register(two.clone()).await.expect("registered later");
    assert!(second.trouble().is_some());
    proxy.away(false);
    wait_for(&mut second.catalog(), LIMIT, "both", |catalog| {
        let is_ready =
            |node: &goms::registry::Node| catalog.find(&node.id).is_some_and(|known| known.state == NodeState::Ready);
        is_ready(&one) && is_ready(&two)
    })
    .await;
    for (registry, node) in [(&first, &one), (&second, &two)] {
        registry.deregister(&node.id).await.expect("deregistered");
    }
}

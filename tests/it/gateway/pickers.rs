use goms::balance::Selector;

use super::*;
use crate::support::origin::{Origin, Reply, echo};

fn user(settings: &mut Settings) -> &mut goms::balance::Settings {
    &mut settings.services.get_mut("user").unwrap().balance
}

/// Makes these the nodes of `user`, each with what it says of itself.
fn publish(door: &Door, nodes: &[(&Origin, NodeMeta)]) {
    let node = |(origin, meta): &(&Origin, NodeMeta)| Node { meta: meta.clone(), ..node("user", origin.address) };
    door.publisher.publish(nodes.iter().map(node).collect());
}

async fn until_known(door: &Door, count: usize) {
    let known = || door.balancer.view().first().is_some_and(|service| service.nodes.len() == count);
    wait_for("the nodes to be known", known).await;
}

#[tokio::test]
async fn nodes_get_requests_by_weight_and_the_page_foretells_whose_turn_it_is() {
    let (heavy, light) = (Origin::echo().await, Origin::echo().await);
    let door = Door::open(&[]).await;
    let weighs = |weight| NodeMeta { weight, ..NodeMeta::default() };
    publish(&door, &[(&heavy, weighs(3)), (&light, weighs(1))]);
    until_known(&door, 2).await;
    for turn in 0..8 {
        let page = door.ask("GET", "/cluster", "", "").await.json();
        let next = page["services"]["user"]["PollNext"].as_u64().unwrap() as usize;
        let id = page["services"]["user"]["Nodes"][next].as_str().unwrap().to_owned();
        let before = heavy.seen().len();
        assert_eq!(door.get().await.status, 200);
        assert_eq!(id.ends_with(&heavy.address.to_string()), heavy.seen().len() > before, "turn {turn}");
    }
    assert_eq!((heavy.seen().len(), light.seen().len()), (6, 2));
}

#[tokio::test]
async fn only_nodes_of_the_version_are_called() {
    let (old, new) = (Origin::echo().await, Origin::echo().await);
    let door = Door::with(&[], |settings| user(settings).version = Some("2".into())).await;
    let is = |version: &str| NodeMeta { version: version.into(), ..NodeMeta::default() };
    publish(&door, &[(&old, is("1")), (&new, is("2"))]);
    until_known(&door, 2).await;
    for _ in 0..3 {
        assert_eq!(door.get().await.status, 200);
    }
    assert_eq!((old.seen().len(), new.seen().len()), (0, 3));
}

#[tokio::test]
async fn p2c_leaves_a_slow_node_alone() {
    let fast = Origin::echo().await;
    let slow = Origin::start(|seen, _| Reply::Late(Duration::from_millis(200), echo(seen))).await;
    let change = |settings: &mut Settings| user(settings).selector = Selector::P2c;
    let door = Door::with(&[fast.address, slow.address], change).await;
    for _ in 0..2 {
        assert_eq!(door.get().await.status, 200);
    }
    assert_eq!((fast.seen().len(), slow.seen().len()), (1, 1), "who is not measured yet comes first");
    for _ in 0..10 {
        assert_eq!(door.get().await.status, 200);
    }
    assert_eq!((fast.seen().len(), slow.seen().len()), (11, 1));
}

#[tokio::test]
async fn other_settings_are_taken_over_and_what_is_known_of_nodes_stays() {
    let (one, other) = (Origin::echo().await, Origin::echo().await);
    let door = Door::open(&[one.address, other.address]).await;
    for _ in 0..4 {
        assert_eq!(door.get().await.status, 200);
    }
    let settings = goms::balance::Settings { selector: Selector::SourceHash, ..Default::default() };
    door.balancer.configure(std::collections::HashMap::from([("user".to_owned(), settings)]));
    for _ in 0..6 {
        assert_eq!(door.get().await.status, 200);
    }
    let mut seen = [one.seen().len(), other.seen().len()];
    seen.sort_unstable();
    assert_eq!(seen, [2, 8], "in turn first, then always the client's own");
    let view = door.balancer.view();
    assert_eq!(view[0].request_finish, 10);
    assert_eq!(view[0].nodes.iter().map(|node| node.answered).sum::<u64>(), 10);
}

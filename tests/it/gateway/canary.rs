//! A part of the requests to the nodes of one version, by share or by header.

use super::rules::door;
use super::*;
use crate::support::origin::Origin;

const ROUTES: &str = r#"
callServiceKey: k
routes:
  - { match: { path: /shop }, service: shop, versions: { 1.2.0: 3, 1.3.0: 1 } }
  - { match: { path: /shop, headers: { x-beta: "1" } }, service: shop, version: 1.3.0 }
  - { match: { path: /any }, service: shop }
  - { match: { path: /none }, service: shop, version: 9.9.9 }
"#;

fn versioned(version: &str, origin: &Origin) -> Node {
    let meta = NodeMeta { version: version.into(), ..NodeMeta::default() };
    Node::new(node("shop", origin.address).id, meta)
}

#[tokio::test]
async fn versions_share_a_route_and_a_header_chooses_one() {
    let (old, new) = (Origin::echo().await, Origin::echo().await);
    let door = door(ROUTES, &[]);
    door.publisher.publish(vec![versioned("1.2.0", &old), versioned("1.3.0", &new)]);
    wait_for("both versions", || door.balancer.view().iter().filter(|group| !group.nodes.is_empty()).count() == 3)
        .await;
    let ask = async |target: &str, headers: &str, times: usize| {
        let (before_old, before_new) = (old.seen().len(), new.seen().len());
        for _ in 0..times {
            assert_eq!(door.ask("GET", target, headers, "").await.status, 200);
        }
        (old.seen().len() - before_old, new.seen().len() - before_new)
    };
    assert_eq!(ask("/shop", "", 40).await, (30, 10));
    assert_eq!(ask("/shop", "X-Beta: 1\r\n", 5).await, (0, 5));
    assert_eq!(ask("/any", "", 4).await, (2, 2), "round robin over all of them");
    let got = door.ask("GET", "/none", "", "").await;
    assert_eq!(got.status, 503);
    assert_eq!(
        got.json()["msg"],
        "service `shop@9.9.9` has no node that takes requests now; start one or wait until one is back"
    );

    // a node of another version joins and leaves
    door.publisher.publish(vec![versioned("1.2.0", &old)]);
    wait_for("one version", || door.balancer.view().iter().filter(|group| !group.nodes.is_empty()).count() == 2).await;
    assert_eq!(door.ask("GET", "/shop", "X-Beta: 1\r\n", "").await.status, 503);
    assert_eq!(ask("/any", "", 2).await, (2, 0));
}

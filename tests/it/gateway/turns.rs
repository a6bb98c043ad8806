use super::*;
use crate::support::origin::Origin;

fn id(address: SocketAddr) -> String {
    format!("127.0.0.1:1_{address}")
}

#[tokio::test]
async fn requests_go_round_and_the_page_shows_it() {
    let origins = [Origin::echo().await, Origin::echo().await, Origin::echo().await];
    let mut nodes = origins.each_ref().map(|origin| origin.address);
    nodes.sort();
    let door = Door::open(&nodes).await;
    let ids = nodes.map(id);
    let page = |next: usize, finish: u64| serde_json::json!({"services": {"user": {"PollNext": next, "Nodes": ids, "RequestFinish": finish}}, "status": true});
    for turn in 0..7 {
        for method in ["GET", "POST"] {
            assert_eq!(door.ask(method, "/cluster", "", "").await.json(), page(turn % 3, turn as u64));
        }
        assert_eq!(door.get().await.status, 200);
    }
    let counts = nodes.map(|node| origins.iter().find(|origin| origin.address == node).unwrap().seen().len());
    assert_eq!(counts, [3, 2, 2]);
    let got = door.ask("GET", "/cluster?form=go-ms", "", "").await;
    let expected = format!(
        r#"{{"servers":{{"user":{{"PollNext":1,"Nodes":["{}","{}","{}"],"RequestFinish":7}}}}}}"#,
        ids[0], ids[1], ids[2]
    );
    assert_eq!(got.text(), expected);
    assert!(got.header("x-request-id").is_some());
}

#[tokio::test]
async fn turns_are_exact_with_many_clients_at_once() {
    let origins = [Origin::echo().await, Origin::echo().await, Origin::echo().await];
    let door = Door::open(&origins.each_ref().map(|origin| origin.address)).await;
    let asking = (0..16).map(|_| async {
        let mut client = door.connect().await;
        for _ in 0..30 {
            assert_eq!(client.ask("GET", "/api/user/login", "", "").await.status, 200);
        }
    });
    futures_util::future::join_all(asking).await;
    assert_eq!(origins.each_ref().map(|origin| origin.seen().len()), [160, 160, 160]);
}

#[tokio::test]
async fn defect_01_a_node_that_left_makes_no_call_fail() {
    let origins = [Origin::echo().await, Origin::echo().await, Origin::echo().await];
    let door = Door::open(&origins.each_ref().map(|origin| origin.address)).await;
    for _ in 0..2 {
        assert_eq!(door.get().await.status, 200);
    }
    door.set_nodes(&[origins[0].address]).await;
    for _ in 0..3 {
        assert_eq!(door.post(JSON, "{}").await.status, 200);
    }
    door.set_nodes(&[]).await;
    let got = door.get().await;
    assert_eq!(got.status, 503);
    assert_eq!(
        got.json()["msg"],
        "service `user` has no node that takes requests now; start one or wait until one is back"
    );
    door.set_nodes(&[origins[1].address]).await;
    assert_eq!(door.get().await.status, 200);
}

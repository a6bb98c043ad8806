//! Load shedding: a slow service gets fewer requests, and the others their answers.

use super::rules::door;
use super::*;
use crate::support::origin::{Origin, Reply, json};

#[tokio::test]
async fn a_slow_service_is_spared_a_part_of_the_requests() {
    let slow = Origin::start(|_, _| Reply::Late(Duration::from_millis(30), json("{}"))).await;
    let quick = Origin::answering(json("{}")).await;
    let door = door(
        "services: { user: { login: /login }, order: { submit: /order } }\nupstreams: { user: { shed: 5ms }, order: { shed: 5s } }\n",
        &[("user", slow.address), ("order", quick.address)],
    );
    let mut client = door.connect().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let refused = loop {
        let got = client.ask("GET", "/api/user/login", "", "").await;
        if got.status != 200 {
            break got;
        }
        assert!(std::time::Instant::now() < deadline, "nothing is refused");
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["msg"], "service `user` is slow and gets fewer requests for now; try again in 1 s");
    assert_eq!(client.ask("GET", "/api/user/login", "", "").await.status, 200, "one in ten");
    assert!(door.metrics.render().contains("goms_shed_total{service=\"user\"} 1\n"));
    let page = client.ask("GET", "/cluster", "", "").await.json();
    // 10, or 20 where a second has gone by since
    assert!(matches!(page["services"]["user"]["ShedPercent"].as_u64(), Some(10 | 20)), "{page}");
    assert!(page["services"]["order"]["ShedPercent"].is_null());
    for _ in 0..50 {
        assert_eq!(client.ask("GET", "/api/order/submit", "", "").await.status, 200);
    }
}

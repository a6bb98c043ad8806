use goms::balance::NodeLimit;

use super::*;
use crate::support::origin::{Origin, Reply, echo};

async fn limited(limit: NodeLimit, wait: Duration) -> (Origin, Door) {
    let origin = Origin::start(move |seen, _| Reply::Late(wait, echo(seen))).await;
    let change = |settings: &mut Settings| {
        settings.services.get_mut("user").unwrap().balance.limit = Some(limit);
    };
    let door = Door::with(&[origin.address], change).await;
    (origin, door)
}

#[tokio::test]
async fn a_node_gets_no_more_at_once_than_it_may_and_the_others_wait() {
    let limit = NodeLimit { in_flight: 3, queue: 50, queue_timeout: Duration::from_secs(30) };
    let (origin, door) = limited(limit, Duration::from_millis(10)).await;
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let asking = async {
        let all = futures_util::future::join_all((0..30).map(|_| door.get())).await;
        asked.store(1, std::sync::atomic::Ordering::Relaxed);
        all
    };
    let watching = async {
        let mut most = 0;
        while asked.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            most = most.max(door.balancer.view()[0].nodes[0].in_flight);
            tokio::task::yield_now().await;
        }
        most
    };
    let (answers, most) = tokio::join!(asking, watching);
    assert!(answers.iter().all(|got| got.status == 200));
    assert_eq!((origin.seen().len(), most), (30, 3));
    assert_eq!((door.balancer.view()[0].waiting, door.balancer.view()[0].request_finish), (0, 30));
}

#[tokio::test]
async fn over_the_queue_it_is_503_with_retry_after() {
    let limit = NodeLimit { in_flight: 1, queue: 1, queue_timeout: Duration::from_secs(30) };
    let (_origin, door) = limited(limit, Duration::from_millis(300)).await;
    let late = async {
        wait_for("one to wait", || door.balancer.view()[0].waiting == 1).await;
        let page = door.ask("GET", "/cluster", "", "").await.json();
        (page["services"]["user"]["Waiting"].clone(), door.get().await)
    };
    let (first, second, (waiting, late)) = tokio::join!(door.get(), door.get(), late);
    assert_eq!((first.status, second.status, waiting), (200, 200, serde_json::json!(1)));
    assert_eq!((late.status, late.header("retry-after")), (503, Some("1")));
    let message = "every node of service `user` has as many requests as it may have at once; try again in 1 s";
    assert_eq!(late.json()["msg"], message);
}

#[tokio::test]
async fn who_waits_too_long_gets_the_same() {
    let limit = NodeLimit { in_flight: 1, queue: 9, queue_timeout: Duration::from_millis(20) };
    let (_origin, door) = limited(limit, Duration::from_millis(500)).await;
    let late = async {
        wait_for("one on its way", || door.balancer.view()[0].nodes[0].in_flight == 1).await;
        door.get().await
    };
    let (first, late) = tokio::join!(door.get(), late);
    assert_eq!((first.status, late.status, late.header("retry-after")), (200, 503, Some("1")));
}

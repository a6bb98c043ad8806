use goms::balance::Ejection;

use super::*;
use crate::support::origin::{Origin, Reply, answer, dead, echo};

fn ejection(settings: &mut Settings) -> &mut Ejection {
    settings.services.get_mut("user").unwrap().balance.ejection.as_mut().unwrap()
}

/// How many nodes of `user` the page shows as ejected.
async fn ejected(door: &Door) -> usize {
    let page = door.ask("GET", "/cluster", "", "").await.json();
    page["services"]["user"]["Ejected"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn a_dead_node_is_left_out_after_five_tries_and_no_request_fails() {
    let good = Origin::echo().await;
    let door = Door::open(&[dead(), good.address]).await;
    for _ in 0..30 {
        assert_eq!(door.get().await.status, 200);
    }
    let view = &door.balancer.view()[0];
    assert_eq!(view.nodes.iter().map(|node| node.refused).sum::<u64>(), 5);
    assert_eq!(ejected(&door).await, 1);
    assert!(!door.ask("GET", "/cluster?form=go-ms", "", "").await.text().contains("Ejected"));
    let metrics = door.metrics.render();
    assert!(metrics.contains("goms_ejections_total{service=\"user\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn resets_and_half_answers_count_and_so_do_deadlines() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{".to_vec();
    let replies: [fn(Vec<u8>) -> Reply; 3] = [|_| Reply::Reset(Vec::new()), |_| Reply::Never, Reply::Close];
    for reply in replies {
        let (bytes, good) = (half.clone(), Origin::echo().await);
        let bad = Origin::start(move |_, _| reply(bytes.clone())).await;
        let change = |settings: &mut Settings| {
            login(settings).policy.timeout = Duration::from_millis(100);
            ejection(settings).failures = 2;
        };
        let door = Door::with(&[bad.address, good.address], change).await;
        for _ in 0..8 {
            door.get().await; // half an answer cannot be hidden from the client
        }
        assert_eq!((bad.seen().len(), ejected(&door).await), (2, 1));
        for _ in 0..4 {
            assert_eq!(door.get().await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_node_that_recovers_is_back_after_its_time() {
    let good = Origin::echo().await;
    let ill = Origin::start(|seen, number| match number {
        0 | 1 => Reply::Bytes(answer("503 Service Unavailable", "", "")),
        _ => Reply::Bytes(echo(seen)),
    });
    let ill = ill.await;
    let change = |settings: &mut Settings| {
        let ejection = ejection(settings);
        (ejection.failures, ejection.statuses) = (2, vec![503..=503]);
        ejection.duration = Duration::from_millis(300);
    };
    let door = Door::with(&[ill.address, good.address], change).await;
    while ill.seen().len() < 2 {
        door.get().await;
    }
    wait_for("the trial", || door.balancer.view()[0].nodes.iter().any(|node| node.ejected_for == Some(Duration::ZERO)))
        .await;
    assert_eq!(ill.seen().len(), 2);
    for _ in 0..4 {
        assert_eq!(door.get().await.status, 200);
    }
    assert_eq!((ejected(&door).await, ill.seen().len()), (0, 4));
}

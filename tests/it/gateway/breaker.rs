use goms::balance::Breaker;

use super::*;
use crate::support::origin::{Origin, Reply, dead, echo};

fn guard(settings: &mut Settings, open: Duration) {
    settings.services.get_mut("user").unwrap().balance.breaker = Some(Breaker { failures: 4, open });
    login(settings).policy.attempts = 1;
}

#[tokio::test]
async fn a_service_that_fails_as_a_whole_is_answered_for_at_once() {
    let hanging = Origin::start(|_, _| Reply::Never).await;
    let change = |settings: &mut Settings| {
        guard(settings, Duration::from_secs(60));
        login(settings).policy.timeout = Duration::from_millis(50);
    };
    let door = Door::with(&[hanging.address, dead()], change).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(door.get().await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [502, 502, 504, 504]);
    let got = door.get().await;
    assert_eq!((got.status, got.header("retry-after")), (503, Some("60")));
    let message = "service `user` fails on all its nodes and gets no requests for now; try again in 60 s";
    assert_eq!(got.json()["msg"], message);
    assert_eq!(hanging.seen().len(), 2);
    let page = door.ask("GET", "/cluster", "", "").await.json();
    assert!(page["services"]["user"]["BreakerOpenMs"].as_u64().unwrap() > 0, "{page}");
}

#[tokio::test]
async fn the_last_failure_is_told_where_the_breaker_opens_between_two_tries() {
    let change = |settings: &mut Settings| {
        guard(settings, Duration::from_secs(60));
        login(settings).policy.attempts = 9;
    };
    let door = Door::with(&[dead()], change).await;
    assert_eq!(door.get().await.status, 502);
    assert_eq!(door.get().await.status, 503);
}

#[tokio::test]
async fn a_service_that_answers_again_is_called_again() {
    let origin = Origin::start(|seen, number| match number {
        0..4 => Reply::Reset(Vec::new()),
        _ => Reply::Bytes(echo(seen)),
    });
    let origin = origin.await;
    let door = Door::with(&[origin.address], |settings| guard(settings, Duration::from_millis(200))).await;
    for _ in 0..4 {
        assert_eq!(door.get().await.status, 502);
    }
    wait_for("half open", || door.balancer.view()[0].breaker_open_for == Some(Duration::ZERO)).await;
    for _ in 0..3 {
        assert_eq!(door.get().await.status, 200);
    }
    assert_eq!(door.balancer.view()[0].breaker_open_for, None);
}

//! How long a request may take in all, and how often it may be retried.

use super::*;
use crate::support::origin::{Origin, Reply};

fn with_deadline(settings: &mut Settings) {
    login(settings).policy.deadline = Some(Duration::from_millis(200));
}

#[tokio::test]
async fn a_deadline_ends_all_tries() {
    let silent = Origin::start(|_, _| Reply::Never).await;
    let door = Door::with(&[silent.address], with_deadline).await;
    let got = door.post("", "").await;
    assert_eq!(got.status, 504);
    let expected = "service `user` did not answer within 200ms; try again, or give this action a longer `timeout`";
    assert_eq!(got.json()["msg"], expected);

    // a further try would come too late: what the last one brought is told
    let failing = Origin::start(|_, _| Reply::Close(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec())).await;
    let door = Door::with(&[failing.address], |settings| {
        with_deadline(settings);
        let policy = &mut login(settings).policy;
        (policy.backoff, policy.retry_status, policy.attempts) = (Duration::from_secs(5), vec![503], 9);
    })
    .await;
    assert_eq!((door.get().await.status, failing.seen().len()), (503, 1));
    let reset = Origin::start(|_, _| Reply::Reset(Vec::new())).await;
    door.set_nodes(&[reset.address]).await;
    assert_eq!((door.get().await.status, reset.seen().len()), (502, 1));
}

#[tokio::test]
async fn a_deadline_ends_an_answer_that_drips() {
    let long = Origin::start(|_, _| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\nbegin";
        Reply::Bytes(head.to_vec())
    })
    .await;
    let door = Door::with(&[long.address], with_deadline).await;
    let mut client = door.connect().await;
    client.send("GET /api/user/login HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let head = client.head().await.expect("the head passes at once");
    assert!(head.0.contains(" 200 "), "{head:?}");
    let rest = tokio::time::timeout(Duration::from_secs(20), client.head()).await.expect("an end");
    assert!(rest.is_none(), "the rest never comes, the connection ends: {rest:?}");
    // a short one is read first, and so becomes an error
    let short =
        Origin::answering("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\nbegin").await;
    door.set_nodes(&[short.address]).await;
    assert_eq!(door.get().await.status, 504);
}

#[tokio::test]
async fn retries_do_not_multiply_an_outage() {
    const REQUESTS: usize = 400;
    let broken = Origin::start(|_, _| Reply::Reset(Vec::new())).await;
    let door = Door::with(&[broken.address], |settings| login(settings).policy.backoff = Duration::ZERO).await;
    let mut client = door.connect().await;
    for _ in 0..REQUESTS {
        assert_eq!(client.ask("GET", "/api/user/login", "", "").await.status, 502);
    }
    let retries = broken.seen().len() - REQUESTS;
    assert!((500..=500 + REQUESTS / 5).contains(&retries), "{retries}, of {} without a bound", REQUESTS * 2);
    let refused = r#"goms_upstream_retries_refused_total{service="user"} "#;
    assert!(door.metrics.render().contains(refused), "{}", door.metrics.render());
    // a node that is not there costs its service nothing, so its requests go on to the others
    let (gone, origin) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), Origin::echo().await);
    let away = gone.local_addr().unwrap();
    drop(gone);
    door.set_nodes(&[away, origin.address]).await;
    for _ in 0..20 {
        assert_eq!(door.get().await.status, 200);
    }
}

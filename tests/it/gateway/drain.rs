use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::support::origin::{Origin, Reply, echo};

#[tokio::test]
async fn an_end_finishes_what_runs_and_closes_what_idles() {
    let origin = Origin::start(|seen, _| match seen.method.as_str() {
        "POST" => Reply::Late(Duration::from_millis(300), echo(seen)),
        _ => Reply::Bytes(echo(seen)),
    })
    .await;
    let mut door = Door::open(&[origin.address]).await;
    let (mut idle, mut busy) = (door.connect().await, door.connect().await);
    assert_eq!(idle.ask("GET", "/api/user/login", "", "").await.status, 200);
    busy.send(crate::support::wire::request("POST", "/api/user/login", "", "")).await;
    wait_for("the slow request", || origin.seen().len() == 2).await;
    let began = std::time::Instant::now();
    let stopping = door.running.take().unwrap().stop(Duration::from_secs(20));
    let (finished, got) = tokio::join!(stopping, async { busy.answer(false).await.unwrap() });
    assert!(finished);
    assert_eq!((got.status, got.header("connection")), (200, Some("close")));
    assert!(idle.closes().await);
    assert!(began.elapsed() < Duration::from_secs(5), "idle connections held it: {:?}", began.elapsed());
    assert!(tokio::net::TcpStream::connect(door.address).await.is_err(), "still listening");
}

#[tokio::test]
async fn an_end_has_a_limit() {
    let origin = Origin::start(|_, _| Reply::Never).await;
    let mut door = Door::open(&[origin.address]).await;
    let mut busy = door.connect().await;
    busy.send(crate::support::wire::request("POST", "/api/user/login", "", "")).await;
    wait_for("the request", || origin.seen().len() == 1).await;
    let began = std::time::Instant::now();
    door.running.take().unwrap().stop(Duration::from_millis(200)).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn defect_09_no_request_on_a_kept_connection_is_cut_off() {
    let origin = Origin::echo().await;
    let mut door = Door::open(&[origin.address]).await;
    let answered = AtomicUsize::new(0);
    let running = door.running.take().unwrap();
    let clients = (0..16).map(|_| async {
        let mut client = door.connect().await;
        loop {
            client.send(crate::support::wire::request("POST", "/api/user/login", JSON, "{}")).await;
            let got = client.answer(false).await.expect("an answer to each request");
            assert_eq!((got.status, got.complete), (200, true));
            answered.fetch_add(1, Ordering::Relaxed);
            if got.header("connection") == Some("close") {
                return; // told to go: the next connection goes to another gateway
            }
        }
    });
    let stop = async {
        wait_for("some load", || answered.load(Ordering::Relaxed) > 100).await;
        running.stop(Duration::from_secs(10)).await;
    };
    tokio::join!(futures_util::future::join_all(clients), stop);
}

/// A listening socket that closes resets what the kernel holds for it: see `drain` for the moment itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_connection_that_was_made_is_reset() {
    let origin = Origin::echo().await;
    let mut door = Door::open(&[origin.address]).await;
    let (address, answered) = (door.address, Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let answered = answered.clone();
            let (told, outcome) = tokio::sync::oneshot::channel();
            door.background.spawn(async move {
                // a client for each request, as from a load balancer without kept connections
                while let Ok(socket) = tokio::net::TcpStream::connect(address).await {
                    let got = async {
                        let mut client = crate::support::wire::Reader::new(socket);
                        let asked =
                            crate::support::wire::request("GET", "/api/user/login", "Connection: close\r\n", "");
                        tokio::io::AsyncWriteExt::write_all(&mut client.socket, &asked).await.ok()?;
                        client.answer(false).await
                    };
                    match got.await {
                        Some(got) if got.status == 200 => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        other => return drop(told.send(Some(other))),
                    }
                }
                drop(told.send(None));
            });
            outcome
        })
        .collect();
    wait_for("the load", || answered.load(Ordering::Relaxed) > 500).await;
    assert!(door.running.take().unwrap().stop(Duration::from_secs(20)).await);
    for client in clients {
        let failed = client.await.unwrap();
        assert!(failed.is_none(), "{failed:?}");
    }
    assert_eq!(origin.seen().len(), answered.load(Ordering::Relaxed));
}

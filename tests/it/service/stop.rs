//! The end of a node.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use goms::{Context, Service, ServiceError};
use tokio::sync::Semaphore;

use super::{Client, ask, parts, request, start, until};

/// A service whose `/slow` waits for a permit.
fn slow(started: &Arc<AtomicUsize>, gate: &Arc<Semaphore>) -> Service {
    let (started, gate) = (started.clone(), gate.clone());
    Service::new("user").route("/fast", async |_: Context, _: serde_json::Value| Ok("fast")).route(
        "/slow",
        move |_: Context, _: serde_json::Value| {
            let (started, gate) = (started.clone(), gate.clone());
            async move {
                started.fetch_add(1, Ordering::SeqCst);
                let permit = gate.acquire().await.map_err(|_| ServiceError::new(500, "closed"))?;
                permit.forget();
                Ok("slow")
            }
        },
    )
}

#[tokio::test]
async fn a_stop_finishes_what_runs_and_refuses_what_is_new() {
    let (mut parts, _events) = parts("user");
    parts.workers = 2;
    let (started, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let running = start(slow(&started, &gate), parts);
    let address = running.address();
    let mut idle = Client::connect(address); // keeps its connection open, asks nothing more
    assert_eq!(idle.send("GET", "/fast", &[], "").body, "\"fast\"");
    let silent = TcpStream::connect(address).unwrap(); // never asks anything
    let mut busy: Vec<Client> = (0..8).map(|_| Client::connect(address)).collect();
    busy.iter_mut().for_each(|client| client.write(&request("GET", "/slow", &[], "")));
    until("8 requests run", || started.load(Ordering::SeqCst) == 8).await;

    // on another thread: the clients here block theirs
    let stopping = super::RUNTIME.spawn(running.stop(Duration::from_secs(10)));
    let finishing = async {
        until("new connections are refused", || TcpStream::connect(address).is_err()).await;
        let mut byte = [0];
        assert_eq!(idle.stream.get_mut().read(&mut byte).unwrap(), 0, "an idle connection is closed");
        gate.add_permits(8);
        Instant::now()
    };
    let (all_finished, released) = tokio::join!(stopping, finishing);
    assert!(all_finished.unwrap());
    assert!(released.elapsed() < Duration::from_millis(900), "{:?}", released.elapsed());
    for mut client in busy {
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.as_str()), (200, "\"slow\""));
        assert_eq!(answer.header("connection"), Some("close"));
    }
    drop(silent);
}

#[tokio::test]
async fn idle_connections_do_not_delay_a_stop() {
    let (parts, _events) = parts("user");
    let running = start(slow(&Arc::default(), &Arc::new(Semaphore::new(0))), parts);
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(running.address())).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.send("GET", "/fast", &[], "").status, 200));
    let began = Instant::now();
    assert!(running.stop(Duration::from_secs(10)).await);
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_off() {
    let (parts, _events) = parts("user");
    let started = Arc::new(AtomicUsize::new(0));
    let running = start(slow(&started, &Arc::new(Semaphore::new(0))), parts);
    let mut client = Client::connect(running.address());
    client.write(&request("GET", "/slow", &[], ""));
    until("the request runs", || started.load(Ordering::SeqCst) == 1).await;
    let began = Instant::now();
    assert!(!running.stop(Duration::from_millis(100)).await);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(client.try_answer().is_err());
}

#[tokio::test]
async fn a_stop_under_load_loses_no_answer() {
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = begun.clone();
    let service = Service::new("user").route("/", move |_: Context, _: serde_json::Value| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_millis(3)).await;
            Ok("x".repeat(40_000))
        }
    });
    let (mut parts, _events) = parts("user");
    parts.workers = 2;
    let running = start(service, parts);
    let address = running.address();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut answered = 0;
                let mut client = Client::connect(address);
                loop {
                    use std::io::Write;
                    let sent = client.stream.get_mut().write_all(request("GET", "/", &[], "").as_bytes());
                    match sent.and_then(|()| client.try_answer()) {
                        Ok(answer) => {
                            assert_eq!((answer.status, answer.body.len()), (200, 40_002));
                            answered += 1;
                        }
                        Err(_) => return answered,
                    }
                }
            })
        })
        .collect();
    until("200 requests", || begun.load(Ordering::SeqCst) > 200).await;
    assert!(running.stop(Duration::from_secs(10)).await);
    let answered: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(answered, begun.load(Ordering::SeqCst), "every request that began was answered");
}

#[tokio::test]
async fn the_port_is_free_after_a_stop() {
    let (first, _events) = parts("user");
    let running = start(slow(&Arc::default(), &Arc::new(Semaphore::new(0))), first);
    let address = running.address();
    assert_eq!(ask(address, "GET", "/fast", &[], "").status, 200);
    assert!(running.stop(Duration::from_secs(1)).await);
    std::net::TcpListener::bind(address).unwrap();
}

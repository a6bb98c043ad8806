//! A server that goes and comes back under load: nothing that was confirmed is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use goms::broker::{Backend, BrokerError, Message};

use super::{hear, opened, settings};
use crate::support::messaging::{Kind, Server};
use crate::support::rabbitmq::RabbitMq;

/// Confirmed before and after each restart.
const STEP: u32 = 300;
/// A RabbitMQ on a busy machine needs over a minute to start.
const PATIENCE: Duration = Duration::from_secs(150);

/// Publishes numbers while the server is restarted; the groups (`None`: who hears all) must hear every one of them.
async fn nothing_is_lost(
    backend: Backend,
    groups: [Option<&str>; 2],
    restarts: u32,
    mut restart: impl FnMut() + Send + 'static,
) {
    env_logger::builder().is_test(true).try_init().ok();
    let settings = settings(backend);
    let ((publisher, _keep), (hearer, _keep_too)) = (opened(&settings).await, opened(&settings).await);
    let mut heard = [hear(&hearer, "load", groups[0]).await, hear(&hearer, "load", groups[1]).await];
    let (confirmed, done) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, ended) = (confirmed.clone(), done.clone());
    let publishing = async move {
        let mut number = 0;
        while !ended.load(Ordering::SeqCst) {
            // a broker that needs longer than one try is asked again
            while let Err(error) = publisher.publish(Message::new("load", number.to_string())).await {
                assert!(matches!(error, BrokerError::Away { .. }), "{error}");
            }
            number += 1;
            count.store(number, Ordering::SeqCst);
        }
        number
    };
    let restarting = async move {
        for step in 1..=restarts {
            let wanted = step * STEP;
            wait_until(|| confirmed.load(Ordering::SeqCst) >= wanted).await;
            restart = tokio::task::spawn_blocking(move || {
                restart();
                restart
            })
            .await
            .expect("restarted");
        }
        wait_until(|| confirmed.load(Ordering::SeqCst) >= (restarts + 1) * STEP).await;
        done.store(true, Ordering::SeqCst);
        restart // its server must live until all was heard
    };
    let (sent, result) = tokio::sync::oneshot::channel();
    let all = async {
        let mut got = [BTreeSet::new(), BTreeSet::new()];
        let mut last = result;
        let mut total = None;
        loop {
            if total.is_some_and(|total| got.iter().all(|got: &BTreeSet<u32>| got.len() as u32 == total)) {
                return;
            }
            let [group, single] = &mut heard;
            let (of, delivery) = tokio::select! {
                delivery = group.next() => (0, delivery),
                delivery = single.next() => (1, delivery),
                told = &mut last, if total.is_none() => {
                    total = Some(told.expect("a number"));
                    continue;
                }
                () = tokio::time::sleep(PATIENCE) => panic!("only {:?} of {total:?} arrived", got.map(|got| got.len())),
            };
            let delivery = delivery.expect("the subscription lives");
            got[of].insert(super::text(&delivery.message).parse().expect("a number"));
            delivery.ack().await.ok(); // by a connection that broke: it comes again
        }
    };
    let ((), _server, ()) =
        tokio::join!(async { sent.send(publishing.await).expect("still heard") }, restarting, async {
            tokio::time::timeout(2 * PATIENCE, all).await.expect("all arrive")
        });
}

async fn wait_until(holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "nothing is confirmed any more");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn nats_that_is_killed_under_load_loses_nothing() {
    let Some(mut server) = Server::start(Kind::Nats) else { return };
    let url = server.url();
    let restart = move || {
        server.down();
        server.up();
    };
    nothing_is_lost(Backend::Nats(vec![url]), [Some("group"), None], 2, restart).await;
}

#[tokio::test]
async fn mosquitto_that_is_restarted_under_load_loses_nothing() {
    let Some(mut server) = Server::start(Kind::Mosquitto) else { return };
    let url = server.url();
    let restart = move || {
        server.down();
        server.up();
    };
    nothing_is_lost(Backend::Mqtt { url, ca_file: None }, [None, None], 2, restart).await;
}

/// What is published while a member has not subscribed anew is lost to its group: Mosquitto forgets shared subscriptions.
#[tokio::test]
async fn a_group_hears_again_after_mosquitto_s_restart() {
    let Some(mut server) = Server::start(Kind::Mosquitto) else { return };
    let (broker, _keep) = opened(&settings(Backend::Mqtt { url: server.url(), ca_file: None })).await;
    let mut heard = hear(&broker, "load", Some("group")).await;
    super::say(&broker, "load", "before").await;
    assert_eq!(super::taken(&mut heard).await, "before");
    tokio::task::spawn_blocking(move || {
        server.down();
        server.up();
        server
    })
    .await
    .map(|server| async move {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            super::say(&broker, "load", "after").await;
            if let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_millis(200), heard.next()).await {
                assert_eq!(super::text(&delivery.message), "after");
                break drop(server);
            }
            assert!(tokio::time::Instant::now() < deadline, "the group hears nothing");
        }
    })
    .expect("restarted")
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_that_is_killed_under_load_loses_nothing() {
    let Some(mut server) = RabbitMq::start() else { return };
    let url = server.url();
    let restart = move || {
        server.settle();
        server.kill();
        server.up();
    };
    nothing_is_lost(Backend::Amqp(vec![url]), [Some("group"), None], 1, restart).await;
}

/// Whom nobody vouches for gets nothing, and is told of; a service is not ready before its topics are heard.
#[tokio::test]
async fn a_service_whose_broker_is_none_of_ours_is_not_ready() {
    let folder = crate::support::goms::Folder::new();
    let files = crate::support::tls::Identity::new().files(folder.path());
    let others = folder.path().join("others");
    std::fs::create_dir(&others).expect("a folder");
    let strangers = crate::support::tls::Identity::new().files(&others);
    let messaging = Server::start_tls(&files.certificate, &files.key);
    let Some(server) = messaging else { return };
    for (ca_file, is_heard) in [(strangers.ca, false), (files.ca, true)] {
        let settings = settings(Backend::Mqtt { url: server.url(), ca_file: Some(ca_file) });
        let (broker, shutdown) = opened(&settings).await;
        let service =
            goms::Service::new("mail").subscribe("news", |_: goms::Context, _: serde_json::Value| async { Ok(()) });
        let (parts, _events) = crate::service::parts("mail");
        let subscribers = goms::service::Subscribers::start(&service, parts, broker, settings).expect("they start");
        let unheard = subscribers.unheard();
        if is_heard {
            wait_until(|| unheard.trouble().is_none()).await;
        } else {
            // it has been tried: the server saw a client that did not like its certificate
            wait_until(|| server.log().contains("alert") || server.log().contains("error")).await;
            assert!(unheard.trouble().expect("not ready").contains("topic `news` is not heard yet"));
        }
        assert!(subscribers.stop(Duration::from_secs(1)).await);
        shutdown.begin();
    }
}

//! What every broker does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use goms::broker::{Backend, Broker, BrokerError, MOST_BYTES, Memory, Message, Subscription};

use super::{hear, next, opened, say, settings, taken, text};
use crate::support::servers;

/// What a broker is by its protocol.
#[derive(Clone, Copy)]
struct Traits {
    /// A group keeps its messages while no member is there.
    keeps: bool,
    /// What was not acknowledged comes again.
    again: bool,
}

async fn suite(one: Arc<dyn Broker>, two: Arc<dyn Broker>, traits: Traits) {
    everything_of_a_message_arrives(&one, &two).await;
    without_a_group_all_hear_all(&one, &two).await;
    a_group_shares_and_groups_do_not(&one, &two).await;
    nobody_hears_other_topics(&one, &two).await;
    what_cannot_be_sent_is_refused(&one).await;
    one.bury(&Message::new("dead.end", "{}"), "no use").await.expect("buried");
    if traits.again {
        what_was_not_acknowledged_comes_again(&one, &two).await;
    }
    if traits.keeps {
        a_group_keeps_while_nobody_is_there(&one, &two).await;
    }
}

async fn everything_of_a_message_arrives(one: &Arc<dyn Broker>, two: &Arc<dyn Broker>) {
    let mut heard = hear(two, "a.b-c/d_1", None).await;
    let headers =
        [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("x-note", "\u{e9} = ; ,")];
    let mut message = Message::new("a.b-c/d_1", vec![0u8, 255, 10, 13, 123]);
    message.headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    one.publish(message.clone()).await.expect("published");
    let mut delivery = next(&mut heard).await;
    delivery.message.headers.sort();
    assert_eq!(delivery.message, message);
    delivery.ack().await.expect("acknowledged");
    let large = Message::new("a.b-c/d_1", vec![b'x'; MOST_BYTES]);
    one.publish(large.clone()).await.expect("published");
    let delivery = next(&mut heard).await;
    assert!(delivery.message == large, "{} bytes arrived", delivery.message.body.len());
    delivery.ack().await.expect("acknowledged");
    one.publish(Message::new("a.b-c/d_1", "")).await.expect("published");
    assert_eq!(taken(&mut heard).await, "");
}

async fn without_a_group_all_hear_all(one: &Arc<dyn Broker>, two: &Arc<dyn Broker>) {
    let mut all = [hear(one, "news", None).await, hear(one, "news", None).await, hear(two, "news", None).await];
    for number in 0..20 {
        say(two, "news", number).await;
    }
    for heard in &mut all {
        for number in 0..20 {
            assert_eq!(taken(heard).await, number.to_string(), "in their order");
        }
    }
}

async fn a_group_shares_and_groups_do_not(one: &Arc<dyn Broker>, two: &Arc<dyn Broker>) {
    let (mut first, mut second) = (hear(one, "order", Some("mail")).await, hear(two, "order", Some("mail")).await);
    let mut bill = hear(one, "order", Some("bill")).await;
    let wanted: BTreeSet<String> = (0..100).map(|number| number.to_string()).collect();
    for number in &wanted {
        say(one, "order", number).await;
    }
    let (mut by_first, mut by_second, mut billed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    while by_first.len() + by_second.len() < 100 {
        let (of, delivery) = tokio::select! {
            delivery = first.next() => (&mut by_first, delivery),
            delivery = second.next() => (&mut by_second, delivery),
            () = tokio::time::sleep(super::LIMIT) => panic!("only {} and {} arrive", by_first.len(), by_second.len()),
        };
        let delivery = delivery.expect("the subscription lives");
        delivery.ack().await.expect("acknowledged");
        let fresh = of.insert(text(&delivery.message));
        assert!(fresh, "none comes twice");
    }
    assert!(by_first.is_disjoint(&by_second) && &by_first | &by_second == wanted);
    assert!(!by_first.is_empty() && !by_second.is_empty(), "{} and {}", by_first.len(), by_second.len());
    while billed.len() < 100 {
        assert!(billed.insert(taken(&mut bill).await));
    }
    // a member that leaves leaves the rest to the other
    first.stop();
    while let Some(delivery) = first.next().await {
        delivery.ack().await.expect("acknowledged");
    }
    drop(first);
    for number in 100..120 {
        say(two, "order", number).await;
    }
    let left: BTreeSet<String> = (100..120).map(|number: i32| number.to_string()).collect();
    let mut rest = BTreeSet::new();
    while rest != left {
        rest.insert(taken(&mut second).await);
    }
}

async fn nobody_hears_other_topics(one: &Arc<dyn Broker>, two: &Arc<dyn Broker>) {
    let mut heard = hear(one, "user.login", None).await;
    for topic in ["user", "user.login.failed", "user.logout"] {
        say(two, topic, "another").await;
    }
    say(two, "user.login", "this").await;
    assert_eq!(taken(&mut heard).await, "this");
}

async fn what_cannot_be_sent_is_refused(broker: &Arc<dyn Broker>) {
    for bad in ["", "a b", "a.*", "a/#", ".."] {
        let refused = broker.publish(Message::new(bad, "x")).await;
        assert!(matches!(refused, Err(BrokerError::Message(_))), "{bad}: {refused:?}");
        for (topic, group) in [(bad, None), ("a", Some(bad))] {
            let wanted = Subscription { topic: topic.to_owned(), group: group.map(str::to_owned) };
            let refused = broker.subscribe(wanted).await.map(drop);
            assert!(matches!(refused, Err(BrokerError::Message(_))), "{bad}: {refused:?}");
        }
    }
    let refused = broker.publish(Message::new("a", vec![0; MOST_BYTES + 1])).await;
    assert!(matches!(refused, Err(BrokerError::Message(_))), "{refused:?}");
}

async fn what_was_not_acknowledged_comes_again(one: &Arc<dyn Broker>, two: &Arc<dyn Broker>) {
    let mut first = hear(one, "fragile", Some("group")).await;
    for number in 0..5 {
        say(two, "fragile", number).await;
    }
    let held = next(&mut first).await;
    assert_eq!(text(&held.message), "0");
    drop(first); // as a process that dies
    drop(held);
    let mut second = hear(two, "fragile", Some("group")).await;
    let wanted: BTreeSet<String> = (0..5).map(|number: i32| number.to_string()).collect();
    let mut got = BTreeSet::new();
    let all = async {
        while got != wanted {
            got.insert(taken(&mut second).await);
        }
    };
    // NATS gives out what was held only when nobody told for 30 s that it is worked on
    tokio::time::timeout(Duration::from_secs(60), async {
        tokio::pin!(all);
        all.await
    })
    .await
    .expect("all come again");
}

async fn a_group_keeps_while_nobody_is_there(one: &Arc<dyn Broker>, two: &Arc<dyn Broker>) {
    drop(hear(one, "kept", Some("group")).await);
    for number in 0..10 {
        say(two, "kept", number).await;
    }
    let mut later = hear(two, "kept", Some("group")).await;
    let wanted: BTreeSet<String> = (0..10).map(|number: i32| number.to_string()).collect();
    let mut got = BTreeSet::new();
    while got != wanted {
        got.insert(taken(&mut later).await); // in any order: the first was perhaps on its way to who left
    }
}

#[tokio::test]
async fn memory_conforms() {
    let memory: Arc<dyn Broker> = Arc::new(Memory::default());
    suite(memory.clone(), memory, Traits { keeps: false, again: false }).await;
}

async fn by_server(backend: Backend, traits: Traits) {
    let settings = settings(backend);
    let ((one, first), (two, second)) = (opened(&settings).await, opened(&settings).await);
    suite(one, two, traits).await;
    for shutdown in [first, second] {
        shutdown.begin();
        assert!(shutdown.finished(super::LIMIT).await, "its tasks end");
    }
}

#[tokio::test]
async fn amqp_conforms() {
    let Some(url) = servers::amqp() else { return };
    by_server(Backend::Amqp(vec![url]), Traits { keeps: true, again: true }).await;
}

#[tokio::test]
async fn nats_conforms() {
    let Some(url) = servers::nats() else { return };
    by_server(Backend::Nats(vec![url]), Traits { keeps: true, again: true }).await;
}

/// MQTT has no namespace: its topics are everyone's, and a group without members keeps nothing.
#[tokio::test]
async fn mqtt_conforms() {
    let Some(server) = crate::support::messaging::Server::start(crate::support::messaging::Kind::Mosquitto) else {
        return;
    };
    by_server(Backend::Mqtt { url: server.url(), ca_file: None }, Traits { keeps: false, again: false }).await;
}

/// At most once, and nothing is kept.
#[tokio::test]
async fn http_conforms() {
    let (one, registry, first) = super::http::on_memory().await;
    let (two, second) = super::http::on(registry).await;
    suite(one, two, Traits { keeps: false, again: false }).await;
    for shutdown in [first, second] {
        shutdown.begin();
        assert!(shutdown.finished(super::LIMIT).await, "its tasks end");
    }
}

#[tokio::test]
async fn http_conforms_with_its_hearers_in_etcd() {
    let Some(etcd) = crate::support::etcd::Etcd::start() else { return };
    let background = goms::shutdown::Shutdown::new();
    let settings = crate::registry::etcd_settings(&etcd.address(), "g");
    let registry =
        goms::registry::open(&settings, &background, &goms::metrics::Metrics::new()).expect("the registry opens");
    let ((one, first), (two, second)) = (super::http::on(registry.clone()).await, super::http::on(registry).await);
    suite(one, two, Traits { keeps: false, again: false }).await;
    for shutdown in [first, second, background] {
        shutdown.begin();
        assert!(shutdown.finished(super::LIMIT).await, "its tasks end");
    }
}

#[tokio::test]
async fn mqtt_by_tls_conforms() {
    let folder = crate::support::goms::Folder::new();
    let files = crate::support::tls::Identity::new().files(folder.path());
    let messaging = crate::support::messaging::Server::start_tls(&files.certificate, &files.key);
    let Some(server) = messaging else { return };
    let url = server.url();
    assert!(url.starts_with("mqtts://"), "{url}");
    let ca_file = Some(files.ca);
    by_server(Backend::Mqtt { url, ca_file }, Traits { keeps: false, again: false }).await;
}

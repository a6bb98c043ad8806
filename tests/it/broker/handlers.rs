//! Services that publish and handle: tries, dead letters, traces and the end.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use goms::balance::Balancer;
use goms::broker::{Backend, Broker, Memory, Message};
use goms::metrics::Metrics;
use goms::registry::Publisher;
use goms::service::{CallTable, Parts, Subscribers};
use goms::shutdown::Shutdown;
use goms::trace::EventKind;
use goms::{Context, Service, ServiceError};
use serde::{Deserialize, Serialize};

use super::{LIMIT, hear, settings};
use crate::service::{parts_with, start};
use crate::support::{http, wait_for};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Registered {
    user: String,
}

/// What handlers noted down.
type Notes = Arc<Mutex<Vec<String>>>;

fn noted(notes: &Notes) -> Vec<String> {
    notes.lock().expect("no panic").clone()
}

fn note(notes: &Notes, text: String) -> usize {
    let mut notes = notes.lock().expect("no panic");
    notes.push(text);
    notes.len()
}

fn with_broker(parts: &mut Parts, broker: &Arc<dyn Broker>) -> Shutdown {
    let shutdown = Shutdown::new();
    let balancer = Balancer::start(Publisher::new().subscribe(), HashMap::new(), &Metrics::new(), &shutdown);
    let actions = Arc::new(BTreeMap::new());
    parts.calls = Some(CallTable {
        balancer,
        actions,
        answer_bytes: 1 << 20,
        broker: Some(broker.clone()),
        usual: goms::upstream::Policy::default(),
    });
    shutdown
}

fn subscribers(service: &Service, broker: &Arc<dyn Broker>) -> Subscribers {
    let (parts, events) = parts_with(service.name(), |_| {});
    std::mem::forget(events); // nobody looks at them
    Subscribers::start(service, parts, broker.clone(), settings(Backend::Memory)).expect("started")
}

fn memory() -> (Arc<dyn Broker>, Memory) {
    let memory = Memory::default();
    (Arc::new(memory.clone()), memory)
}

async fn publish(broker: &Arc<dyn Broker>, body: &str) {
    broker.publish(Message::new("user.registered", body.to_owned())).await.expect("published");
}

/// Until the subscription stands: memory keeps nothing for who comes later.
async fn wait_heard(broker: &Arc<dyn Broker>, notes: &Notes) {
    let deadline = std::time::Instant::now() + LIMIT;
    while noted(notes).is_empty() {
        assert!(std::time::Instant::now() < deadline, "nobody hears");
        publish(broker, r#"{"user":"probe"}"#).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    notes.lock().expect("no panic").clear();
}

#[tokio::test]
async fn a_message_belongs_to_the_trace_of_its_request() {
    async fn register(ctx: Context, body: Registered) -> Result<String, ServiceError> {
        ctx.publish_with("user.registered", &[("X-Note", "first")], &body).await?;
        Ok("registered".to_owned())
    }
    let (broker, _) = memory();
    let (mut shop_parts, mut shop_events) = parts_with("shop", |_| {});
    let _calls = with_broker(&mut shop_parts, &broker);
    let shop = start(Service::new("shop").route("/register", register), shop_parts);
    let notes = Notes::default();
    let seen = notes.clone();
    let mail =
        Service::new("mail").subscribe_group("user.registered", "mail", move |ctx: Context, body: Registered| {
            let seen = seen.clone();
            async move {
                let line = format!("{} {} {} {:?}", ctx.method(), ctx.path(), body.user, ctx.header("x-note"));
                note(&seen, line);
                Ok(())
            }
        });
    let (mail_parts, mut mail_events) = parts_with("mail", |_| {});
    let handlers = Subscribers::start(&mail, mail_parts, broker.clone(), settings(Backend::Memory)).expect("started");
    wait_heard(&broker, &notes).await;
    let address = shop.address().to_string();
    let answer = tokio::task::spawn_blocking(move || http::post(&address, "/register", r#"{"user":"huohuo"}"#));
    assert_eq!(answer.await.expect("no panic").expect("an answer").status, 200);
    wait_for("the message", || noted(&notes).len() == 1 || noted(&notes).iter().any(|line| line.contains("huohuo")))
        .await;
    let lines: Vec<String> = noted(&notes).into_iter().filter(|line| line.contains("huohuo")).collect();
    assert_eq!(lines, [r#"MESSAGE user.registered huohuo Some("first")"#]);
    let asked = tokio::time::timeout(LIMIT, shop_events.recv()).await.expect("in time").expect("an event");
    let handled = loop {
        let event = tokio::time::timeout(LIMIT, mail_events.recv()).await.expect("in time").expect("an event");
        if event.kind == EventKind::ServiceEnd && event.context.trace_id == asked.context.trace_id {
            break event;
        }
    };
    assert_eq!(handled.context.parent_id, Some(asked.context.span_id), "its parent is the request");
    assert_eq!((handled.request.caller.as_deref(), handled.status), (Some("shop"), Some(200)));
    assert!(handlers.stop(LIMIT).await);
    shop.stop(LIMIT).await;
}

#[tokio::test]
async fn what_fails_is_tried_again_and_what_cannot_succeed_is_buried() {
    let (broker, hub) = memory();
    let notes = Notes::default();
    let seen = notes.clone();
    let service = Service::new("mail").subscribe("user.registered", move |_: Context, body: Registered| {
        let seen = seen.clone();
        async move {
            let count = note(&seen, body.user.clone());
            match body.user.as_str() {
                "late" if count < 3 => Err(ServiceError::new(503, "not yet")),
                "panic" if count < 2 => panic!("as asked"),
                "never" => Err(ServiceError::new(500, "never")),
                "wrong" => Err(ServiceError::new(422, "wrong")),
                _ => Ok(()),
            }
        }
    });
    let handlers = subscribers(&service, &broker);
    wait_heard(&broker, &notes).await;
    for (body, tries, buried) in [
        (r#"{"user":"late"}"#, 3, 0),  // the third time it works
        (r#"{"user":"panic"}"#, 2, 0), // a panic is a failure like others
        (r#"{"user":"never"}"#, 4, 1), // as often as the settings say
        (r#"{"user":"wrong"}"#, 1, 1), // below 500: another try is in vain
        ("no json", 0, 1),
        (r#"{"name":7}"#, 0, 1),
    ] {
        notes.lock().expect("no panic").clear();
        let before = hub.buried();
        publish(&broker, body).await;
        wait_for(body, || noted(&notes).len() == tries && hub.buried() == before + buried).await;
    }
    assert!(handlers.stop(LIMIT).await);
}

#[tokio::test]
async fn the_end_waits_for_handlers_and_takes_no_more() {
    let (broker, _) = memory();
    let notes = Notes::default();
    let (seen, go) = (notes.clone(), Arc::new(tokio::sync::Semaphore::new(0)));
    let gate = go.clone();
    let service = Service::new("mail").subscribe("user.registered", move |_: Context, body: Registered| {
        let (seen, gate) = (seen.clone(), gate.clone());
        async move {
            note(&seen, format!("begin {}", body.user));
            if body.user != "probe" {
                gate.acquire().await.expect("open").forget();
            }
            note(&seen, format!("end {}", body.user));
            Ok(())
        }
    });
    let handlers = subscribers(&service, &broker);
    wait_heard(&broker, &notes).await;
    publish(&broker, r#"{"user":"slow"}"#).await;
    wait_for("its begin", || noted(&notes).iter().any(|line| line == "begin slow")).await;
    let stopping = handlers.stop(LIMIT);
    tokio::pin!(stopping);
    assert!(futures_util::poll!(&mut stopping).is_pending());
    go.add_permits(1);
    assert!(stopping.await, "all were done");
    assert!(noted(&notes).iter().any(|line| line == "end slow"));
    notes.lock().expect("no panic").clear();
    publish(&broker, r#"{"user":"late"}"#).await;
    assert_eq!(noted(&notes), [""; 0], "nobody hears any more");
}

/// The same over a real broker: each of two nodes' groups shares, and a failing node's message is handled in the end.
#[tokio::test]
async fn two_nodes_share_by_a_real_broker() {
    let Some(url) = crate::support::servers::nats() else { return };
    let settings = settings(Backend::Nats(vec![url]));
    let (broker, shutdown) = super::opened(&settings).await;
    let notes = Notes::default();
    let node = |name: &'static str| {
        let seen = notes.clone();
        let service =
            Service::new("mail").subscribe_group("user.registered", "mail", move |_: Context, body: Registered| {
                let seen = seen.clone();
                async move {
                    note(&seen, format!("{name} {}", body.user));
                    Ok(())
                }
            });
        let (parts, events) = parts_with("mail", |_| {});
        std::mem::forget(events);
        Subscribers::start(&service, parts, broker.clone(), settings.clone()).expect("started")
    };
    drop(hear(&broker, "user.registered", Some("mail")).await); // from now on the group keeps its messages
    let nodes = [node("one"), node("two")];
    for number in 0..50 {
        publish(&broker, &format!(r#"{{"user":"{number}"}}"#)).await;
    }
    wait_for("all", || noted(&notes).len() == 50).await;
    let mut users: Vec<String> =
        noted(&notes).iter().map(|line| line.split(' ').nth(1).expect("a user").to_owned()).collect();
    users.sort();
    users.dedup();
    assert_eq!(users.len(), 50, "each once");
    for node in nodes {
        assert!(node.stop(LIMIT).await);
    }
    shutdown.begin();
}

/// Where dead letters do not go down a message comes again, though the connection that it came by stands.
#[tokio::test]
async fn a_message_that_cannot_be_buried_comes_again() {
    let Some(url) = crate::support::servers::amqp() else { return };
    let settings = settings(Backend::Amqp(vec![url.clone()]));
    let dead = format!("{}.user.registered@dead", settings.namespace);
    let server = crate::support::rabbitmq::Client::connect(&url).await;
    // not as it is asked for
    server.declare(&dead, lapin::options::QueueDeclareOptions::default()).await;
    let (broker, background) = super::opened(&settings).await;
    let notes = Notes::default();
    let told = notes.clone();
    let service = Service::new("mail").subscribe("user.registered", move |_: Context, body: Registered| {
        note(&told, body.user);
        async { Err::<(), _>(ServiceError::new(400, "no")) }
    });
    let subscribers = subscribers(&service, &broker);
    wait_heard(&broker, &notes).await;
    publish(&broker, r#"{"user":"ann"}"#).await;
    wait_for("the message again", || noted(&notes).iter().filter(|user| *user == "ann").count() > 1).await;
    server.delete(&dead).await;
    assert!(subscribers.stop(LIMIT).await);
    background.begin();
}

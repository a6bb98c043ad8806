//! Who hears it: every broker against one suite, then each while its server is restarted, then the handlers of services.

mod conformance;
mod faults;
mod handlers;
mod http;
mod processes;

use std::sync::Arc;
use std::time::Duration;

use goms::broker::{Backend, Broker, Deliveries, Delivery, Message, Settings, Subscription, open};
use goms::shutdown::Shutdown;

use crate::support::servers::unique;

const LIMIT: Duration = Duration::from_secs(20);

fn settings(backend: Backend) -> Settings {
    Settings {
        backend,
        namespace: unique("g"),
        attempts: 4,
        backoff: Duration::from_millis(20),
        runtime_dir: std::env::temp_dir(),
    }
}

/// A handle as a process would open it.
async fn opened(settings: &Settings) -> (Arc<dyn Broker>, Shutdown) {
    let shutdown = Shutdown::new();
    (open(settings, None, &shutdown).await.expect("the broker opens"), shutdown)
}

async fn hear(broker: &Arc<dyn Broker>, topic: &str, group: Option<&str>) -> Deliveries {
    let wanted = Subscription { topic: topic.to_owned(), group: group.map(str::to_owned) };
    let heard = tokio::time::timeout(LIMIT, broker.subscribe(wanted)).await;
    heard.expect("in time").expect("subscribed")
}

async fn next(deliveries: &mut Deliveries) -> Delivery {
    let next = tokio::time::timeout(LIMIT, deliveries.next()).await;
    next.expect("a message in time").expect("the subscription lives")
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

/// The next message's text, acknowledged.
async fn taken(deliveries: &mut Deliveries) -> String {
    let delivery = next(deliveries).await;
    delivery.ack().await.expect("acknowledged");
    text(&delivery.message)
}

async fn say(broker: &Arc<dyn Broker>, topic: &str, body: impl ToString) {
    broker.publish(Message::new(topic, body.to_string())).await.expect("published");
}

//! RabbitMQ away while requests are answered.

use super::*;
use crate::support::events::run as block_on;

/// A gateway, a service and a consumer whose events go through RabbitMQ.
struct OnRabbit {
    _user: Goms,
    gateway: Goms,
    /// The gateway's.
    address: String,
    consumer: Goms,
    config: String,
    folder: Folder, // last: it goes after the processes that use it
}

impl OnRabbit {
    /// Returns once the service answers.
    fn start(rabbit: &RabbitMq) -> Self {
        let folder = Folder::new();
        let config = folder.write("config.yml", &format!("{SERVICES}amqpAddr: \"{}\"\n", rabbit.url()));
        let with = ["--config", config.as_str()];
        let consumer = consumer(&folder, &with);
        let (gateway, address) = gateway(&folder, &with);
        let (user, _) = service(&folder, "user", &with);
        wait_for_status(&address, "/api/user/login", 200);
        Self { folder, config, consumer, gateway, address, _user: user }
    }

    fn with(&self) -> [&str; 2] {
        ["--config", &self.config]
    }
}

#[test]
fn rabbitmq_away_under_load_costs_no_request_and_no_event() {
    let Some(mut rabbit) = RabbitMq::start() else { return };
    let cluster = OnRabbit::start(&rabbit);
    let load = Posts::start(&cluster.address);
    cluster.consumer.wait_for("amqp trace consumer success count=");
    rabbit.settle();
    rabbit.kill();
    cluster.gateway.wait_for("trace events wait on disk");
    load.wait_for(200);
    rabbit.up();
    cluster.gateway.wait_for("trace events are delivered again");
    cluster.consumer.wait_for("trace consumer reads again");
    load.wait_for(50);
    let answered = load.stop();
    assert_each_once(&cluster.folder, &cluster.with(), &all_ok(&answered));
    for (goms, text) in
        [(&cluster.gateway, "trace events wait on disk"), (&cluster.consumer, "trace consumer cannot read")]
    {
        assert_eq!(goms.log().matches(text).count(), 1, "said once a change: {}", goms.log());
    }
}

#[test]
fn no_request_waits_for_a_broker_that_is_stopped() {
    let Some(rabbit) = RabbitMq::start() else { return };
    let cluster = OnRabbit::start(&rabbit);
    let load = Posts::start(&cluster.address);
    cluster.consumer.wait_for("amqp trace consumer success count=");
    rabbit.freeze(true);
    load.wait_for(300); // each within the client's patience, or it counts as unanswered
    rabbit.freeze(false);
    let unanswered = load.unanswered();
    let answered = load.stop();
    assert_eq!(unanswered, 0);
    assert_each_once(&cluster.folder, &cluster.with(), &all_ok(&answered));
}

#[test]
fn a_queue_that_vanishes_is_made_again_and_said() {
    let Some(amqp) = servers::amqp() else { return };
    let (folder, queue) = (Folder::new(), servers::unique("trace-"));
    let config = folder.write("config.yml", &format!("amqpAddr: \"{amqp}\"\namqp: {{queue: {queue}}}\n"));
    let consumer = consumer(&folder, &["--config", &config]);
    assert!(!consumer.log().contains("are lost"), "the first time nothing is lost: {}", consumer.log());
    let delete = || block_on(async { Client::connect(&amqp).await.delete(&queue).await });
    delete();
    let said = consumer.wait_for("trace events that waited in it are lost");
    assert!(said.contains(&format!("queue={queue}")), "{said}");
    consumer.wait_for("trace consumer reads again");
    drop(consumer);
    delete();
}

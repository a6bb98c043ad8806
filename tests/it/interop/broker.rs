//! Go Micro's HTTP broker, both ways: programs of Go hear what services of ours publish, and the other way round.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use goms::broker::{Backend, Broker, Deliveries, Ground, Message, Settings, Subscription, open};
use goms::metrics::Metrics;
use goms::registry::{self, EtcdSettings, Registry};
use goms::shutdown::Shutdown;

use super::{Cluster, Version};
use crate::support::goms::{Goms, PATIENCE};
use crate::support::http::post;
use crate::support::wait_for;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const HEARERS: &str = "/micro/registry/micro.http.broker/";

/// The registry and the broker of a process of ours.
struct Ours {
    registry: Arc<dyn Registry>,
    broker: Arc<dyn Broker>,
    shutdown: Shutdown,
}

impl Ours {
    async fn start(cluster: &Cluster) -> Self {
        let etcd = EtcdSettings { endpoints: vec![cluster.etcd.address()], ..EtcdSettings::default() };
        let settings = crate::registry::settings(registry::Backend::Etcd(etcd), "goms");
        let shutdown = Shutdown::new();
        let registry = registry::open(&settings, &shutdown, &Metrics::new()).expect("it opens");
        let ground = Ground { registry: registry.clone(), bind: HERE, advertised: HERE };
        let settings = Settings {
            backend: Backend::Http(None),
            namespace: "goms".to_owned(),
            attempts: 1,
            backoff: Duration::from_millis(20),
            runtime_dir: std::env::temp_dir(),
        };
        let broker = open(&settings, Some(&ground), &shutdown).await.expect("it opens");
        Self { registry, broker, shutdown }
    }

    async fn hear(&self, topic: &str, group: Option<&str>) -> Deliveries {
        let wanted = Subscription { topic: topic.to_owned(), group: group.map(str::to_owned) };
        tokio::time::timeout(PATIENCE, self.broker.subscribe(wanted)).await.expect("in time").expect("subscribed")
    }

    /// Until so many hear the topic, as this process knows.
    async fn wait_for_hearers(&self, topic: &str, count: usize) {
        let mut hearers = self.registry.hearers().expect("etcd has a place for them");
        let enough = hearers.wait_for(|known| {
            known.iter().flat_map(|known| known.iter()).filter(|hearer| hearer.topic == topic).count() == count
        });
        tokio::time::timeout(PATIENCE, enough).await.expect("in time").expect("open");
    }

    async fn publish(&self, topic: &str, name: &str) {
        let mut message = Message::new(topic, format!(r#"{{"name":"{name}"}}"#));
        let headers = [("content-type", "application/json"), ("x-request-id", "id-of-ours")];
        message.headers.extend(headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
        self.broker.publish(message).await.expect("published");
    }
}

fn hearer(cluster: &Cluster, version: Version, args: &[&str]) -> Goms {
    let name = ["-mode", "hearer", "-name", "go.micro.srv.hearer"];
    cluster.go(version, &[&name[..], args].concat())
}

async fn they_hear_us(version: Version) {
    let Some(cluster) = Cluster::start(&[version]) else { return };
    let ours = Ours::start(&cluster).await;
    ours.publish("orders", "nobody").await;
    let all = [hearer(&cluster, version, &["-topic", "orders"]), hearer(&cluster, version, &["-topic", "orders"])];
    let group = ["-topic", "orders", "-queue", "mail"];
    let members = [hearer(&cluster, version, &group), hearer(&cluster, version, &group)];
    let _others = hearer(&cluster, version, &["-topic", "others"]);
    ours.wait_for_hearers("orders", 4).await;
    let nodes = ours.registry.catalog().borrow().as_ref().map(|known| known.all().count());
    assert_eq!(nodes, Some(5), "who hears is no service of its own");
    for number in 0..10 {
        ours.publish("orders", &format!("n{number}")).await;
    }
    for one in &all {
        one.wait_for("heard n9 id-of-ours");
        one.wait_for_count("heard ", 10, PATIENCE);
    }
    for one in &members {
        one.wait_for_count("heard ", 5, PATIENCE); // a group shares
    }
    // one dies, and etcd shows it for a while: its group misses nothing
    let [gone, stays] = members;
    gone.kill();
    for number in 0..10 {
        ours.publish("orders", &format!("m{number}")).await;
    }
    stays.wait_for_count("heard m", 10, PATIENCE);
    assert_eq!(stays.log().matches("heard ").count(), 15, "{}", stays.log());
}

#[tokio::test]
async fn go_hears_what_we_publish_v2() {
    they_hear_us(Version::V2).await;
}

#[tokio::test]
async fn go_hears_what_we_publish_v5() {
    they_hear_us(Version::V5).await;
}

async fn we_hear_them(version: Version) {
    let Some(cluster) = Cluster::start(&[version]) else { return };
    let ours = Ours::start(&cluster).await;
    let mut all = ours.hear("a.b/c", None).await;
    let mut members = [ours.hear("a.b/c", Some("mail")).await, ours.hear("a.b/c", Some("mail")).await];
    let publisher = Goms::spawn(cluster.go_command(version, &["-mode", "publish", "-topic", "a.b/c", "-calls", "20"]));
    let mut got = std::collections::BTreeSet::new();
    while got.len() < 20 {
        let delivery = tokio::time::timeout(PATIENCE, all.next()).await.expect("in time").expect("open");
        let message = &delivery.message;
        let id = message.header("x-request-id").expect("a header").to_owned();
        let body = String::from_utf8_lossy(&message.body);
        assert_eq!(body.trim_end(), format!(r#"{{"name":"John{id}"}}"#));
        assert_eq!((message.topic.as_str(), message.header("content-type")), ("a.b/c", Some("application/json")));
        delivery.ack().await.expect("acknowledged");
        assert!(got.insert(id), "none comes twice");
    }
    let mut by_members = 0;
    while by_members < 20 {
        let [one, two] = &mut members;
        let delivery = tokio::select! {
            delivery = one.next() => delivery,
            delivery = two.next() => delivery,
            () = tokio::time::sleep(PATIENCE) => panic!("only {by_members} came"),
        };
        delivery.expect("open").ack().await.expect("acknowledged");
        by_members += 1;
    }
    publisher.wait_for("published");
    // a key that somebody deleted comes back; what is heard no more goes
    assert_eq!(cluster.etcd.keys(HEARERS).len(), 3);
    cluster.etcd.ctl(&["del", "--prefix", HEARERS]);
    wait_for("their return", || cluster.etcd.keys(HEARERS).len() == 3).await;
    drop((all, members));
    wait_for("their end", || cluster.etcd.keys(HEARERS).is_empty()).await;
    ours.shutdown.begin();
}

#[tokio::test]
async fn we_hear_what_go_publishes_v2() {
    we_hear_them(Version::V2).await;
}

#[tokio::test]
async fn we_hear_what_go_publishes_v5() {
    we_hear_them(Version::V5).await;
}

#[tokio::test]
async fn handler_event_reaches_who_hears_in_go() {
    let Some(cluster) = Cluster::start(&[Version::V2]) else { return };
    let node = hearer(&cluster, Version::V2, &["-topic", "go.micro.api.orders", "-events"]);
    wait_for("the hearer", || !cluster.etcd.keys(HEARERS).is_empty()).await;
    let (_gateway, address) = cluster.gateway(&["--handler", "event", "--broker", "http"], 1);
    let user = [("X-User", "ann")];
    let answer = crate::support::http::request("POST", &address, "/orders/placed.now", &user, Some(b"{\"n\":1}"));
    assert_eq!(answer.expect("an answer").status, 200);
    node.wait_for(r#"heard event placed.now {"n":1} [ann]"#);
    let answer = post(&address, "/others/x", "{}").expect("an answer");
    assert_eq!(answer.status, 200, "nobody hears it, as with Go Micro's own");
    assert_eq!(node.log().matches("heard ").count(), 1, "{}", node.log());
}

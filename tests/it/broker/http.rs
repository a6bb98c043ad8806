//! What Go Micro's HTTP broker alone must bear.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use goms::broker::{Backend, Broker, BrokerError, Deliveries, Ground, Message, open};
use goms::registry::memory::Memory;
use goms::registry::{Hearer, Registry};
use goms::shutdown::Shutdown;

use super::{hear, say, settings, taken};
use crate::support::http::request;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A broker on a registry of its own.
pub async fn on_memory() -> (Arc<dyn Broker>, Arc<Memory>, Shutdown) {
    let registry = Memory::new();
    let (broker, shutdown) = on(registry.clone()).await;
    (broker, registry, shutdown)
}

/// A broker of a process that has this registry.
pub async fn on(registry: Arc<dyn Registry>) -> (Arc<dyn Broker>, Shutdown) {
    let (shutdown, ground) = (Shutdown::new(), Ground { registry, bind: HERE, advertised: HERE });
    let broker = open(&settings(Backend::Http(None)), Some(&ground), &shutdown).await.expect("it opens");
    (broker, shutdown)
}

fn hearers(registry: &Memory) -> Vec<Hearer> {
    let known = registry.hearers().expect("it has a place").borrow().clone();
    known.map(|known| known.to_vec()).unwrap_or_default()
}

async fn one() -> (Deliveries, Arc<Memory>, Shutdown, Hearer) {
    let (broker, registry, shutdown) = on_memory().await;
    let heard = hear(&broker, "news", None).await;
    let hearer = hearers(&registry).remove(0);
    (heard, registry, shutdown, hearer)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_refused_and_hurts_nobody() {
    let (mut heard, _registry, _shutdown, hearer) = one().await;
    let (address, path) = (hearer.address.to_string(), format!("/?id={}", hearer.id));
    let good = br#"{"Header":{"Micro-Topic":"news"},"Body":"aGk="}"#;
    let send = |method: &'static str, path: String, body: Vec<u8>| {
        let address = address.clone();
        tokio::task::spawn_blocking(move || {
            request(method, &address, &path, &[], Some(&body)).expect("an answer").status
        })
    };
    for (method, path, body, status) in [
        ("GET", path.clone(), good.to_vec(), 405),
        ("POST", "/".to_owned(), good.to_vec(), 404),
        ("POST", "/?id=other".to_owned(), good.to_vec(), 404),
        ("POST", path.clone(), br#"{"Header":{"Micro-Topic":"other"}}"#.to_vec(), 404),
        ("POST", path.clone(), b"{".to_vec(), 400),
        ("POST", path.clone(), br#"{"Header":{"Micro-Topic":"news"},"Body":"!"}"#.to_vec(), 400),
        ("POST", path.clone(), vec![b' '; 2 << 20], 413),
        ("POST", path.clone(), good.to_vec(), 200),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(50)]).into_owned();
        assert_eq!(send(method, path, body).await.expect("sent"), status, "{method} {shown}");
    }
    assert_eq!(taken(&mut heard).await, "hi");
}

#[tokio::test]
async fn a_group_s_message_goes_to_the_next_where_one_is_gone() {
    let (broker, registry, _shutdown) = on_memory().await;
    let mut stays = hear(&broker, "news", Some("mail")).await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let of = |address: SocketAddr, group: Option<&str>, tls: bool| Hearer {
        id: format!("news-{address}"),
        address,
        topic: "news".to_owned(),
        group: group.map(str::to_owned),
        tls,
    };
    registry.hear(of(gone, Some("mail"), false)).await.expect("told");
    registry.hear(of(gone, None, false)).await.expect("told"); // lost to it, and no failure
    registry.hear(of(gone, Some("bill"), true)).await.expect("told"); // passed over
    for number in 0..6 {
        say(&broker, "news", number).await;
        assert_eq!(taken(&mut stays).await, number.to_string());
    }
    // none of a group is left
    drop(stays);
    registry.hear(of(gone, Some("alone"), false)).await.expect("told");
    let refused = broker.publish(Message::new("news", "x")).await;
    assert!(matches!(refused, Err(BrokerError::Away { .. })), "{refused:?}");
}

#[tokio::test]
async fn it_needs_a_registry_with_a_place_for_hearers() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("nodes.yml");
    std::fs::write(&file, "services: {}").expect("written");
    let shutdown = Shutdown::new();
    let local = crate::registry::settings(goms::registry::Backend::Static { file }, "g");
    let registry = goms::registry::open(&local, &shutdown, &goms::metrics::Metrics::new()).expect("it opens");
    let ground = Ground { registry, bind: HERE, advertised: HERE };
    let refused = open(&settings(Backend::Http(None)), Some(&ground), &shutdown).await.map(drop);
    let Err(error @ BrokerError::Setting { .. }) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("use `--registry etcd`"), "{error}");
    shutdown.begin();
}

//! Addresses of servers that the config names: names are looked up, and again from time to time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Balancer;
use crate::registry::{HostPort, Node, NodeId, NodeMeta, Origin};
use crate::shutdown::Shutdown;

/// How often; what name servers of a cluster give out is seldom valid for longer.
const EVERY: Duration = Duration::from_secs(10);

/// One that nobody answers for does not hold up the others for longer.
const LONGEST: Duration = Duration::from_secs(3);

/// The addresses of each name.
pub(super) type Addresses = BTreeMap<String, Vec<IpAddr>>;

/// The nodes that these are, one an address; none of a name that is not known yet.
pub(super) fn nodes(group: &str, origins: &[Origin], known: &Addresses) -> Vec<Arc<Node>> {
    let of = |origin: &Origin| -> Vec<IpAddr> {
        match origin.host.parse() {
            Ok(address) => vec![address],
            Err(_) => known.get(&origin.host).cloned().unwrap_or_default(),
        }
    };
    let node = |origin: &Origin, address: IpAddr| {
        let (http, rpc) = (HostPort::new(address, origin.port), HostPort { ip: address, port: None });
        let id = NodeId { service: group.to_owned(), rpc, http };
        Arc::new(Node { origin: Some(Arc::new(origin.clone())), ..Node::new(id, NodeMeta::default()) })
    };
    origins.iter().flat_map(|origin| of(origin).into_iter().map(move |address| node(origin, address))).collect()
}

/// The names among these.
pub(super) fn names<'o>(origins: impl Iterator<Item = &'o Origin>) -> BTreeSet<String> {
    origins.filter(|origin| origin.host.parse::<IpAddr>().is_err()).map(|origin| origin.host.clone()).collect()
}

/// Keeps a balancer's names looked up until the end of the process.
pub(super) async fn follow(balancer: Arc<Balancer>, shutdown: Shutdown) {
    tokio::select! {
        () = shutdown.begun() => {}
        () = look_up(&balancer) => {}
    }
}

async fn look_up(balancer: &Balancer) {
    let mut failing = BTreeSet::new();
    loop {
        for name in balancer.names() {
            let lookup = tokio::time::timeout(LONGEST, tokio::net::lookup_host((name.as_str(), 0))).await;
            let mut found: Vec<IpAddr> = match lookup.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(found) => found.map(|address| address.ip()).collect(),
                Err(error) => {
                    if failing.insert(name.clone()) {
                        log::warn!(
                            "cannot look up a server of the config, its last addresses stay name={name} error={error}"
                        );
                    }
                    continue;
                }
            };
            if failing.remove(&name) {
                log::info!("a server of the config is found again name={name}");
            }
            found.sort();
            found.dedup();
            balancer.found(name, found);
        }
        tokio::select! {
            () = balancer.names_changed() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_node_and_a_name_as_many_as_it_has() {
        let origin = |host: &str, port| Origin { host: host.to_owned(), port, tls: false };
        let origins = [origin("10.0.0.1", 80), origin("::1", 81), origin("a.test", 82), origin("b.test", 83)];
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let known = Addresses::from([("a.test".to_owned(), vec![ip("10.0.0.2"), ip("10.0.0.3")])]);
        let nodes = nodes("g", &origins, &known);
        let called: Vec<String> = nodes.iter().map(|node| node.id.http.to_string()).collect();
        assert_eq!(called, ["10.0.0.1:80", "[::1]:81", "10.0.0.2:82", "10.0.0.3:82"]);
        assert_eq!(nodes[2].origin.as_ref().unwrap().authority(), "a.test:82");
        assert_eq!(names(origins.iter()), BTreeSet::from(["a.test".to_owned(), "b.test".to_owned()]));
    }
}

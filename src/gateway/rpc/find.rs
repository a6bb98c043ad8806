//! Which service a call is for: that of a route for the path; else the one that the caller names in `goms-service`; else the
//! one whose nodes say that they serve `/pkg.Service`; else the one that has the package's name, as with Go Micro's nodes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::registry::{Catalog, CatalogWatch};
use crate::rpc::method::service_of_path;
use crate::rpc::{Code, Status};

/// Who serves what, as the newest catalog tells.
pub(super) struct Directory {
    catalog: RefCell<CatalogWatch>,
    served: RefCell<Rc<Served>>,
    is_first: Cell<bool>,
}

/// Who serves what.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// `greeter.Say` → the services whose nodes serve it.
    by_name: BTreeMap<String, Vec<Arc<str>>>,
    /// Every service with an RPC port.
    services: Vec<Arc<str>>,
    /// Nothing is known of the cluster yet.
    is_unknown: bool,
}

impl Directory {
    pub fn new(catalog: CatalogWatch) -> Self {
        Self { catalog: RefCell::new(catalog), served: RefCell::default(), is_first: Cell::new(true) }
    }

    /// What is known now.
    pub fn served(&self) -> Rc<Served> {
        let mut catalog = self.catalog.borrow_mut();
        if self.is_first.take() || catalog.has_changed().unwrap_or(false) {
            let newest = catalog.borrow_and_update().clone();
            self.served.replace(Rc::new(
                newest.map_or_else(|| Served { is_unknown: true, ..Served::default() }, |catalog| Served::of(&catalog)),
            ));
        }
        self.served.borrow().clone()
    }
}

impl Served {
    fn of(catalog: &Catalog) -> Self {
        let mut served = Self::default();
        for (service, nodes) in
            catalog.services().filter(|(_, nodes)| nodes.iter().any(|node| node.id.rpc.port.is_some()))
        {
            let service: Arc<str> = service.into();
            for name in nodes.iter().flat_map(|node| &node.meta.rpc_services) {
                let of_name = served.by_name.entry(name.clone()).or_default();
                if !of_name.contains(&service) {
                    of_name.push(service.clone());
                }
            }
            served.services.push(service);
        }
        served
    }

    /// The service that a caller named.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` with those that there are.
    pub fn named(&self, name: &str) -> Result<Arc<str>, Status> {
        let found = self.services.iter().find(|service| &***service == name);
        found.cloned().ok_or_else(|| {
            let has = list(self.services.iter().map(|service| &**service));
            self.unknown(format!("no service `{name}` takes rpc; there is {has}"))
        })
    }

    /// Whether its nodes say that they serve this.
    pub fn serves(&self, service: &str, full: &str) -> bool {
        self.by_name.get(full).is_some_and(|services| services.iter().any(|known| &**known == service))
    }

    /// The service of a path.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` with what there is; `FAILED_PRECONDITION` where several serve it.
    pub fn of_path(&self, path: &str) -> Result<Arc<str>, Status> {
        let full = service_of_path(path).unwrap_or_default();
        match self.by_name.get(full).map(Vec::as_slice) {
            Some([only]) => return Ok(only.clone()),
            Some(several) => {
                let services = list(several.iter().map(|service| &**service));
                let message = format!(
                    "`{full}` is served by {services}; name one in the header `goms-service`, or write a route for the path `/{full}/*`"
                );
                return Err(Status::new(Code::FailedPrecondition, message));
            }
            None => {}
        }
        let package = full.rsplit_once('.').map_or(full, |(package, _)| package);
        let by_package = self.services.iter().find(|service| &***service == package);
        by_package.cloned().ok_or_else(|| {
            let has = list(self.by_name.keys().map(String::as_str));
            self.unknown(format!("nobody serves `{full}`; there is {has}"))
        })
    }

    fn unknown(&self, message: String) -> Status {
        if self.is_unknown {
            let message = "the registry has not told yet which nodes there are; try again in a second";
            return Status::new(Code::Unavailable, message);
        }
        Status::new(Code::Unimplemented, message)
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{HostPort, Node, NodeId, NodeMeta, Publisher};

    #[test]
    fn a_service_is_found_by_what_its_nodes_serve() {
        let node = |service: &str, port: u16, names: &[&str]| {
            let at = HostPort::new(std::net::Ipv4Addr::LOCALHOST.into(), port);
            let mut meta = NodeMeta::default();
            meta.tell_methods(Vec::new(), names.iter().map(|name| (*name).to_owned()).collect());
            Node::new(NodeId { service: service.to_owned(), rpc: at, http: at }, meta)
        };
        let registry = Publisher::new();
        let directory = Directory::new(registry.subscribe());
        assert_eq!(directory.served().of_path("/a.B/C").unwrap_err().code, Code::Unavailable);
        registry.publish(vec![
            node("greeter", 1, &["greeter.Say", "shared.Thing"]),
            node("greeter", 2, &["greeter.Say"]),
            node("other", 3, &["shared.Thing"]),
            node("go.micro.srv.old", 4, &[]),
        ]);
        let served = directory.served();
        let of_path = |path: &str| served.of_path(path).map(|service| service.to_string());
        assert_eq!(of_path("/greeter.Say/Hello").unwrap(), "greeter");
        assert_eq!(of_path("/go.micro.srv.old.Say/Hello").unwrap(), "go.micro.srv.old");
        let unknown = of_path("/nobody.Say/Hello").unwrap_err();
        assert_eq!(unknown.code, Code::Unimplemented);
        assert_eq!(unknown.message, "nobody serves `nobody.Say`; there is greeter.Say, shared.Thing");
        let several = of_path("/shared.Thing/Do").unwrap_err();
        assert_eq!(several.code, Code::FailedPrecondition);
        assert!(several.message.starts_with("`shared.Thing` is served by greeter, other;"), "{several}");
        assert_eq!(&*served.named("other").unwrap(), "other");
        let missing = served.named("nobody").unwrap_err();
        assert_eq!(missing.message, "no service `nobody` takes rpc; there is go.micro.srv.old, greeter, other");
    }
}

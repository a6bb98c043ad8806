//! Which service a call is for: that of a route for the path; else the one that the caller names in `goms-service`; else the
//! one whose nodes say that they serve `/pkg.Service`; else the one that has the package's name, as with Go Micro's nodes.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use actix_web::http::header as http_02;
use http_v1::HeaderMap;

use crate::gateway::asked::Asked;
use crate::gateway::keeper::Keeper;
use crate::gateway::live::Table;
use crate::gateway::route::{Meters, Route};
use crate::gateway::rule::{Call, Outcome};
use crate::metrics::Metrics;
use crate::registry::{Catalog, CatalogWatch};
use crate::rpc::method::{ends_with, service_of_path};
use crate::rpc::{Code, MethodName, Status};
use crate::upstream::Policy;

/// Names the service where its methods do not.
pub(in crate::gateway) const GOMS_SERVICE: &str = "goms-service";

/// Who serves what, as the newest catalog tells.
pub(in crate::gateway) struct Directory {
    catalog: RefCell<CatalogWatch>,
    served: RefCell<Rc<Served>>,
    is_first: Cell<bool>,
    metrics: Metrics,
    meters: RefCell<HashMap<Arc<str>, Rc<Meters>>>,
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
    pub fn new(catalog: CatalogWatch, metrics: &Metrics) -> Self {
        Self {
            catalog: RefCell::new(catalog),
            served: RefCell::default(),
            is_first: Cell::new(true),
            metrics: metrics.clone(),
            meters: RefCell::default(),
        }
    }

    /// The instruments of a service's calls.
    pub fn meters(&self, service: &Arc<str>) -> Rc<Meters> {
        if let Some(known) = self.meters.borrow().get(service) {
            return known.clone();
        }
        let made = Rc::new(Meters::new(&self.metrics, service, "rpc"));
        self.meters.borrow_mut().insert(service.clone(), made.clone());
        made
    }

    /// What is written for a path holds whomever a caller names, and however it spells the package, which nodes do not look at.
    pub(super) fn find<'t, F: Fields>(
        &self,
        table: &'t Table,
        path: &str,
        host: &str,
        brought: &F,
    ) -> Result<Found<'t>, Status> {
        if let Some((route, policy)) = of_route(table, path, host, brought) {
            let Outcome::Call(call) = &route.then else {
                return Err(Status::new(Code::Unimplemented, "the route of this path answers by HTTP"));
            };
            let group = route.group(&call.services).into();
            return Ok(Found { group, policy, keeper: route.keeper.as_deref() });
        }
        let served = self.served();
        let service = match brought.text(GOMS_SERVICE) {
            Some(name) => served.named(&name)?,
            None => served.of_path(path)?,
        };
        let name = MethodName::parse(path).ok().filter(|_| path.matches('/').count() == 2);
        let name = name.ok_or_else(|| {
            Status::new(Code::Unimplemented, format!("`{path}` is no path `/package.Service/Method`"))
        })?;
        if !served.serves(&service, &name.full_service())
            && let Some((route, call)) = of_alias(table, &name, &service, host, brought)
        {
            let group = route.group(&call.services).into();
            return Ok(Found { group, policy: &call.policy, keeper: route.keeper.as_deref() });
        }
        Ok(of_service(table, service))
    }

    /// The same of a call on the HTTP port, where routes go first; `None`: one takes it over HTTP, and its terms hold.
    pub(super) fn find_web<'t>(&self, table: &'t Table, asked: &Asked<'_>) -> Option<Result<Found<'t>, Status>> {
        let route = match table.routes.find(asked) {
            // paths that name services of Go Micro are those that no route takes
            Err(_) | Ok((Route { then: Outcome::Micro(_), .. }, _)) => {
                return Some(self.find(table, asked.path, asked.host, asked.headers));
            }
            Ok((route, _)) => route,
        };
        match &route.then {
            Outcome::Call(call) if table.routes.rpc.contains(&route.place) => {
                let group = route.group(&call.services).into();
                Some(Ok(Found { group, policy: &call.policy, keeper: route.keeper.as_deref() }))
            }
            _ => None,
        }
    }

    /// What is known now.
    pub(super) fn served(&self) -> Rc<Served> {
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

/// Where a call goes.
pub(in crate::gateway) struct Found<'t> {
    /// By what name the balancer knows its nodes.
    pub group: Arc<str>,
    pub policy: &'t Policy,
    pub keeper: Option<&'t Keeper>,
}

/// The header fields of a call, as its door has them.
pub(super) trait Fields {
    /// A field's text.
    fn text(&self, name: &str) -> Option<Cow<'_, str>>;
    /// All of them as those of http 0.2.
    fn of_02(&self) -> Cow<'_, http_02::HeaderMap>;
}

impl Fields for HeaderMap {
    fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
    }

    fn of_02(&self) -> Cow<'_, http_02::HeaderMap> {
        Cow::Owned(to_02(self))
    }
}

impl Fields for http_02::HeaderMap {
    fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
    }

    fn of_02(&self) -> Cow<'_, http_02::HeaderMap> {
        Cow::Borrowed(self)
    }
}

fn of_service<'t>(table: &'t Table, service: Arc<str>) -> Found<'t> {
    match table.settings.service(&service) {
        Some(known) => {
            let keeper = table.routes.rpc_keeper(&service);
            Found { policy: &known.policy, keeper, group: service }
        }
        None => Found { policy: &table.settings.usual, keeper: table.routes.page.as_ref(), group: service },
    }
}

/// The route that was written for a path of gRPC.
fn of_route<'t>(table: &'t Table, path: &str, host: &str, brought: &impl Fields) -> Option<(&'t Route, &'t Policy)> {
    if table.routes.rpc.is_empty() {
        return None;
    }
    let headers = brought.of_02();
    let asked = Asked { method: "POST", host, path, headers: &headers, query: "" };
    let mut routes = table.routes.rpc.iter().filter_map(|place| table.routes.all().get(*place));
    let route = routes.find(|route| route.when.check(&asked).is_ok())?;
    match &route.then {
        Outcome::Call(call) => Some((route, &call.policy)),
        _ => Some((route, &table.settings.usual)),
    }
}

/// The route that was written for the same method of a service under another package.
fn of_alias<'t>(
    table: &'t Table,
    name: &MethodName<'_>,
    service: &str,
    host: &str,
    brought: &impl Fields,
) -> Option<(&'t Route, &'t Call)> {
    let mut routes = table.routes.rpc.iter().filter_map(|place| table.routes.all().get(*place));
    routes.find_map(|route| {
        let Outcome::Call(call) = &route.then else { return None };
        let full = service_of_path(route.when.path.as_str()).filter(|full| ends_with(full, name.service))?;
        let is_its = call.services.iter().any(|share| share.service() == service);
        let path = is_its.then(|| format!("/{full}/{}", name.method))?;
        let headers = brought.of_02();
        let asked = Asked { method: "POST", host, path: &path, headers: &headers, query: "" };
        route.when.check(&asked).is_ok().then_some((route, &**call))
    })
}

/// The same fields for what reads those of http 0.2.
pub(super) fn to_02(fields: &HeaderMap) -> http_02::HeaderMap {
    let mut same = http_02::HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let name = http_02::HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, http_02::HeaderValue::from_bytes(value.as_bytes())) {
            same.append(name, value);
        }
    }
    same
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
        let directory = Directory::new(registry.subscribe(), &Metrics::new());
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

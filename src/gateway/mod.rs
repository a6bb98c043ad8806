//! THE FRONT DOOR: from a client's socket to a service and back.
//!
//! May import: `registry`, `balance`, `upstream`, `rpc`, `broker`, `trace`, `metrics`, `shutdown`, `drain`, `listener`,
//! `upgrade`, `backoff`, `trust`, `causes`, `call_key`, `units`, `raw_fields`, `json`.
//!
//! [`serve`] opens the door; `pipeline` is a request's way in reading order: `route` → `limit` → `keeper` → `body` → the call →
//! `answer`, with `journal` noting what happened and `respond` turning errors into answers. `route` finds the [`Rule`] that
//! takes a request (by `host` and `pattern`; a `template` makes the path that is called); `live` puts others in force. `cluster` is the page that shows the
//! nodes.
//!
//! `keeper` holds clients to the [`Terms`] of a route: who may ([`access`]), how often ([`rate`]), from which pages ([`cors`]); and
//! changes what passes: header fields ([`fields`]) and the coding of answers ([`compress`]). `rpc` passes calls of gRPC on.

pub mod access;
mod answer;
mod asked;
mod body;
mod client;
mod cluster;
pub mod compress;
pub mod cors;
mod explain;
pub mod faults;
pub mod fields;
mod form;
mod host;
mod inside;
mod journal;
mod keeper;
mod limit;
mod live;
pub mod micro;
mod mirror;
mod pattern;
mod pipeline;
pub mod rate;
mod respond;
mod route;
mod rpc;
mod rule;
mod secure;
mod server;
mod skim;
mod spelling;
mod template;
mod terms;

pub use explain::{Explanation, Protocol, Question, Taken, Tried, explain};
pub use host::HostPattern;
pub use live::Live;
pub use pattern::PathPattern;
pub use rpc::serve_rpc;
pub use rule::{Call, Compare, Condition, Fallback, FieldCondition, Mirror, Outcome, Redirect, Respond, Rule, Share};
pub use server::{GatewayError, Parts, serve};
pub use template::Template;
pub use terms::Terms;

pub use crate::drain::Running;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::balance;
use crate::listener::{Networks, TlsSettings};
use crate::registry::go_micro;
use crate::rpc::Keepalive;
use crate::upstream::{ClientTls, Descriptors, HealthCheck, Policy, Stamp};

/// What a gateway serves and how.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `/api/<service>/<action>` → where it goes, with all policies already looked up (action, upstream, default).
    pub services: BTreeMap<String, Service>,
    /// Anything else. No two may conflict ([`Condition::conflicts`]).
    pub routes: Vec<Rule>,
    /// What becomes of requests that no route takes, where the gateway is one of Go Micro's.
    pub micro: Option<micro::Micro>,
    /// The first signs calls, all are accepted from callers (rotation); empty: no guard.
    pub call_keys: Vec<String>,
    /// The ways in which callers prove who they are.
    pub ways: access::Ways,
    /// What is asked of who wants to see the page `/cluster`: what applies by default.
    pub page: Terms,
    /// What one request may use.
    pub limits: Limits,
    /// Print one line a request.
    pub access_log: bool,
    /// Whose word counts on for whom they ask: `X-Forwarded-*` and PROXY headers.
    pub trusted_proxies: Networks,
    /// Whether connections to the ports begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether its HTTP port takes gRPC-Web for every service that its RPC port does.
    pub grpc_web: bool,
    /// Who it is on its HTTPS port; `None`: there is none.
    pub tls: Option<TlsSettings>,
    /// How services are called that the settings do not name.
    pub usual: Policy,
}

impl Settings {
    /// What the config says of a service, by its name or the one that it has with Go Micro.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(name).or_else(|| self.services.get(&go_micro::other_name(name)))
    }

    /// Whose nodes are asked whether they are well, and how.
    #[must_use]
    pub fn health(&self) -> HashMap<String, HealthCheck> {
        let services = self.services.iter();
        services.filter_map(|(name, service)| Some((name.clone(), service.health.clone()?))).collect()
    }

    /// Has nodes that say that they take TLS called by this, where no upstream says otherwise.
    pub fn trust_nodes(&mut self, tls: Option<&Arc<ClientTls>>) {
        self.usual.told_tls = tls.cloned();
        for service in self.services.values_mut() {
            let actions = service.actions.values_mut().map(|action| &mut action.policy);
            actions.chain([&mut service.policy]).for_each(|policy| policy.told_tls = tls.cloned());
            if let Some(health) = &mut service.health {
                health.told_tls = tls.cloned();
            }
        }
        for rule in &mut self.routes {
            if let Outcome::Call(call) = &mut rule.then {
                call.policy.told_tls = tls.cloned();
            }
        }
    }

    /// Whether the HTTP ports of a service's nodes are called by TLS: by one of its actions or of the routes to it, or, where
    /// none of these calls it over HTTP, by what applies to all of it.
    #[must_use]
    pub fn is_secure(&self, service: &str) -> bool {
        let other = go_micro::other_name(service);
        let known = self.service(service);
        let of_actions = known.into_iter().flat_map(|known| known.actions.values());
        let of_actions = of_actions.filter(|action| action.rpc.is_none()).map(|action| &action.policy);
        let of_routes = self.routes.iter().filter_map(|rule| match &rule.then {
            Outcome::Call(call) if call.rpc.is_none() && call.origins.is_empty() => Some(call),
            _ => None,
        });
        let leads = |share: &Share| share.service() == service || share.service() == other;
        let of_routes = of_routes.filter(|call| call.services.iter().any(leads)).map(|call| &call.policy);
        let mut over_http = of_actions.chain(of_routes).peekable();
        match over_http.peek() {
            Some(_) => over_http.any(|policy| policy.tls.is_some()),
            None => known.is_some_and(|known| known.policy.tls.is_some()),
        }
    }

    /// The files of messages that calls by RPC with JSON need, each with what it was when it was read.
    #[must_use]
    pub fn descriptor_files(&self) -> BTreeMap<PathBuf, Option<Stamp>> {
        let of_services = self.services.values();
        let of_services = of_services
            .flat_map(|service| service.actions.values().map(|action| &action.policy).chain([&service.policy]));
        let of_routes = self.routes.iter().filter_map(|rule| match &rule.then {
            Outcome::Call(call) => Some(&call.policy),
            _ => None,
        });
        let file = |policy: &Policy| match &policy.descriptors {
            Descriptors::File(file) => Some((file.path.clone(), file.stamp())),
            _ => None,
        };
        of_services.chain(of_routes).filter_map(file).collect()
    }

    /// How the nodes of each service are chosen and watched, and those of each version that a route names.
    #[must_use]
    pub fn balance(&self) -> HashMap<String, balance::Settings> {
        let services = self.services.iter();
        let mut all: HashMap<_, _> = services.map(|(name, service)| (name.clone(), service.balance.clone())).collect();
        for rule in &self.routes {
            if let Outcome::Call(call) = &rule.then
                && let ([share], false) = (call.services.as_slice(), call.origins.is_empty())
            {
                let settings = balance::Settings { origins: call.origins.clone(), ..balance::Settings::default() };
                all.insert(share.group().to_owned(), settings);
            }
        }
        let of_routes = self.routes.iter().filter_map(|rule| match &rule.then {
            Outcome::Call(call) => Some((call.services.as_slice(), &call.mirror)),
            _ => None,
        });
        let of_actions = self.services.values().flat_map(|service| service.actions.values());
        let of_actions = of_actions.map(|action| (&[][..], &action.mirror));
        for share in
            of_routes.chain(of_actions).flat_map(|(shares, mirror)| shares.iter().chain(mirror.iter().map(|m| &m.to)))
        {
            if let Some(version) = share.version() {
                let settings = self.services.get(share.service()).map(|service| service.balance.clone());
                let settings = settings.unwrap_or_default().of_version(share.service(), version);
                all.insert(share.group().to_owned(), settings);
            }
        }
        all
    }
}

/// A service behind the gateway.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// How its nodes are chosen and watched.
    pub balance: balance::Settings,
    /// How its nodes are asked whether they are well; `None`: they are not.
    pub health: Option<HealthCheck>,
    /// Its actions by name; empty where only a route names it.
    pub actions: BTreeMap<String, Action>,
    /// How it is called by RPC for clients of the RPC port.
    pub policy: Policy,
    /// What is asked of those clients.
    pub terms: Terms,
}

/// One action of a service.
#[derive(Clone, Debug)]
pub struct Action {
    /// The path that is called; begins with `/`.
    pub path: String,
    /// The method that is called by RPC in place of the path: `Say.Hello`.
    pub rpc: Option<String>,
    /// The methods it takes; empty: every method (others get 405).
    pub methods: Vec<String>,
    /// Deadline and retries.
    pub policy: Policy,
    /// Instead of a call that reached nobody.
    pub fallback: Option<Fallback>,
    /// Who gets copies.
    pub mirror: Option<Mirror>,
    /// What the service gets as a body.
    pub encode: Encode,
    /// What is made of the service's answer.
    pub answer: AnswerForm,
    /// What is asked of clients.
    pub terms: Terms,
}

/// What a service gets as a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encode {
    /// JSON, forms and multipart become JSON.
    #[default]
    Json,
    /// They become `application/x-www-form-urlencoded`, for old Go nodes.
    Form,
    /// Streamed untouched.
    None,
}

/// What a client gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerForm {
    /// The service's JSON object with `"status":true` added.
    #[default]
    Goms,
    /// `{"code":200,"data":{…},"message":"success"}`, as go-ms answered.
    GoMs,
    /// As it is.
    Untouched,
}

/// What a request may use. Over a limit: the status beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body: 413.
    pub body_bytes: usize,
    /// Bytes of all header names and values: 431.
    pub header_bytes: usize,
    /// How long a client may take for the request's head: 408.
    pub header_timeout: Duration,
    /// How long a client may take for the body: 408.
    pub body_timeout: Duration,
    /// How long a connection may idle between requests.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of its answer: it is cut off.
    pub send_timeout: Duration,
    /// Connections a worker.
    pub connections: usize,
    /// How a caller by RPC is noticed that is silently gone; `None`: by the kernel alone.
    pub rpc_keepalive: Option<Keepalive>,
    /// Requests in flight in this process: 429 with `Retry-After`.
    pub in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 10 << 20,
            header_bytes: 64 << 10,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75), // nginx's keepalive_timeout
            send_timeout: Duration::from_secs(60), // its send_timeout
            connections: 25_000,
            rpc_keepalive: Some(Keepalive::SERVER),
            in_flight: 20_000,
        }
    }
}

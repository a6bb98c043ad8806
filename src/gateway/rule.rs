//! Routes as the config says them: which requests are meant, and what becomes of them.

use std::cmp::Ordering;

use bytes::Bytes;

use super::micro::Micro;
use super::{AnswerForm, Encode, HostPattern, PathPattern, Settings, Template, Terms};
use crate::registry::Origin;
use crate::upstream::Policy;

/// A route.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What metrics, events and messages call it.
    pub name: String,
    /// Which requests it takes.
    pub when: Condition,
    /// What becomes of them.
    pub then: Outcome,
    /// What is asked of who sends them.
    pub terms: Terms,
}

/// Which requests a route takes; all of it must hold.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The host; `None`: any.
    pub host: Option<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// The methods; empty: any.
    pub methods: Vec<String>,
    /// Header fields that must be there.
    pub headers: Vec<FieldCondition>,
    /// Query parameters that must be there.
    pub query: Vec<FieldCondition>,
}

/// A header field or query parameter that must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldCondition {
    /// Its name; of a header in lower case.
    pub name: String,
    /// What it must be; `None`: anything.
    pub value: Option<String>,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A service answers it.
    Call(Box<Call>),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// It is answered here.
    Respond(Respond),
    /// The path names a service and its method, as with Go Micro's gateway.
    Micro(Box<Micro>),
}

/// A call of a service.
#[derive(Clone, Debug)]
pub struct Call {
    /// The services that share the requests; at least one, and one with a weight.
    pub services: Vec<Share>,
    /// Servers that the one share stands for, in place of nodes of the cluster.
    pub origins: Vec<Origin>,
    /// The path that is called; `None`: the one that the client named.
    pub rewrite: Option<Template>,
    /// The method that is called by RPC with the body as its message; `None`: the service gets the request over HTTP.
    pub rpc: Option<String>,
    /// Deadline and retries.
    pub policy: Policy,
    /// Instead of a call that reached nobody.
    pub fallback: Option<Fallback>,
    /// Who gets copies.
    pub mirror: Option<Mirror>,
    /// What the service gets as a body.
    pub encode: Encode,
    /// What is made of its answer.
    pub answer: AnswerForm,
}

/// A service's part of a route's requests, or that of its nodes of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    service: String,
    version: Option<String>,
    /// Its weight among the others; 0: none.
    pub weight: u16,
    group: String,
}

impl Share {
    /// All nodes of a service, or those of one version.
    #[must_use]
    pub fn new(service: &str, version: Option<&str>, weight: u16) -> Self {
        let group = version.map_or_else(|| service.to_owned(), |version| format!("{service}@{version}"));
        Self { service: service.to_owned(), version: version.map(str::to_owned), weight, group }
    }

    /// Servers that stand in the config at the route of this name.
    #[must_use]
    pub fn of_route(route: &str) -> Self {
        let group = format!("route:{route}"); // which is no name of a service
        Self { service: group.clone(), version: None, weight: 1, group }
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The version; `None`: any.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// By what name the balancer knows its nodes: `shop`, `shop@1.3.0`.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }
}

/// Another service that gets copies of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Which.
    pub to: Share,
    /// Of so many requests in a thousand.
    pub permille: u16,
    /// What of the answers is compared.
    pub compare: Compare,
}

/// What of two answers must be alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compare {
    /// Status and body.
    #[default]
    Body,
    /// The status, where bodies hold what differs each time.
    Status,
}

/// What is done where no node could be asked: none is there, all are left out or full, or none accepts a connection.
#[derive(Clone, Debug)]
pub enum Fallback {
    /// Another service is.
    Service(String),
    /// The client gets this.
    Respond(Respond),
}

/// Sends the client elsewhere.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// Where; the client's query is put behind it unless it has one.
    pub to: Template,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A fixed answer.
#[derive(Clone, Debug)]
pub struct Respond {
    /// Its status, from 200 to 599.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// Its body.
    pub body: Bytes,
}

impl Settings {
    /// All routes, those of `services` among them, in the order in which they are tried: what says more of a request goes
    /// first. Host before path before the number of other conditions.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        let mut rules: Vec<Rule> = self.services.iter().flat_map(|(service, known)| known.rules(service)).collect();
        rules.extend(self.routes.iter().cloned());
        rules.extend(self.micro.as_ref().and_then(|micro| micro.rule(&self.page)));
        rules.sort_by(|one, other| one.when.precedence(&other.when));
        rules
    }
}

impl super::Service {
    /// `/api/<service>/<action>` for each action.
    fn rules(&self, service: &str) -> impl Iterator<Item = Rule> {
        self.actions.iter().filter_map(move |(name, action)| {
            let path = PathPattern::parse(&format!("/api/{service}/{name}")).ok()?; // names have no other characters
            let call = Call {
                services: vec![Share::new(service, None, 1)],
                origins: Vec::new(),
                rewrite: Some(Template::fixed(&action.path)),
                rpc: action.rpc.clone(),
                policy: action.policy.clone(),
                fallback: action.fallback.clone(),
                mirror: action.mirror.clone(),
                encode: action.encode,
                answer: action.answer,
            };
            let methods = action.methods.clone();
            let when = Condition { host: None, path, methods, headers: Vec::new(), query: Vec::new() };
            let (then, terms) = (Outcome::Call(Box::new(call)), action.terms.clone());
            Some(Rule { name: format!("{service}/{name}"), when, then, terms })
        })
    }
}

impl Condition {
    /// Which of two goes first where both hold.
    fn precedence(&self, other: &Self) -> Ordering {
        let host = match (&self.host, &other.host) {
            (Some(one), Some(two)) => one.precedence(two),
            (one, two) => one.is_none().cmp(&two.is_none()),
        };
        host.then_with(|| self.path.precedence(&other.path)).then_with(|| other.more().cmp(&self.more()))
    }

    /// How much it asks besides host and path.
    fn more(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.headers.len() + self.query.len()
    }

    /// Whether a request could be meant by both and nothing says by which more.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        let methods = self.methods.is_empty()
            || other.methods.is_empty()
            || self.methods.iter().any(|method| other.methods.contains(method));
        self.host == other.host
            && self.path.is_like(&other.path)
            && self.more() == other.more()
            && methods
            && !exclude_each_other(&self.headers, &other.headers)
            && !exclude_each_other(&self.query, &other.query)
    }
}

/// Whether some field would have to have two values.
fn exclude_each_other(one: &[FieldCondition], two: &[FieldCondition]) -> bool {
    one.iter().any(|one| {
        two.iter()
            .any(|two| one.name == two.name && one.value.is_some() && two.value.is_some() && one.value != two.value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(host: &str, path: &str, methods: &[&str], headers: &[(&str, &str)]) -> Condition {
        let field = |(name, value): &(&str, &str)| FieldCondition {
            name: (*name).to_owned(),
            value: (*value != "*").then(|| (*value).to_owned()),
        };
        Condition {
            host: (!host.is_empty()).then(|| HostPattern::parse(host).unwrap()),
            path: PathPattern::parse(path).unwrap(),
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            headers: headers.iter().map(field).collect(),
            query: Vec::new(),
        }
    }

    #[test]
    fn what_says_more_goes_first() {
        let one = |host, path, methods: &[&str], headers: &[(&str, &str)]| condition(host, path, methods, headers);
        let ordered = [
            one("a.example.com", "/*", &[], &[]),
            one("*.example.com", "/a", &[], &[]),
            one("", "/a", &["GET"], &[("x", "1")]),
            one("", "/a", &[], &[("x", "1")]),
            one("", "/a", &[], &[]),
            one("", "/{name}", &["GET"], &[]),
            one("", "/*", &[], &[]),
        ];
        for (index, first) in ordered.iter().enumerate() {
            for later in &ordered[index + 1..] {
                assert_eq!(first.precedence(later), Ordering::Less, "{first:?} {later:?}");
                assert!(!first.conflicts(later));
            }
        }
    }

    #[test]
    fn two_that_nothing_tells_apart_conflict() {
        let base = condition("", "/u/{id}", &["GET"], &[("x", "1")]);
        for (other, conflicts) in [
            (condition("", "/u/{name}", &["GET", "PUT"], &[("x", "1")]), true),
            (condition("", "/u/{name}", &["GET"], &[("y", "1")]), true), // a request may have both headers
            (condition("", "/u/{name}", &["GET"], &[("x", "*")]), true),
            (condition("", "/u/{name}", &["GET"], &[("x", "2")]), false),
            (condition("", "/u/{name}", &["PUT"], &[("x", "1")]), false),
            (condition("", "/u/{name}", &["GET"], &[]), false), // the other says more
            (condition("a.b", "/u/{name}", &["GET"], &[("x", "1")]), false),
            (condition("", "/u/*", &["GET"], &[("x", "1")]), false),
        ] {
            assert_eq!(base.conflicts(&other), conflicts, "{other:?}");
            assert_eq!(other.conflicts(&base), conflicts, "{other:?}");
        }
    }
}

//! Which route a request takes. The table is made once, with everything that a request needs to know of its route.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, HeaderMap, HeaderValue};
use prometheus::{Histogram, IntCounter};
use url::form_urlencoded;

use super::pattern::Found;
use super::respond::Failure;
use super::rule::{Condition, FieldCondition, Outcome, Rule, Share};
use super::{AnswerForm, HostPattern, Settings};
use crate::metrics::Metrics;

/// All routes.
pub(super) struct Routes {
    /// In the order in which they are tried.
    routes: Vec<Route>,
    /// Those of one path each: the places of its routes.
    exact: HashMap<String, Vec<usize>>,
    /// The places of all others.
    open: Vec<usize>,
    /// The actions of each service and the form of its answers, for who asks for another.
    services: BTreeMap<String, (Vec<String>, AnswerForm)>,
    /// Counts requests without a route.
    pub stray: Arc<Meters>,
}

/// A route in force.
pub(super) struct Route {
    pub when: Condition,
    pub then: Outcome,
    /// `user/login`, as events tell it.
    pub name: Arc<str>,
    pub meters: Arc<Meters>,
    turns: Turns,
}

/// Whose turn it is among services that share a route: each gets its exact part of every round, spread evenly.
struct Turns {
    round: Vec<u16>,
    next: AtomicUsize,
}

/// A route's instruments, looked up once.
pub(super) struct Meters {
    classes: [IntCounter; 5],
    seconds: Histogram,
}

/// What a route is chosen by.
pub(super) struct Asked<'r> {
    pub method: &'r str,
    pub host: &'r str,
    /// In its one spelling.
    pub path: &'r str,
    pub headers: &'r HeaderMap,
    pub query: &'r str,
}

/// Why a route does not take a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum Mismatch<'c> {
    #[error("the path is another")]
    Path,
    #[error("the host is not `{0}`")]
    Host(&'c HostPattern),
    #[error("the header {0}")]
    Header(&'c FieldCondition),
    #[error("the query parameter {0}")]
    Query(&'c FieldCondition),
    #[error("the method is not {}", list(.0.iter()))]
    Method(&'c [String]),
}

impl Condition {
    /// What the path finds where all of it holds. The method is looked at last: who asks with another hears which there are.
    pub(super) fn check<'c, 'p>(&'c self, asked: &Asked<'p>) -> Result<Found<'p>, Mismatch<'c>> {
        let found = self.path.find(asked.path).ok_or(Mismatch::Path)?;
        if let Some(host) = self.host.as_ref().filter(|host| !host.matches(asked.host)) {
            return Err(Mismatch::Host(host));
        }
        if let Some(field) = self.headers.iter().find(|field| !has_header(field, asked.headers)) {
            return Err(Mismatch::Header(field));
        }
        if let Some(field) = self.query.iter().find(|field| !has_parameter(field, asked.query)) {
            return Err(Mismatch::Query(field));
        }
        let takes = |known: &String| known.eq_ignore_ascii_case(asked.method);
        if self.methods.is_empty() || self.methods.iter().any(takes) {
            Ok(found)
        } else {
            Err(Mismatch::Method(&self.methods))
        }
    }
}

impl std::fmt::Display for FieldCondition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            Some(value) => write!(f, "`{}` is not `{value}`", self.name),
            None => write!(f, "`{}` is missing", self.name),
        }
    }
}

impl<'r> Asked<'r> {
    /// `path` is [`super::pattern::normal`].
    pub fn new(request: &'r HttpRequest, path: &'r str) -> Self {
        let headers = request.headers();
        let named = || headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        Self {
            method: request.method().as_str(),
            // RFC 9112 section 3.2.2: a target with a host goes before the field
            host: request.uri().authority().map_or_else(named, |authority| authority.as_str()),
            path,
            headers,
            query: request.query_string(),
        }
    }
}

impl Meters {
    fn new(metrics: &Metrics, service: &str, action: &str) -> Self {
        let requests = metrics.counter("requests_total", "answered requests", &["service", "action", "status"]);
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        Self {
            classes: classes.map(|class| requests.with_label_values(&[service, action, class])),
            seconds: metrics
                .seconds("request_seconds", "from a request's arrival to its answer", &["service"])
                .with_label_values(&[service]),
        }
    }

    pub fn count(&self, status: u16, seconds: f64) {
        if let Some(class) = self.classes.get(usize::from(status / 100).wrapping_sub(1)) {
            class.inc();
        }
        self.seconds.observe(seconds);
    }
}

impl Routes {
    pub fn new(settings: &Settings, metrics: &Metrics) -> Self {
        let routes: Vec<Route> = settings.rules().into_iter().map(|rule| Route::new(rule, metrics)).collect();
        let mut exact: HashMap<String, Vec<usize>> = HashMap::new();
        let mut open = Vec::new();
        for (place, route) in routes.iter().enumerate() {
            if route.when.path.is_exact() {
                exact.entry(route.when.path.as_str().to_owned()).or_default().push(place);
            } else {
                open.push(place);
            }
        }
        let with_actions = settings.services.iter().filter(|(_, service)| !service.actions.is_empty());
        let services = with_actions.map(|(name, service)| {
            let form = service.actions.values().next().map(|action| action.answer).unwrap_or_default();
            (name.clone(), (service.actions.keys().cloned().collect(), form))
        });
        Self { routes, exact, open, services: services.collect(), stray: Arc::new(Meters::new(metrics, "", "")) }
    }

    /// The route of a request, with what its path found.
    ///
    /// # Errors
    /// 404 with what there is instead; 405.
    pub fn find<'p>(&self, asked: &Asked<'p>) -> Result<(&Route, Found<'p>), Failure> {
        let exact = self.exact.get(asked.path).map(Vec::as_slice).unwrap_or_default();
        let mut allowed: Vec<&str> = Vec::new();
        for place in in_order(exact, &self.open) {
            let route = &self.routes[place];
            match route.when.check(asked) {
                Ok(found) => return Ok((route, found)),
                Err(Mismatch::Method(methods)) => {
                    for method in methods {
                        if !allowed.contains(&method.as_str()) {
                            allowed.push(method);
                        }
                    }
                }
                Err(_) => {}
            }
        }
        if !allowed.is_empty() {
            return Err(Failure::Method { allow: allowed.join(", ") });
        }
        Err(Failure::NotFound(self.nothing(asked)))
    }

    /// All of them, in the order in which they are tried.
    pub fn all(&self) -> &[Route] {
        &self.routes
    }

    /// The form in which a failure of this request is told.
    pub fn form(&self, asked: &Asked<'_>) -> AnswerForm {
        match self.find(asked) {
            Ok((Route { then: Outcome::Call(call), .. }, _)) => call.answer,
            Ok(_) => AnswerForm::default(),
            Err(_) => {
                let service = asked.path.strip_prefix("/api/").and_then(|rest| rest.split('/').next());
                service.and_then(|service| self.services.get(service)).map(|(_, form)| *form).unwrap_or_default()
            }
        }
    }

    /// What to tell who asks for what is not there.
    fn nothing(&self, asked: &Asked<'_>) -> String {
        let Some((service, action)) = asked.path.strip_prefix("/api/").and_then(|rest| rest.split_once('/')) else {
            let path = shorten(asked.path);
            let actions = "requests go to `/api/<service>/<action>`";
            return match (self.services.is_empty(), self.routes.len() > self.actions()) {
                (false, true) => format!("no route `{path}`; {actions} or to a path of `routes`"),
                (true, true) => format!("no route `{path}`; none of `routes` takes it"),
                _ => format!("no route `{path}`; {actions}"),
            };
        };
        match self.services.get(service) {
            None => self.no_service(service),
            Some((actions, _)) => {
                let (known, action) = (list(actions.iter()), shorten(action));
                format!("no action `{action}` in service `{service}`; it has {known}")
            }
        }
    }

    fn actions(&self) -> usize {
        self.services.values().map(|(actions, _)| actions.len()).sum()
    }

    fn no_service(&self, service: &str) -> String {
        let distance = |known: &&String| strsim::damerau_levenshtein(&shorten(service), known);
        let nearest = self.services.keys().min_by_key(distance).filter(|known| distance(known) <= 1 + known.len() / 3);
        let hint = nearest.map(|known| format!("; did you mean `{known}`?")).unwrap_or_else(|| ";".to_owned());
        let service = shorten(service);
        if self.services.is_empty() {
            return format!("no service `{service}`; no services are configured");
        }
        format!("no service `{service}`{hint} there is {}", list(self.services.keys()))
    }
}

impl Route {
    fn new(rule: Rule, metrics: &Metrics) -> Self {
        let (service, turns) = match &rule.then {
            Outcome::Call(call) => (
                call.services.first().map(|share| share.service.as_str()).unwrap_or_default(),
                Turns::new(&call.services),
            ),
            Outcome::Redirect(_) | Outcome::Respond(_) => ("", Turns::new(&[])),
        };
        // of a service's own action without the service, which is a label already
        let own = rule.name.strip_prefix(service).and_then(|name| name.strip_prefix('/'));
        let action = own.filter(|_| !service.is_empty()).unwrap_or(&rule.name);
        Self {
            meters: Arc::new(Meters::new(metrics, service, action)),
            name: Arc::from(rule.name),
            when: rule.when,
            then: rule.then,
            turns,
        }
    }

    /// The service whose turn it is.
    pub fn service<'s>(&self, services: &'s [Share]) -> &'s str {
        services.get(self.turns.next()).map(|share| share.service.as_str()).unwrap_or_default()
    }
}

impl Turns {
    /// Smooth weighted round robin: whoever is most behind its part goes next.
    fn new(shares: &[Share]) -> Self {
        let divisor = shares.iter().fold(0, |divisor, share| greatest_common_divisor(divisor, share.weight)).max(1);
        let weights: Vec<i64> = shares.iter().map(|share| i64::from(share.weight / divisor)).collect();
        let total: i64 = weights.iter().sum();
        let mut behind = vec![0; weights.len()];
        let mut round = Vec::new();
        for _ in 0..total {
            behind.iter_mut().zip(&weights).for_each(|(behind, weight)| *behind += weight);
            // among equals the first, as max_by_key takes the last
            let Some(next) = (0..behind.len()).rev().max_by_key(|place| behind[*place]) else { break };
            behind[next] -= total;
            round.push(u16::try_from(next).unwrap_or_default()); // there are few services
        }
        Self { round, next: AtomicUsize::new(0) }
    }

    fn next(&self) -> usize {
        match self.round.as_slice() {
            [] => 0,
            [only] => usize::from(*only),
            round => usize::from(round[self.next.fetch_add(1, Ordering::Relaxed) % round.len()]),
        }
    }
}

fn greatest_common_divisor(one: u16, other: u16) -> u16 {
    if other == 0 { one } else { greatest_common_divisor(other, one % other) }
}

/// Two sorted lists of places as one.
fn in_order(one: &[usize], other: &[usize]) -> impl Iterator<Item = usize> {
    let (mut one, mut other) = (one.iter().copied().peekable(), other.iter().copied().peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(first), Some(second)) if second < first => other.next(),
        (Some(_), _) => one.next(),
        (None, _) => other.next(),
    })
}

fn has_header(field: &FieldCondition, headers: &HeaderMap) -> bool {
    let is_it = |value: &HeaderValue| field.value.as_ref().is_none_or(|wanted| wanted.as_bytes() == value.as_bytes());
    headers.get_all(field.name.as_str()).any(is_it)
}

fn has_parameter(field: &FieldCondition, query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| name == field.name && field.value.as_ref().is_none_or(|wanted| *wanted == value))
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// What a client wrote, short enough to be repeated to it.
fn shorten(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_gets_its_part_of_every_round_spread_evenly() {
        let turns = |weights: &[u16]| {
            let share = |weight: &u16| Share { service: String::new(), weight: *weight };
            Turns::new(&weights.iter().map(share).collect::<Vec<_>>())
        };
        assert_eq!(turns(&[1]).round, [0]);
        assert_eq!(turns(&[50, 50]).round, [0, 1]);
        assert_eq!(turns(&[3, 1]).round, [0, 0, 1, 0]);
        assert_eq!(turns(&[0, 7]).round, [1]);
        let round = turns(&[90, 9, 1]).round;
        let part = |place| round.iter().filter(|turn| **turn == place).count();
        assert_eq!([part(0), part(1), part(2)], [90, 9, 1]);
        let canary = turns(&[2, 1]);
        assert_eq!([(); 7].map(|()| canary.next()), [0, 1, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn two_lists_are_one_in_order() {
        assert_eq!(in_order(&[1, 4, 6], &[0, 2, 5, 7]).collect::<Vec<_>>(), [0, 1, 2, 4, 5, 6, 7]);
        assert_eq!(in_order(&[], &[3]).collect::<Vec<_>>(), [3]);
        assert_eq!(in_order(&[3], &[]).collect::<Vec<_>>(), [3]);
    }
}

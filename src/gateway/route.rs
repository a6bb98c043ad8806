//! Which route a request takes. The table is made once, with everything that a request needs to know of its route.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use prometheus::IntCounter;

use super::access::Known;
use super::asked::{Asked, Mismatch, list};
use super::keeper::{Keeper, Kept};
use super::mirror::Reflector;
use super::pattern::Found;
use super::respond::Failure;
use super::rule::{Condition, Outcome, Rule, Share};
use super::{AnswerForm, Settings, Terms};
use crate::balance::Turns;
use crate::metrics::{Metrics, Timing};
use crate::registry::go_micro;

/// All routes.
pub(super) struct Routes {
    /// In the order in which they are tried.
    routes: Vec<Route>,
    /// Those of one path each: the places of its routes.
    exact: HashMap<String, Vec<usize>, RandomState>,
    /// The places of all others.
    open: Vec<usize>,
    /// The actions of each service and the form of its answers, for who asks for another.
    services: BTreeMap<String, (Vec<String>, AnswerForm)>,
    /// Counts requests without a route.
    pub stray: Meters,
    /// How callers prove who they are.
    pub known: Known,
    /// What is asked of who wants to see the page `/cluster`.
    pub page: Option<Keeper>,
    /// Some route keeps somebody out.
    pub is_guarded: bool,
    /// Some terms say what pages of other origins may do.
    has_cors: bool,
    /// The places of those that were written for a path of gRPC.
    pub rpc: Vec<usize>,
    /// What is asked of clients of the RPC port, by service; `None`: nothing.
    pub rpc_keepers: BTreeMap<String, Option<Keeper>>,
}

/// A route in force.
pub(super) struct Route {
    pub when: Condition,
    pub then: Outcome,
    pub terms: Terms,
    /// `user/login`, as events tell it.
    pub name: Arc<str>,
    pub meters: Meters,
    /// Where it stands among all of them.
    pub place: usize,
    /// It is of one path.
    is_exact: bool,
    /// What is asked of clients; `None`: nothing.
    pub keeper: Option<Box<Keeper>>,
    /// Copies some requests to another service.
    pub mirror: Option<Box<Reflector>>,
    turns: Turns,
}

/// A route's instruments, looked up once.
pub(super) struct Meters {
    classes: [IntCounter; 5],
    seconds: Timing,
}

impl Meters {
    pub fn new(metrics: &Metrics, service: &str, action: &str) -> Self {
        let requests = metrics.counter("requests_total", "answered requests", &["service", "action", "status"]);
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        Self {
            classes: classes.map(|class| requests.with_label_values(&[service, action, class])),
            seconds: metrics.timing(
                "request_seconds",
                "from a request's arrival to its answer",
                &[("service", service)],
            ),
        }
    }

    /// Counts an answer; `trace_id` where its trace is kept.
    pub fn count(&self, status: u16, took: Duration, trace_id: Option<u128>) {
        if let Some(class) = self.classes.get(usize::from(status / 100).wrapping_sub(1)) {
            class.inc();
        }
        self.seconds.observe(took, trace_id);
    }
}

impl Routes {
    /// `kept` is what lasts longer than a table.
    pub fn new(settings: &Settings, metrics: &Metrics, kept: &Kept) -> Self {
        let known = Known::new(&settings.ways, &kept.sources);
        let page = Keeper::new(("/cluster", &[], &settings.page), ["", "/cluster"], &known, kept, metrics);
        let rules = settings.rules().into_iter();
        let route = |(place, rule)| Route::new(place, rule, metrics, &known, kept);
        let routes: Vec<Route> = rules.enumerate().map(route).collect();
        let mut exact: HashMap<String, Vec<usize>, RandomState> = HashMap::default();
        let mut open = Vec::new();
        for (place, route) in routes.iter().enumerate() {
            if route.is_exact {
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
        let stray = Meters::new(metrics, "", "");
        let is_guarded = routes.iter().any(|route| route.keeper.as_ref().is_some_and(|keeper| keeper.is_guard()));
        let services = services.collect();
        let rpc = (0..routes.len()).filter(|place| is_of_rpc(&routes[*place])).collect();
        let keeper = |(name, service): (&String, &super::Service)| {
            let terms = &service.terms;
            (name.clone(), Keeper::new((name, &[], terms), [name, "rpc"], &known, kept, metrics))
        };
        let rpc_keepers: BTreeMap<_, _> = settings.services.iter().map(keeper).collect();
        let keepers = routes.iter().filter_map(|route| route.keeper.as_deref());
        let has_cors =
            keepers.chain(rpc_keepers.values().flatten()).chain(page.as_ref()).any(|keeper| keeper.has_cors());
        Self { routes, exact, open, services, stray, known, page, is_guarded, has_cors, rpc, rpc_keepers }
    }

    /// What a service asks of a caller who comes by no route of its own.
    pub fn rpc_keeper(&self, service: &str) -> Option<&Keeper> {
        let other = || self.rpc_keepers.get(&go_micro::other_name(service));
        self.rpc_keepers.get(service).or_else(other)?.as_ref()
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
            let checked = if route.is_exact {
                route.when.check_rest(asked).map(|()| Found::default()) // it was found by its path
            } else {
                route.when.check(asked)
            };
            match checked {
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

    /// Who keeps the service that a path names behind a route of Go Micro's gateway.
    pub fn inner_keeper(&self, route: &Route, path: &str) -> Option<&Keeper> {
        let Outcome::Micro(micro) = &route.then else { return None };
        micro.service(path).and_then(|service| self.rpc_keeper(&service))
    }

    /// Whose word on pages of other origins holds where a request did not come to a route's terms: its route's; where no route
    /// takes its method that of the first that takes its path; else that of the service that it names, or what applies by default.
    pub fn nearest_keeper(&self, asked: &Asked<'_>) -> Option<&Keeper> {
        if !self.has_cors {
            return None;
        }
        match self.find(asked) {
            Ok((route, _)) => self.inner_keeper(route, asked.path).or(route.keeper.as_deref()),
            Err(Failure::Method { .. }) => {
                let is_near = |route: &&Route| matches!(route.when.check(asked), Err(Mismatch::Method(_)));
                self.routes.iter().find(is_near).and_then(|route| route.keeper.as_deref())
            }
            Err(_) => match asked.path.strip_prefix("/api/").and_then(|rest| rest.split('/').next()) {
                Some(service) if self.services.contains_key(service) => self.rpc_keeper(service),
                _ => self.page.as_ref(),
            },
        }
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
    fn new(place: usize, rule: Rule, metrics: &Metrics, known: &Known, kept: &Kept) -> Self {
        let service = match &rule.then {
            Outcome::Call(call) => call.services.first().map(Share::service).unwrap_or_default(),
            Outcome::Redirect(_) | Outcome::Respond(_) | Outcome::Micro(_) => "",
        };
        // of a service's own action without the service, which is a label already
        let own = rule.name.strip_prefix(service).and_then(|name| name.strip_prefix('/'));
        let action = own.filter(|_| !service.is_empty()).unwrap_or(&rule.name);
        let name: Arc<str> = Arc::from(rule.name.as_str());
        let mirror = match &rule.then {
            Outcome::Call(call) => call.mirror.as_ref(),
            Outcome::Redirect(_) | Outcome::Respond(_) | Outcome::Micro(_) => None,
        };
        Self {
            meters: Meters::new(metrics, service, action),
            place,
            is_exact: rule.when.path.is_exact(),
            mirror: mirror.map(|mirror| Box::new(Reflector::new(mirror, &name, metrics))),
            keeper: Keeper::new((&rule.name, &rule.when.methods, &rule.terms), [service, action], known, kept, metrics)
                .map(Box::new),
            name,
            when: rule.when,
            then: rule.then,
            terms: rule.terms,
            turns: Turns::default(),
        }
    }

    /// By what name the balancer knows whose turn it is: each gets its exact part of every round, spread evenly.
    pub fn group<'s>(&self, services: &'s [Share]) -> &'s str {
        let share = match services {
            [only] => Some(only),
            many => next_of(&self.turns, many).and_then(|place| many.get(place)),
        };
        share.map(Share::group).unwrap_or_default()
    }
}

fn next_of(turns: &Turns, shares: &[Share]) -> Option<usize> {
    let weight = |place: usize| shares.get(place).map(|share| i64::from(share.weight)).filter(|weight| *weight > 0);
    turns.take_weighted(shares.len(), weight)
}

/// Whether a route's path is `/pkg.Service/Method` or `/pkg.Service/*`: that of any other says nothing of gRPC.
fn is_of_rpc(route: &Route) -> bool {
    let path = route.when.path.as_str();
    let segments = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    segments.is_some_and(|(service, method)| {
        !service.contains(['{', '*']) && service.contains('.') && !method.is_empty() && !method.contains('/')
    })
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
        let round = |weights: &[u16], turns: usize| -> Vec<usize> {
            let share = |weight: &u16| Share::new("", None, *weight);
            let (shares, of) = (weights.iter().map(share).collect::<Vec<_>>(), Turns::default());
            (0..turns).map(|_| next_of(&of, &shares).unwrap()).collect()
        };
        assert_eq!(round(&[1], 1), [0]);
        assert_eq!(round(&[50, 50], 2), [0, 1]);
        assert_eq!(round(&[3, 1], 4), [0, 0, 1, 0]);
        assert_eq!(round(&[0, 7], 3), [1, 1, 1]);
        let hundred = round(&[90, 9, 1], 100);
        let part = |place| hundred.iter().filter(|turn| **turn == place).count();
        assert_eq!([part(0), part(1), part(2)], [90, 9, 1]);
        assert_eq!(round(&[2, 1], 7), [0, 1, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn two_lists_are_one_in_order() {
        assert_eq!(in_order(&[1, 4, 6], &[0, 2, 5, 7]).collect::<Vec<_>>(), [0, 1, 2, 4, 5, 6, 7]);
        assert_eq!(in_order(&[], &[3]).collect::<Vec<_>>(), [3]);
        assert_eq!(in_order(&[3], &[]).collect::<Vec<_>>(), [3]);
    }
}

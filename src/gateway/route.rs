//! Which service and action a path means. The table is made once, with everything a request needs to know of its route.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::{Histogram, IntCounter};

use super::respond::Failure;
use super::{Action, AnswerForm, Settings};
use crate::metrics::Metrics;

/// All routes.
pub(super) struct Routes {
    services: BTreeMap<String, BTreeMap<String, Route>>,
    /// Counts requests without a route.
    pub stray: Arc<Meters>,
}

/// One action of a service.
pub(super) struct Route {
    pub service: String,
    pub action: Action,
    /// `user/login`, as events tell it.
    pub name: Arc<str>,
    /// `Allow`, for 405.
    allow: String,
    pub meters: Arc<Meters>,
}

/// A route's instruments, looked up once.
pub(super) struct Meters {
    classes: [IntCounter; 5],
    seconds: Histogram,
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
        let services = settings.services.iter().map(|(service, known)| {
            let actions = known.actions.iter().map(|(name, action)| {
                let route = Route {
                    service: service.clone(),
                    action: action.clone(),
                    name: Arc::from(format!("{service}/{name}")),
                    allow: action.methods.join(", "),
                    meters: Arc::new(Meters::new(metrics, service, name)),
                };
                (name.clone(), route)
            });
            (service.clone(), actions.collect())
        });
        Self { services: services.collect(), stray: Arc::new(Meters::new(metrics, "", "")) }
    }

    /// The route of `/api/<service>/<action>`.
    ///
    /// # Errors
    /// 404 with what there is instead; 405.
    pub fn find(&self, method: &str, path: &str) -> Result<&Route, Failure> {
        let Some((service, action)) = path.strip_prefix("/api/").and_then(|rest| rest.split_once('/')) else {
            let path = shorten(path);
            return Err(Failure::NotFound(format!("no route `{path}`; requests go to `/api/<service>/<action>`")));
        };
        let Some(actions) = self.services.get(service) else {
            return Err(Failure::NotFound(self.no_service(service)));
        };
        let Some(route) = actions.get(action) else {
            let (known, action) = (list(actions.keys()), shorten(action));
            return Err(Failure::NotFound(format!("no action `{action}` in service `{service}`; it has {known}")));
        };
        if route.action.methods.is_empty()
            || route.action.methods.iter().any(|known| known.eq_ignore_ascii_case(method))
        {
            return Ok(route);
        }
        Err(Failure::Method { allow: route.allow.clone() })
    }

    /// The form in which a failure on this path is told: that of the service's actions.
    pub fn form(&self, path: &str) -> AnswerForm {
        let mut steps = path.strip_prefix("/api/").unwrap_or_default().splitn(2, '/');
        let actions = steps.next().and_then(|service| self.services.get(service));
        let action = actions.and_then(|actions| {
            steps.next().and_then(|action| actions.get(action)).or_else(|| actions.values().next())
        });
        action.map_or(AnswerForm::Goms, |route| route.action.answer)
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

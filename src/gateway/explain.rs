//! Why a request takes the route that it takes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::access::Ways;
use super::asked::{self, Asked};
use super::keeper::Kept;
use super::route::{Route, Routes};
use super::rpc::{GOMS_SERVICE, web};
use super::rule::{Call, Fallback, Outcome, Share};
use super::{AnswerForm, Encode, Settings, Terms};
use crate::metrics::Metrics;
use crate::rpc::MethodName;
use crate::units::format_duration;

/// A request that might come.
#[derive(Clone, Debug)]
pub struct Question {
    /// `GET`, `POST`, …
    pub method: String,
    /// As in `Host`.
    pub host: String,
    /// The path; begins with `/`.
    pub path: String,
    /// The query without its `?`.
    pub query: String,
    /// Name and value of each header field.
    pub headers: Vec<(String, String)>,
}

/// What would become of it.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The routes in the order in which they are tried, up to the one that takes it.
    pub tried: Vec<Tried>,
    /// What the one that takes it does; or what the client is told.
    pub outcome: Result<Taken, String>,
}

/// A route that was looked at.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// Why it does not take the request; `None`: it does.
    pub refusal: Option<String>,
    /// Whether the path at least is its.
    pub is_near: bool,
}

/// The route that takes it.
#[derive(Clone, Debug)]
pub struct Taken {
    /// What it does.
    pub outcome: Outcome,
    /// The path that is called, or the address to which the client is sent.
    pub target: Option<String>,
    /// What is asked of who sends it.
    pub terms: Terms,
    /// How it reaches the service.
    pub protocol: Protocol,
}

/// How a request reaches a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Over HTTP, as it came.
    #[default]
    Http,
    /// As a call by RPC, made of its body.
    Rpc,
    /// As the call by RPC that it is.
    GrpcWeb,
}

impl Protocol {
    /// Of a request that is no gRPC-Web.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Call(call) if call.rpc.is_some() => Self::Rpc,
            _ => Self::Http,
        }
    }

    /// As `goms explain --output json` says it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Rpc => "rpc",
            Self::GrpcWeb => "grpc-web",
        }
    }
}

impl Taken {
    /// What becomes of the request, each with a word for it, for people.
    #[must_use]
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        let target = self.target.clone().unwrap_or_else(|| "/".to_owned());
        let mut lines = match &self.outcome {
            Outcome::Call(call) => {
                let shares = call.services.iter().map(|share| match call.services.len() {
                    1 => share.group().to_owned(),
                    _ => format!("{} {}", share.group(), share.weight),
                });
                let policy = &call.policy;
                let on: Vec<String> = policy.retry_status.iter().map(u16::to_string).collect();
                let on = if on.is_empty() { String::new() } else { format!(", also after {}", on.join(", ")) };
                let deadline = policy.deadline.map(|deadline| format!(", {} in all", format_duration(deadline)));
                let who = match call.origins.as_slice() {
                    [] => ("service", shares.collect::<Vec<_>>().join(", ")),
                    origins => ("servers", origins.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
                };
                let what = match (self.protocol, &call.rpc) {
                    (Protocol::GrpcWeb, _) => ("method", format!("{target} by gRPC, as the gRPC-Web that it is")),
                    (_, Some(method)) => ("method", format!("{method} by RPC, made of the body")),
                    (_, None) => ("path", target),
                };
                let mut lines = vec![
                    who,
                    what,
                    ("timeout", format_duration(policy.timeout) + " a try" + &deadline.unwrap_or_default()),
                    ("tries", format!("{}{on}", policy.attempts)),
                ];
                match &call.fallback {
                    Some(Fallback::Service(service)) => lines.push(("else", format!("service {service}"))),
                    Some(Fallback::Respond(respond)) => lines.push(("else", format!("answers {}", respond.status))),
                    None => {}
                }
                if let Some(mirror) = &call.mirror {
                    let share = f64::from(mirror.permille) / 10.0;
                    lines.push(("copies", format!("{share}% to {}", mirror.to.group())));
                }
                lines
            }
            Outcome::Redirect(redirect) => vec![("redirect", format!("{} to {target}", redirect.status))],
            Outcome::Micro(micro) => vec![("services", format!("{}.*, as the path says", micro.namespace))],
            Outcome::Respond(respond) => vec![("answer", format!("{} {}", respond.status, respond.content_type))],
        };
        lines.extend(self.terms.shown());
        lines
    }
}

impl Taken {
    /// Of a method of the service that is `named`, or that has the name of the method's package; which services serve it else is
    /// for the registry to say.
    fn of_method(settings: &Settings, name: &MethodName<'_>, named: Option<&str>, path: &str) -> Self {
        let full = name.full_service();
        let service = named.unwrap_or(if settings.service(name.package).is_some() { name.package } else { &full });
        let known = settings.service(service);
        let call = Call {
            services: vec![Share::new(service, None, 1)],
            origins: Vec::new(),
            rewrite: None,
            rpc: None,
            policy: known.map(|known| known.policy.clone()).unwrap_or_default(),
            fallback: None,
            mirror: None,
            encode: Encode::None,
            answer: AnswerForm::Untouched,
        };
        Self {
            outcome: Outcome::Call(Box::new(call)),
            target: Some(path.to_owned()),
            terms: known.map_or(&settings.page, |known| &known.terms).clone(),
            protocol: Protocol::GrpcWeb,
        }
    }
}

impl Question {
    /// A request as people write one down: an address or a path, and `name: value` of each header field.
    ///
    /// # Errors
    /// What cannot be one.
    pub fn parse(method: &str, url: &str, fields: &[String]) -> Result<Self, String> {
        let mut headers = Vec::new();
        for field in fields {
            let Some((name, value)) = field.split_once(':') else {
                return Err(format!("`{field}` is no header field; write `name: value`"));
            };
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let named = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, host)| host.clone());
        let (host, target) = match url.split_once("://") {
            _ if url.starts_with('/') => (named.unwrap_or_else(|| "localhost".to_owned()), url),
            Some((_, rest)) => match rest.find('/') {
                Some(slash) => (rest[..slash].to_owned(), &rest[slash..]),
                None => (rest.to_owned(), "/"),
            },
            None => return Err(format!("`{url}` is neither a path nor an address; write for example `/{url}`")),
        };
        let target = target.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Ok(Self { method: method.to_uppercase(), host, path: path.to_owned(), query: query.to_owned(), headers })
    }

    fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name.as_str()).map_err(|_| format!("`{name}` is no name of a header"))?;
            let value = HeaderValue::from_str(value).map_err(|_| format!("the value of `{name}` cannot be sent"))?;
            headers.append(name, value);
        }
        Ok(headers)
    }
}

/// Says which route takes a request, and why the ones before it do not: as a gateway with these settings decides.
///
/// # Errors
/// What of the question cannot be a request.
pub fn explain(settings: &Settings, question: &Question) -> Result<Explanation, String> {
    let headers = question.headers()?;
    let routes = Routes::new(&Settings { ways: Ways::new(), ..settings.clone() }, &Metrics::new(), &Kept::default());
    let path = match asked::unambiguous(&question.path, &question.host) {
        Ok(path) => path,
        Err(failure) => return Ok(Explanation { tried: Vec::new(), outcome: Err(failure.to_string()) }),
    };
    let asked = Asked {
        method: &question.method,
        host: &question.host,
        path: &path,
        headers: &headers,
        query: &question.query,
    };
    let mut explanation = Explanation::of(&routes, &asked);
    if settings.grpc_web && web::kind_of(asked.method, &headers).is_some() {
        explanation.see_as_web(settings, &routes, &asked);
    }
    Ok(explanation)
}

impl Explanation {
    pub(super) fn of(routes: &Routes, asked: &Asked<'_>) -> Self {
        let mut tried = Vec::new();
        for route in routes.all() {
            let refusal = route.when.check(asked).err();
            let is_last = refusal.is_none();
            tried.push(Tried {
                name: route.name.to_string(),
                path: route.when.path.as_str().to_owned(),
                is_near: route.when.path.find(asked.path).is_some(),
                refusal: refusal.map(|refusal| refusal.to_string()),
            });
            if is_last {
                break;
            }
        }
        let spelt = |(route, found)| routes.check_spelling(asked, route).map(|()| (route, found));
        let outcome = match routes.find(asked).and_then(spelt) {
            Ok((route, found)) => {
                let target = match &route.then {
                    Outcome::Call(call) => call
                        .rewrite
                        .as_ref()
                        .map_or(Cow::Borrowed(asked.path), |rewrite| rewrite.fill(&found))
                        .into_owned(),
                    Outcome::Redirect(redirect) => redirect.to.fill(&found).into_owned(),
                    Outcome::Respond(_) | Outcome::Micro(_) => String::new(),
                };
                Ok(Taken {
                    protocol: Protocol::of(&route.then),
                    outcome: route.then.clone(),
                    target: Some(target).filter(|target| !target.is_empty()),
                    terms: route.terms.clone(),
                })
            }
            Err(failure) => Err(failure.to_string()),
        };
        Self { tried, outcome }
    }

    /// What becomes of gRPC-Web where it is taken: a call of the route that is for it, or of whichever service serves the method
    /// where no route takes the path; another route answers it over HTTP.
    fn see_as_web(&mut self, settings: &Settings, routes: &Routes, asked: &Asked<'_>) {
        match routes.find(asked) {
            Ok((route, _)) if routes.rpc.contains(&route.place) => {
                if let Ok(taken) = &mut self.outcome {
                    taken.protocol = Protocol::GrpcWeb;
                }
            }
            Err(_) | Ok((Route { then: Outcome::Micro(_), .. }, _)) => {
                let named = asked.headers.get(GOMS_SERVICE).and_then(|name| name.to_str().ok());
                self.outcome = match MethodName::parse(asked.path) {
                    Ok(name) => Ok(Taken::of_method(settings, &name, named, asked.path)),
                    Err(_) => Err(format!("`{}` is no path `/package.Service/Method`", asked.path)),
                };
            }
            Ok(_) => {}
        }
    }

    /// `{tried: [{name, path, refusal}], outcome: {kind, services, target, status}, terms, error}`.
    #[must_use]
    pub fn json(&self) -> Value {
        let tried = self.tried.iter();
        let tried: Vec<_> =
            tried.map(|tried| json!({"name": tried.name, "path": tried.path, "refusal": tried.refusal})).collect();
        let outcome = self.outcome.as_ref().ok().map(|taken| match &taken.outcome {
            Outcome::Call(call) => {
                let services = call.services.iter().map(|share| (share.group().to_owned(), share.weight.into()));
                let services: Map<String, Value> = services.collect();
                let protocol = taken.protocol.word();
                json!({"kind": "call", "services": services, "target": taken.target, "status": null, "protocol": protocol})
            }
            Outcome::Redirect(redirect) => {
                json!({"kind": "redirect", "services": null, "target": taken.target, "status": redirect.status})
            }
            Outcome::Micro(micro) => {
                let services: Map<String, Value> = Map::from_iter([(micro.namespace.clone(), 1.into())]);
                json!({"kind": "micro", "services": services, "target": null, "status": null})
            }
            Outcome::Respond(respond) => {
                json!({"kind": "respond", "services": null, "target": null, "status": respond.status})
            }
        });
        let terms = self.outcome.as_ref().map(|taken| taken.terms.shown()).unwrap_or_default();
        let mut of_keys: BTreeMap<&str, String> = BTreeMap::new();
        for (key, what) in terms {
            // of limits there may be several
            of_keys.entry(key).and_modify(|before| *before = format!("{before}; {what}")).or_insert(what);
        }
        json!({"tried": tried, "outcome": outcome, "terms": of_keys, "error": self.outcome.as_ref().err()})
    }
}

//! `routes`: what a gateway takes besides `/api/<service>/<action>`.

use std::collections::{BTreeMap, BTreeSet};

use super::decode::{At, Decoder, Field, Place, Table, number, word};
use super::names;
use super::origins;
use super::policy::{self, Overrides};
use super::shares::{refuse_versions, shares};
use super::terms::{self, Defaults, RawTerms};
use super::values::header_name;
use crate::gateway::{
    AnswerForm, Call, Condition, Encode, Fallback, FieldCondition, HostPattern, Outcome, PathPattern, Redirect,
    Respond, Rule, Share, Template,
};
use crate::registry::Origin;
use crate::upstream::ClientTlsFiles;

/// A route as written, but for what an upstream may say of it.
#[derive(Clone, Debug)]
pub(super) struct RawRoute {
    name: Option<At<String>>,
    when: Condition,
    then: RawOutcome,
    terms: RawTerms,
}

#[derive(Clone, Debug)]
enum RawOutcome {
    /// Of services, or (without any) of servers that stand there.
    Call {
        services: Vec<Share>,
        origins: Vec<Origin>,
        rewrite: Option<Template>,
        rpc: Option<String>,
        overrides: Box<Overrides>,
    },
    Done(Outcome),
}

/// What says what becomes of a request; one of them.
const OUTCOMES: [&str; 5] = ["service", "services", "urls", "redirect", "respond"];
/// What is said of a call only, besides [`policy::KEYS`].
const OF_CALLS: [&str; 5] = ["version", "versions", "rewrite", "strip", "rpc"];
/// The statuses that send a client elsewhere (RFC 9110 section 15.4).
const REDIRECTS: [(&str, u16); 5] = [("301", 301), ("302", 302), ("303", 303), ("307", 307), ("308", 308)];
/// What a reader of `Location` keeps method and body for, and remembers.
const DEFAULT_REDIRECT: u16 = 308;
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// Reads `routes`.
pub(super) fn read(decoder: &mut Decoder, field: &Field<'_>) -> Vec<At<RawRoute>> {
    let list = decoder.list(field);
    let route = |field: &Field<'_>| route(decoder, field).map(|value| At { value, place: field.place.clone() });
    list.iter().filter_map(route).collect()
}

fn route(decoder: &mut Decoder, field: &Field<'_>) -> Option<RawRoute> {
    let of_calls = [&OF_CALLS, policy::KEYS].concat();
    let table = decoder.table(field, &[&["name", "match"], &OUTCOMES[..], &of_calls, terms::KEYS].concat());
    let name = table.get("name").and_then(|field| decoder.read_at(&field, names::action_name));
    let when = match table.get("match") {
        Some(field) => condition(decoder, &field),
        None => {
            decoder.fault(&field.place, "has no `match`; write for example `match: { path: \"/files/*\" }`");
            None
        }
    };
    let given: Vec<&str> = OUTCOMES.into_iter().filter(|key| table.get(key).is_some()).collect();
    let [outcome] = given.as_slice() else {
        let found = if given.is_empty() { "none".to_owned() } else { names::list(&given) };
        decoder.fault(&field.place, format!("needs one of {}, has {found}", names::list(&OUTCOMES)));
        return None;
    };
    if ["redirect", "respond"].contains(outcome)
        && let Some((key, field)) = of_calls.into_iter().find_map(|key| table.get(key).map(|field| (key, field)))
    {
        decoder.fault(&field.place, format!("`{key}` is for routes to a service, this one has `{outcome}`"));
    }
    let when = when?;
    let then = match *outcome {
        "redirect" => RawOutcome::Done(redirect(decoder, &table.get("redirect")?, &when.path)?),
        "respond" => RawOutcome::Done(Outcome::Respond(fixed(decoder, &table.get("respond")?))),
        _ => {
            let rewrite = rewrite(decoder, &table, &when.path);
            let rpc = rpc(decoder, &table);
            let mut overrides = Box::new(policy::overrides(decoder, &table));
            match table.get("urls") {
                None => RawOutcome::Call {
                    services: shares(decoder, &table)?,
                    origins: Vec::new(),
                    rewrite,
                    rpc,
                    overrides,
                },
                Some(field) => {
                    refuse_versions(decoder, &table);
                    let origins = origins::urls(decoder, &field)?;
                    if origins.iter().any(|origin| origin.tls) && overrides.tls.clone().flatten().is_none() {
                        overrides.tls = Some(origins::load(decoder, &field, ClientTlsFiles::default()));
                    }
                    RawOutcome::Call { services: Vec::new(), origins, rewrite, rpc: None, overrides }
                }
            }
        }
    };
    let terms = RawTerms::read(decoder, &table);
    Some(RawRoute { name, when, then, terms })
}

fn condition(decoder: &mut Decoder, field: &Field<'_>) -> Option<Condition> {
    let table = decoder.table(field, &["host", "path", "methods", "headers", "query"]);
    let host = table.get("host").map(|field| decoder.read(&field, HostPattern::parse));
    let path = table.get("path").map(|field| decoder.read(&field, PathPattern::parse));
    let methods = policy::methods(decoder, &table);
    let headers = fields(decoder, table.get("headers"), header_name);
    let query = fields(decoder, table.get("query"), |name| Ok(name.to_owned()));
    let Some(path) = path else {
        decoder.fault(&field.place, "has no `path`; write `path: \"/*\"` for every path");
        return None;
    };
    match (host, path) {
        (Some(None), _) | (_, None) => None, // given, but wrong
        (host, Some(path)) => Some(Condition { host: host.flatten(), path, methods, headers, query }),
    }
}

/// `name: value`; `*` is any value.
fn fields(
    decoder: &mut Decoder,
    field: Option<Field<'_>>,
    name: fn(&str) -> Result<String, String>,
) -> Vec<FieldCondition> {
    let Some(field) = field else { return Vec::new() };
    let table = decoder.names(&field, name);
    let condition = |(name, field): (&str, &Field<'_>)| {
        let value = decoder.read(field, |text| Ok(text.to_owned()))?;
        Some(FieldCondition { name: name.to_owned(), value: (value != "*").then_some(value) })
    };
    table.iter().filter_map(condition).collect()
}

/// Reads `fallback`; `Some(None)` is `none`.
pub(super) fn fallback(decoder: &mut Decoder, field: &Field<'_>) -> Option<Option<Fallback>> {
    if field.is_scalar() {
        return decoder.read(field, |text| match text {
            "none" => Ok(None),
            _ => Err(format!("must be `none`, `service` or `respond`, got `{}`", names::shown(text))),
        });
    }
    let table = decoder.table(field, &["service", "respond"]);
    match (table.get("service"), table.get("respond")) {
        (Some(service), None) => Some(Some(Fallback::Service(decoder.read(&service, names::service_name)?))),
        (None, Some(field)) => Some(Some(Fallback::Respond(fixed(decoder, &field)))),
        _ => {
            decoder.fault(&field.place, "needs one of `service` and `respond`");
            None
        }
    }
}

fn rewrite(decoder: &mut Decoder, table: &Table<'_>, path: &PathPattern) -> Option<Template> {
    let (rewrite, strip) = (table.get("rewrite"), table.get("strip"));
    if let (Some(_), Some(field)) = (&rewrite, &strip) {
        decoder.fault(&field.place, "stands beside `rewrite`; leave one out");
    }
    if let Some(field) = rewrite {
        return decoder.read(&field, |text| match text.starts_with('/') {
            true => Template::parse(text, path),
            false => Err(format!("must begin with `/`, got `{text}`")),
        });
    }
    decoder.read(&strip?, |text| {
        let left = path.as_str().strip_prefix(text).filter(|left| left.is_empty() || left.starts_with('/'));
        match left {
            Some(left) => Template::parse(left, path),
            None => Err(format!("`{text}` is no beginning of the path `{}`", path.as_str())),
        }
    })
}

/// The method that is called in place of a path; what makes a path is then for nothing.
fn rpc(decoder: &mut Decoder, table: &Table<'_>) -> Option<String> {
    let field = table.get("rpc")?;
    for key in ["rewrite", "strip", "urls"] {
        if let Some(field) = table.get(key) {
            decoder.fault(&field.place, format!("`{key}` is for calls over HTTP, this one is by `rpc`"));
        }
    }
    policy::rpc_method(decoder, &field, table)
}

fn redirect(decoder: &mut Decoder, field: &Field<'_>, path: &PathPattern) -> Option<Outcome> {
    let to = |decoder: &mut Decoder, field: &Field<'_>| {
        decoder.read(field, |text| {
            let is_good = ["/", "http://", "https://"].iter().any(|begin| text.starts_with(begin));
            if is_good && text.is_ascii() {
                Template::parse(text, path)
            } else {
                Err(format!("must be a path or an address like `https://example.com/*`, got `{}`", names::shown(text)))
            }
        })
    };
    if field.is_scalar() {
        return Some(Outcome::Redirect(Redirect { to: to(decoder, field)?, status: DEFAULT_REDIRECT }));
    }
    let table = decoder.table(field, &["to", "status"]);
    let status =
        table.get("status").map_or(Some(DEFAULT_REDIRECT), |field| decoder.read(&field, word("redirect", &REDIRECTS)));
    match table.get("to") {
        Some(field) => Some(Outcome::Redirect(Redirect { to: to(decoder, &field)?, status: status? })),
        None => {
            decoder.fault(&field.place, "has no `to`; write for example `to: \"https://example.com/*\"`");
            None
        }
    }
}

fn fixed(decoder: &mut Decoder, field: &Field<'_>) -> Respond {
    let table = decoder.table(field, &["status", "body", "type"]);
    let status = table.get("status").and_then(|field| decoder.read(&field, number(200, 599))).unwrap_or(200);
    let body = table.get("body").and_then(|field| decoder.read(&field, |text| Ok(text.to_owned()))).unwrap_or_default();
    let content_type = table.get("type").and_then(|field| {
        decoder.read(&field, |text| match text.contains('/') && text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            true => Ok(text.to_owned()),
            false => Err(format!("must be a media type like `text/html`, got `{}`", names::shown(text))),
        })
    });
    let content_type = content_type.unwrap_or_else(|| PLAIN_TEXT.to_owned());
    Respond { status, content_type, body: body.into() }
}

/// The services that routes call.
pub(super) fn services(routes: &[At<RawRoute>]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for route in routes {
        if let RawOutcome::Call { services, overrides, .. } = &route.value.then {
            all.extend(services.iter().map(|share| share.service().to_owned()));
            all.extend(overrides.services().map(str::to_owned));
        }
    }
    all
}

/// Looks every policy up, and checks that no two routes take the same requests.
///
/// `taken` are the routes that stand elsewhere.
pub(super) fn resolve(
    decoder: &mut Decoder,
    routes: Vec<At<RawRoute>>,
    (upstreams, defaults): (&BTreeMap<String, At<Overrides>>, &Defaults),
    taken: Vec<Rule>,
) -> Vec<Rule> {
    let elsewhere = taken.len();
    let mut rules = taken;
    let mut places: Vec<Place> = Vec::new();
    for At { value: RawRoute { name, when, then, terms }, place } in routes {
        if when.host.is_none() && when.path.as_str() == "/cluster" {
            decoder.fault(&place, "the path `/cluster` is the gateway's own page");
        }
        if let Some(name) = &name
            && let Some(other) = rules.iter().position(|rule| rule.name == name.value)
        {
            let message =
                format!("the name `{}` is {}'s already", name.value, called(other, elsewhere, &rules, &places));
            decoder.fault(&name.place, message);
        }
        if let Some(other) = rules.iter().position(|rule| rule.when.conflicts(&when)) {
            let message = format!(
                "takes the same requests as {}; add a method, header or query parameter to one of them",
                called(other, elsewhere, &rules, &places)
            );
            decoder.fault(&place, message);
        }
        let name = name.map_or_else(|| when.path.as_str().to_owned(), |name| name.value);
        terms.check(decoder, &defaults.ways);
        let none = Overrides::default();
        let upstream = first_upstream(&then, upstreams).unwrap_or(&none);
        let terms = terms.resolve(decoder, &upstream.terms, defaults);
        let then = outcome(&name, then, upstream);
        rules.push(Rule { name, when, then, terms });
        places.push(place);
    }
    rules.split_off(elsewhere)
}

/// Names a route for a message.
fn called(index: usize, elsewhere: usize, rules: &[Rule], places: &[Place]) -> String {
    match index.checked_sub(elsewhere).and_then(|index| places.get(index)) {
        Some(place) => format!("`{}` on line {}", place.path, place.line),
        None => format!("the action `{}`", rules[index].name),
    }
}

/// What is said of the service that is called, or of the first of several.
fn first_upstream<'u>(then: &RawOutcome, upstreams: &'u BTreeMap<String, At<Overrides>>) -> Option<&'u Overrides> {
    let RawOutcome::Call { services, .. } = then else { return None };
    upstreams.get(services.first()?.service()).map(|at| &at.value)
}

fn outcome(name: &str, raw: RawOutcome, upstream: &Overrides) -> Outcome {
    match raw {
        RawOutcome::Done(outcome) => outcome,
        RawOutcome::Call { services, origins, rewrite, rpc, overrides } => {
            let services = if origins.is_empty() { services } else { vec![Share::of_route(name)] };
            // what is no action of the originals passes as it is
            let (encode, answer) = overrides.forms(upstream, (Encode::None, AnswerForm::Untouched));
            let (policy, fallback) = (overrides.policy(upstream), overrides.fallback(upstream));
            let mirror = overrides.mirror(upstream).filter(|_| rpc.is_none());
            let encode = if rpc.is_some() { Encode::Json } else { encode };
            Outcome::Call(Box::new(Call { policy, fallback, mirror, encode, answer, services, origins, rewrite, rpc }))
        }
    }
}

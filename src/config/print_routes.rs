//! Actions and routes as YAML, for `config print` and whoever shows what is in force.

use serde_yaml::{Mapping, Value};

use super::origins::put_tls;
use super::policy::{ANSWERS, ENCODES};
use super::print::{duration, name_of, named, put, texts};
use super::print_terms::put_terms;
use super::shares::COMPARES;
use crate::gateway::micro::{HANDLERS, Micro};
use crate::gateway::{self, Action, Fallback, FieldCondition, Mirror, Outcome, Respond, Rule, Service, Share, Terms};
use crate::rpc::Keepalive;
use crate::upstream::{Descriptors, Policy};

pub(super) fn actions(service: &Service, defaults: &Terms) -> Mapping {
    named(service.actions.iter().map(|(name, settings)| (name, action(settings, defaults))))
}

fn action(settings: &Action, defaults: &Terms) -> Mapping {
    let mut action = Mapping::new();
    match &settings.rpc {
        Some(method) => put(&mut action, "rpc", method.as_str()),
        None => put(&mut action, "path", settings.path.as_str()),
    }
    put(&mut action, "methods", texts(settings.methods.iter()));
    put_policy(&mut action, &settings.policy);
    put_fallback(&mut action, settings.fallback.as_ref());
    if settings.rpc.is_none() {
        put_mirror(&mut action, settings.mirror.as_ref());
        put(&mut action, "encode", name_of(&ENCODES, settings.encode));
    }
    put(&mut action, "answer", name_of(&ANSWERS, settings.answer));
    put_terms(&mut action, &settings.terms, defaults);
    action
}

fn put_policy(mapping: &mut Mapping, policy: &Policy) {
    put(mapping, "timeout", duration(policy.timeout));
    put(mapping, "connectTimeout", duration(policy.connect_timeout));
    put(mapping, "stallTimeout", duration(policy.stall_timeout));
    put(mapping, "tunnelTimeout", duration(policy.tunnel_timeout));
    put_tls(mapping, "tls", policy.tls.as_deref());
    put(mapping, "descriptors", descriptors(&policy.descriptors));
    put(mapping, "keepalive", keepalive(policy.keepalive));
    put(mapping, "deadline", policy.deadline.map_or_else(|| "none".to_owned(), duration));
    let mut retry = Mapping::new();
    put(&mut retry, "attempts", policy.attempts);
    let on = std::iter::once(Value::from("connect")).chain(policy.retry_status.iter().map(|code| Value::from(*code)));
    put(&mut retry, "on", on.collect::<Vec<_>>());
    put(&mut retry, "nonIdempotent", policy.retry_non_idempotent);
    put(&mut retry, "backoff", duration(policy.backoff));
    put(mapping, "retry", retry);
}

/// As it could stand in a file.
pub(super) fn keepalive(keepalive: Option<Keepalive>) -> Value {
    let Some(Keepalive { every, timeout }) = keepalive else { return Value::from("off") };
    let mut shown = Mapping::new();
    put(&mut shown, "every", duration(every));
    put(&mut shown, "timeout", duration(timeout));
    shown.into()
}

fn descriptors(descriptors: &Descriptors) -> String {
    match descriptors {
        Descriptors::Auto => "auto".to_owned(),
        Descriptors::Json => "json".to_owned(),
        Descriptors::Reflection => "reflection".to_owned(),
        Descriptors::File(file) => file.path.display().to_string(),
    }
}

/// Every route of a gateway as a config would write it, in the order in which they are tried.
#[must_use]
pub fn routes(settings: &gateway::Settings) -> Vec<Mapping> {
    settings.rules().iter().map(|rule| route(rule, &settings.page)).collect()
}

fn put_fallback(mapping: &mut Mapping, fallback: Option<&Fallback>) {
    match fallback {
        None => put(mapping, "fallback", "none"),
        Some(Fallback::Service(service)) => put(mapping, "fallback", only("service", service.as_str())),
        Some(Fallback::Respond(respond)) => put(mapping, "fallback", only("respond", fixed(respond))),
    }
}

fn put_mirror(mapping: &mut Mapping, mirror: Option<&Mirror>) {
    let Some(mirror) = mirror else { return put(mapping, "mirror", "none") };
    let mut shown = Mapping::new();
    put(&mut shown, "service", mirror.to.service());
    if let Some(version) = mirror.to.version() {
        put(&mut shown, "version", version);
    }
    put(&mut shown, "share", format!("{}%", f64::from(mirror.permille) / 10.0));
    put(&mut shown, "compare", name_of(&COMPARES, mirror.compare));
    put(mapping, "mirror", shown);
}

fn only(key: &str, value: impl Into<Value>) -> Mapping {
    let mut mapping = Mapping::new();
    put(&mut mapping, key, value);
    mapping
}

fn fixed(respond: &Respond) -> Mapping {
    let mut answer = Mapping::new();
    put(&mut answer, "status", respond.status);
    put(&mut answer, "body", String::from_utf8_lossy(&respond.body).into_owned());
    put(&mut answer, "type", respond.content_type.as_str());
    answer
}

/// `services: {…}`, or `service` with `versions: {…}`.
fn put_shares(route: &mut Mapping, shares: &[Share]) {
    let weights = |name: fn(&Share) -> &str| -> Mapping {
        shares.iter().map(|share| (Value::from(name(share)), Value::from(share.weight))).collect()
    };
    match shares.first() {
        Some(first) if first.version().is_some() => {
            put(route, "service", first.service());
            put(route, "versions", weights(|share| share.version().unwrap_or_default()));
        }
        _ => put(route, "services", weights(Share::service)),
    }
}

pub(super) fn route(rule: &Rule, defaults: &Terms) -> Mapping {
    let fields = |fields: &[FieldCondition]| -> Mapping {
        let pair = |field: &FieldCondition| {
            (Value::from(field.name.as_str()), Value::from(field.value.as_deref().unwrap_or("*")))
        };
        fields.iter().map(pair).collect()
    };
    let mut when = Mapping::new();
    if let Some(host) = &rule.when.host {
        put(&mut when, "host", host.to_string());
    }
    put(&mut when, "path", rule.when.path.as_str());
    put(&mut when, "methods", texts(rule.when.methods.iter()));
    put(&mut when, "headers", fields(&rule.when.headers));
    put(&mut when, "query", fields(&rule.when.query));
    let mut route = Mapping::new();
    if rule.name != rule.when.path.as_str() {
        put(&mut route, "name", rule.name.as_str());
    }
    put(&mut route, "match", when);
    match &rule.then {
        Outcome::Call(call) => {
            if call.origins.is_empty() {
                put_shares(&mut route, &call.services);
            } else {
                put(&mut route, "urls", texts(call.origins.iter()));
            }
            if let Some(method) = &call.rpc {
                put(&mut route, "rpc", method.as_str());
            } else if let Some(rewrite) = &call.rewrite {
                put(&mut route, "rewrite", if rewrite.as_str().is_empty() { "/" } else { rewrite.as_str() });
            }
            put_policy(&mut route, &call.policy);
            put_fallback(&mut route, call.fallback.as_ref());
            if call.rpc.is_none() {
                put_mirror(&mut route, call.mirror.as_ref());
                put(&mut route, "encode", name_of(&ENCODES, call.encode));
            }
            put(&mut route, "answer", name_of(&ANSWERS, call.answer));
        }
        Outcome::Redirect(redirect) => {
            let mut to = Mapping::new();
            put(&mut to, "to", redirect.to.as_str());
            put(&mut to, "status", redirect.status);
            put(&mut route, "redirect", to);
        }
        Outcome::Micro(micro) => put(&mut route, "micro", shown_micro(micro)),
        Outcome::Respond(respond) => {
            put(&mut route, "respond", fixed(respond));
        }
    }
    put_terms(&mut route, &rule.terms, defaults);
    route
}

/// `{ handler: api, namespace: go.micro.api }`
pub(super) fn shown_micro(micro: &Micro) -> Mapping {
    let mut shown = Mapping::new();
    put(&mut shown, "handler", name_of(&HANDLERS, micro.handler));
    put(&mut shown, "namespace", micro.namespace.as_str());
    shown
}

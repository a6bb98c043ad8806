//! Services and upstreams: actions, and how they are called. What an action says goes over what its upstream says, and
//! that over the default.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::decode::{At, Decoder, Field, Table, boolean, number, word};
use super::names::{self, nearest, shown, unknown};
use super::origins;
use super::routes;
use super::shares;
use super::terms::{self, Defaults, RawTerms};
use super::units::{parse_duration, parse_positive_duration};
use super::upstream::{self, RawBalance};
use crate::balance::Selector;
use crate::causes;
use crate::gateway::{Action, AnswerForm, Encode, Fallback, Mirror, Service};
use crate::rpc::keepalive::PONG_TIMEOUT;
use crate::rpc::{Keepalive, MethodName};
use crate::upstream::{ClientTls, DescriptorFile, Descriptors, HealthCheck, Policy};

/// What an action or an upstream says of calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Overrides {
    balance: RawBalance,
    timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    stall_timeout: Option<Duration>,
    tunnel_timeout: Option<Duration>,
    /// `Some(None)`: none.
    deadline: Option<Option<Duration>>,
    attempts: Option<u32>,
    retry_status: Option<Vec<u16>>,
    retry_non_idempotent: Option<bool>,
    backoff: Option<Duration>,
    encode: Option<Encode>,
    answer: Option<AnswerForm>,
    /// `Some(None)`: none.
    fallback: Option<Option<Fallback>>,
    mirror: Option<Option<Mirror>>,
    pub(super) tls: Option<Option<Arc<ClientTls>>>,
    descriptors: Option<Descriptors>,
    /// `Some(None)`: none.
    keepalive: Option<Option<Keepalive>>,
    pub(super) terms: RawTerms,
}

/// An action as written.
#[derive(Clone, Debug)]
pub(super) struct RawAction {
    path: String,
    rpc: Option<String>,
    methods: Vec<String>,
    overrides: Overrides,
}

/// The words of [`Encode`].
pub(super) const ENCODES: [(&str, Encode); 3] =
    [("json", Encode::Json), ("form", Encode::Form), ("none", Encode::None)];
/// The words of [`AnswerForm`].
pub(super) const ANSWERS: [(&str, AnswerForm); 3] =
    [("goms", AnswerForm::Goms), ("go-ms", AnswerForm::GoMs), ("untouched", AnswerForm::Untouched)];
/// The keys of [`Overrides`] that actions, routes and upstreams have.
pub(super) const KEYS: &[&str] = &[
    "timeout",
    "connectTimeout",
    "stallTimeout",
    "tunnelTimeout",
    "deadline",
    "retry",
    "fallback",
    "mirror",
    "tls",
    "descriptors",
    "keepalive",
    "encode",
    "answer",
];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Each try may take the whole timeout; more tries than this only hide an outage.
const MOST_ATTEMPTS: u32 = 20;

/// Reads `services`.
pub(super) fn services(decoder: &mut Decoder, field: &Field<'_>) -> BTreeMap<String, BTreeMap<String, RawAction>> {
    let mut services = BTreeMap::new();
    for (name, field) in decoder.names(field, names::service_name).iter() {
        if field.is_null() {
            decoder.fault(&field.place, "has no actions; write for example `login: /login`");
            continue;
        }
        let mut actions = BTreeMap::new();
        for (action, field) in decoder.names(field, names::action_name).iter() {
            if let Some(read) = self::action(decoder, field) {
                actions.insert(action.to_owned(), read);
            }
        }
        services.insert(name.to_owned(), actions);
    }
    services
}

fn action(decoder: &mut Decoder, field: &Field<'_>) -> Option<RawAction> {
    if field.is_null() {
        decoder.fault(&field.place, "has no path; write for example `/login`");
        return None;
    }
    if field.is_scalar() {
        let path = decoder.read(field, path)?;
        return Some(RawAction { path, rpc: None, methods: Vec::new(), overrides: Overrides::default() });
    }
    let before = decoder.faults.len();
    let table = decoder.table(field, &[&["path", "rpc", "methods"], KEYS, terms::KEYS].concat());
    let methods = methods(decoder, &table);
    let overrides = overrides(decoder, &table);
    match (table.get("path"), table.get("rpc")) {
        (Some(_), Some(field)) => {
            decoder.fault(&field.place, "stands beside `path`; leave one out");
            None
        }
        (Some(field), None) => Some(RawAction { path: decoder.read(&field, path)?, rpc: None, methods, overrides }),
        (None, Some(field)) => {
            let rpc = rpc_method(decoder, &field, &table)?;
            Some(RawAction { path: format!("/{rpc}"), rpc: Some(rpc), methods, overrides })
        }
        (None, None) => {
            if decoder.faults.len() == before {
                decoder.fault(&field.place, "has no `path` and no `rpc`; write for example `path: /login`");
            }
            None
        }
    }
}

/// Reads `rpc`, the method that is called in place of a path.
pub(super) fn rpc_method(decoder: &mut Decoder, field: &Field<'_>, table: &Table<'_>) -> Option<String> {
    if let Some((key, field)) = ["encode", "mirror"].into_iter().find_map(|key| Some((key, table.get(key)?))) {
        decoder.fault(&field.place, format!("`{key}` is for calls over HTTP, this one is by `rpc`"));
    }
    decoder.read(field, |text| match MethodName::parse(text) {
        Ok(_) if !text.contains(char::is_control) => Ok(text.to_owned()),
        _ => Err(format!("must name a method like `Say.Hello` or `/greeter.Say/Hello`, got `{}`", shown(text))),
    })
}

/// Reads `upstreams`.
pub(super) fn upstreams(decoder: &mut Decoder, field: &Field<'_>) -> BTreeMap<String, At<Overrides>> {
    let mut upstreams = BTreeMap::new();
    for (name, field) in decoder.names(field, names::service_name).iter() {
        let table = decoder.table(field, &[KEYS, terms::KEYS, upstream::KEYS].concat());
        let mut value = overrides(decoder, &table);
        value.balance = RawBalance::read(decoder, &table);
        upstreams.insert(name.to_owned(), At { value, place: field.place.clone() });
    }
    upstreams
}

pub(super) fn overrides(decoder: &mut Decoder, table: &Table<'_>) -> Overrides {
    let mut time = |key| table.get(key).and_then(|field| decoder.read(&field, parse_positive_duration));
    let (timeout, connect_timeout) = (time("timeout"), time("connectTimeout"));
    let (stall_timeout, tunnel_timeout) = (time("stallTimeout"), time("tunnelTimeout"));
    let mut overrides = Overrides {
        timeout,
        connect_timeout,
        stall_timeout,
        tunnel_timeout,
        deadline: table.get("deadline").and_then(|field| decoder.read(&field, deadline)),
        encode: table.get("encode").and_then(|field| decoder.read(&field, word("word", &ENCODES))),
        answer: table.get("answer").and_then(|field| decoder.read(&field, word("word", &ANSWERS))),
        fallback: table.get("fallback").and_then(|field| routes::fallback(decoder, &field)),
        tls: table.get("tls").and_then(|field| origins::tls(decoder, &field)),
        descriptors: table.get("descriptors").and_then(|field| decoder.read(&field, descriptors)),
        keepalive: table.get("keepalive").and_then(|field| keepalive(decoder, &field)),
        mirror: table.get("mirror").and_then(|field| shares::mirror(decoder, &field)),
        terms: RawTerms::read(decoder, table),
        ..Overrides::default()
    };
    if let Some(field) = table.get("retry") {
        let retry = decoder.table(&field, &["attempts", "on", "nonIdempotent", "backoff"]);
        overrides.attempts = retry.get("attempts").and_then(|field| decoder.read(&field, number(1, MOST_ATTEMPTS)));
        overrides.retry_non_idempotent = retry.get("nonIdempotent").and_then(|field| decoder.read(&field, boolean));
        overrides.backoff = retry.get("backoff").and_then(|field| decoder.read(&field, parse_duration));
        if let Some(on) = retry.get("on") {
            let list = decoder.list(&on);
            let mut status: Vec<u16> =
                list.iter().filter_map(|field| decoder.read(field, retry_word)).flatten().collect();
            status.sort_unstable();
            status.dedup();
            overrides.retry_status = Some(status);
        }
    }
    overrides
}

/// How a silent peer is noticed: a time, with more, or `off`.
pub(super) fn keepalive(decoder: &mut Decoder, field: &Field<'_>) -> Option<Option<Keepalive>> {
    let of = |every| Keepalive { every, timeout: PONG_TIMEOUT };
    if field.is_scalar() {
        let read = |text: &str| if text == "off" { Ok(None) } else { parse_positive_duration(text).map(Some) };
        return decoder.read(field, read).map(|every| every.map(of));
    }
    let table = decoder.table(field, &["every", "timeout"]);
    let timeout = table.get("timeout").and_then(|field| decoder.read(&field, parse_positive_duration));
    let Some(every) = table.get("every") else {
        decoder.fault(&field.place, "has no `every`; write for example `every: 30s`");
        return None;
    };
    let keepalive = of(decoder.read(&every, parse_positive_duration)?);
    Some(Some(Keepalive { timeout: timeout.unwrap_or(keepalive.timeout), ..keepalive }))
}

/// How callers with JSON call methods: a word, or a file, which is read.
fn descriptors(text: &str) -> Result<Descriptors, String> {
    match text {
        "auto" => Ok(Descriptors::Auto),
        "json" => Ok(Descriptors::Json),
        "reflection" => Ok(Descriptors::Reflection),
        "" => Err("must be `auto`, `json`, `reflection` or a descriptor file".to_owned()),
        file => match DescriptorFile::load(file.into()) {
            Ok(file) => Ok(Descriptors::File(Arc::new(file))),
            Err(error) => Err(format!("{}; a file, or `auto`, `json` or `reflection`", causes::chain(&error))),
        },
    }
}

/// How long a whole request may take, or `none`.
fn deadline(text: &str) -> Result<Option<Duration>, String> {
    if text == "none" { Ok(None) } else { parse_positive_duration(text).map(Some) }
}

/// A status, or `connect`, which is always retried and so adds nothing.
fn retry_word(text: &str) -> Result<Option<u16>, String> {
    match text.parse::<u16>() {
        Ok(status @ 400..=599) => Ok(Some(status)),
        _ if text == "connect" => Ok(None),
        Ok(_) => Err(format!("`{text}` is no status of a failure; write `connect` or a status from 400 to 599")),
        Err(_) => Err(format!("`{}` is neither `connect` nor a status from 400 to 599", shown(text))),
    }
}

/// Reads `methods`.
pub(super) fn methods(decoder: &mut Decoder, table: &Table<'_>) -> Vec<String> {
    let methods = table.get("methods").map(|field| decoder.list(&field)).unwrap_or_default();
    methods.iter().filter_map(|field| decoder.read(field, method)).collect()
}

/// Reads a method, in any case.
pub(super) fn method(text: &str) -> Result<String, String> {
    let upper = text.to_uppercase();
    if METHODS.contains(&upper.as_str()) { Ok(upper) } else { Err(unknown("method", text, &METHODS)) }
}

fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("must begin with `/`, got `{}`", shown(text)));
    }
    match text.chars().find(|c| c.is_whitespace() || c.is_control() || "?#\\".contains(*c)) {
        Some(bad) => Err(format!("must be a path without `{bad}`, got `{}`", shown(text))),
        None => Ok(text.to_owned()),
    }
}

/// Looks every policy up. `routed` are services that routes call, with or without actions. An upstream of a service that is
/// not there is a fault.
pub(super) fn resolve(
    decoder: &mut Decoder,
    mut services: BTreeMap<String, BTreeMap<String, RawAction>>,
    routed: BTreeSet<String>,
    (upstreams, defaults): (&BTreeMap<String, At<Overrides>>, &Defaults),
    selector: Selector,
    own_zone: &str,
) -> BTreeMap<String, Service> {
    let actions = services.values().flat_map(BTreeMap::values).map(|action| &action.overrides);
    let besides = actions.chain(upstreams.values().map(|at| &at.value)).flat_map(Overrides::services);
    let besides: Vec<String> = besides.map(str::to_owned).collect();
    for service in besides.into_iter().chain(routed) {
        services.entry(service).or_default();
    }
    for (name, upstream) in upstreams.iter().filter(|(name, _)| !services.contains_key(*name)) {
        let near = nearest(name, services.keys().map(String::as_str));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        decoder.fault(&upstream.place, format!("no service `{name}` stands under `services` or in `routes`{near}"));
    }
    let own = services.values().flat_map(BTreeMap::values).map(|action| &action.overrides);
    for overrides in own.chain(upstreams.values().map(|at| &at.value)) {
        overrides.terms.check(decoder, &defaults.ways);
    }
    let none = Overrides::default();
    let mut resolve_one = |(name, actions): (String, BTreeMap<String, RawAction>)| {
        let upstream = upstreams.get(&name).map_or(&none, |at| &at.value);
        let actions = actions
            .into_iter()
            .map(|(action, raw)| (action, resolve_action(decoder, raw, upstream, defaults)))
            .collect();
        let tls = upstream.tls.clone().flatten();
        let health = upstream.balance.health.clone().map(|check| HealthCheck { tls, ..check });
        let (policy, terms) = (none.policy(upstream), none.terms.resolve(decoder, &upstream.terms, defaults));
        (name, Service { balance: upstream.balance.resolve(selector, own_zone), health, actions, policy, terms })
    };
    services.into_iter().map(&mut resolve_one).collect()
}

fn resolve_action(decoder: &mut Decoder, raw: RawAction, upstream: &Overrides, defaults: &Defaults) -> Action {
    let (encode, answer) = raw.overrides.forms(upstream, (Encode::default(), AnswerForm::default()));
    let encode = if raw.rpc.is_some() { Encode::Json } else { encode };
    let (policy, fallback) = (raw.overrides.policy(upstream), raw.overrides.fallback(upstream));
    let terms = raw.overrides.terms.resolve(decoder, &upstream.terms, defaults);
    let mirror = raw.overrides.mirror(upstream).filter(|_| raw.rpc.is_none());
    Action { policy, fallback, mirror, terms, path: raw.path, rpc: raw.rpc, methods: raw.methods, encode, answer }
}

impl Overrides {
    /// What applies: this over what the upstream says over the default.
    pub(super) fn policy(&self, upstream: &Self) -> Policy {
        let default = Policy::default();
        let retry_status = self.retry_status.as_ref().or(upstream.retry_status.as_ref());
        let non_idempotent = self.retry_non_idempotent.or(upstream.retry_non_idempotent);
        Policy {
            deadline: self.deadline.or(upstream.deadline).unwrap_or(default.deadline),
            timeout: self.timeout.or(upstream.timeout).unwrap_or(default.timeout),
            connect_timeout: self.connect_timeout.or(upstream.connect_timeout).unwrap_or(default.connect_timeout),
            stall_timeout: self.stall_timeout.or(upstream.stall_timeout).unwrap_or(default.stall_timeout),
            tunnel_timeout: self.tunnel_timeout.or(upstream.tunnel_timeout).unwrap_or(default.tunnel_timeout),
            attempts: self.attempts.or(upstream.attempts).unwrap_or(default.attempts),
            retry_non_idempotent: non_idempotent.unwrap_or(default.retry_non_idempotent),
            retry_status: retry_status.cloned().unwrap_or(default.retry_status),
            tls: self.tls.clone().or_else(|| upstream.tls.clone()).flatten(),
            told_tls: default.told_tls, // the same for all, put in force at the end
            backoff: self.backoff.or(upstream.backoff).unwrap_or(default.backoff),
            keepalive: self.keepalive.or(upstream.keepalive).unwrap_or(default.keepalive),
            descriptors: self
                .descriptors
                .clone()
                .or_else(|| upstream.descriptors.clone())
                .unwrap_or(default.descriptors),
        }
    }

    /// The same for what is done where nobody could be asked.
    pub(super) fn fallback(&self, upstream: &Self) -> Option<Fallback> {
        self.fallback.clone().or_else(|| upstream.fallback.clone()).flatten()
    }

    /// The same for who gets copies.
    pub(super) fn mirror(&self, upstream: &Self) -> Option<Mirror> {
        self.mirror.clone().or_else(|| upstream.mirror.clone()).flatten()
    }

    /// The services that are called besides.
    pub(super) fn services(&self) -> impl Iterator<Item = &str> {
        let fallback = match &self.fallback {
            Some(Some(Fallback::Service(service))) => Some(service.as_str()),
            _ => None,
        };
        let mirror = self.mirror.iter().flatten().map(|mirror| mirror.to.service());
        fallback.into_iter().chain(mirror)
    }

    /// The same for what the service gets and what becomes of its answer.
    pub(super) fn forms(&self, upstream: &Self, default: (Encode, AnswerForm)) -> (Encode, AnswerForm) {
        (self.encode.or(upstream.encode).unwrap_or(default.0), self.answer.or(upstream.answer).unwrap_or(default.1))
    }
}

//! `auth` and what routes ask of clients, for `config print`. No secret is shown.

use serde_yaml::{Mapping, Value};

use super::auth::ALGORITHMS;
use super::print::{REDACTED, duration, name_of, put, texts};
use super::terms::NONE;
use crate::gateway::access::{ApiKeys, JwksPlace, Jwt, JwtKey, KeyPlace, Proof, Way, Ways, Who};
use crate::gateway::compress::Compression;
use crate::gateway::cors::Cors;
use crate::gateway::faults::Faults;
use crate::gateway::fields::FieldRules;
use crate::gateway::rate::RateLimit;
use crate::gateway::{FieldCondition, Terms};
use crate::trace::REDACTED_HEADERS;

/// `auth`.
pub(super) fn ways(ways: &Ways) -> Mapping {
    ways.iter().map(|(name, shown)| (Value::from(name.as_str()), Value::from(way(shown)))).collect()
}

fn way(way: &Way) -> Mapping {
    let mut shown = Mapping::new();
    match &way.proof {
        Proof::ApiKeys(settings) => put(&mut shown, "apiKeys", api_keys(settings)),
        Proof::Basic(settings) => {
            let mut basic = Mapping::new();
            put(&mut basic, "realm", settings.realm.as_str());
            let user = |name: &String| (Value::from(name.as_str()), Value::from(REDACTED));
            put(&mut basic, "users", settings.users.keys().map(user).collect::<Mapping>());
            put(&mut shown, "basic", basic);
        }
        Proof::Jwt(settings) => put(&mut shown, "jwt", jwt(settings)),
    }
    if let Some(header) = &way.caller_header {
        put(&mut shown, "callerHeader", header.as_str());
    }
    shown
}

fn api_keys(settings: &ApiKeys) -> Mapping {
    let mut shown = Mapping::new();
    match &settings.place {
        KeyPlace::Header(name) => put(&mut shown, "header", name.as_str()),
        KeyPlace::Query(name) => put(&mut shown, "query", name.as_str()),
    }
    let mut keys = Mapping::new();
    for (_, name) in &settings.keys {
        let count = settings.keys.iter().filter(|(_, other)| other == name).count();
        put(&mut keys, name, vec![Value::from(REDACTED); count]);
    }
    put(&mut shown, "keys", keys);
    shown
}

fn jwt(settings: &Jwt) -> Mapping {
    let mut shown = Mapping::new();
    match &settings.key {
        JwtKey::Secret(_) => put(&mut shown, "secret", REDACTED),
        JwtKey::Pem(_, file) => put(&mut shown, "publicKeyFile", file.display().to_string()),
        JwtKey::Jwks { from, refresh } => {
            put(&mut shown, "jwks", from.to_string());
            if let JwksPlace::Url(_, Some(ca_file)) = from {
                put(&mut shown, "caFile", ca_file.display().to_string());
            }
            put(&mut shown, "refresh", duration(*refresh));
        }
    }
    put(&mut shown, "algorithms", texts(settings.algorithms.iter().map(|algorithm| name_of(&ALGORITHMS, *algorithm))));
    put(&mut shown, "issuer", texts(settings.issuers.iter()));
    put(&mut shown, "audience", texts(settings.audiences.iter()));
    put(&mut shown, "leeway", duration(settings.leeway));
    put(&mut shown, "caller", settings.caller.as_str());
    let header = |(header, claim): (&String, &String)| (Value::from(header.as_str()), Value::from(claim.as_str()));
    put(&mut shown, "headers", settings.headers.iter().map(header).collect::<Mapping>());
    shown
}

/// Those of a route, beside its other keys. What is not asked for is left out, but for `auth` and what the defaults would ask
/// for instead.
pub(super) fn put_terms(mapping: &mut Mapping, terms: &Terms, defaults: &Terms) {
    for ((key, own), (_, default)) in parts(terms).into_iter().zip(parts(defaults)) {
        match (own, default) {
            (Some(own), _) => put(mapping, key, own),
            (None, Some(_)) if key.ends_with("Headers") => put(mapping, key, Mapping::new()),
            (None, Some(_)) => put(mapping, key, NONE),
            (None, None) if key == "auth" => put(mapping, key, NONE),
            (None, None) => {}
        }
    }
}

/// `defaults`; empty where nothing is asked for.
pub(super) fn defaults(terms: &Terms) -> Mapping {
    let asked = parts(terms).into_iter().filter_map(|(key, value)| Some((Value::from(key), value?)));
    asked.collect()
}

/// Each key with what is asked for.
fn parts(terms: &Terms) -> Vec<(&'static str, Option<Value>)> {
    let access = &terms.access;
    let ways = (!access.ways.is_empty()).then(|| texts(access.ways.iter()).into());
    let rates: Vec<Value> = terms.rates.iter().map(|limit| rate(limit).into()).collect();
    let rules = |rules: &FieldRules| (!rules.is_empty()).then(|| fields(rules).into());
    vec![
        ("auth", ways),
        ("allow", access.allow.as_ref().map(|allow| who(allow).into())),
        ("deny", access.deny.as_ref().map(|deny| who(deny).into())),
        ("rateLimit", (!rates.is_empty()).then(|| rates.into())),
        ("cors", terms.cors.as_ref().map(|settings| cors(settings).into())),
        ("requestHeaders", rules(&terms.request_fields)),
        ("responseHeaders", rules(&terms.answer_fields)),
        ("compress", terms.compression.as_ref().map(|settings| compression(settings).into())),
        ("bodyBytes", terms.body_bytes.map(Value::from)),
        ("faults", terms.faults.as_ref().map(|settings| faults(settings).into())),
    ]
}

fn compression(settings: &Compression) -> Mapping {
    let mut shown = Mapping::new();
    put(&mut shown, "codings", texts(settings.codings.iter().map(|coding| coding.name())));
    put(&mut shown, "minBytes", settings.least_bytes);
    put(&mut shown, "types", texts(settings.types.iter()));
    shown
}

fn faults(settings: &Faults) -> Mapping {
    let mut shown = Mapping::new();
    if let Some(delay) = settings.delay {
        put(&mut shown, "delay", duration(delay));
    }
    if let Some(status) = settings.abort {
        put(&mut shown, "abort", status);
    }
    put(&mut shown, "share", format!("{}%", f64::from(settings.permille) / 10.0));
    if settings.headers.is_empty() {
        put(&mut shown, "everyone", true);
        return shown;
    }
    let mut headers = Mapping::new();
    for FieldCondition { name, value } in &settings.headers {
        put(&mut headers, name, value.as_deref().unwrap_or("*"));
    }
    put(&mut shown, "headers", headers);
    shown
}

fn cors(settings: &Cors) -> Mapping {
    let mut shown = Mapping::new();
    put(&mut shown, "origins", texts(settings.origins.iter()));
    if let Some(methods) = &settings.methods {
        put(&mut shown, "methods", texts(methods.iter()));
    }
    match &settings.headers {
        Some(headers) => put(&mut shown, "headers", texts(headers.iter())),
        None => put(&mut shown, "headers", "*"),
    }
    put(&mut shown, "expose", texts(settings.expose.iter()));
    put(&mut shown, "credentials", settings.credentials);
    put(&mut shown, "maxAge", duration(settings.max_age));
    shown
}

fn fields(rules: &FieldRules) -> Mapping {
    let pairs = |list: &[(String, String)]| -> Mapping {
        let mut shown = Mapping::new();
        for (name, _) in list {
            let values = list.iter().filter(|(other, _)| other == name);
            let value = |value: &'_ String| if is_secret(name) { REDACTED.to_owned() } else { value.clone() };
            put(&mut shown, name, texts(values.map(|(_, text)| value(text))));
        }
        shown
    };
    let mut shown = Mapping::new();
    put(&mut shown, "remove", texts(rules.remove.iter()));
    put(&mut shown, "set", pairs(&rules.set));
    put(&mut shown, "add", pairs(&rules.add));
    shown
}

/// Whether a header's value is one that is not shown.
fn is_secret(name: &str) -> bool {
    REDACTED_HEADERS.contains(&name) || ["key", "token", "secret"].iter().any(|word| name.contains(word))
}

fn rate(limit: &RateLimit) -> Mapping {
    let mut shown = Mapping::new();
    put(&mut shown, "rate", format!("{}/{}", limit.count, duration(limit.per)));
    put(&mut shown, "burst", limit.burst);
    put(&mut shown, "by", limit.word());
    if let Some(name) = &limit.name {
        put(&mut shown, "name", name.as_str());
    }
    shown
}

fn who(settings: &Who) -> Mapping {
    let mut shown = Mapping::new();
    if !settings.callers.is_empty() {
        put(&mut shown, "callers", texts(settings.callers.iter()));
    }
    if !settings.claims.is_empty() {
        let mut claims = Mapping::new();
        for (name, values) in &settings.claims {
            put(&mut claims, name, texts(values.iter()));
        }
        put(&mut shown, "claims", claims);
    }
    if !settings.addresses.is_empty() {
        put(&mut shown, "addresses", texts(settings.addresses.iter()));
    }
    shown
}

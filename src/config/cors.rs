//! `cors`, and the rules of `requestHeaders` and `responseHeaders`.

use std::time::Duration;

use awc::http::header::HeaderValue;

use super::decode::{Decoder, Field, Table, boolean};
use super::names::shown;
use super::policy;
use super::units::parse_duration;
use super::values::header_name;
use crate::gateway::cors::{Cors, OriginPattern};
use crate::gateway::fields::FieldRules;

/// Browsers do not believe more than a day or two.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(600);
const ANY: &str = "*";

/// Reads `cors`: a mapping, or the origins alone.
pub(super) fn read(decoder: &mut Decoder, field: &Field<'_>) -> Option<Cors> {
    if !field.is_table() {
        let origins = origins(decoder, field)?;
        let max_age = DEFAULT_MAX_AGE;
        return Some(Cors { origins, methods: None, headers: None, expose: Vec::new(), credentials: false, max_age });
    }
    let table = decoder.table(field, &["origins", "methods", "headers", "expose", "credentials", "maxAge"]);
    let Some(of_origins) = table.get("origins") else {
        decoder.fault(&field.place, "has no `origins`; write for example `origins: [\"https://app.example.com\"]`");
        return None;
    };
    let origins = origins(decoder, &of_origins)?;
    let credentials = table.get("credentials").and_then(|field| decoder.read(&field, boolean)).unwrap_or(false);
    if credentials && origins.contains(&OriginPattern::Any) {
        // the Fetch standard forbids it: every page could act as its visitor
        decoder.fault(&of_origins.place, "`*` cannot go with `credentials`; name the origins");
    }
    let methods = table.get("methods").map(|field| decoder.list(&field));
    let methods = methods.map(|list| list.iter().filter_map(|field| decoder.read(field, policy::method)).collect());
    let is_any = |decoder: &mut Decoder, field: &Field<'_>| {
        field.is_scalar() && decoder.read(field, |text| Ok(text == ANY)) == Some(true)
    };
    let headers = match table.get("headers") {
        Some(field) if !is_any(decoder, &field) => Some(names(decoder, &field)),
        _ => None,
    };
    let expose = table.get("expose").map(|field| names(decoder, &field)).unwrap_or_default();
    let max_age = table.get("maxAge").and_then(|field| decoder.read(&field, parse_duration)).unwrap_or(DEFAULT_MAX_AGE);
    Some(Cors { origins, methods, headers, expose, credentials, max_age })
}

fn origins(decoder: &mut Decoder, field: &Field<'_>) -> Option<Vec<OriginPattern>> {
    let before = decoder.faults.len();
    let list = decoder.list(field);
    let origins: Vec<_> = list.iter().filter_map(|field| decoder.read(field, OriginPattern::parse)).collect();
    if origins.is_empty() && decoder.faults.len() == before {
        decoder.fault(&field.place, "names no origin; write `none` for no rules of CORS");
    }
    (!origins.is_empty()).then_some(origins)
}

fn names(decoder: &mut Decoder, field: &Field<'_>) -> Vec<String> {
    let list = decoder.list(field);
    list.iter().filter_map(|field| decoder.read(field, header_name)).collect()
}

/// Reads rules for header fields; `passes` says which may be touched.
pub(super) fn fields(decoder: &mut Decoder, field: &Field<'_>, passes: fn(&str) -> bool) -> FieldRules {
    let table = decoder.table(field, &["remove", "set", "add"]);
    let mut allowed = |decoder: &mut Decoder, field: &Field<'_>, name: &str| {
        if !passes(name) {
            decoder.fault(
                &field.place,
                format!("`{}` is the gateway's own business or of one connection only", shown(name)),
            );
        }
        passes(name)
    };
    let list = table.get("remove").map(|field| decoder.list(&field)).unwrap_or_default();
    let mut remove = Vec::new();
    for field in &list {
        if let Some(name) = decoder.read(field, header_name).filter(|name| allowed(decoder, field, name)) {
            remove.push(name);
        }
    }
    let (set, add) = (pairs(decoder, &table, "set", &mut allowed), pairs(decoder, &table, "add", &mut allowed));
    FieldRules { remove, set, add }
}

fn pairs(
    decoder: &mut Decoder,
    table: &Table<'_>,
    key: &str,
    allowed: &mut impl FnMut(&mut Decoder, &Field<'_>, &str) -> bool,
) -> Vec<(String, String)> {
    let Some(field) = table.get(key) else { return Vec::new() };
    let mut pairs = Vec::new();
    for (name, field) in decoder.names(&field, header_name).iter() {
        let values = decoder.list(field);
        for field in &values {
            let value = decoder.read(field, |text| match HeaderValue::from_str(text.trim()) {
                Ok(_) => Ok(text.trim().to_owned()),
                Err(_) => Err("must be one line of printable ASCII".to_owned()),
            });
            if let Some(value) = value.filter(|_| allowed(decoder, field, name)) {
                pairs.push((name.to_owned(), value));
            }
        }
    }
    pairs
}

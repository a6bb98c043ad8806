//! What a route asks of clients, as actions, routes, upstreams and `defaults` say it: each key is looked up in this order.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::decode::{At, Decoder, Field, Place, Table};
use super::names::{shown, unknown};
use super::rate;
use super::units::parse_size;
use super::{callers, compress, cors, faults};
use crate::gateway::Terms;
use crate::gateway::access::{Access, Ways, Who};
use crate::gateway::compress::Compression;
use crate::gateway::cors::Cors;
use crate::gateway::faults::Faults;
use crate::gateway::fields::FieldRules;
use crate::gateway::rate::{By, RateLimit};
use crate::upstream::headers;

/// The keys of [`RawTerms`].
pub(super) const KEYS: &[&str] = &[
    "auth",
    "allow",
    "deny",
    "rateLimit",
    "cors",
    "requestHeaders",
    "responseHeaders",
    "bodyBytes",
    "compress",
    "faults",
];
/// What takes back what would be inherited.
pub(super) const NONE: &str = "none";

/// What one place of the file says. `Some(None)`, or an empty list: `none`.
#[derive(Clone, Debug, Default)]
pub(super) struct RawTerms {
    auth: Option<Vec<At<String>>>,
    allow: Option<Option<At<Who>>>,
    deny: Option<Option<At<Who>>>,
    rates: Option<Vec<At<RateLimit>>>,
    cors: Option<Option<At<Cors>>>,
    request_fields: Option<FieldRules>,
    answer_fields: Option<FieldRules>,
    body_bytes: Option<Option<usize>>,
    compression: Option<Option<Compression>>,
    faults: Option<Option<At<Faults>>>,
}

/// What is asked of clients where nothing else says so, and the ways that may be asked for.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    pub(super) terms: RawTerms,
    pub(super) ways: Ways,
}

/// Reads `defaults`.
pub(super) fn defaults(decoder: &mut Decoder, field: &Field<'_>) -> RawTerms {
    let table = decoder.table(field, KEYS);
    RawTerms::read(decoder, &table)
}

impl RawTerms {
    pub(super) fn read(decoder: &mut Decoder, table: &Table<'_>) -> Self {
        Self {
            auth: table.get("auth").map(|field| auth(decoder, &field)),
            allow: or_none(decoder, table.get("allow"), who),
            deny: or_none(decoder, table.get("deny"), who),
            rates: table.get("rateLimit").map(|field| rate::read(decoder, &field)),
            cors: or_none(decoder, table.get("cors"), cors::read),
            request_fields: table.get("requestHeaders").map(|field| cors::fields(decoder, &field, passes_down)),
            answer_fields: table.get("responseHeaders").map(|field| cors::fields(decoder, &field, passes_up)),
            body_bytes: table.get("bodyBytes").and_then(|field| decoder.read(&field, body_bytes)),
            compression: table.get("compress").map(|field| compress::read(decoder, &field)),
            faults: or_none(decoder, table.get("faults"), faults::read),
        }
    }

    /// Notes the names of ways that are not there.
    pub(super) fn check(&self, decoder: &mut Decoder, ways: &Ways) {
        for name in self.auth.iter().flatten().filter(|name| !ways.contains_key(&name.value)) {
            let known: Vec<&str> = ways.keys().map(String::as_str).chain([NONE]).collect();
            decoder.fault(&name.place, unknown("way of `auth`", &name.value, &known));
        }
    }

    /// What applies: this over what the upstream says over the default.
    pub(super) fn resolve(&self, decoder: &mut Decoder, upstream: &Self, defaults: &Defaults) -> Terms {
        let layers = [self, upstream, &defaults.terms];
        let ways = layers.iter().enumerate().find_map(|(depth, layer)| Some((depth, layer.auth.as_ref()?)));
        let allow = layers.iter().enumerate().find_map(|(depth, layer)| Some((depth, layer.allow.as_ref()?)));
        let deny = layers.iter().enumerate().find_map(|(depth, layer)| Some((depth, layer.deny.as_ref()?)));
        let (ways_depth, ways) = ways.unzip();
        let ways: Vec<String> = ways.into_iter().flatten().map(|way| way.value.clone()).collect();
        for (depth, who) in [allow, deny].into_iter().flatten() {
            let Some(who) = who else { continue };
            if ways.is_empty() && who.value.names_callers() {
                once(decoder, &who.place, "names callers, and nobody is asked who it is; set `auth` too");
            }
            let is_own = ways_depth.is_none_or(|ways_depth| depth <= ways_depth);
            for message in callers::faults(&who.value, &ways, &defaults.ways, is_own) {
                once(decoder, &who.place, &message);
            }
        }
        let (allow, deny) = (allow.and_then(|(_, who)| who.as_ref()), deny.and_then(|(_, who)| who.as_ref()));
        let rates = layers.iter().find_map(|layer| layer.rates.as_ref()).map(Vec::as_slice).unwrap_or_default();
        for rate in rates.iter().filter(|rate| ways.is_empty() && rate.value.by == By::Caller) {
            once(decoder, &rate.place, "counts by caller, and nobody is asked who it is; set `auth` too");
        }
        let rates = rates.iter().map(|rate| rate.value.clone()).collect();
        let cors = layers.iter().find_map(|layer| layer.cors.as_ref()).and_then(Option::as_ref);
        let fields = |of: fn(&Self) -> &Option<FieldRules>| {
            layers.iter().find_map(|layer| of(layer).as_ref()).cloned().unwrap_or_default()
        };
        let faults = layers.iter().find_map(|layer| layer.faults.as_ref()).and_then(Option::as_ref);
        let value = |who: &At<Who>| who.value.clone();
        Terms {
            cors: cors.map(|cors| cors.value.clone()),
            request_fields: fields(|layer| &layer.request_fields),
            answer_fields: fields(|layer| &layer.answer_fields),
            compression: layers.iter().find_map(|layer| layer.compression.clone()).flatten(),
            body_bytes: layers.iter().find_map(|layer| layer.body_bytes).flatten(),
            faults: faults.map(|faults| faults.value.clone()),
            rates,
            access: Access { ways, allow: allow.map(value), deny: deny.map(value) },
        }
    }
}

fn passes_down(name: &str) -> bool {
    headers::passes_down(name, std::iter::empty())
}

fn passes_up(name: &str) -> bool {
    headers::passes_up(name, std::iter::empty()) && name != "x-request-id"
}

fn body_bytes(text: &str) -> Result<Option<usize>, String> {
    if text == NONE {
        return Ok(None);
    }
    // a limit that a 32-bit machine cannot reach is none
    parse_size(text).map(|bytes| Some(usize::try_from(bytes).unwrap_or(usize::MAX)))
}

/// An upstream's terms are looked at for each of its routes.
fn once(decoder: &mut Decoder, place: &Place, message: &str) {
    let is_told =
        |fault: &super::Fault| fault.line == Some(place.line) && fault.path == place.path && fault.message == message;
    if !decoder.faults.iter().any(is_told) {
        decoder.fault(place, message);
    }
}

fn auth(decoder: &mut Decoder, field: &Field<'_>) -> Vec<At<String>> {
    let list = decoder.list(field);
    let names: Vec<At<String>> =
        list.iter().filter_map(|field| decoder.read_at(field, |text| Ok(text.to_owned()))).collect();
    match names.as_slice() {
        [only] if only.value == NONE => Vec::new(),
        _ => names,
    }
}

/// `none`, or what `read` reads.
fn or_none<T>(
    decoder: &mut Decoder,
    field: Option<Field<'_>>,
    read: fn(&mut Decoder, &Field<'_>) -> Option<T>,
) -> Option<Option<At<T>>> {
    let field = field?;
    if field.is_scalar() && decoder.read(&field, |text| Ok(text == NONE)) == Some(true) {
        return Some(None);
    }
    Some(read(decoder, &field).map(|value| At { value, place: field.place.clone() }))
}

fn who(decoder: &mut Decoder, field: &Field<'_>) -> Option<Who> {
    let before = decoder.faults.len();
    let table = decoder.table(field, &["callers", "claims", "addresses"]);
    let mut texts = |field: &Field<'_>| -> Vec<String> {
        let list = decoder.list(field);
        list.iter().filter_map(|field| decoder.read(field, |text| Ok(text.to_owned()))).collect()
    };
    let callers = table.get("callers").map(|field| texts(&field)).unwrap_or_default();
    let mut claims = BTreeMap::new();
    if let Some(field) = table.get("claims") {
        for (name, field) in decoder.names(&field, |name| Ok(name.to_owned())).iter() {
            let list = decoder.list(field);
            let values = list.iter().filter_map(|field| decoder.read(field, |text| Ok(text.to_owned())));
            claims.insert(name.to_owned(), values.collect());
        }
    }
    let list = table.get("addresses").map(|field| decoder.list(&field)).unwrap_or_default();
    let addresses = list.iter().filter_map(|field| decoder.read(field, network)).collect();
    let who = Who { callers, claims, addresses };
    if who == Who::default() {
        if decoder.faults.len() == before {
            decoder.fault(
                &field.place,
                "names nobody; write for example `{ callers: [ann] }` or `{ addresses: [10.0.0.0/8] }`",
            );
        }
        return None;
    }
    Some(who)
}

/// A network or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    match network {
        Ok(network) if network.trunc() != network => {
            Err(format!("`{text}` has bits behind its length; write `{}`", network.trunc()))
        }
        Ok(network) => Ok(network),
        Err(_) => Err(format!("`{}` is no address or network; write for example `10.0.0.0/8`", shown(text))),
    }
}

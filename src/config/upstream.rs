//! How the nodes of an upstream are chosen and watched: its keys that no action may have.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::decode::{Decoder, Field, Table, boolean, number};
use super::names::{self, SELECTORS, shown as quoted};
use super::print::{name_of, put};
use super::units::{format_duration, parse_positive_duration};
use crate::balance::{Breaker, Ejection, NodeLimit, Selector, Settings};
use crate::upstream::HealthCheck;

/// The keys.
pub(super) const KEYS: &[&str] = &[
    "selector",
    "filter",
    "preferZone",
    "slowStart",
    "ejection",
    "breaker",
    "maxInFlight",
    "queue",
    "queueTimeout",
    "health",
    "shed",
];

/// More failures in a row than this are no threshold any more.
const MOST_FAILURES: u32 = 10_000;
/// More requests at once than a process can have.
const MOST_IN_FLIGHT: usize = 10_000_000;
/// Each holds a connection, and its request's body, while it waits.
const MOST_QUEUED: usize = 100_000;
/// All answers of the class.
const SERVER_ERRORS: (&str, RangeInclusive<u16>) = ("5xx", 500..=599);

/// As written.
#[derive(Clone, Debug, Default)]
pub(super) struct RawBalance {
    selector: Option<Selector>,
    version: Option<String>,
    zone: Option<String>,
    prefer_zone: Option<bool>,
    slow_start: Option<Duration>,
    ejection: RawEjection,
    breaker: Option<Breaker>,
    limit: Option<NodeLimit>,
    shed: Option<Duration>,
    pub(super) health: Option<HealthCheck>,
}

#[derive(Clone, Debug, Default)]
struct RawEjection {
    is_off: bool,
    failures: Option<u32>,
    error_percent: Option<u32>,
    window: Option<Duration>,
    duration: Option<Duration>,
    max_percent: Option<u32>,
    statuses: Vec<RangeInclusive<u16>>,
}

impl RawBalance {
    pub(super) fn read(decoder: &mut Decoder, table: &Table<'_>) -> Self {
        let filter = table.get("filter").map(|field| decoder.table(&field, &["version", "zone"])).unwrap_or_default();
        Self {
            selector: table.get("selector").and_then(|field| decoder.read(&field, names::selector)),
            version: filter.get("version").and_then(|field| decoder.read(&field, some_word)),
            zone: filter.get("zone").and_then(|field| decoder.read(&field, some_word)),
            prefer_zone: table.get("preferZone").and_then(|field| decoder.read(&field, boolean)),
            slow_start: table.get("slowStart").and_then(|field| decoder.read(&field, off_or_time)).flatten(),
            ejection: table.get("ejection").map(|field| RawEjection::read(decoder, &field)).unwrap_or_default(),
            breaker: table.get("breaker").and_then(|field| breaker(decoder, &field)),
            limit: limit(decoder, table),
            shed: table.get("shed").and_then(|field| decoder.read(&field, off_or_time)).flatten(),
            health: table.get("health").and_then(|field| health(decoder, &field)),
        }
    }

    /// `selector` is for where nothing is said, `own_zone` where this process stands.
    pub(super) fn resolve(&self, selector: Selector, own_zone: &str) -> Settings {
        Settings {
            of: None,
            origins: Vec::new(),
            selector: self.selector.unwrap_or(selector),
            version: self.version.clone(),
            zone: self.zone.clone(),
            near_zone: self.prefer_zone.unwrap_or(false).then(|| own_zone.to_owned()),
            slow_start: self.slow_start,
            ejection: self.ejection.resolve(),
            breaker: self.breaker.clone(),
            limit: self.limit.clone(),
            shed: self.shed,
        }
    }
}

impl RawEjection {
    fn read(decoder: &mut Decoder, field: &Field<'_>) -> Self {
        if field.is_scalar() {
            let is_off = decoder.read(field, off).is_some();
            return Self { is_off, ..Self::default() };
        }
        let table = decoder.table(field, &["failures", "errorRate", "window", "for", "max", "on"]);
        let on = table.get("on").map(|field| decoder.list(&field)).unwrap_or_default();
        Self {
            is_off: false,
            failures: table.get("failures").and_then(|field| decoder.read(&field, number(1, MOST_FAILURES))),
            error_percent: table.get("errorRate").and_then(|field| decoder.read(&field, percent)),
            window: table.get("window").and_then(|field| decoder.read(&field, parse_positive_duration)),
            duration: table.get("for").and_then(|field| decoder.read(&field, parse_positive_duration)),
            max_percent: table.get("max").and_then(|field| decoder.read(&field, percent)),
            statuses: on.iter().filter_map(|field| decoder.read(field, status)).collect(),
        }
    }

    fn resolve(&self) -> Option<Ejection> {
        let default = Ejection::default();
        (!self.is_off).then(|| Ejection {
            failures: self.failures.unwrap_or(default.failures),
            error_percent: self.error_percent.or(default.error_percent),
            window: self.window.unwrap_or(default.window),
            duration: self.duration.unwrap_or(default.duration),
            max_percent: self.max_percent.unwrap_or(default.max_percent),
            statuses: self.statuses.clone(),
        })
    }
}

/// `off` and a mapping; the mapping's defaults apply to what it leaves out.
fn breaker(decoder: &mut Decoder, field: &Field<'_>) -> Option<Breaker> {
    if field.is_scalar() {
        decoder.read(field, off);
        return None;
    }
    let table = decoder.table(field, &["failures", "open"]);
    let default = Breaker::default();
    let failures = table.get("failures").and_then(|field| decoder.read(&field, number(1, MOST_FAILURES)));
    let open = table.get("open").and_then(|field| decoder.read(&field, parse_positive_duration));
    Some(Breaker { failures: failures.unwrap_or(default.failures), open: open.unwrap_or(default.open) })
}

/// Reads `health`: a path, or a path with more; `off`.
fn health(decoder: &mut Decoder, field: &Field<'_>) -> Option<HealthCheck> {
    if field.is_scalar() {
        let read = |text: &str| match text {
            "off" => Ok(None),
            path => health_path(path).map(Some),
        };
        return decoder.read(field, read).flatten().map(|path| HealthCheck::new(&path));
    }
    let table = decoder.table(field, &["path", "every", "timeout", "failures", "passes"]);
    let Some(path) = table.get("path") else {
        decoder.fault(&field.place, "has no `path`; write for example `path: /healthz`");
        return None;
    };
    let default = HealthCheck::new(&decoder.read(&path, health_path)?);
    let mut time = |key| table.get(key).and_then(|field| decoder.read(&field, parse_positive_duration));
    let (every, timeout) = (time("every"), time("timeout"));
    let mut count = |key| table.get(key).and_then(|field| decoder.read(&field, number(1, MOST_FAILURES)));
    let (failures, passes) = (count("failures"), count("passes"));
    Some(HealthCheck {
        every: every.unwrap_or(default.every),
        timeout: timeout.unwrap_or(default.timeout),
        failures: failures.unwrap_or(default.failures),
        passes: passes.unwrap_or(default.passes),
        ..default
    })
}

fn health_path(text: &str) -> Result<String, String> {
    let is_path =
        text.starts_with('/') && text.bytes().all(|byte| (0x21..0x7f).contains(&byte)) && !text.contains(['?', '#']);
    if is_path { Ok(text.to_owned()) } else { Err(format!("must be a path like `/healthz`, got `{}`", quoted(text))) }
}

/// The check as an upstream's mapping.
pub(super) fn put_health(upstream: &mut Mapping, health: Option<&HealthCheck>) {
    let Some(check) = health else { return put(upstream, "health", "off") };
    let mut shown = Mapping::new();
    put(&mut shown, "path", check.path.as_str());
    put(&mut shown, "every", format_duration(check.every));
    put(&mut shown, "timeout", format_duration(check.timeout));
    put(&mut shown, "failures", check.failures);
    put(&mut shown, "passes", check.passes);
    put(upstream, "health", shown);
}

fn limit(decoder: &mut Decoder, table: &Table<'_>) -> Option<NodeLimit> {
    let in_flight = table.get("maxInFlight").and_then(|field| decoder.read(&field, max_in_flight)).flatten();
    let queue = table.get("queue").and_then(|field| decoder.read_at(&field, number(0, MOST_QUEUED)));
    let queue_timeout = table.get("queueTimeout").and_then(|field| decoder.read_at(&field, parse_positive_duration));
    let Some(in_flight) = in_flight else {
        if table.get("maxInFlight").is_none() {
            let places = [queue.map(|at| at.place), queue_timeout.map(|at| at.place)];
            for place in places.into_iter().flatten() {
                decoder.fault(&place, "nobody waits without a `maxInFlight` beside it");
            }
        }
        return None;
    };
    let default = NodeLimit::new(in_flight);
    Some(NodeLimit {
        queue: queue.map_or(default.queue, |at| at.value),
        queue_timeout: queue_timeout.map_or(default.queue_timeout, |at| at.value),
        ..default
    })
}

fn max_in_flight(text: &str) -> Result<Option<usize>, String> {
    if text == "off" { Ok(None) } else { number(1, MOST_IN_FLIGHT)(text).map(Some) }
}

/// The settings as an upstream's mapping.
pub(super) fn shown(settings: &Settings) -> Mapping {
    let mut upstream = Mapping::new();
    put(&mut upstream, "selector", name_of(&SELECTORS, settings.selector));
    let mut filter = Mapping::new();
    for (key, wanted) in [("version", &settings.version), ("zone", &settings.zone)] {
        if let Some(wanted) = wanted {
            put(&mut filter, key, wanted.as_str());
        }
    }
    put(&mut upstream, "filter", filter);
    put(&mut upstream, "preferZone", settings.near_zone.is_some());
    put(&mut upstream, "slowStart", settings.slow_start.map_or_else(|| "off".to_owned(), format_duration));
    match &settings.ejection {
        Some(ejection) => put(&mut upstream, "ejection", shown_ejection(ejection)),
        None => put(&mut upstream, "ejection", "off"),
    }
    match &settings.breaker {
        Some(breaker) => {
            let mut shown = Mapping::new();
            put(&mut shown, "failures", breaker.failures);
            put(&mut shown, "open", format_duration(breaker.open));
            put(&mut upstream, "breaker", shown);
        }
        None => put(&mut upstream, "breaker", "off"),
    }
    put(&mut upstream, "shed", settings.shed.map_or_else(|| "off".to_owned(), format_duration));
    match &settings.limit {
        Some(limit) => {
            put(&mut upstream, "maxInFlight", limit.in_flight);
            put(&mut upstream, "queue", limit.queue);
            put(&mut upstream, "queueTimeout", format_duration(limit.queue_timeout));
        }
        None => put(&mut upstream, "maxInFlight", "off"),
    }
    upstream
}

fn shown_ejection(ejection: &Ejection) -> Mapping {
    let mut shown = Mapping::new();
    put(&mut shown, "failures", ejection.failures);
    if let Some(percent) = ejection.error_percent {
        put(&mut shown, "errorRate", format!("{percent}%"));
    }
    put(&mut shown, "window", format_duration(ejection.window));
    put(&mut shown, "for", format_duration(ejection.duration));
    put(&mut shown, "max", format!("{}%", ejection.max_percent));
    put(&mut shown, "on", ejection.statuses.iter().map(shown_status).collect::<Vec<_>>());
    shown
}

fn shown_status(statuses: &RangeInclusive<u16>) -> Value {
    if *statuses == SERVER_ERRORS.1 { Value::from(SERVER_ERRORS.0) } else { Value::from(*statuses.start()) }
}

fn off(text: &str) -> Result<(), String> {
    match text {
        "off" => Ok(()),
        _ => Err(format!("must be `off` or a mapping (`failures: 5`), got `{}`", quoted(text))),
    }
}

fn off_or_time(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" { Ok(None) } else { parse_positive_duration(text).map(Some) }
}

/// A version (`1.10`, which is no number here) or a zone.
fn some_word(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn percent(text: &str) -> Result<u32, String> {
    match text.strip_suffix('%').map(|number| number.trim_end().parse::<u32>()) {
        Some(Ok(percent @ 1..=100)) => Ok(percent),
        _ => Err(format!("must be a percentage from `1%` to `100%`, got `{}`", quoted(text))),
    }
}

fn status(text: &str) -> Result<RangeInclusive<u16>, String> {
    match text.parse::<u16>() {
        _ if text == SERVER_ERRORS.0 => Ok(SERVER_ERRORS.1),
        Ok(status @ 400..=599) => Ok(status..=status),
        _ => Err(format!("`{}` is neither `5xx` nor a status from 400 to 599", quoted(text))),
    }
}

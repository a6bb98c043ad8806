//! Which index an event goes to: one a day behind the alias that is configured, or the one index of that name.
//!
//! A day is the event's own in UTC, so an event that comes twice goes to the same index twice. An event outside
//! [`PAST_MS`] and [`FUTURE_MS`] goes to the index `…-undated`, so that wrong clocks make no thousands of indices. (These move
//! with time: one that comes a second time just when it crosses their edge is stored twice.) That index is made first of
//! all and is the alias's write index: it keeps the alias there, and takes what others write to the alias. Its events
//! carry when they arrived ([`ARRIVED`](mapping::ARRIVED)), for retention.

use std::sync::Arc;

use ::elasticsearch::http::{Method, StatusCode};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::super::StoreError;
use super::Elasticsearch;
use super::mapping::{self, Found, Names, OPEN_FIELDS, undated};
use super::progress::told;
use super::server::{Server, reason};

/// Over a year, so that one of events can be stored again from elsewhere; a server allows 1,000 shards by default.
const PAST_MS: i64 = 400 * DAY_MS;

/// Clocks may be wrong by their time zone.
const FUTURE_MS: i64 = DAY_MS;

const DAY_MS: i64 = 86_400_000;

/// What is known of the indices.
pub(super) struct Known {
    pub names: Names,
    daily: bool,
    /// Whether a writer looked, which makes what is missing.
    made: bool,
    /// Whether there was any index.
    found: bool,
}

impl Known {
    /// Where an event of this time is written, in milliseconds of Unix time.
    pub fn place_of(&self, time_ms: i64, now_ms: i64) -> Place {
        let within = now_ms - PAST_MS..=now_ms + FUTURE_MS;
        match (self.daily, within.contains(&time_ms)) {
            (false, _) => Place::One,
            (true, false) => Place::Undated,
            (true, true) => Place::Day(time_ms.div_euclid(DAY_MS)),
        }
    }
}

/// One of the indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The one that there was.
    One,
    Undated,
    /// The day, as a count of days since 1970.
    Day(i64),
}

impl Place {
    /// Its name.
    pub fn name(self, index: &str) -> String {
        match self {
            Self::One => index.to_owned(),
            Self::Undated => undated(index),
            Self::Day(day) => match Timestamp::from_second(day.saturating_mul(DAY_MS / 1000)) {
                Ok(time) => of_day(index, time.to_zoned(TimeZone::UTC).date()),
                Err(_) => undated(index), // no year of four digits
            },
        }
    }
}

fn of_day(index: &str, day: Date) -> String {
    format!("{index}-{:04}.{:02}.{:02}", day.year(), day.month(), day.day())
}

/// The day of an index that [`of_day`] named.
pub(super) fn day_of(index: &str, name: &str) -> Option<Date> {
    let text = name.strip_prefix(index)?.strip_prefix('-')?;
    let mut parts = text.split('.');
    let mut part = || parts.next();
    let day = Date::new(part()?.parse().ok()?, part()?.parse().ok()?, part()?.parse().ok()?).ok()?;
    (of_day(index, day) == name).then_some(day)
}

impl Elasticsearch {
    /// Looks at the indices, and makes what is missing where `make` says so.
    pub(super) async fn known(&self, make: bool) -> Result<Arc<Known>, StoreError> {
        let mut known = self.known.lock().await;
        if let Some(known) = known.as_ref().filter(|known| known.made || !make) {
            return Ok(Arc::clone(known));
        }
        let what = format!("looking at the trace indices of elasticsearch address={}", self.server.nodes.addresses());
        let looked = told(&what, self.look(make)).await?;
        // without an index one may be made, in either form, at any moment
        if make || looked.found {
            *known = Some(Arc::clone(&looked));
        }
        Ok(looked)
    }

    async fn look(&self, make: bool) -> Result<Arc<Known>, StoreError> {
        let server = &*self.server;
        let mut found = server.mappings().await?;
        if make && server.is_daily(&found) {
            server.create(found.contains_key(&undated(&server.index))).await?;
            found = server.mappings().await?;
        }
        if make && server.adopt(&found).await? {
            found = server.mappings().await?;
        }
        let daily = server.is_daily(&found);
        // that of the newest day, since `None` is less than any
        let newest = found.iter().max_by_key(|(name, _)| day_of(&server.index, name));
        let names = newest.map(|(_, index)| Names::of(&index["mappings"]));
        let names = names.unwrap_or_else(Names::own);
        Ok(Arc::new(Known { names, daily, made: make, found: !found.is_empty() }))
    }
}

impl Server {
    /// Whether events are kept by day: what goms made, or nothing yet.
    fn is_daily(&self, found: &Map<String, Value>) -> bool {
        let own = |name: &String| *name == undated(&self.index) || day_of(&self.index, name).is_some();
        found.is_empty() || found.keys().any(own)
    }

    /// The mappings of the index or of those behind the alias, by name.
    async fn mappings(&self) -> Result<Map<String, Value>, StoreError> {
        let path = format!("/{}/_mapping", self.index);
        let reply = self.send(Method::Get, &path, &[], None).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(Map::new());
        }
        self.json("GET", &path, &reply)
    }

    /// Adds the fields that indices lack; whether there were any.
    async fn adopt(&self, found: &Map<String, Value>) -> Result<bool, StoreError> {
        let mut changed = false;
        for (name, index) in found {
            let is_undated = *name == undated(&self.index);
            let Some(missing) = mapping::missing(&index["mappings"], is_undated) else { continue };
            let path = format!("/{name}/_mapping");
            let reply = self.send(Method::Put, &path, &[], Some(missing.to_string().into())).await?;
            if reply.status.is_success() {
                changed = true;
            } else {
                let reason = reason(&reply.body);
                log::warn!("fields of goms cannot be added to the mapping reason=\"{reason}\" index={name}");
            }
        }
        Ok(changed)
    }

    async fn create(&self, has_undated: bool) -> Result<(), StoreError> {
        let path = format!("/_index_template/{}", self.index);
        let reply = self.send(Method::Get, &path, &[], None).await?;
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        match answer["index_templates"][0].get("index_template").map(|there| mapping::found(&self.index, there)) {
            None | Some(Found::Replace) => self.put_template(&path).await?,
            Some(Found::Keep | Found::Foreign { alias: true }) => {}
            Some(Found::Foreign { alias: false }) => log::warn!(
                "the index template is not goms's and gives no alias, so events of new days will not be found; add the alias index={}",
                self.index
            ),
        }
        if has_undated {
            return Ok(());
        }
        let path = format!("/{}", undated(&self.index));
        let body = json!({"aliases": {&self.index: {"is_write_index": true}}});
        let reply = self.send(Method::Put, &path, &[], Some(body.to_string().into())).await?;
        // another consumer may have been faster
        if !reply.status.is_success() && !reason(&reply.body).starts_with("resource_already_exists_exception") {
            return Err(self.unexpected("PUT", &path, &reply));
        }
        log::info!("alias made for an index a day alias={} address={}", self.index, self.nodes.addresses());
        Ok(())
    }

    /// Tries the kinds of field for unknown content, since no server has all.
    async fn put_template(&self, path: &str) -> Result<(), StoreError> {
        let mut last = None;
        for open in OPEN_FIELDS {
            let template = mapping::template(&self.index, open).to_string();
            let reply = self.send(Method::Put, path, &[], Some(template.into())).await?;
            if reply.status.is_success() {
                log::debug!("index template made index={} open_fields={open:?}", self.index);
                return Ok(());
            }
            let unknown_type = reply.status == StatusCode::BAD_REQUEST;
            last = Some(self.unexpected("PUT", path, &reply));
            if !unknown_type {
                break;
            }
        }
        last.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_has_its_index() {
        let known = Known { names: Names::own(), daily: true, made: true, found: true };
        let now = "2026-11-21T23:30:00Z".parse::<Timestamp>().expect("a time").as_millisecond();
        let hour = 3_600_000;
        for (hours, name) in [
            (0, "t-2026.11.21"),
            (1, "t-2026.11.22"),
            (24, "t-2026.11.22"),
            (25, "t-undated"),
            (-24 * 399, "t-2025.10.18"),
            (-24 * 401, "t-undated"),
        ] {
            assert_eq!(known.place_of(now + hours * hour, now).name("t"), name, "{hours}");
        }
        assert_eq!(known.place_of(i64::MAX, now).name("t"), "t-undated");
        assert_eq!(Known { daily: false, ..known }.place_of(0, now).name("t"), "t");
    }

    #[test]
    fn only_names_of_days_are_days() {
        assert_eq!(day_of("t", "t-2026.11.21"), Date::new(2026, 11, 21).ok());
        for name in [
            "t",
            "t-undated",
            "t-2026.11",
            "t-2026.11.31",
            "t-2026.11.21.1",
            "t-02026.11.21",
            "t-2026.1.01",
            "tt-2026.11.21",
        ] {
            assert_eq!(day_of("t", name), None, "{name}");
        }
    }
}

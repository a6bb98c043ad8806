//! Deleting the indices of old days, and what arrived long ago without a usable time. Any number of consumers may do it at
//! once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::elasticsearch::http::{Method, StatusCode};
use bytes::Bytes;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::StoreError;
use super::index::day_of;
use super::mapping::{ARRIVED, undated};
use super::progress::told;
use super::server::Server;
use crate::shutdown::Shutdown;

/// Days end once a day, and a server that was away is asked again soon enough.
const CHECK_EVERY: Duration = Duration::from_secs(3600);

/// Documents of one request: seconds of work, so that each is answered before it times out.
const DELETED_AT_ONCE: u64 = 20_000;

const DAY_MS: i64 = 86_400_000;

/// How long events are kept, and the task that sees to it.
pub(super) struct Retention {
    retain: Duration,
    shutdown: Shutdown,
    begun: AtomicBool,
}

impl Retention {
    pub fn new(retain: Duration, shutdown: &Shutdown) -> Self {
        Self { retain, shutdown: shutdown.clone(), begun: AtomicBool::new(false) }
    }

    /// Deletes now and every hour, until the end or until nobody holds `alive`; a second call does nothing.
    pub fn begin<T: Send + Sync + 'static>(&self, server: &Arc<Server>, alive: &Arc<T>) {
        if self.begun.swap(true, Ordering::Relaxed) {
            return;
        }
        let (server, alive, retain) = (Arc::clone(server), Arc::downgrade(alive), self.retain);
        let ending = self.shutdown.clone();
        self.shutdown.spawn(async move {
            tokio::select! {
                () = ending.begun() => {}
                () = run(&server, &alive, retain) => {}
            }
        });
    }
}

async fn run<T>(server: &Server, alive: &Weak<T>, retain: Duration) {
    let mut ticks = tokio::time::interval(CHECK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if alive.strong_count() == 0 {
            return;
        }
        if let Err(error) = server.delete_old(retain).await {
            let address = server.nodes.addresses();
            log::warn!("old trace indices cannot be deleted now reason=\"{error:?}\" address={address}");
        }
    }
}

impl Server {
    /// Deletes what lies behind the alias and is named after a day that ended before `retain` ago.
    async fn delete_old(&self, retain: Duration) -> Result<(), StoreError> {
        let path = format!("/_alias/{}", self.index);
        let reply = self.send(Method::Get, &path, &[], None).await?;
        // one index of that name has no alias, and is never deleted
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        let indices: Map<String, Value> = self.json("GET", &path, &reply)?;
        let cutoff = SignedDuration::try_from(retain).ok().and_then(|retain| Timestamp::now().checked_sub(retain).ok());
        let Some(cutoff) = cutoff else { return Ok(()) };
        let is_old = |name: &&String| day_of(&self.index, name).is_some_and(|day| ended_before(day, cutoff));
        let old: Vec<&String> = indices.keys().filter(is_old).collect();
        if !old.is_empty() {
            told(&format!("deleting {} old trace indices", old.len()), self.delete_indices(&old, retain)).await?;
        }
        if indices.contains_key(&undated(&self.index)) {
            told("deleting old trace events without a usable time", self.delete_undated(cutoff)).await?;
        }
        Ok(())
    }

    async fn delete_indices(&self, names: &[&String], retain: Duration) -> Result<(), StoreError> {
        for name in names {
            let path = format!("/{name}");
            let reply = self.send(Method::Delete, &path, &[], None).await?;
            if reply.status.is_success() {
                log::info!("old trace index deleted index={name} retain={retain:?}");
            } else if reply.status != StatusCode::NOT_FOUND {
                return Err(self.unexpected("DELETE", &path, &reply));
            }
        }
        Ok(())
    }

    /// Deletes what arrived before this.
    async fn delete_undated(&self, cutoff: Timestamp) -> Result<(), StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            deleted: u64,
        }
        let path = format!("/{}/_delete_by_query", undated(&self.index));
        let most = DELETED_AT_ONCE.to_string();
        // two consumers may delete the same; a search sees what the last one deleted once it is refreshed
        let parameters = [("conflicts", "proceed"), ("max_docs", most.as_str()), ("refresh", "true")];
        let body = Bytes::from(arrived_before(cutoff.as_millisecond()).to_string());
        let mut deleted = 0;
        loop {
            let reply = self.send(Method::Post, &path, &parameters, Some(body.clone())).await?;
            if reply.status == StatusCode::NOT_FOUND {
                return Ok(());
            }
            let answer: Answer = self.json("POST", &path, &reply)?;
            deleted += answer.deleted;
            if answer.deleted < DELETED_AT_ONCE {
                break;
            }
        }
        if deleted > 0 {
            log::info!("old trace events without a usable time deleted count={deleted} index={}", undated(&self.index));
        }
        Ok(())
    }
}

/// What others wrote to the alias does not say when it arrived; its `time` is local, so a day off at most.
fn arrived_before(cutoff_ms: i64) -> Value {
    let before = |field: &str, ms: i64| json!({"range": {field: {"lt": ms, "format": "epoch_millis"}}});
    json!({"query": {"bool": {"minimum_should_match": 1, "should": [
        before(ARRIVED, cutoff_ms),
        {"bool": {
            "must_not": {"exists": {"field": ARRIVED}},
            "filter": before("time", cutoff_ms.saturating_sub(DAY_MS)),
        }},
    ]}}})
}

fn ended_before(day: Date, cutoff: Timestamp) -> bool {
    let end = day.tomorrow().and_then(|next| next.to_zoned(TimeZone::UTC));
    end.is_ok_and(|end| end.timestamp() <= cutoff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_goes_as_a_whole() {
        let day = Date::new(2026, 11, 21).expect("a day");
        for (cutoff, goes) in [("2026-11-21T23:59:59.999Z", false), ("2026-11-22T00:00:00Z", true)] {
            assert_eq!(ended_before(day, cutoff.parse().expect("a time")), goes, "{cutoff}");
        }
    }
}

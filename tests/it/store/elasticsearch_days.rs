//! Days of events: each has an index of its own, which is deleted when it is old.

use elasticsearch::http::Method;
use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use goms::store::{Elasticsearch, ElasticsearchSettings, Query, TraceStore};
use serde_json::{Value, json};

use super::elasticsearch::TestIndex;
use super::{Sample, all, ids, put, until};

/// Events without a usable time go when they arrived long ago; of what others wrote to the alias, when it happened.
#[tokio::test]
async fn old_events_without_a_usable_time_are_deleted() {
    let Some(index) = TestIndex::new() else { return };
    let samples: Vec<Sample> = (0..3).map(|at| Sample::new("request.start", at)).collect();
    put(&index.store(), &samples).await;
    let path = |sample: &Sample| format!("/{}-undated/_doc/{}", index.name, sample.id);
    let stored = index.call(Method::Get, &path(&samples[0]), None).await["_source"].clone();
    let arrived = stored["gomsArrived"].as_i64().expect("when it arrived");
    assert!((now_ms() - arrived).abs() < DAY_MS, "{arrived}");
    let mut old = stored.clone();
    old["gomsArrived"] = json!(arrived - 8 * DAY_MS);
    index.call(Method::Put, &path(&samples[0]), Some(old)).await;
    for (id, time) in [("a", "2020-01-01 00:00:00"), ("b", "2999-01-01 00:00:00"), ("c", "never")] {
        let path = format!("/{}-undated/_doc/{id}", index.name);
        index.call(Method::Put, &path, Some(json!({"event": "go", "time": time}))).await;
    }
    index.refresh().await;
    let retain = Some(std::time::Duration::from_secs(7 * 86_400));
    let shutdown = Shutdown::new();
    let settings = ElasticsearchSettings { retain, ..index.settings() };
    let store = Elasticsearch::open(&settings, &shutdown, &Metrics::new()).expect("opened");
    assert_eq!(store.query(&all()).await.expect("found").total, 6);
    put(&store, &samples[1..]).await;
    until("old events are deleted", &store, &all(), |page| page.total == 4).await;
    let page = store.query(&Query { since_ms: Some(0), ..all() }).await.expect("found");
    assert_eq!(ids(&page), [samples[2].id.to_string(), samples[1].id.to_string()]);
    // as they came
    let event: Value = serde_json::from_str(page.events[0].get()).expect("JSON");
    assert_eq!(event, samples[2].json());
    shutdown.begin();
    index.delete().await;
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

const DAY_MS: i64 = 86_400_000;

impl TestIndex {
    /// The indices there are, and how many events each holds.
    async fn counts(&self) -> Vec<(String, u64)> {
        self.refresh().await;
        let found = self.call(Method::Get, &format!("/{}*/_stats/docs", self.name), None).await;
        let indices = found["indices"].as_object().expect("indices");
        let count = |stats: &Value| stats["primaries"]["docs"]["count"].as_u64().expect("a count");
        let named = |name: &String| name.strip_prefix(&self.name).expect("the name").to_owned();
        let mut counts: Vec<_> = indices.iter().map(|(name, stats)| (named(name), count(stats))).collect();
        counts.sort();
        counts
    }

    async fn template(&self) -> Value {
        let found = self.call(Method::Get, &format!("/_index_template/{}", self.name), None).await;
        found["index_templates"][0]["index_template"].clone()
    }
}

fn day_name(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).expect("a time").to_zoned(jiff::tz::TimeZone::UTC);
    time.strftime("-%Y.%m.%d").to_string()
}

/// Each event by its own day, once; what others write to the alias is taken; foreign indices are left alone.
#[tokio::test]
async fn events_go_to_the_index_of_their_day() {
    let Some(index) = TestIndex::new() else { return };
    let store = index.store();
    let now = now_ms();
    let times = [now, now - 2 * DAY_MS, now - 500 * DAY_MS, now + 3 * DAY_MS];
    let samples: Vec<Sample> = times.iter().map(|at| Sample::new("request.start", *at)).collect();
    put(&store, &samples).await;
    // another consumer
    put(&index.store(), &samples).await;
    let expected = [(day_name(now - 2 * DAY_MS), 1), (day_name(now), 1), ("-undated".to_owned(), 2)];
    assert_eq!(index.counts().await, expected);
    let page = store.query(&all()).await.expect("found");
    let newest: Vec<String> = [3, 0, 1, 2].iter().map(|at: &usize| samples[*at].id.to_string()).collect();
    assert_eq!(ids(&page), newest);
    let posted = index.call(Method::Post, &format!("/{}/_doc", index.name), Some(json!({"event": "go"}))).await;
    assert_eq!(posted["_index"], format!("{}-undated", index.name));
    let foreign = format!("{}-mine", index.name);
    index.call(Method::Put, &format!("/{foreign}"), None).await;
    let foreign = index.call(Method::Get, &format!("/{foreign}"), None).await;
    assert!(!foreign.to_string().contains("gomsWords"), "{foreign}");
    index.delete().await;
}

#[tokio::test]
async fn an_older_template_of_goms_is_replaced_and_no_other() {
    let Some(index) = TestIndex::new() else { return };
    put(&index.store(), &[Sample::new("request.start", now_ms())]).await;
    let current = index.template().await;
    assert_eq!(current["_meta"]["made_by"], "goms");
    let path = format!("/_index_template/{}", index.name);
    for (name, value, stays) in
        [("version", json!(1), false), ("version", json!(99), true), ("_meta", json!({"made_by": "me"}), true)]
    {
        let mut changed = current.clone();
        changed[name] = value;
        index.call(Method::Put, &path, Some(changed.clone())).await;
        put(&index.store(), &[Sample::new("request.start", now_ms())]).await;
        assert_eq!(index.template().await, if stays { changed } else { current.clone() }, "{name}");
    }
    index.delete().await;
}

/// Days that are wholly over go, with two consumers at once; the rest stays, and what is not of goms.
#[tokio::test]
async fn old_days_are_deleted() {
    let Some(index) = TestIndex::new() else { return };
    let now = now_ms();
    let times = [now, now - 2 * DAY_MS, now - 20 * DAY_MS, now - 30 * DAY_MS, 0];
    let samples: Vec<Sample> = times.iter().map(|at| Sample::new("request.start", *at)).collect();
    put(&index.store(), &samples).await;
    let foreign = format!("/{}-2020.01.01x", index.name);
    index.call(Method::Put, &foreign, None).await;
    let retain = Some(std::time::Duration::from_secs(7 * 86_400));
    let settings = ElasticsearchSettings { retain, ..index.settings() };
    let shutdown = Shutdown::new();
    let open = || Elasticsearch::open(&settings, &shutdown, &Metrics::new()).expect("opened");
    let (reader, one, other) = (open(), open(), open());
    index.refresh().await;
    assert_eq!(reader.query(&all()).await.expect("found").total, 5);
    put(&one, &samples[..1]).await;
    put(&other, &samples[..1]).await;
    until("old days are deleted", &reader, &all(), |page| page.total == 3).await;
    let left: Vec<String> = index.counts().await.into_iter().map(|(name, _)| name).collect();
    let expected = ["-2020.01.01x".to_owned(), day_name(now - 2 * DAY_MS), day_name(now), "-undated".to_owned()];
    assert_eq!(left, expected);
    shutdown.begin();
    assert!(shutdown.finished(std::time::Duration::from_secs(5)).await, "the task of retention ends");
    index.delete().await;
}

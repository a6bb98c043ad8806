//! Credentials and TLS.

use std::time::Duration;

use goms::consumer;
use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use goms::store::{Elasticsearch, ElasticsearchLogin, ElasticsearchSettings, StoreError, TraceStore};
use lapin::options::QueueDeclareOptions;

use super::elasticsearch::{TestIndex, open};
use super::{Sample, all, put, until};
use crate::support::events::{amqp_settings, consumer_settings, event, run, until as until_true};
use crate::support::gate::{Gate, Rules};
use crate::support::rabbitmq::Client;
use crate::support::servers;
use crate::support::tls::Identity;

/// `user:pass`, as `printf user:pass | base64` says.
const BASIC: &str = "Basic dXNlcjpwYXNz";
/// `id:key` likewise.
const API_KEY: &str = "ApiKey aWQ6a2V5";

fn known(header: &str) -> Rules {
    Rules { known: vec![header.to_owned()], forbidden: None }
}

fn user(password: &str) -> Option<ElasticsearchLogin> {
    Some(ElasticsearchLogin::User { user: "user".to_owned(), password: password.to_owned() })
}

fn api_key(key: &str) -> Option<ElasticsearchLogin> {
    Some(ElasticsearchLogin::ApiKey(key.to_owned()))
}

/// Settings of an index behind a gate, with the gate's CA in a file.
struct Behind {
    index: TestIndex,
    gate: Gate,
    folder: tempfile::TempDir,
}

impl Behind {
    async fn new(rules: Rules) -> Option<Self> {
        let index = TestIndex::new()?;
        let gate = Gate::start(&index.url, rules).await;
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), &gate.ca).expect("written");
        Some(Self { index, gate, folder })
    }

    fn settings(&self, login: Option<ElasticsearchLogin>) -> ElasticsearchSettings {
        ElasticsearchSettings {
            urls: vec![self.gate.url.clone()],
            login,
            ca_file: Some(self.folder.path().join("ca.pem")),
            ..self.index.settings()
        }
    }
}

fn hint_of(error: &StoreError) -> &str {
    let StoreError::Setting { hint, .. } = error else { panic!("{error:?}") };
    hint
}

#[tokio::test]
async fn each_way_to_be_let_in_works_over_tls() {
    let Some(behind) = Behind::new(Rules::default()).await else { return };
    let at = |credentials: &str| vec![behind.gate.url.replace("https://", &format!("https://{credentials}@"))];
    let ways = [
        (BASIC, behind.settings(user("pass"))),
        (API_KEY, behind.settings(api_key("aWQ6a2V5"))),
        (API_KEY, behind.settings(api_key("id:key"))),
        (BASIC, ElasticsearchSettings { urls: at("user:p%61ss"), ..behind.settings(None) }),
    ];
    for (number, (header, settings)) in ways.into_iter().enumerate() {
        *behind.gate.rules.lock().unwrap() = known(header);
        let store = open(&settings);
        put(&store, &[Sample::new("request.start", 0)]).await;
        behind.index.refresh().await;
        assert_eq!(store.query(&all()).await.expect("found").total, number as u64 + 1);
    }
    behind.index.delete().await;
}

#[tokio::test]
async fn who_is_not_let_in_hears_which_key_to_set() {
    let Some(behind) = Behind::new(known(BASIC)).await else { return };
    let sample = Sample::new("request.start", 0);
    for (login, key) in [
        (None, "set `es.user` and `es.password`, or `es.apiKey`"),
        (user("wr0ng"), "look at `es.user` and `es.password`"),
        (api_key("wr0ng"), "set another `es.apiKey`"),
    ] {
        let store = open(&behind.settings(login));
        let errors = [
            store.write(&[sample.document()]).await.expect_err("not let in"),
            store.query(&all()).await.expect_err("not let in"),
        ];
        for error in errors {
            assert!(hint_of(&error).ends_with(key), "{error}");
            assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error:?}");
        }
    }
    for forbidden in ["_index_template", "_bulk", "_mapping"] {
        *behind.gate.rules.lock().unwrap() = Rules { forbidden: Some(forbidden), ..known(BASIC) };
        let error = open(&behind.settings(user("pass"))).write(&[sample.document()]).await.expect_err("not allowed");
        assert!(hint_of(&error).starts_with("it does not allow the user `user` of `es.user` to do this"), "{error}");
    }
    behind.index.delete().await;
}

/// A user who may do everything but write to the index: Elasticsearch says so of each document.
#[tokio::test]
async fn a_bulk_that_may_write_nothing_is_a_denial() {
    use crate::support::origin::{Origin, Reply, json};
    let item = r#"{"index":{"status":403,"error":{"type":"security_exception","reason":"unauthorized"}}}"#;
    let origin = Origin::start(move |seen, _| {
        Reply::Bytes(if seen.target.contains("_bulk") {
            json(&format!(r#"{{"items":[{item},{item}]}}"#))
        } else {
            json(r#"{"trace_logs":{"mappings":{}}}"#)
        })
    })
    .await;
    let store = open(&super::elasticsearch::settings(&format!("http://{}", origin.address), "trace_logs"));
    let sample = Sample::new("request.start", 0);
    let error = store.write(&[sample.document(), sample.document()]).await.expect_err("denied");
    assert!(hint_of(&error).contains("on the indices `trace_logs*`"), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted_is_not_spoken_to() {
    let Some(behind) = Behind::new(known(BASIC)).await else { return };
    let sample = Sample::new("request.start", 0).document();
    let write = async |settings: &ElasticsearchSettings| {
        open(settings).write(std::slice::from_ref(&sample)).await.expect_err("no connection")
    };
    let settings = behind.settings(user("pass"));
    let without = ElasticsearchSettings { ca_file: None, ..settings.clone() };
    let other = behind.folder.path().join("other.pem");
    std::fs::write(&other, Identity::new().ca).expect("written");
    let other = ElasticsearchSettings { ca_file: Some(other), ..settings.clone() };
    for settings in [without, other] {
        let error = write(&settings).await;
        assert!(hint_of(&error).ends_with("set `es.caFile`"), "{error}");
    }
    let named = behind.gate.url.replace("127.0.0.1", "localhost");
    let error = write(&ElasticsearchSettings { urls: vec![named], ..settings.clone() }).await;
    assert!(hint_of(&error).contains("is for another name"), "{error}");
    let plain = behind.index.url.replace("http://", "https://");
    let error = write(&ElasticsearchSettings { urls: vec![plain], ..settings.clone() }).await;
    assert!(hint_of(&error).contains("write `http://`"), "{error}");
    assert!(behind.gate.seen().is_empty(), "no password went out");
    for (name, text) in [("missing.pem", None), ("empty.pem", Some("")), ("bad.pem", Some("-----BEGIN"))] {
        let path = behind.folder.path().join(name);
        if let Some(text) = text {
            std::fs::write(&path, text).expect("written");
        }
        let settings = ElasticsearchSettings { ca_file: Some(path), ..settings.clone() };
        let opened = Elasticsearch::open(&settings, &Shutdown::new(), &Metrics::new());
        let error = opened.err().expect("no certificate");
        assert!(hint_of(&error).starts_with("`es.caFile`") && hint_of(&error).contains(name), "{error}");
    }
}

/// A wrong password loses nothing: events wait in the queue, `/readyz` says why, and once it is right they are stored.
#[test]
fn events_wait_until_the_password_is_right() {
    run(async {
        let Some(url) = servers::amqp() else { return };
        let Some(behind) = Behind::new(known("Basic bm90aGluZw==")).await else { return };
        let queue = servers::unique("trace");
        let client = Client::connect(&url).await;
        client.declare(&queue, QueueDeclareOptions::durable()).await;
        for number in 0..3 {
            client.publish(&queue, &event(number).to_json()).await;
        }
        let store = std::sync::Arc::new(open(&behind.settings(user("pass"))));
        let settings = consumer_settings(Some(amqp_settings(&url, &queue)));
        let (metrics, shutdown) = (Metrics::new(), Shutdown::new());
        let running = consumer::start(&settings, store.clone(), None, &metrics, &shutdown).expect("a consumer");
        let health = running.health();
        let told = || health.trouble().is_some_and(|trouble| trouble.contains("look at `es.user` and `es.password`"));
        until_true("the trouble is told", told).await;
        *behind.gate.rules.lock().unwrap() = known(BASIC);
        until_true("all is well", || health.trouble().is_none()).await;
        behind.index.refresh().await;
        until("all are stored", &*store, &all(), |page| page.total == 3).await;
        assert!(client.look(&format!("{queue}.dead")).await.is_none(), "nothing was refused");
        assert!(running.stop(Duration::from_secs(10)).await);
        client.delete(&queue).await;
        behind.index.delete().await;
    });
}

//! Several addresses of one cluster.

use goms::store::{ElasticsearchSettings, Query, StoreError, TraceStore};

use super::elasticsearch::{TestIndex, open};
use super::{Sample, all, ids, put};
use crate::support::origin::{Origin, Reply, answer, dead};
use crate::support::proxy::Proxy;

fn with_addresses(index: &TestIndex, urls: &[String]) -> ElasticsearchSettings {
    ElasticsearchSettings { urls: urls.to_vec(), ..index.settings() }
}

fn host(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// One address is dead, the other dies and comes back: what can be written is, and nothing twice.
#[tokio::test]
async fn an_address_that_fails_is_passed_over() {
    let Some(index) = TestIndex::new() else { return };
    let (one, other) = (Proxy::start(host(&index.url)), Proxy::start(host(&index.url)));
    let urls = [format!("http://{}", dead()), format!("http://{}", one.address), format!("http://{}", other.address)];
    let store = open(&with_addresses(&index, &urls));
    let samples: Vec<Sample> = (0..8).map(|at| Sample::new("request.start", at)).collect();
    put(&store, &samples[..2]).await;
    put(&store, &samples[..4]).await;
    for (proxy, range) in [(&one, 2..5), (&other, 4..6)] {
        proxy.away(true);
        for at in range {
            put(&store, &samples[at..=at]).await;
        }
        proxy.away(false);
    }
    one.away(true);
    other.away(true);
    let error = store.write(&[samples[6].document()]).await.expect_err("nobody is there");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    one.away(false);
    // all are passed over for now, and the one that is back is found nevertheless
    put(&store, &samples[6..]).await;
    index.refresh().await;
    let mut expected: Vec<String> = samples.iter().map(|sample| sample.id.to_string()).collect();
    expected.reverse();
    assert_eq!(ids(&store.query(&all()).await.expect("found")), expected);
    index.delete().await;
}

/// Requests go to each address in turn, once each is known to answer.
#[tokio::test]
async fn addresses_are_used_in_turn() {
    let Some(index) = TestIndex::new() else { return };
    let empty = r#"{"hits":{"total":{"value":0},"hits":[]}}"#;
    let script = move |seen: &crate::support::wire::Seen, _| {
        let status = if seen.target.contains("_mapping") { "404 Not Found" } else { "200 OK" };
        Reply::Bytes(answer(status, "", if status == "200 OK" { empty } else { "{}" }))
    };
    let (one, other) = (Origin::start(script).await, Origin::start(script).await);
    let urls = [&one, &other].map(|origin| format!("http://{}", origin.address));
    let store = open(&with_addresses(&index, &urls));
    for _ in 0..4 {
        store.query(&Query { limit: 1, ..Query::default() }).await.expect("an answer");
    }
    for origin in [one, other] {
        let asked = origin.seen().iter().filter(|seen| seen.target != "/").count();
        assert_eq!(asked, 4, "{:?}", origin.seen());
    }
}

/// A load balancer whose own servers are gone.
#[tokio::test]
async fn a_proxy_without_servers_is_passed_over() {
    let Some(index) = TestIndex::new() else { return };
    let page = || answer("503 Service Unavailable", "", "<html>no server is available</html>");
    let proxy = Origin::start(move |_, _| Reply::Bytes(page())).await;
    let urls = [format!("http://{}", proxy.address), index.url.clone()];
    let store = open(&with_addresses(&index, &urls));
    put(&store, &[Sample::new("request.start", 0), Sample::new("request.start", 1)]).await;
    index.refresh().await;
    assert_eq!(store.query(&all()).await.expect("found").total, 2);
    assert!(!proxy.seen().is_empty());
    index.delete().await;
}

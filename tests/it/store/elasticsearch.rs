//! What only Elasticsearch has to get right.

use elasticsearch::http::Method;
use elasticsearch::http::headers::HeaderMap;
use elasticsearch::http::transport::Transport;
use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use goms::store::{
    Elasticsearch, ElasticsearchSettings, GroupBy, Outcome, Query, Stats, StatsQuery, StoreError, TraceStore,
};
use serde_json::{Value, json};

use super::{Sample, all, ids, put};
use crate::support::origin::{Origin, Reply, answer, json as json_answer};
use crate::support::servers;

/// An index of the shared server that only one test uses.
pub struct TestIndex {
    pub url: String,
    pub name: String,
    transport: Transport,
}

impl TestIndex {
    pub fn new() -> Option<Self> {
        let url = servers::elasticsearch()?;
        let transport = Transport::single_node(&url).expect("a URL");
        Some(Self { url, name: servers::unique("goms-test-"), transport })
    }

    pub fn settings(&self) -> ElasticsearchSettings {
        settings(&self.url, &self.name)
    }

    pub fn store(&self) -> Elasticsearch {
        open(&self.settings())
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let body = body.map(|body| body.to_string());
        let sent = self.transport.send(method, path, HeaderMap::new(), None::<&()>, body, None).await;
        sent.expect("an answer").json().await.expect("JSON")
    }

    pub async fn refresh(&self) {
        // a missing index needs none
        let answer = self.call(Method::Post, &format!("/{}/_refresh?ignore_unavailable=true", self.name), None).await;
        assert_eq!(answer["_shards"]["failed"], 0, "{answer}");
    }

    pub async fn delete(&self) {
        self.call(Method::Delete, &format!("/{0},{0}-*?ignore_unavailable=true", self.name), None).await;
        self.call(Method::Delete, &format!("/_index_template/{}", self.name), None).await;
    }
}

/// Keeps everything.
pub fn settings(url: &str, index: &str) -> ElasticsearchSettings {
    ElasticsearchSettings { urls: vec![url.to_owned()], index: index.to_owned(), ..ElasticsearchSettings::default() }
}

pub fn open(settings: &ElasticsearchSettings) -> Elasticsearch {
    Elasticsearch::open(settings, &Shutdown::new(), &Metrics::new()).expect("opened")
}

#[tokio::test]
async fn one_bad_document_is_refused_and_the_rest_stored() {
    let Some(index) = TestIndex::new() else { return };
    let store = index.store();
    let samples: Vec<Sample> = (0..5).map(|at| Sample::new("request.start", at)).collect();
    let mut batch: Vec<_> = samples.iter().map(Sample::document).collect();
    let mut bad = samples[2].json();
    bad["timeMs"] = json!("yesterday");
    batch[2] = samples[2].with_json(&bad.to_string());
    let outcomes = store.write(&batch).await.expect("written");
    for (at, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Outcome::Refused(reason) if at == 2 => assert!(reason.contains("timeMs"), "{reason}"),
            Outcome::Stored if at != 2 => {}
            other => panic!("document {at}: {other:?}"),
        }
    }
    index.refresh().await;
    assert_eq!(store.query(&all()).await.expect("found").total, 4);
    index.delete().await;
}

#[tokio::test]
async fn a_read_only_index_is_for_later() {
    let Some(index) = TestIndex::new() else { return };
    let store = index.store();
    let sample = Sample::new("request.start", 1);
    put(&store, &[Sample::new("request.start", 0)]).await;
    let settings = format!("/{}/_settings", index.name);
    // by hand, and as the server does when its disk is full
    for block in ["index.blocks.write", "index.blocks.read_only_allow_delete"] {
        index.call(Method::Put, &settings, Some(json!({ block: true }))).await;
        let outcomes = store.write(&[sample.document()]).await.expect("an answer for each");
        assert!(matches!(&outcomes[..], [Outcome::Later(reason)] if reason.contains("block")), "{outcomes:?}");
        index.call(Method::Put, &settings, Some(json!({ block: null }))).await;
    }
    put(&store, &[sample]).await;
    index.delete().await;
}

/// The originals' consumer posts to `/trace_logs/_doc/`, and Elasticsearch guesses the mapping.
#[tokio::test]
async fn an_index_of_the_originals_works() {
    let Some(index) = TestIndex::new() else { return };
    let go = json!({
        "requestId": "cdb08456-d8a7-4d53-93c2-a5e3f01f56d6",
        "request": {"method": "POST", "url": "/api/user/login", "urlParam": "", "clientIp": "127.0.0.1",
            "headers": {"Accept": "*/*"}, "body": {"ds1": "eleven"}},
        "event": "request.start", "time": "2026-11-21 07:56:07", "serviceName": "gateway",
        "serviceId": "goms_gateway_127.0.0.1:18180_127.0.0.1:18080", "projectName": "goms", "trace": null,
    });
    index.call(Method::Post, &format!("/{}/_doc/", index.name), Some(go.clone())).await;
    let store = index.store();
    let samples =
        [Sample::new("request.start", 1000), Sample::new("request.end", 2000).end(500, 7).body(json!({"w": "zoë"}))];
    put(&store, &samples).await;
    put(&store, &samples).await;
    index.refresh().await;

    let found = |query: Query| {
        let store = &store;
        async move { store.query(&query).await.expect("found") }
    };
    let newest = found(Query { since_ms: Some(0), ..all() }).await;
    assert_eq!(ids(&newest), [samples[1].id.to_string(), samples[0].id.to_string()]);
    let of_request = |id: &str| Query { request_id: Some(id.to_owned()), ..all() };
    assert_eq!(ids(&found(of_request(&samples[0].fields.request_id)).await), [samples[0].id.to_string()]);
    let page = found(of_request("cdb08456-d8a7-4d53-93c2-a5e3f01f56d6")).await;
    assert_eq!(serde_json::from_str::<Value>(page.events[0].get()).expect("JSON"), go);
    assert_eq!(found(all()).await.total, 3);
    let narrow = Query {
        url: Some("/api/user/login".to_owned()),
        event: Some("request.end".to_owned()),
        node: Some("127.0.0.1:8180:8080".to_owned()),
        status: Some((500, 599)),
        ..all()
    };
    assert_eq!(ids(&found(narrow).await), [samples[1].id.to_string()]);
    for (text, total) in [("zoë", 1), ("ELEVEN", 1), ("eleven zoë", 0), ("\" OR *", 0), ("{", 3)] {
        assert_eq!(found(Query { text: Some(text.to_owned()), ..all() }).await.total, total, "{text}");
    }
    let first = found(Query { limit: 2, ..all() }).await;
    let last = found(Query { limit: 2, after: first.next, ..all() }).await;
    assert_eq!((last.events.len(), last.next), (1, None));
    // events of goms stand there as they are, without anything of its own mapping
    let mapping = index.call(Method::Get, &format!("/{}/_mapping", index.name), None).await;
    assert!(!mapping.to_string().contains("gomsWords"), "{mapping}");
    index.delete().await;
}

#[tokio::test]
async fn a_client_cannot_explode_the_mapping() {
    let Some(index) = TestIndex::new() else { return };
    let store = index.store();
    put(&store, &[Sample::new("request.start", 0)]).await;
    let path = format!("/{}/_mapping", index.name);
    let before = index.call(Method::Get, &path, None).await;
    let many = (0..2000).map(|at| (format!("field{at}"), json!({"x": at}))).collect::<serde_json::Map<_, _>>();
    let mixed =
        [json!(many), json!({"a": 1}), json!({"a": {"b": "text"}}), json!(["a", 1]), json!("text"), Value::Null];
    let samples: Vec<Sample> =
        mixed.into_iter().zip(1..).map(|(body, at)| Sample::new("request.start", at).body(body)).collect();
    put(&store, &samples).await;
    assert_eq!(index.call(Method::Get, &path, None).await, before);
    index.refresh().await;
    let page = store.query(&Query { since_ms: Some(5), until_ms: Some(6), ..all() }).await.expect("found");
    let event: Value = serde_json::from_str(page.events[0].get()).expect("JSON");
    assert_eq!(event["request"]["body"], json!({"value": "text"}));
    index.delete().await;
}

/// Sound JSON that Elasticsearch takes in no field.
#[tokio::test]
async fn no_body_keeps_its_event_out() {
    let Some(index) = TestIndex::new() else { return };
    let store = index.store();
    let deep = format!("{}1{}", "{\"a\":".repeat(300), "}".repeat(300));
    let long_key = format!("{{\"{}\":1}}", "k".repeat(40_000));
    let bodies = [r#"{"twice":1,"twice":"zoë"}"#, r#"{"zero\u0000":1}"#, &deep, &long_key, "{\"fine\":1}"];
    let samples: Vec<Sample> = (0..bodies.len()).map(|_| Sample::new("request.start", 9)).collect();
    let with_body = |(sample, body): (&Sample, &&str)| {
        sample.with_json(&sample.json().to_string().replace("\"body\":{}", &format!("\"body\":{body}")))
    };
    let batch: Vec<_> = samples.iter().zip(&bodies).map(with_body).collect();
    let outcomes = store.write(&batch).await.expect("written");
    assert_eq!(outcomes, vec![Outcome::Stored; bodies.len()]);
    index.refresh().await;
    assert_eq!(store.query(&all()).await.expect("found").total, 5);
    let page = store.query(&Query { text: Some("zoë".to_owned()), ..all() }).await.expect("found");
    let event: Value = serde_json::from_str(page.events[0].get()).expect("JSON");
    assert_eq!(event["request"]["body"], json!({"value": bodies[0]}));
    index.delete().await;
}

#[tokio::test]
async fn an_index_that_was_deleted_is_made_again() {
    let Some(index) = TestIndex::new() else { return };
    let store = index.store();
    put(&store, &[Sample::new("request.start", 0)]).await;
    index.call(Method::Delete, &format!("/{}-*", index.name), None).await;
    assert_eq!(store.query(&all()).await.expect("empty").total, 0);
    put(&store, &[Sample::new("request.start", 1)]).await;
    index.refresh().await;
    let query = Query { text: Some("curl".to_owned()), ..all() };
    assert_eq!(store.query(&query).await.expect("found").total, 1);
    index.delete().await;
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable() {
    // a port that was just free
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    let url = format!("http://user:secret@127.0.0.1:{port}");
    let store = open(&settings(&url, "trace_logs"));
    let write = store.write(&[Sample::new("request.start", 0).document()]).await.expect_err("nobody is there");
    let query = store.query(&all()).await.expect_err("nobody is there");
    for error in [write, query] {
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}

/// Groups, errors, percentiles and buckets; what no event says counts as nothing.
#[tokio::test]
async fn requests_are_counted_by_service_and_by_edge() {
    let Some(index) = TestIndex::new() else { return };
    let store = index.store();
    let by_edge = StatsQuery { by: GroupBy::Edge, ..StatsQuery::default() };
    assert_eq!(store.stats(&by_edge).await.expect("counted"), Stats::default());
    let mut samples: Vec<Sample> = (1..=100_u16)
        .map(|at| {
            let status = if at <= 7 { 503 } else { 200 };
            Sample::new("service.end", 1000 + i64::from(at) * 10).end(status, u64::from(at) * 1_000_000)
        })
        .collect();
    samples.push(Sample::new("service.start", 1));
    samples.push(Sample::new("request.end", 1500).end(404, 5_000_000));
    put(&store, &samples).await;
    index.refresh().await;

    let stats = store.stats(&by_edge).await.expect("counted");
    assert_eq!((stats.first_ms, stats.last_ms), (Some(1010), Some(2000)));
    let names: Vec<_> = stats.groups.iter().map(|group| (group.caller.as_deref(), group.service.as_str())).collect();
    assert_eq!(names, [(Some("gateway"), "user"), (None, "gateway")]);
    let total = &stats.groups[0].total;
    assert_eq!((total.count, total.errors), (100, 7));
    for (took, expected) in [(total.p50_ns, 50), (total.p95_ns, 95), (total.p99_ns, 99)] {
        let expected = expected * 1_000_000;
        assert!(took.abs_diff(expected) <= expected / 500, "{took} {expected}");
    }

    let filter = Query { since_ms: Some(1005), until_ms: Some(2000), caller: Some("gateway".to_owned()), ..all() };
    let query = StatsQuery { filter, bucket_ms: Some(100), by: GroupBy::Service };
    let stats = store.stats(&query).await.expect("counted");
    assert_eq!(stats.groups.len(), 1);
    let buckets = &stats.groups[0].buckets;
    let counts: Vec<_> = buckets.iter().map(|bucket| (bucket.start_ms, bucket.summary.count)).collect();
    let expected: Vec<_> = (0..10).map(|at| (1000 + at * 100, if at == 0 { 9 } else { 10 })).collect();
    assert_eq!(counts, expected);
    assert_eq!(buckets.iter().map(|bucket| bucket.summary.errors).collect::<Vec<_>>()[..2], [7, 0]);
    let long = StatsQuery { bucket_ms: Some(u64::MAX), ..query.clone() };
    assert_eq!(store.stats(&long).await.expect("counted").groups[0].buckets.len(), 1);
    let none = StatsQuery { bucket_ms: Some(0), ..query };
    assert!(matches!(store.stats(&none).await, Err(StoreError::Query(_))));
    for filter in [
        Query { trace_id: Some(samples[3].fields.trace_id.clone()), ..all() },
        Query { action: Some("user/login".to_owned()), since_ms: Some(1040), until_ms: Some(1041), ..all() },
    ] {
        assert_eq!(ids(&store.query(&filter).await.expect("found")), [samples[3].id.to_string()]);
    }
    index.delete().await;
}

/// A proxy's page says nothing of the events behind it; what Elasticsearch says of them counts.
#[tokio::test]
async fn a_page_of_a_proxy_refuses_nothing() {
    let page = "<html><h1>Bad Request</h1></html>";
    let error = r#"{"error":{"type":"parse_exception","reason":"bad"},"status":400}"#;
    let (small, large) =
        (Sample::new("request.start", 0), Sample::new("request.start", 0).body(json!("x".repeat(2 << 20))));
    // status, what it says, the document, whether it is refused; `None`: nothing is known
    let cases = [
        ("400 Bad Request", page, &small, None),
        ("400 Bad Request", r#"{"message":"no"}"#, &small, None),
        ("400 Bad Request", error, &small, Some(true)),
        ("413 Payload Too Large", page, &small, Some(false)),
        ("413 Payload Too Large", page, &large, Some(true)),
        ("413 Payload Too Large", "", &small, Some(false)),
    ];
    for (status, body, sample, refused) in cases {
        let origin = Origin::start(move |seen, _| {
            Reply::Bytes(if seen.target.contains("_bulk") {
                answer(status, "", body)
            } else {
                json_answer(r#"{"trace_logs":{"mappings":{}}}"#)
            })
        })
        .await;
        let store = open(&settings(&format!("http://{}", origin.address), "trace_logs"));
        let result = store.write(&[sample.document(), sample.document()]).await;
        match (result, refused) {
            (Err(StoreError::Unavailable { .. } | StoreError::Rejected { .. }), None) => {}
            (Ok(outcomes), Some(true)) if matches!(outcomes[..], [Outcome::Refused(_), Outcome::Refused(_)]) => {}
            (Ok(outcomes), Some(false)) if matches!(outcomes[..], [Outcome::Later(_), Outcome::Later(_)]) => {}
            (result, _) => panic!("{status} {body}: {result:?}"),
        }
    }
}

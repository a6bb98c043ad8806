//! What every store must do. Each test runs against each store; a store is empty when a test gets it.

use std::collections::HashSet;

use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use goms::store::{self, Order, Outcome, Query, Settings, StoreError, TraceStore};
use serde_json::{Value, json};

use super::counting::{
    nothing_is_counted_as_nothing, queries_that_cannot_be_counted_are_refused, requests_are_counted,
    what_is_counted_has_no_pages,
};
use super::elasticsearch::TestIndex;
use super::{Sample, TempDir, all, ids, put};

/// A store and how to make what was written visible.
pub struct Subject {
    pub store: std::sync::Arc<dyn TraceStore>,
    index: Option<TestIndex>,
    _dir: Option<TempDir>,
}

impl Subject {
    fn embedded() -> Option<Self> {
        let dir = TempDir::new();
        let settings = Settings::Embedded { dir: dir.0.join("made/when/missing"), retain: None };
        let store = store::open(&settings, &Shutdown::new(), &Metrics::new()).expect("opened");
        Some(Self { store, index: None, _dir: Some(dir) })
    }

    fn elasticsearch() -> Option<Self> {
        let index = TestIndex::new()?;
        let settings = index.settings();
        let store = store::open(&Settings::Elasticsearch(settings), &Shutdown::new(), &Metrics::new()).expect("opened");
        Some(Self { store, index: Some(index), _dir: None })
    }

    /// Whether it may take the next higher rank for a percentile instead of the nearest: servers differ by version.
    pub fn may_round_up(&self) -> bool {
        self.index.is_some()
    }

    async fn settle(&self) {
        if let Some(index) = &self.index {
            index.refresh().await;
        }
    }

    pub async fn put(&self, samples: &[Sample]) {
        put(&*self.store, samples).await;
        self.settle().await;
    }

    async fn found(&self, query: &Query) -> Vec<String> {
        let page = self.store.query(query).await.expect("found");
        assert_eq!(page.total, page.events.len() as u64, "{query:?}");
        ids(&page)
    }
}

macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $test() {
                if let Some(subject) = super::Subject::embedded() { super::$test(&subject).await; }
            })*
        }
        mod elasticsearch {
            $(#[tokio::test]
            async fn $test() {
                if let Some(subject) = super::Subject::elasticsearch() {
                    super::$test(&subject).await;
                    if let Some(index) = &subject.index { index.delete().await; }
                }
            })*
        }
    };
}

conformance!(
    an_empty_store_answers,
    each_filter_narrows,
    filters_combine,
    orders_go_over_the_whole_range,
    paging_gives_each_once,
    a_cursor_of_nothing_is_refused,
    writing_again_changes_nothing,
    text_is_words,
    hostile_text_is_no_syntax,
    json_comes_back_as_it_was,
    a_big_body_is_stored,
    limits_hold,
    unsound_documents_are_refused_alone,
    requests_are_counted,
    what_is_counted_has_no_pages,
    nothing_is_counted_as_nothing,
    queries_that_cannot_be_counted_are_refused,
);

async fn an_empty_store_answers(subject: &Subject) {
    let page = subject.store.query(&all()).await.expect("an answer");
    assert_eq!((page.total, page.events.len(), page.next), (0, 0, None));
    assert_eq!(subject.store.write(&[]).await.expect("nothing to write"), []);
    let unknown = Query { request_id: Some("none".to_owned()), text: Some("none".to_owned()), ..all() };
    assert_eq!(subject.store.query(&unknown).await.expect("an answer").total, 0);
}

/// Four events of one request, and one of another at another time and place.
fn request() -> (Vec<Sample>, Sample) {
    let mut samples = vec![
        Sample::new("request.start", 1000),
        Sample::new("service.start", 1001),
        Sample::new("service.end", 1002).end(200, 1_425_053),
        Sample::new("request.end", 1003).end(200, 14_596_968),
    ];
    let request_id = samples[0].fields.request_id.clone();
    for sample in &mut samples {
        sample.fields.request_id.clone_from(&request_id);
    }
    let mut other = Sample::new("service.end", 5000).end(503, 99_000_000).body(json!({"who": "anna"}));
    other.fields.service = "order".to_owned();
    other.fields.node = "127.0.0.1:8190:8090".to_owned();
    other.fields.url = "/order/submit".to_owned();
    other.fields.action = "order/submit".to_owned();
    other.fields.caller = "user".to_owned();
    (samples, other)
}

async fn each_filter_narrows(subject: &Subject) {
    let (samples, other) = request();
    let everything: Vec<Sample> = samples.iter().cloned().chain([other.clone()]).collect();
    subject.put(&everything).await;
    let some = |text: &str| Some(text.to_owned());
    let cases = [
        (Query { request_id: some(&samples[0].fields.request_id), ..all() }, vec![3, 2, 1, 0]),
        (Query { service: some("user"), ..all() }, vec![2, 1]),
        (Query { node: some(&other.fields.node), ..all() }, vec![4]),
        (Query { event: some("service.end"), ..all() }, vec![4, 2]),
        (Query { url: some("/order/submit"), ..all() }, vec![4]),
        (Query { url: some("/order"), ..all() }, vec![]),
        (Query { service: some("USER"), ..all() }, vec![]),
        (Query { trace_id: some(&samples[1].fields.trace_id), ..all() }, vec![1]),
        (Query { trace_id: some("0af7651916cd43dd8448eb211c80319c"), ..all() }, vec![]),
        (Query { action: some("order/submit"), ..all() }, vec![4]),
        (Query { action: some("user/login"), ..all() }, vec![3, 2, 1, 0]),
        (Query { action: some("order"), ..all() }, vec![]),
        (Query { caller: some("gateway"), ..all() }, vec![2, 1]),
        (Query { caller: some("user"), ..all() }, vec![4]),
        (Query { caller: some("order"), ..all() }, vec![]),
        (Query { status: Some((200, 200)), ..all() }, vec![3, 2]),
        (Query { status: Some((500, 599)), ..all() }, vec![4]),
        (Query { status: Some((599, 500)), ..all() }, vec![]),
        (Query { min_duration_ns: Some(14_596_968), ..all() }, vec![4, 3]),
        (Query { min_duration_ns: Some(14_596_969), ..all() }, vec![4]),
        (Query { min_duration_ns: Some(u64::MAX), ..all() }, vec![]),
        (Query { since_ms: Some(1003), ..all() }, vec![4, 3]),
        (Query { until_ms: Some(1001), ..all() }, vec![0]),
        (Query { since_ms: Some(1001), until_ms: Some(1003), ..all() }, vec![2, 1]),
        (Query { since_ms: Some(1001), until_ms: Some(1001), ..all() }, vec![]),
        (Query { since_ms: Some(2000), until_ms: Some(1000), ..all() }, vec![]),
        (Query { since_ms: Some(i64::MIN), until_ms: Some(i64::MAX), ..all() }, vec![4, 3, 2, 1, 0]),
        (Query { text: some("anna"), ..all() }, vec![4]),
    ];
    for (query, expected) in cases {
        let expected: Vec<String> = expected.into_iter().map(|at: usize| everything[at].id.to_string()).collect();
        assert_eq!(subject.found(&query).await, expected, "{query:?}");
    }
}

async fn filters_combine(subject: &Subject) {
    let (samples, other) = request();
    subject.put(&samples).await;
    subject.put(std::slice::from_ref(&other)).await;
    let every = Query {
        request_id: Some(other.fields.request_id.clone()),
        service: Some("order".to_owned()),
        node: Some(other.fields.node.clone()),
        event: Some("service.end".to_owned()),
        url: Some("/order/submit".to_owned()),
        trace_id: Some(other.fields.trace_id.clone()),
        action: Some("order/submit".to_owned()),
        caller: Some("user".to_owned()),
        status: Some((500, 599)),
        min_duration_ns: Some(1),
        since_ms: Some(5000),
        until_ms: Some(5001),
        text: Some("Anna curl".to_owned()),
        ..all()
    };
    assert_eq!(subject.found(&every).await, [other.id.to_string()]);
    for wrong in [
        Query { request_id: Some(samples[0].fields.request_id.clone()), ..every.clone() },
        Query { service: Some("user".to_owned()), ..every.clone() },
        Query { status: Some((200, 299)), ..every.clone() },
        Query { trace_id: Some(samples[0].fields.trace_id.clone()), ..every.clone() },
        Query { action: Some("user/login".to_owned()), ..every.clone() },
        Query { caller: Some("gateway".to_owned()), ..every.clone() },
        Query { text: Some("anna wget".to_owned()), ..every.clone() },
    ] {
        assert_eq!(subject.found(&wrong).await, Vec::<String>::new(), "{wrong:?}");
    }
}

async fn orders_go_over_the_whole_range(subject: &Subject) {
    let durations = [5_u64, 900, 30, 70_000_000_000, 1];
    let mut samples: Vec<Sample> = durations
        .iter()
        .zip([400_i64, 100, 300, 200, 500])
        .map(|(ns, ms)| Sample::new("request.end", ms).end(200, *ns))
        .collect();
    samples.push(Sample::new("request.start", 250));
    // several batches: the order must not be that of writing, nor stay within a batch
    for part in samples.chunks(2) {
        subject.put(part).await;
    }
    for (order, expected) in [
        (Order::Newest, vec![4, 0, 2, 5, 3, 1]),
        (Order::Oldest, vec![1, 3, 5, 2, 0, 4]),
        (Order::Slowest, vec![3, 1, 2, 0, 4]),
    ] {
        let expected: Vec<String> = expected.into_iter().map(|at: usize| samples[at].id.to_string()).collect();
        assert_eq!(subject.found(&Query { order, ..all() }).await, expected, "{order:?}");
        let page = subject.store.query(&Query { order, limit: 2, ..all() }).await.expect("found");
        assert_eq!((ids(&page), page.total), (expected[..2].to_vec(), expected.len() as u64), "{order:?}");
    }
}

async fn paging_gives_each_once(subject: &Subject) {
    // 60 events of three times and three durations: every page ends among equals
    let samples: Vec<Sample> = (0..60_u16)
        .map(|at| Sample::new("request.end", 1000 + i64::from(at % 3)).end(200, 10 + u64::from(at % 3)))
        .collect();
    for part in samples.chunks(25) {
        subject.put(part).await;
    }
    let expected: HashSet<String> = samples.iter().map(|sample| sample.id.to_string()).collect();
    for order in [Order::Newest, Order::Oldest, Order::Slowest] {
        let mut seen: Vec<String> = Vec::new();
        let mut after = None;
        for page_no in 0..9 {
            let page = subject.store.query(&Query { order, after, limit: 7, ..all() }).await.expect("a page");
            assert_eq!(page.total, 60, "the total is of all pages");
            assert_eq!(page.events.len(), if page_no == 8 { 4 } else { 7 }, "{order:?} page {page_no}");
            seen.extend(ids(&page));
            after = page.next;
        }
        assert_eq!(after, None, "{order:?}");
        assert_eq!(seen.len(), 60);
        assert_eq!(seen.into_iter().collect::<HashSet<_>>(), expected, "{order:?}");
        // a page that ends exactly at the end is the last
        let page = subject.store.query(&Query { order, limit: 60, ..all() }).await.expect("a page");
        assert_eq!((page.events.len(), page.next), (60, None));
    }
}

async fn a_cursor_of_nothing_is_refused(subject: &Subject) {
    subject.put(&[Sample::new("request.start", 1), Sample::new("request.start", 2)]).await;
    let page = subject.store.query(&Query { limit: 1, ..all() }).await.expect("a page");
    let of_newest = page.next.expect("one more");
    for (after, order) in [("nonsense", Order::Newest), ("", Order::Newest), (of_newest.as_str(), Order::Oldest)] {
        let query = Query { after: Some(after.to_owned()), order, ..all() };
        assert!(matches!(subject.store.query(&query).await, Err(StoreError::Query(_))), "{after}");
    }
}

async fn writing_again_changes_nothing(subject: &Subject) {
    let samples: Vec<Sample> = (0..10).map(|at| Sample::new("request.start", at)).collect();
    let twice: Vec<Sample> = samples.iter().chain(&samples).cloned().collect();
    subject.put(&twice).await;
    subject.put(&samples).await;
    // together with new ones, and in several writes at once
    let more = [samples[3].clone(), Sample::new("request.start", 99)];
    tokio::join!(put(&*subject.store, &more), put(&*subject.store, &more), put(&*subject.store, &samples));
    subject.settle().await;
    let page = subject.store.query(&all()).await.expect("found");
    assert_eq!(page.total, 11);
    assert_eq!(ids(&page).into_iter().collect::<HashSet<_>>().len(), 11);
}

async fn text_is_words(subject: &Subject) {
    let bodies = [
        json!({"user": "Zoë Müller", "note": "the quick brown fox"}),
        json!({"msg": "登录失败", "deep": [{"a": ["ПРИВЕТ"]}]}),
        json!({"escaped": "tab\there \"quoted\" \\ and \u{1F600} emoji", "n": 4711}),
        json!(["an", "array", "wins"]),
    ];
    let samples: Vec<Sample> =
        bodies.into_iter().zip(0..).map(|(body, at)| Sample::new("request.start", at).body(body)).collect();
    subject.put(&samples).await;
    for (text, expected) in [
        ("müller", vec![0]),
        ("MÜLLER zoë", vec![0]),
        ("fox the", vec![0]),
        ("fox cat", vec![]),
        ("fo", vec![]),
        ("失败", vec![1]),
        ("привет", vec![1]),
        ("quoted emoji", vec![2]),
        ("4711", vec![2]),
        ("wins", vec![3]),
        ("curl 7.88.1", vec![3, 2, 1, 0]),
        ("/api/user/login", vec![3, 2, 1, 0]),
        ("", vec![3, 2, 1, 0]),
    ] {
        let expected: Vec<String> = expected.into_iter().map(|at: usize| samples[at].id.to_string()).collect();
        let query = Query { text: Some(text.to_owned()), ..all() };
        assert_eq!(subject.found(&query).await, expected, "{text}");
    }
    let query = Query { text: Some(samples[2].fields.request_id.clone()), ..all() };
    assert_eq!(subject.found(&query).await, [samples[2].id.to_string()]);
}

async fn hostile_text_is_no_syntax(subject: &Subject) {
    let sample = Sample::new("request.start", 1).body(json!({"note": "and or not"}));
    subject.put(std::slice::from_ref(&sample)).await;
    let id = sample.id.to_string();
    for (text, found) in [
        ("\"", true),
        ("and or not", true),
        ("AND OR NOT", true),
        ("curl AND missing", false),
        ("missing OR curl", false),
        ("NOT curl", true), // the word `not` is there, and so is `curl`
        ("cu*", false),
        ("cur?", false),
        ("* ? : ( ) [ ] { } ^ ~ \\ / + - ! && ||", true),
        ("service:\"gateway", false), // `service` stands nowhere
        ("{\"query\":{\"match_all\":{}}}", false),
        ("curl\0\n\r\t", true),
        ("[* TO *]", false),
    ] {
        let query = Query { text: Some(text.to_owned()), ..all() };
        let expected = if found { vec![id.clone()] } else { vec![] };
        assert_eq!(subject.found(&query).await, expected, "{text:?}");
    }
    let long = Query { text: Some("x".repeat(100_000)), service: Some("y\"}]".repeat(10_000)), ..all() };
    assert_eq!(subject.found(&long).await, Vec::<String>::new());
}

async fn json_comes_back_as_it_was(subject: &Subject) {
    let body =
        r#"{"price":1.10,"big":12345678901234567890123,"exp":1e30,"esc":"\u00e9\/","gomsWords":"x","a.b":{"":1}}"#;
    let sample = Sample::new("request.start", 7);
    let json = sample.json().to_string().replace("\"body\":{}", &format!("\"body\":{body}"));
    let outcomes = subject.store.write(&[sample.with_json(&json)]).await.expect("written");
    assert_eq!(outcomes, [Outcome::Stored]);
    subject.settle().await;
    let page = subject.store.query(&all()).await.expect("found");
    assert_eq!(page.events[0].get(), json);
}

async fn a_big_body_is_stored(subject: &Subject) {
    let big = "lorem ipsum ".repeat(100_000);
    let deep = (0..60).fold(json!("bottom"), |inner, _| json!({ "in": inner }));
    let many: Value = (0..5000).map(|at| (format!("key{at}"), json!(at))).collect::<serde_json::Map<_, _>>().into();
    let samples = [json!({ "text": big }), deep, many, json!({"run": "x".repeat(200_000)})];
    let samples: Vec<Sample> =
        samples.into_iter().zip(0..).map(|(body, at)| Sample::new("request.start", at).body(body)).collect();
    subject.put(&samples).await;
    let page = subject.store.query(&Query { order: Order::Oldest, ..all() }).await.expect("found");
    assert_eq!(page.total, 4);
    for (event, sample) in page.events.iter().zip(&samples) {
        let mut event: Value = serde_json::from_str(event.get()).expect("JSON");
        // OpenSearch has no place for long values: it gets what a client sent as JSON in a text, or in its pieces
        for part in ["headers", "body"] {
            let text = match &event["request"][part]["value"] {
                Value::Array(pieces) => pieces.iter().filter_map(Value::as_str).collect(),
                value => value.as_str().unwrap_or_default().to_owned(),
            };
            if let Ok(whole) = serde_json::from_str(&text) {
                event["request"][part] = whole;
            }
        }
        assert_eq!(event, sample.json());
    }
    let query = Query { text: Some("bottom".to_owned()), ..all() };
    assert_eq!(subject.found(&query).await, [samples[1].id.to_string()]);
}

async fn limits_hold(subject: &Subject) {
    let samples: Vec<Sample> = (0..5).map(|at| Sample::new("request.start", at)).collect();
    subject.put(&samples).await;
    let page = subject.store.query(&Query { limit: 0, ..all() }).await.expect("counted");
    assert_eq!((page.total, page.events.len(), page.next), (5, 0, None));
    let page = subject.store.query(&Query { limit: usize::MAX, ..all() }).await.expect("cut to the highest");
    assert_eq!((page.total, page.events.len(), page.next), (5, 5, None));
    let page = subject.store.query(&Query { limit: 3, ..all() }).await.expect("a page");
    let page = subject.store.query(&Query { limit: 3, after: page.next, ..all() }).await.expect("the last");
    assert_eq!((page.total, ids(&page).len(), page.next), (5, 2, None));
}

async fn unsound_documents_are_refused_alone(subject: &Subject) {
    let sample = Sample::new("request.start", 1);
    let mut no_id = sample.document();
    no_id.id.clear();
    let mut long_id = sample.document();
    long_id.id = "x".repeat(600);
    let outcomes =
        subject.store.write(&[no_id, sample.document(), long_id, sample.with_json("[1]")]).await.expect("written");
    let refused = |at: usize| matches!(outcomes[at], Outcome::Refused(_));
    assert!(refused(0) && refused(2) && refused(3), "{outcomes:?}");
    assert_eq!(outcomes[1], Outcome::Stored);
    subject.settle().await;
    assert_eq!(subject.found(&all()).await, [sample.id.to_string()]);
}

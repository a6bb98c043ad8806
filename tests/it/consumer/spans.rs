//! Spans of other programs: OTLP and Zipkin over HTTP, answered only once stored.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use awc::Client;
use goms::consumer::{self, Listeners};
use goms::metrics::Metrics;
use goms::shutdown::Shutdown;
use prost::Message;
use serde_json::{Value, json};

use crate::support::events::{Mood, MoodyStore, consumer_settings, run};
use crate::support::otlp::{
    Attribute, CLIENT, Export, OfProcess, Resource, Response, SERVER, Scope, Span, Status, Text, export, gzip, ids,
    span,
};

const JSON: (&str, &str) = ("content-type", "application/json");
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

/// A consumer that takes spans, and what it stored.
struct Taking {
    store: Arc<MoodyStore>,
    otlp: SocketAddr,
    zipkin: SocketAddr,
    metrics: Metrics,
    running: consumer::Running,
}

struct Told {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Taking {
    fn start(mood: Mood) -> Self {
        Self::with(mood, &consumer_settings(None))
    }

    fn with(mood: Mood, settings: &consumer::Settings) -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let (events, otlp, zipkin) = (bind(), bind(), bind());
        let address = |listener: &TcpListener| listener.local_addr().expect("an address");
        let (otlp_at, zipkin_at) = (address(&otlp), address(&zipkin));
        let (store, metrics) = (MoodyStore::new(mood), Metrics::new());
        let listeners =
            Listeners { events: Some(events), otlp: Some(otlp), zipkin: Some(zipkin), ..Listeners::default() };
        let running = consumer::start(settings, store.clone(), listeners, &metrics, &Shutdown::new());
        Self { store, otlp: otlp_at, zipkin: zipkin_at, metrics, running: running.expect("a consumer") }
    }

    async fn post(&self, url: String, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Told {
        let mut request = Client::builder().no_default_headers().finish().post(url).timeout(Duration::from_secs(20));
        for header in headers {
            request = request.insert_header(*header);
        }
        let mut answer = request.send_body(body.into()).await.expect("an answer");
        let text = |value: &awc::http::header::HeaderValue| value.to_str().expect("text").to_owned();
        let headers = answer.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let body = answer.body().await.expect("a body").to_vec();
        Told { status: answer.status().as_u16(), headers, body }
    }

    async fn otlp(&self, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Told {
        self.post(format!("http://{}/v1/traces", self.otlp), headers, body).await
    }

    async fn zipkin(&self, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Told {
        self.post(format!("http://{}/api/v2/spans", self.zipkin), headers, body).await
    }

    fn stored(&self) -> Vec<Value> {
        let documents = self.store.documents.lock().expect("no test panicked");
        documents.values().map(|json| serde_json::from_str(json).expect("JSON")).collect()
    }

    fn counts(&self, line: &str) -> bool {
        self.metrics.render().contains(&format!("goms_consumer_spans_total{line}\n"))
    }

    async fn end(self) {
        assert!(self.running.stop(Duration::from_secs(10)).await, "the consumer ends in time");
    }
}

impl Told {
    fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, String::from_utf8_lossy(&self.body).as_ref()), (status, body));
    }

    /// A failure in JSON: its gRPC code and its message.
    fn failed(&self, status: u16, code: i32) -> String {
        let said: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        assert_eq!((self.status, &said["code"]), (status, &json!(code)), "{said}");
        assert_eq!(self.headers["content-type"], "application/json");
        said["message"].as_str().expect("a message").to_owned()
    }
}

fn of_shop() -> String {
    let (trace, id) = ids();
    export(
        "shop",
        &[span(&trace, &id, "", SERVER, "GET /cart", &[]), span(&trace, &ids().1, &id, CLIENT, "SELECT", &[])],
    )
}

fn in_protobuf() -> Vec<u8> {
    let attribute = |key: &str, text: &str| Attribute { key: key.into(), value: Some(Text { text: text.into() }) };
    let span = Span {
        trace_id: uuid::Uuid::new_v4().as_bytes().to_vec(),
        span_id: vec![1; 8],
        name: "GET /cart".into(),
        kind: SERVER,
        start: 1_700_000_000_000_000_000,
        end: 1_700_000_000_002_000_000,
        attributes: vec![attribute("http.route", "/cart")],
        ..Span::default()
    };
    let resource = Some(Resource { attributes: vec![attribute("service.name", "shop")] });
    Export { processes: vec![OfProcess { resource, scopes: vec![Scope { spans: vec![span] }] }] }.encode_to_vec()
}

#[test]
fn spans_are_stored_in_each_form_and_once() {
    run(async {
        let taking = Taking::start(Mood::Works);
        let (json, protobuf) = (of_shop(), in_protobuf());
        for again in 0..2 {
            let told = taking.otlp(&[JSON], json.clone()).await;
            told.is(200, "{}");
            assert_eq!(told.headers["content-type"], "application/json");
            taking
                .otlp(&[("content-type", "application/json; charset=utf-8"), GZIP], gzip(json.as_bytes()))
                .await
                .is(200, "{}");
            let told = taking.otlp(&[PROTOBUF], protobuf.clone()).await;
            told.is(200, "");
            assert_eq!(told.headers["content-type"], "application/x-protobuf");
            taking.otlp(&[PROTOBUF, GZIP], gzip(&protobuf)).await.is(200, "");
            assert_eq!(taking.store.count(), 5, "three of the first, two of the second; round {again}");
        }
        let of_protobuf = |event: &Value| event["name"] == "GET /cart" && event["timeMs"] == 1_700_000_000_002_i64;
        let end = taking.stored().into_iter().find(of_protobuf).expect("the end of it");
        assert_eq!((&end["event"], &end["action"]), (&json!("service.end"), &json!("shop/cart")));
        taking.otlp(&[JSON], "{}").await.is(200, "{}");
        taking.otlp(&[PROTOBUF], "").await.is(200, "");

        let zipkin = r#"[{"traceId":"5af7183fb1d4cf5f","id":"6b221d5bc9e6496c","kind":"SERVER","name":"get","timestamp":1700000000000000,
            "duration":1000,"localEndpoint":{"serviceName":"old"}}]"#;
        for (headers, body) in [
            (&[JSON][..], zipkin.as_bytes().to_vec()),
            (&[], zipkin.as_bytes().to_vec()),
            (&[JSON, GZIP], gzip(zipkin.as_bytes())),
        ] {
            taking.zipkin(headers, body).await.is(202, "");
        }
        assert_eq!(taking.store.count(), 7);
        assert!(taking.counts("{outcome=\"taken\",protocol=\"otlp\"} 12"), "{}", taking.metrics.render());
        assert!(taking.counts("{outcome=\"taken\",protocol=\"zipkin\"} 3"));
        taking.end().await;
    });
}

#[test]
fn what_is_no_span_is_named_and_the_rest_is_stored() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let letters = folder.path().join("dead-letters.jsonl");
        let mut settings = consumer_settings(None);
        settings.dead_letters = Some(letters.clone());
        let taking = Taking::with(Mood::Picky, &settings);
        let (trace, id) = ids();
        let spans = [
            span(&trace, &id, "", SERVER, "good", &[]),
            span("beef", &id, "", SERVER, "bad", &[]),
            // the store refuses both events of this one
            span(&trace, &ids().1, "", SERVER, "refused", &[("url.path", json!("/refuse"))]),
        ];
        let told = taking.otlp(&[JSON], export("shop", &spans)).await;
        let said: Value = serde_json::from_slice(&told.body).unwrap();
        let partial = &said["partialSuccess"];
        assert_eq!((told.status, &partial["rejectedSpans"]), (200, &json!("2")), "{said}");
        assert!(partial["errorMessage"].as_str().unwrap().contains("`bad` of `shop` has no valid trace id"), "{said}");
        assert_eq!(taking.store.count(), 2);
        assert_eq!(std::fs::read_to_string(&letters).unwrap().lines().count(), 2, "what the store refused");
        assert!(taking.counts("{outcome=\"refused\",protocol=\"otlp\"} 2"));

        let mut zeros = Export::decode(&in_protobuf()[..]).unwrap();
        zeros.processes[0].scopes[0].spans[0].trace_id = vec![0; 16];
        let told = taking.otlp(&[PROTOBUF], zeros.encode_to_vec()).await;
        let partial = Response::decode(&told.body[..]).unwrap().partial.expect("not all was taken");
        assert_eq!((told.status, partial.rejected), (200, 1));
        assert!(partial.message.contains("no valid trace id"), "{}", partial.message);

        let zipkin = r#"[{"traceId":"1","id":"2"},{"traceId":"1"},7,["1","2"],{"traceId":"0","id":"3"}]"#;
        taking.zipkin(&[JSON], zipkin).await.is(202, "");
        assert_eq!(taking.store.count(), 3);
        let kept = std::fs::read_to_string(&letters).unwrap();
        assert_eq!(kept.lines().count(), 2 + 4, "{kept}");
        assert!(kept.contains("\"event\":{\"traceId\":\"0\",\"id\":\"3\"}"), "{kept}");
        let told = taking.zipkin(&[JSON], "[7]").await;
        told.is(400, "no Zipkin span: not a JSON object\n");
        taking.end().await;
    });
}

#[test]
fn a_bad_request_hears_why_in_its_own_encoding() {
    run(async {
        let taking = Taking::start(Mood::Works);
        let text = ("content-type", "text/plain");
        assert!(taking.otlp(&[text], "x").await.failed(415, 3).contains("application/x-protobuf"));
        assert!(taking.otlp(&[], "x").await.failed(415, 3).contains("application/json"));
        assert!(taking.otlp(&[JSON, ("content-encoding", "br")], "{}").await.failed(415, 3).contains("gzip"));
        for body in ["", "[]", "7", "{\"resourceSpans\":7}", "{\"resourceSpans\":[{]}"] {
            assert!(taking.otlp(&[JSON], body).await.failed(400, 3).starts_with("cannot read the spans: "), "{body}");
        }
        assert!(taking.otlp(&[JSON, GZIP], "no gzip").await.failed(400, 3).starts_with("cannot gunzip the body: "));
        let cut = gzip(of_shop().as_bytes());
        taking.otlp(&[JSON, GZIP], &cut[..cut.len() - 12]).await.failed(400, 3);
        let told = taking.otlp(&[PROTOBUF], "nonsense").await;
        let said = Status::decode(&told.body[..]).unwrap();
        assert_eq!((told.status, said.code, told.headers["content-type"].as_str()), (400, 3, "application/x-protobuf"));
        assert!(said.message.starts_with("cannot read the spans: "), "{}", said.message);

        assert_eq!(taking.zipkin(&[PROTOBUF], "x").await.status, 415);
        for body in ["", "{}", "7", "[{]"] {
            assert_eq!(taking.zipkin(&[JSON], body).await.status, 400, "{body}");
        }
        assert_eq!(taking.post(format!("http://{}/api/v2/spans", taking.otlp), &[JSON], "[]").await.status, 404);
        assert_eq!(taking.store.count(), 0);
        taking.end().await;
    });
}

#[test]
fn what_would_fill_the_memory_is_refused() {
    run(async {
        let taking = Taking::start(Mood::Works);
        let spaces = vec![b' '; (16 << 20) + 1];
        assert!(taking.otlp(&[JSON], spaces.clone()).await.failed(413, 8).contains("16777216 bytes"));
        assert_eq!(taking.zipkin(&[JSON], spaces.clone()).await.status, 413);
        // 16 KB that become more than 16 MiB
        assert!(taking.otlp(&[JSON, GZIP], gzip(&spaces)).await.failed(413, 8).contains("16777216 bytes"));
        // two bytes a span, which would become 250 each
        let flood = Scope { spans: vec![Span::default(); 1_000_000] };
        let flood = Export { processes: vec![OfProcess { resource: None, scopes: vec![flood] }] }.encode_to_vec();
        let told = taking.otlp(&[PROTOBUF], flood).await;
        assert_eq!(told.status, 413);
        assert!(Status::decode(&told.body[..]).unwrap().message.contains("`consumer.maxBytes`"));
        let objects = format!(r#"{{"resourceSpans":[{}{{}}]}}"#, "{},".repeat(1_000_000));
        taking.otlp(&[JSON], objects).await.failed(413, 8);
        // and nothing of it stays taken: as much as fits is taken afterwards
        let many: Vec<Value> = (0..20_000)
            .map(|_| {
                let (trace, id) = ids();
                span(&trace, &id, "", CLIENT, "many", &[])
            })
            .collect();
        taking.otlp(&[JSON], export("shop", &many)).await.is(200, "{}");
        assert_eq!(taking.store.count(), 20_000);
        taking.end().await;
    });
}

#[test]
fn with_a_call_key_only_its_bearers_are_heard() {
    run(async {
        let mut settings = consumer_settings(None);
        settings.call_keys = vec!["s3cret".into()].into();
        let taking = Taking::with(Mood::Works, &settings);
        assert!(taking.otlp(&[JSON], of_shop()).await.failed(403, 7).contains("`Call-Service-Key`"));
        assert_eq!(taking.zipkin(&[JSON], r#"[{"traceId":"1","id":"2"}]"#).await.status, 403);
        assert_eq!(taking.store.count(), 0);
        let key = ("call-service-key", "s3cret");
        taking.otlp(&[JSON, key], of_shop()).await.is(200, "{}");
        taking.zipkin(&[JSON, key], r#"[{"traceId":"1","id":"2"}]"#).await.is(202, "");
        taking.end().await;
    });
}

#[test]
fn while_the_store_is_away_spans_are_asked_for_again() {
    run(async {
        let taking = Taking::start(Mood::Away);
        let (json, zipkin) = (of_shop(), r#"[{"traceId":"1","id":"2"}]"#);
        for _ in 0..2 {
            let told = taking.otlp(&[JSON], json.clone()).await;
            assert!(told.failed(503, 14).contains("send again"));
            assert!(told.headers["retry-after"].parse::<u32>().is_ok_and(|seconds| seconds > 0));
            let told = taking.zipkin(&[JSON], zipkin).await;
            assert!(told.status == 503 && told.headers.contains_key("retry-after"));
        }
        assert!(taking.counts("{outcome=\"taken\",protocol=\"otlp\"} 0"));
        taking.store.set(Mood::Works);
        // as a sender does
        let again = async {
            while taking.otlp(&[JSON], json.clone()).await.status != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            while taking.zipkin(&[JSON], zipkin).await.status != 202 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), again).await.unwrap();
        assert_eq!((taking.store.count(), taking.store.again()), (4, 0), "what got a 503 was not kept on the side");
        taking.end().await;
    });
}

#[test]
fn who_called_is_known_by_a_parent_that_came_before_or_with_it() {
    run(async {
        let taking = Taking::start(Mood::Works);
        let (trace, call) = ids();
        let callers = |taking: &Taking| {
            let ends = taking.stored().into_iter().filter(|event| event["event"] == "service.end");
            ends.map(|event| (event["serviceName"].to_string(), event["caller"].clone())).collect::<BTreeMap<_, _>>()
        };
        // in one request, whichever stands first
        let server = span(&trace, &ids().1, &call, SERVER, "GET", &[]);
        let (mut both, front): (Value, Value) = (
            serde_json::from_str(&export("with", &[server])).unwrap(),
            serde_json::from_str(&export("front", &[span(&trace, &call, "", CLIENT, "GET", &[])])).unwrap(),
        );
        both["resourceSpans"].as_array_mut().unwrap().push(front["resourceSpans"][0].clone());
        taking.otlp(&[JSON], both.to_string()).await.is(200, "{}");
        // in a later one, by either protocol
        taking.otlp(&[JSON], export("after", &[span(&trace, &ids().1, &call, SERVER, "GET", &[])])).await.is(200, "{}");
        let zipkin = json!([{"traceId": trace, "id": call, "kind": "SERVER", "shared": true, "localEndpoint": {"serviceName": "half"}}]);
        taking.zipkin(&[JSON], zipkin.to_string()).await.is(202, "");
        let zipkin = json!([{"traceId": "a", "id": "b", "parentId": "c", "kind": "CONSUMER", "localEndpoint": {"serviceName": "reader"}},
            {"traceId": "a", "id": "c", "kind": "PRODUCER", "localEndpoint": {"serviceName": "writer"}}]);
        taking.zipkin(&[JSON], zipkin.to_string()).await.is(202, "");
        let found = callers(&taking);
        for (service, caller) in [("with", "front"), ("after", "front"), ("half", "front"), ("reader", "writer")] {
            assert_eq!(found[&format!("\"{service}\"")], caller, "{found:?}");
        }
        taking.end().await;
    });
}

#[test]
fn a_body_that_does_not_come_keeps_no_room() {
    use std::io::{Read, Write};
    run(async {
        let taking = Taking::start(Mood::Works);
        let mut slow = std::net::TcpStream::connect(taking.otlp).unwrap();
        let head =
            "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
        slow.write_all(head.as_bytes()).unwrap();
        let answer = tokio::task::spawn_blocking(move || {
            let mut answer = [0; 12];
            slow.read_exact(&mut answer).map(|()| String::from_utf8_lossy(&answer).into_owned())
        });
        assert_eq!(answer.await.unwrap().unwrap(), "HTTP/1.1 408");
        taking.end().await;
    });
}

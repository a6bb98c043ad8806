//! Reading another process's store.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use goms::shutdown::Shutdown;
use goms::store::{
    Bucket, Group, GroupBy, Page, Query, Remote, SEARCH_PATH, STATS_PATH, Stats, StatsQuery, StoreError, Summary,
    TraceStore,
};
use serde_json::value::RawValue;

use super::all;

/// Answers as a trace consumer does: 403 without the key, 400 to a `bad` cursor, else the text that was asked for.
async fn search(request: HttpRequest, query: web::Json<Query>) -> HttpResponse {
    if request.headers().get("Call-Service-Key").is_none_or(|key| key != "k") {
        return HttpResponse::Forbidden().json(serde_json::json!({"status": false}));
    }
    if query.after.as_deref() == Some("bad") {
        return HttpResponse::BadRequest().json(serde_json::json!({"status": false, "msg": "bad cursor"}));
    }
    let json = format!("{{\"n\":1.10,\"text\":{:?}}}", query.text.as_deref().unwrap_or_default());
    let event = RawValue::from_string(json).expect("JSON");
    HttpResponse::Ok().json(Page { total: 7, events: vec![event], next: Some("x".to_owned()) })
}

/// Answers with the range, the bucket and the grouping that were asked for.
async fn stats(request: HttpRequest, query: web::Json<StatsQuery>) -> HttpResponse {
    if request.headers().get("Call-Service-Key").is_none_or(|key| key != "k") {
        return HttpResponse::Forbidden().json(serde_json::json!({"status": false}));
    }
    let summary =
        Summary { count: query.bucket_ms.unwrap_or_default(), errors: 1, p50_ns: 2, p95_ns: 3, p99_ns: u64::MAX };
    let caller = (query.by == GroupBy::Edge).then(|| "gateway".to_owned());
    let buckets = vec![Bucket { start_ms: 5, summary: summary.clone() }];
    let group = Group { caller, service: query.filter.service.clone().unwrap_or_default(), total: summary, buckets };
    HttpResponse::Ok().json(Stats { first_ms: query.filter.since_ms, last_ms: None, groups: vec![group] })
}

/// A trace consumer with these routes, until its handle is stopped.
fn serve(shutdown: &Shutdown, routes: fn(&mut web::ServiceConfig)) -> (String, actix_web::dev::ServerHandle) {
    let server = HttpServer::new(move || App::new().configure(routes)).workers(1);
    let server = server.bind(("127.0.0.1", 0)).expect("a port");
    let address = server.addrs()[0].to_string();
    let running = server.disable_signals().run();
    let handle = running.handle();
    shutdown.spawn_local(async move { running.await.expect("it ran") });
    (address, handle)
}

/// An address where nobody listens.
fn nobody() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string()
}

#[test]
fn a_consumer_is_asked_to_count_and_one_of_an_older_goms_is_named() {
    actix_web::rt::System::new().block_on(async {
        let shutdown = Shutdown::new();
        let (older, older_handle) = serve(&shutdown, |app| {
            app.route(SEARCH_PATH, web::post().to(search));
        });
        let (newer, newer_handle) = serve(&shutdown, |app| {
            app.route(STATS_PATH, web::post().to(stats));
        });
        let filter = Query { service: Some("user".to_owned()), since_ms: Some(-7), ..Query::default() };
        let query = StatsQuery { filter, by: GroupBy::Edge, bucket_ms: Some(60_000) };
        let store = Remote::open(vec![nobody(), older.clone(), newer], Some("k".to_owned()), &shutdown);
        let counted = store.stats(&query).await.expect("counted");
        assert_eq!((counted.first_ms, counted.last_ms), (Some(-7), None));
        let group = &counted.groups[0];
        assert_eq!((group.caller.as_deref(), group.service.as_str()), (Some("gateway"), "user"));
        assert_eq!((group.total.count, group.total.p99_ns), (60_000, u64::MAX));
        assert_eq!(group.buckets[0].summary, group.total);

        let store = Remote::open(vec![older], Some("k".to_owned()), &shutdown);
        let Err(StoreError::Unavailable { source, .. }) = store.stats(&query).await else {
            panic!("it cannot count");
        };
        assert!(source.to_string().contains("older goms"), "{source}");
        for handle in [older_handle, newer_handle] {
            handle.stop(true).await;
        }
        shutdown.begin();
    });
}

#[test]
fn a_consumer_is_asked_and_the_next_one_when_it_is_away() {
    actix_web::rt::System::new().block_on(ask_consumers());
}

async fn ask_consumers() {
    let shutdown = Shutdown::new();
    let (address, handle) = serve(&shutdown, |app| {
        app.route(SEARCH_PATH, web::post().to(search));
    });
    let away = nobody();

    let store = Remote::open(vec![away.clone(), address.clone()], Some("k".to_owned()), &shutdown);
    let query = Query { text: Some("zoë".to_owned()), ..all() };
    let page = store.query(&query).await.expect("found");
    assert_eq!((page.total, page.next.as_deref()), (7, Some("x")));
    assert_eq!(page.events[0].get(), r#"{"n":1.10,"text":"zoë"}"#);
    let bad = store.query(&Query { after: Some("bad".to_owned()), ..all() }).await;
    assert!(matches!(bad, Err(StoreError::Query(reason)) if reason == "bad cursor"));
    assert!(matches!(store.write(&[]).await, Err(StoreError::Query(_))));

    let without_key = Remote::open(vec![address], None, &shutdown);
    assert!(matches!(without_key.query(&all()).await, Err(StoreError::Unavailable { .. })));
    for addresses in [vec![away], vec![]] {
        let store = Remote::open(addresses, None, &shutdown);
        assert!(matches!(store.query(&all()).await, Err(StoreError::Unavailable { .. })));
    }
    handle.stop(true).await;
    shutdown.begin();
    assert!(matches!(store.query(&all()).await, Err(StoreError::Unavailable { .. })));
}

#[test]
fn an_ending_process_does_not_wait_for_a_consumer_that_hangs() {
    actix_web::rt::System::new().block_on(async {
        let hangs = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = hangs.local_addr().expect("an address").to_string();
        let accepted = std::thread::spawn(move || hangs.accept().expect("a connection"));
        let shutdown = Shutdown::new();
        let store = Remote::open(vec![address], None, &shutdown);
        let ending = async {
            while !accepted.is_finished() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            shutdown.begin();
            assert!(shutdown.finished(std::time::Duration::from_secs(5)).await, "a query holds up the end");
        };
        let query = all();
        let (answer, ()) = futures_util::future::join(store.query(&query), ending).await;
        assert!(matches!(answer, Err(StoreError::Unavailable { .. })));
    });
}

//! Reading another process's store.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use goms::shutdown::Shutdown;
use goms::store::{Page, Query, Remote, SEARCH_PATH, StoreError, TraceStore};
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

#[test]
fn a_consumer_is_asked_and_the_next_one_when_it_is_away() {
    actix_web::rt::System::new().block_on(ask_consumers());
}

async fn ask_consumers() {
    let server = HttpServer::new(|| App::new().route(SEARCH_PATH, web::post().to(search))).workers(1);
    let server = server.bind(("127.0.0.1", 0)).expect("a port");
    let address = server.addrs()[0].to_string();
    let shutdown = Shutdown::new();
    let running = server.disable_signals().run();
    let handle = running.handle();
    shutdown.spawn_local(async move { running.await.expect("it ran") });
    let away =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();

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
        let nobody = Remote::open(addresses, None, &shutdown);
        assert!(matches!(nobody.query(&all()).await, Err(StoreError::Unavailable { .. })));
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

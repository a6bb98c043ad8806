//! Events and searches over HTTP.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use awc::Client;
use goms::consumer;
use goms::metrics::Metrics;
use goms::shutdown::Shutdown;

use crate::support::events::{Mood, MoodyStore, consumer_settings, event, run, until};

async fn post(address: SocketAddr, path: &str, key: Option<&str>, body: impl Into<Vec<u8>>) -> (u16, String) {
    let mut request = Client::default().post(format!("http://{address}{path}")).timeout(Duration::from_secs(20));
    if let Some(key) = key {
        request = request.insert_header(("Call-Service-Key", key));
    }
    let mut response = request.send_body(body.into()).await.expect("an answer");
    let body = response.body().await.expect("a body");
    (response.status().as_u16(), String::from_utf8_lossy(&body).into_owned())
}

#[test]
fn events_are_answered_once_stored_and_only_with_the_key() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let letters = folder.path().join("dead-letters.jsonl");
        let mut settings = consumer_settings(None);
        settings.call_keys = vec!["old".into(), "new".into()].into();
        settings.dead_letters = Some(letters.clone());
        let store = MoodyStore::new(Mood::Picky);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let running =
            consumer::start(&settings, store.clone(), Some(listener), &Metrics::new(), &Shutdown::new()).unwrap();

        let body = event(1).to_json();
        for key in [None, Some(""), Some("o"), Some("older")] {
            let (status, answer) = post(address, "/goms/events", key, body.clone()).await;
            assert_eq!(status, 403, "{key:?}");
            assert!(answer.starts_with("{\"status\":false,\"code\":403,"), "{answer}");
            for path in ["/goms/traces/search", "/goms/traces/stats"] {
                assert_eq!(post(address, path, key, "{}").await.0, 403);
            }
        }
        assert_eq!(store.count(), 0);
        for key in ["old", "new"] {
            let (status, answer) = post(address, "/goms/events", Some(key), event(2).to_json()).await;
            assert_eq!((status, answer.as_str()), (200, "{\"status\":true,\"stored\":1,\"refused\":0}"));
        }
        assert_eq!(store.count(), 2);
        let refused = String::from_utf8(event(3).to_json()).unwrap().replace("/api/user/3", "/refuse");
        let mixed = format!("[{refused},7,{}]", String::from_utf8(event(4).to_json()).unwrap());
        let (status, answer) = post(address, "/goms/events", Some("old"), mixed).await;
        assert_eq!((status, answer.as_str()), (200, "{\"status\":true,\"stored\":1,\"refused\":2}"));
        assert_eq!(std::fs::read_to_string(letters).unwrap().lines().count(), 2);
        assert_eq!(post(address, "/goms/events", Some("old"), "nonsense").await.0, 400);
        for path in ["/goms/events", "/goms/traces/search"] {
            let too_long = vec![b' '; (16 << 20) + 1];
            let (status, answer) = post(address, path, Some("old"), too_long.clone()).await;
            assert_eq!(status, 413);
            assert!(answer.starts_with("{\"status\":false,\"code\":413,"), "{answer}");
            // without the key nothing of a body is kept, so its length does not matter
            assert_eq!(post(address, path, None, too_long).await.0, 403);
        }

        let (status, answer) = post(address, "/goms/traces/search", Some("new"), "{\"limit\":5}").await;
        assert_eq!((status, answer.as_str()), (200, "{\"total\":3,\"events\":[],\"next\":null}"));
        let (status, answer) = post(address, "/goms/traces/search", Some("new"), "{\"after\":\"x\"}").await;
        assert_eq!(status, 400);
        assert!(answer.contains("the cursor is none of this store"), "{answer}");
        assert_eq!(post(address, "/goms/traces/search", Some("new"), "nonsense").await.0, 400);
        let (status, answer) = post(address, "/goms/traces/stats", Some("new"), "{\"by\":\"edge\"}").await;
        assert_eq!((status, answer.as_str()), (200, "{\"firstMs\":null,\"lastMs\":null,\"groups\":[]}"));
        assert_eq!(post(address, "/goms/traces/stats", Some("new"), "{\"by\":\"colour\"}").await.0, 400);
        assert!(running.stop(Duration::from_secs(10)).await);
    });
}

#[test]
fn while_the_store_is_away_nothing_is_acknowledged() {
    run(async {
        let store = MoodyStore::new(Mood::Away);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let settings = consumer_settings(None);
        let running =
            consumer::start(&settings, store.clone(), Some(listener), &Metrics::new(), &Shutdown::new()).unwrap();
        let body = event(1).to_json();
        let (status, answer) = post(address, "/goms/events", None, body.clone()).await;
        assert_eq!(status, 503, "{answer}");
        assert_eq!(post(address, "/goms/traces/search", None, "{}").await.0, 503);
        store.set(Mood::Works);
        // what got a 503 is not kept on the side: the sender brings it again
        let again = async {
            while post(address, "/goms/events", None, body.clone()).await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), again).await.unwrap();
        until("it is stored", || store.count() == 1).await;
        assert_eq!(store.again(), 0);
        assert!(running.stop(Duration::from_secs(10)).await);
    });
}

//! A trace store that does not answer.

use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use goms::admin::Admin;
use goms::dashboard::Dashboard;
use goms::metrics::Metrics;
use goms::registry::Registry;
use goms::registry::memory::Memory;
use goms::shutdown::Shutdown;
use goms::store::{Document, Outcome, Page, Query, Stats, StatsQuery, StoreError, TraceStore};

use crate::support::http::{get, request};

struct Never;

#[async_trait]
impl TraceStore for Never {
    async fn write(&self, _batch: &[Document]) -> Result<Vec<Outcome>, StoreError> {
        std::future::pending().await
    }

    async fn query(&self, _query: &Query) -> Result<Page, StoreError> {
        std::future::pending().await
    }

    async fn stats(&self, _query: &StatsQuery) -> Result<Stats, StoreError> {
        std::future::pending().await
    }
}

#[test]
fn it_holds_up_no_health_check_and_its_page_says_so() {
    let (sender, receiver) = mpsc::channel();
    let server = std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let (shutdown, registry) = (Shutdown::new(), Memory::new());
            let admin = Admin::new(Metrics::new(), registry.catalog());
            let dashboard = Dashboard::new(
                admin.clone(),
                registry.catalog(),
                goms::call_key::SigningKey::default(),
                shutdown.clone(),
            );
            dashboard.set_store(Arc::new(Never));
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("an address").to_string();
            admin.serve(listener, &shutdown, move |config| dashboard.mount(config)).expect("served");
            sender.send((address, shutdown.clone())).expect("somebody waits");
            shutdown.begun().await;
            assert!(shutdown.finished(Duration::from_secs(10)).await, "the admin port ends");
        });
    });
    let (address, shutdown) = receiver.recv().expect("it starts");
    let asked = address.clone();
    let page = std::thread::spawn(move || request("GET", &asked, "/", &[("Accept", "text/html")], None));
    assert_eq!(get(&address, "/healthz").expect("an answer").status, 200);
    assert_eq!(get(&address, "/metrics").expect("an answer").status, 200);
    assert!(!page.is_finished(), "the page still waits for its store");
    let page = page.join().expect("no panic").expect("an answer");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("the trace store did not answer within 5 seconds"), "{}", page.text());
    shutdown.begin();
    server.join().expect("no panic");
}

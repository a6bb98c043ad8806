//! What the integration tests share.
#![allow(dead_code)] // each room's tests use a part of it

pub mod browser;
pub mod consul;
pub mod elasticsearch;
pub mod etcd;
pub mod events;
pub mod gate;
pub mod goms;
pub mod http;
pub mod json;
pub mod kubernetes;
pub mod load;
pub mod messaging;
pub mod origin;
pub mod otlp;
pub mod ports;
pub mod proxy;
pub mod rabbitmq;
pub mod servers;
pub mod tls;
pub mod token;
pub mod wire;

/// Whether the tests that take over half a minute run too (`scripts/test --all`); prints a line when they do not.
pub fn slow() -> bool {
    let all = std::env::var_os("GOMS_TEST_ALL").is_some();
    if !all {
        eprintln!("SKIPPED: a slow test (set GOMS_TEST_ALL=1 or run scripts/test --all)");
    }
    all
}

/// Waits until `condition` holds, at most 10 s.
pub async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "waited 10 s for {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

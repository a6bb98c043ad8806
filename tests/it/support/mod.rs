//! What the integration tests share.
#![allow(dead_code)] // each room's tests use a part of it

pub mod http;
pub mod origin;
pub mod servers;

/// Waits until `condition` holds, at most 10 s.
pub async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "waited 10 s for {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

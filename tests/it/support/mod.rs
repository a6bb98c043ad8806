//! What the integration tests share.
#![allow(dead_code)] // each room's tests use a part of it

pub mod events;
pub mod rabbitmq;
pub mod servers;

/// Whether tests that take more than half a minute run; prints a line when they do not.
pub fn slow() -> bool {
    let all = std::env::var_os("GOMS_TEST_ALL").is_some();
    if !all {
        eprintln!("SKIPPED: a slow test (set GOMS_TEST_ALL=1 or run scripts/test --all)");
    }
    all
}

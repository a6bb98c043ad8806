//! What the integration tests share.
#![allow(dead_code)] // each room's tests use a part of it

pub mod goms;
pub mod http;
pub mod load;
pub mod servers;

/// Whether the tests that take over half a minute run too (`scripts/test --all`).
pub fn slow() -> bool {
    std::env::var_os("GOMS_TEST_ALL").is_some()
pub mod etcd;
pub mod servers;

/// Whether tests that take more than half a minute run; prints a line when they do not.
pub fn slow() -> bool {
    let all = std::env::var_os("GOMS_TEST_ALL").is_some();
    if !all {
        eprintln!("SKIPPED: a slow test (set GOMS_TEST_ALL=1 or run scripts/test --all)");
    }
    all
}

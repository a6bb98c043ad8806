//! Ports for servers that cannot take port 0.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 20_000;
/// All are below those that the kernel gives to outgoing connections and to port 0 (from 32768), so a free one stays free
/// until the server takes it, however long that starts.
const COUNT: u16 = 12_000;

/// A port on which nobody listens.
pub fn free_port() -> u16 {
    // each process begins elsewhere and goes on, so that no port is given out twice
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = std::process::id() as u16 % 97 * 120;
    (0..COUNT)
        .map(|_| FIRST + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one port in 12,000 is free")
}

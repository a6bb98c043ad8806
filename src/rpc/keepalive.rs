//! Pings on a connection of HTTP/2 with calls on it: a peer that is silently gone (its machine, or something between) answers
//! none, and its calls end in time (gRPC's proposal A8, `client-side-keepalive.md`; RFC 9113 section 6.7).

use std::future::{pending, poll_fn};
use std::time::Duration;

use h2_v4::{Ping, PingPong};

/// How a silent peer is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// A ping so often, while there are calls.
    pub every: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// How long an answer may take where nobody says: gRPC's own 20 s.
pub const PONG_TIMEOUT: Duration = Duration::from_secs(20);

impl Keepalive {
    /// As a client: servers in Go take pings as an attack that come more often than every 5 minutes.
    pub const CLIENT: Self = Self { every: Duration::from_secs(6 * 60), timeout: PONG_TIMEOUT };
    /// As a server, whose pings every client bears.
    pub const SERVER: Self = Self { every: Duration::from_secs(60), timeout: PONG_TIMEOUT };

    /// Resolves when the peer answered no ping in time. `is_busy` tells whether there are calls: without any nobody waits for it.
    pub async fn silence(self, pings: Option<PingPong>, is_busy: impl Fn() -> bool) {
        let Some(mut pings) = pings else { return pending().await };
        loop {
            tokio::time::sleep(self.every).await;
            if !is_busy() {
                continue;
            }
            // whoever drives the connection sees how it ends otherwise
            if pings.send_ping(Ping::opaque()).is_err() {
                return pending().await;
            }
            match tokio::time::timeout(self.timeout, poll_fn(|task| pings.poll_pong(task))).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return pending().await,
                Err(_) => return,
            }
        }
    }
}

/// [`Keepalive::silence`] where there may be none.
pub async fn silence(keepalive: Option<Keepalive>, pings: Option<PingPong>, is_busy: impl Fn() -> bool) {
    match keepalive {
        Some(keepalive) => keepalive.silence(pings, is_busy).await,
        None => pending().await,
    }
}

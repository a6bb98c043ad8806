//! A node that serves, and how it ends: running requests finish, idle connections are closed at once.
//!
//! ```text
//! stop: draining (answers carry `Connection: close`) → listener closed, idle connections closed → running ones end
//!       → after `drain` the rest is cut off
//! ```
//! actix-web does the first steps, but it looks only once a second whether all connections are gone; so this
//! module counts them itself and does not wait longer than needed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the node's connections and its [`Running`] share.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    draining: AtomicBool,
    connections: AtomicUsize,
}

impl Gauge {
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Counts a connection until what is returned is dropped.
    pub(super) fn connected(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(self.clone())
    }
}

/// One open connection.
pub(super) struct Connected(Arc<Gauge>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A node that serves. Dropping it does not end it: [`Running::stop`] does.
#[derive(Debug)]
pub struct Running {
    pub(super) address: SocketAddr,
    pub(super) server: ServerHandle,
    pub(super) gauge: Arc<Gauge>,
    pub(super) force: CancellationToken,
    pub(super) ended: watch::Receiver<bool>,
}

/// How often the end of the last connection is looked for.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// No connection must be seen for so long: one that was accepted just before the end may not be counted yet.
const DRAIN_QUIET: Duration = Duration::from_millis(20);

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resolves when the server has ended, by [`Running::stop`] or by a failure of its own.
    ///
    /// # Cancel safety
    /// Safe in `select!`.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // an error means that the server's thread is gone, which is an end as well
        if let Err(error) = ended.wait_for(|ended| *ended).await {
            log::debug!("the thread of a service's server is gone error={error}");
        }
    }

    /// Ends it: takes no new connections, closes idle ones, lets running requests finish for `drain` at most, and cuts
    /// off the rest. Returns whether all could finish.
    pub async fn stop(self, drain: Duration) -> bool {
        self.gauge.draining.store(true, Ordering::Relaxed);
        drop(self.server.stop(true)); // the command is sent at once, and its answer comes only to the full second
        let deadline = Instant::now() + drain;
        let mut quiet_since: Option<Instant> = None;
        let finished = loop {
            if *self.ended.borrow() {
                break true;
            }
            let now = Instant::now();
            if self.gauge.connections.load(Ordering::Relaxed) > 0 {
                quiet_since = None;
            } else if now.duration_since(*quiet_since.get_or_insert(now)) >= DRAIN_QUIET {
                break true;
            }
            if now >= deadline && quiet_since.is_none() {
                break false;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        };
        self.force.cancel();
        self.ended().await;
        finished
    }
}

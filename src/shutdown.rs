//! How a process ends: one token that every loop watches, and the list of its background tasks.
//!
//! Tasks start only through [`Shutdown::spawn`] and [`Shutdown::spawn_local`] (plain `tokio::spawn` is
//! banned in `clippy.toml`), so that an ending process can wait for each of them.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A clonable handle: asks for the end of a process (or of a part of it), and waits for its tasks.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A handle that nobody has asked to end.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A part of this process: it ends with the whole, and can end on its own.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), tasks: TaskTracker::new() }
    }

    /// Asks every task to end. Returns at once.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Whether the end was asked for.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves once the end was asked for.
    ///
    /// # Cancel safety
    /// Safe in `select!`.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// Starts a background task that the end waits for.
    #[allow(clippy::disallowed_methods)] // the one place that may spawn
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.tasks.spawn(task));
    }

    /// The same for a task bound to this thread (awc's client is `!Send`). Needs a `LocalSet`, as every
    /// `actix_web::rt::System` has.
    #[allow(clippy::disallowed_methods)]
    pub fn spawn_local<F>(&self, task: F)
    where
        F: Future<Output = ()> + 'static,
    {
        drop(self.tasks.spawn_local(task));
    }

    /// Waits until every task has ended, at most `limit`. Returns whether all did.
    pub async fn finished(&self, limit: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(limit, self.tasks.wait()).await.is_ok()
    }
}

//! Keeps what this process hears by Go Micro's HTTP broker in etcd: one lease a topic, renewed every interval; a key that is
//! gone is put again. No other process has such a key, as its id is random.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::PutOptions;
use tokio::sync::{Mutex, Notify};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::link::LinkError;
use crate::backoff::Backoff;
use crate::registry::Hearer;
use crate::registry::go_micro::hearer;
use crate::shutdown::Shutdown;

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(1);

/// A topic that this process hears.
pub(super) struct Heard {
    hearer: Hearer,
    /// Locked while its key is put.
    pub(super) lease: Mutex<Option<i64>>,
    /// Its key may be gone.
    pub(super) wake: Notify,
    /// It is heard no more.
    pub(super) stop: CancellationToken,
}

/// Puts a hearer's key for the first time.
pub(super) async fn tell(shared: &Shared, hearer: Hearer) -> Result<Arc<Heard>, LinkError> {
    let id = hearer.id.clone();
    let heard = Heard { hearer, lease: Mutex::new(None), wake: Notify::new(), stop: CancellationToken::new() };
    shared.put_hearer(&heard, &mut *heard.lease.lock().await).await?;
    let heard = Arc::new(heard);
    shared.heard().insert(id, heard.clone());
    Ok(heard)
}

/// Renews it until it is heard no more.
pub(super) async fn keep(shared: Arc<Shared>, heard: Arc<Heard>, shutdown: Shutdown) {
    let mut backoff = Backoff::seeded(BACKOFF_FIRST, BACKOFF_CAP);
    let mut wait = shared.interval;
    let mut is_missing = false;
    loop {
        tokio::select! {
            () = shared.ended(&shutdown) => return,
            () = heard.stop.cancelled() => return,
            () = heard.wake.notified() => is_missing = true,
            () = sleep(wait) => {}
        }
        let mut lease = heard.lease.lock().await;
        if heard.stop.is_cancelled() {
            return;
        }
        wait = match shared.renew_hearer(&heard, &mut lease, is_missing).await {
            Ok(()) => {
                is_missing = false;
                backoff.reset();
                shared.interval
            }
            Err(error) => {
                log::debug!("hearer `{}` is not renewed: {error}", heard.hearer.id);
                backoff.next_wait().min(shared.interval)
            }
        };
    }
}

impl Shared {
    async fn renew_hearer(&self, heard: &Heard, lease: &mut Option<i64>, is_missing: bool) -> Result<(), LinkError> {
        if let Some(id) = *lease {
            match self.link.call(|mut client| async move { client.lease_keep_alive(id).await.map(drop) }).await {
                Ok(()) if !is_missing => return Ok(()),
                Ok(()) => {}
                Err(error) if error.is_lease_gone() => *lease = None,
                Err(error) => return Err(error),
            }
        }
        self.put_hearer(heard, lease).await
    }

    async fn put_hearer(&self, heard: &Heard, lease: &mut Option<i64>) -> Result<(), LinkError> {
        let on = match *lease {
            Some(on) => on,
            None => *lease.insert(self.grant().await?),
        };
        let put = self.link.call(|mut client| {
            let (key, value) = (hearer::key(&heard.hearer.id), hearer::record(&heard.hearer));
            async move { client.put(key, value, Some(PutOptions::new().with_lease(on))).await.map(drop) }
        });
        let put = put.await;
        if put.as_ref().is_err_and(LinkError::is_lease_gone) {
            *lease = None;
        }
        put
    }
}

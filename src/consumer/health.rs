//! Whether a consumer is of use now: it reads its queue, and the store takes what it brings.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by the parts of a consumer; the process asks it for `/readyz`.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Troubles>>);

#[derive(Debug, Default)]
struct Troubles {
    queue: Option<String>,
    store: Option<String>,
}

impl Health {
    /// Why events cannot be taken or stored now, in one line without credentials; `None` while all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let troubles = self.lock();
        match (&troubles.queue, &troubles.store) {
            (Some(queue), Some(store)) => Some(format!("{queue}; {store}")),
            (one, other) => one.clone().or_else(|| other.clone()),
        }
    }

    /// Returns whether that is a change between trouble and none.
    pub(super) fn set_queue(&self, trouble: Option<String>) -> bool {
        let mut troubles = self.lock();
        let changed = troubles.queue.is_some() != trouble.is_some();
        troubles.queue = trouble;
        changed
    }

    /// The same for the store.
    pub(super) fn set_store(&self, trouble: Option<String>) -> bool {
        let mut troubles = self.lock();
        let changed = troubles.store.is_some() != trouble.is_some();
        troubles.store = trouble;
        changed
    }

    pub(super) fn store_is_away(&self) -> bool {
        self.lock().store.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Troubles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! A connection that is checked out of the pool, and how it returns.

use crate::pool::{self, Pooled};
use sqlx::MySqlConnection;
use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

/// Holds a connection that was dropped before its work has ended.
type Slot = Mutex<Option<Pooled>>;

/// A connection of the pool of a [`Database`](crate::Database). Dropping it returns it to the pool, which validates it
/// before its next use unless it was released as clean.
pub struct Conn {
    /// `None` only once it is returned.
    pooled: Option<Pooled>,
    /// Where it goes when it is dropped; to the pool if the slot is gone, or there is none.
    slot: Weak<Slot>,
}

impl Conn {
    /// Returns a connection that returns dirty when it is dropped, and clean by [`Conn::release`].
    pub(crate) fn new(pooled: Pooled) -> Self {
        Self { pooled: Some(pooled), slot: Weak::new() }
    }

    /// Returns a connection for work that drops it before the outcome of the work is known: until then the slot keeps
    /// the connection.
    pub(crate) fn with_return_slot(pooled: Pooled) -> (Self, ReturnSlot) {
        let slot = ReturnSlot::default();
        (Self { pooled: Some(pooled), slot: Arc::downgrade(&slot.0) }, slot)
    }

    /// Releases it as clean: its last statement was answered, and its transaction has ended.
    pub(crate) fn release(mut self) {
        if let Some(pooled) = self.pooled.take() {
            pool::release(pooled);
        }
    }

    /// Closes it, and frees its place in the pool.
    pub(crate) fn close(mut self) {
        if let Some(pooled) = self.pooled.take() {
            pool::close(pooled);
        }
    }
}

/// Keeps a connection that its work has dropped. If the slot is dropped too, as with cancelled work, the connection
/// returns to the pool dirty.
#[derive(Default)]
pub(crate) struct ReturnSlot(Arc<Slot>);

impl ReturnSlot {
    /// Releases the connection as clean, after work that succeeded. Does nothing while the work still has it.
    pub(crate) fn release(self) {
        let returned = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(pooled) = returned {
            pool::release(pooled);
        }
    }

    /// Returns whether the connection was lost, after work that failed: it answers no ping within this time, and is
    /// closed. One that answers returns to the pool dirty.
    pub(crate) async fn proves_lost(self, within: Duration) -> bool {
        let returned = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut pooled) = returned else { return false };
        let is_lost = !pooled.ping(within).await;
        if is_lost {
            pool::close(pooled);
        }
        is_lost
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        let Some(pooled) = self.pooled.take() else { return };
        if let Some(slot) = self.slot.upgrade() {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(pooled);
        }
    }
}

impl Deref for Conn {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        &self.pooled.as_ref().expect("it is taken out only by what consumes or drops it").conn
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        &mut self.pooled.as_mut().expect("it is taken out only by what consumes or drops it").conn
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").finish_non_exhaustive()
    }
}

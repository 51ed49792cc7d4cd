//! A connection of the pool while somebody has it, and the way back.

use crate::pool::{self, Pooled};
use sqlx::MySqlConnection;
use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Where a connection comes back to that is lent.
type Slot = Mutex<Option<Pooled>>;

/// A connection out of the pool of a [`Database`](crate::Database). It goes back when it is dropped, and the server is
/// asked before its next use, unless the work that it was lent to has ended well.
pub struct Conn {
    /// There until it goes back.
    pooled: Option<Pooled>,
    lender: Weak<Slot>,
}

impl Conn {
    /// A connection that nobody will vouch for, unless it is given back by [`Conn::give_back`].
    pub(crate) fn new(pooled: Pooled) -> Self {
        Self { pooled: Some(pooled), lender: Weak::new() }
    }

    /// Lends a connection to work that drops it before one knows how the work ends.
    pub(crate) fn lend(pooled: Pooled) -> (Self, Lender) {
        let lender = Lender::default();
        (Self { pooled: Some(pooled), lender: Arc::downgrade(&lender.0) }, lender)
    }

    /// Gives it back for the next one to use as it is. Its last statement was answered, and its transaction has ended.
    pub(crate) fn give_back(mut self) {
        if let Some(pooled) = self.pooled.take() {
            pool::give_back(pooled);
        }
    }

    /// Closes it, and makes room for another in the pool.
    pub(crate) fn close(mut self) {
        if let Some(pooled) = self.pooled.take() {
            pool::close(pooled);
        }
    }
}

/// What the connection comes back to that was lent. If this is dropped, as with work that is cut off, the connection
/// goes back to the pool with nobody who vouches for it.
#[derive(Default)]
pub(crate) struct Lender(Arc<Slot>);

impl Lender {
    /// Gives the connection back for the next one to use as it is: the work has ended well. One that the work has not
    /// dropped is left to it.
    pub(crate) fn give_back(self) {
        let returned = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(pooled) = returned {
            pool::give_back(pooled);
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        let Some(pooled) = self.pooled.take() else { return };
        if let Some(slot) = self.lender.upgrade() {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(pooled);
        }
    }
}

impl Deref for Conn {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        &self.pooled.as_ref().expect("it is there until it goes back").conn
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        &mut self.pooled.as_mut().expect("it is there until it goes back").conn
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").finish_non_exhaustive()
    }
}

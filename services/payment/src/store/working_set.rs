//! The payments of one transaction: locked, changed in memory, and written if a transition has changed them.

use crate::{
    domain::Payment,
    store::{Reading, attempts, payments},
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::PaymentId;
use std::collections::BTreeMap;

/// Payments with their attempts, all locked until the transaction ends. Sorted by id: every transaction locks and
/// writes in that order, so that two of them wait for each other and do not deadlock.
pub struct WorkingSet {
    payments: BTreeMap<PaymentId, Payment>,
    /// Those that cannot be read, and why. They are left as they are, and harm no other.
    unreadable: BTreeMap<PaymentId, DbError>,
}

impl WorkingSet {
    /// Locks those of these payments that exist.
    pub async fn lock(conn: &mut MySqlConnection, ids: impl Iterator<Item = PaymentId>) -> Result<Self, DbError> {
        let mut ids: Vec<_> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        let mut set = Self { payments: BTreeMap::new(), unreadable: BTreeMap::new() };
        for found in payments::load(conn, &ids, Reading::Locked).await? {
            match found {
                Ok(payment) => drop(set.payments.insert(payment.id, payment)),
                Err(odd) => drop(set.unreadable.insert(odd.id, odd.error)),
            }
        }
        Ok(set)
    }

    /// Fails if the payment of this id cannot be read.
    pub fn readable(&self, id: PaymentId) -> Result<(), DbError> {
        self.unreadable.get(&id).map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Returns the payment, if there is one that can be read.
    pub fn get_mut(&mut self, id: PaymentId) -> Option<&mut Payment> {
        self.payments.get_mut(&id)
    }

    /// Returns the payment of this id, made by `new` if there is none. What cannot be read must not be made anew: see
    /// [`WorkingSet::readable`].
    pub fn get_or_insert_with(&mut self, id: PaymentId, new: impl FnOnce() -> Payment) -> &mut Payment {
        self.payments.entry(id).or_insert_with(new)
    }

    /// Writes the payments and attempts that have changed.
    pub async fn save(self, conn: &mut MySqlConnection) -> Result<(), DbError> {
        let changed: Vec<_> = self.payments.values().filter(|payment| payment.is_unsaved).collect();
        // An attempt may have changed without its payment.
        let all = self.payments.values();
        let attempts = all.flat_map(|payment| payment.attempts.iter().map(move |row| (payment.id, row)));
        let changed_attempts: Vec<_> = attempts.filter(|(_, attempt)| attempt.is_unsaved).collect();
        payments::save(conn, &changed).await?;
        attempts::save(conn, &changed_attempts).await
    }
}

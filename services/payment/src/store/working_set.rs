//! The payments of one transaction: locked, changed in memory, and written back as a difference.

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
    before: BTreeMap<PaymentId, Payment>,
    now: BTreeMap<PaymentId, Payment>,
}

impl WorkingSet {
    /// Locks those of these payments that exist.
    pub async fn lock(conn: &mut MySqlConnection, ids: impl Iterator<Item = PaymentId>) -> Result<Self, DbError> {
        let mut ids: Vec<_> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        let locked = payments::load(conn, &ids, Reading::Locked).await?;
        let before: BTreeMap<_, _> = locked.into_iter().map(|payment| (payment.id, payment)).collect();
        Ok(Self { now: before.clone(), before })
    }

    /// The payment, if there is one.
    pub fn get_mut(&mut self, id: PaymentId) -> Option<&mut Payment> {
        self.now.get_mut(&id)
    }

    /// Returns the payment of this id, made by `new` if there is none.
    pub fn get_or_insert_with(&mut self, id: PaymentId, new: impl FnOnce() -> Payment) -> &mut Payment {
        self.now.entry(id).or_insert_with(new)
    }

    /// Writes what has changed.
    pub async fn save(self, conn: &mut MySqlConnection) -> Result<(), DbError> {
        let known = |id: &PaymentId| self.before.get(id);
        let changed: Vec<_> = self.now.values().filter(|payment| known(&payment.id) != Some(payment)).collect();
        let mut changed_attempts = Vec::new();
        for payment in &changed {
            let old = known(&payment.id).map(|old| old.attempts.as_slice()).unwrap_or_default();
            let attempts = payment.attempts.iter().filter(|attempt| !old.contains(attempt));
            changed_attempts.extend(attempts.map(|attempt| (payment.id, attempt)));
        }
        payments::save(conn, &changed).await?;
        attempts::save(conn, &changed_attempts).await
    }
}

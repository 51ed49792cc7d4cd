//! The payments of one transaction: locked, changed in memory, and written by their recorded steps.

use crate::{
    domain::{Attempt, AttemptKey, OutgoingMessage, Payment, Step},
    store::{
        ReadMode, attempts,
        payments::{self, Found, LockPlaces},
        refunds,
    },
};
use sqlx::MySqlConnection;
use stampede_db::{Answers, DbError, Statements};
use stampede_vocab::PaymentId;
use std::collections::{BTreeMap, BTreeSet};

/// Payments with their attempts, locked until the transaction ends. Sorted by id: every transaction locks and writes in
/// that order, so that two of them do not deadlock.
pub struct WorkingSet {
    payments: BTreeMap<PaymentId, Payment>,
    /// The payments that cannot be read, with the error. They are not changed, and fail no other.
    unreadable: BTreeMap<PaymentId, DbError>,
    /// The payments that had no row to lock.
    new: BTreeSet<PaymentId>,
    /// The recorded steps of all payments, in order.
    steps: Vec<Step>,
}

/// The effects of saved steps that are left to the caller.
#[derive(Debug, Default)]
pub struct Saved {
    /// Whether refunds were requested: their workers are to be woken after the commit.
    pub has_refunds: bool,
    /// Messages to append to the outbox, in order.
    pub messages: Vec<OutgoingMessage>,
}

impl WorkingSet {
    /// Locks those of these payments that exist.
    pub async fn lock(conn: &mut MySqlConnection, ids: impl Iterator<Item = PaymentId>) -> Result<Self, DbError> {
        Ok(Self::of(payments::load(conn, &distinct(ids), ReadMode::Locked).await?))
    }

    /// Adds the statements that lock those of these payments that exist, for a transaction that knows them beforehand.
    pub fn push_lock(statements: &mut Statements, ids: impl Iterator<Item = PaymentId>) -> Option<LockPlaces> {
        payments::push_lock(statements, &distinct(ids))
    }

    /// Returns the payments that such statements have locked.
    pub fn read(answers: &Answers, places: Option<LockPlaces>) -> Result<Self, DbError> {
        Ok(Self::of(payments::locked(answers, places)?))
    }

    fn of(locked: Vec<Found>) -> Self {
        let (payments, unreadable) = (BTreeMap::new(), BTreeMap::new());
        let mut set = Self { payments, unreadable, new: BTreeSet::new(), steps: Vec::new() };
        for found in locked {
            match found {
                Ok(payment) => drop(set.payments.insert(payment.id, payment)),
                Err(unreadable) => drop(set.unreadable.insert(unreadable.id, unreadable.error)),
            }
        }
        set
    }

    /// Fails if the payment of this id cannot be read.
    pub fn readable(&self, id: PaymentId) -> Result<(), DbError> {
        self.unreadable.get(&id).map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Returns the payment, if it exists and can be read. Its steps must be [recorded](WorkingSet::record).
    pub fn get_mut(&mut self, id: PaymentId) -> Option<&mut Payment> {
        self.payments.get_mut(&id)
    }

    /// Returns the payment of this id, or adds the one that `new` makes. An unreadable payment must not be made anew:
    /// see [`WorkingSet::readable`].
    pub fn get_or_insert_with(&mut self, id: PaymentId, new: impl FnOnce() -> Payment) -> &mut Payment {
        self.payments.entry(id).or_insert_with(|| {
            self.new.insert(id);
            new()
        })
    }

    /// Records a step of one of the payments, to be saved.
    pub fn record(&mut self, step: impl Into<Option<Step>>) {
        let step: Option<Step> = step.into();
        self.steps.extend(step);
    }

    /// Writes the payments and attempts that the steps have changed, and the refunds that they request. Fails if
    /// another transaction has inserted one of the new payments since: a retry of the transaction finds it.
    pub async fn save(self, conn: &mut MySqlConnection) -> Result<Saved, DbError> {
        let mut writes = Statements::new();
        let saved = self.push_save(&mut writes);
        writes.run(conn).await?;
        Ok(saved)
    }

    /// Adds the statements of [`WorkingSet::save`].
    pub fn push_save(self, writes: &mut Statements) -> Saved {
        let changed: BTreeSet<_> = self.steps.iter().filter_map(|step| step.payment).collect();
        let changed: Vec<_> = self.payments.values().filter(|payment| changed.contains(&payment.id)).collect();
        let (new, known): (Vec<_>, Vec<_>) = changed.into_iter().partition(|payment| self.new.contains(&payment.id));
        payments::push_insert(writes, &new);
        payments::push_save(writes, &known);
        let changed: BTreeSet<_> = self.steps.iter().filter_map(|step| step.attempt).collect();
        let is_changed =
            |id: PaymentId, row: &Attempt| changed.contains(&AttemptKey { payment_id: id, attempt: row.number });
        let all = self.payments.values();
        let attempts = all.flat_map(|payment| payment.attempts.iter().map(move |row| (payment.id, row)));
        let changed: Vec<_> = attempts.filter(|(id, row)| is_changed(*id, row)).collect();
        attempts::push_save(writes, &changed);
        let (mut requested, mut messages) = (Vec::new(), Vec::new());
        for step in self.steps {
            requested.extend(step.refund);
            messages.extend(step.message);
        }
        refunds::push_insert(writes, &requested);
        Saved { has_refunds: !requested.is_empty(), messages }
    }
}

fn distinct(ids: impl Iterator<Item = PaymentId>) -> Vec<PaymentId> {
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PaymentState;
    use anyhow::Result;
    use sqlx::Connection;
    use stampede_testkit::{Service, World};
    use stampede_vocab::{Money, OrderId, Timestamp, UserId};
    use uuid::Uuid;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);

    #[tokio::test]
    async fn a_payment_that_somebody_else_has_made_meanwhile_is_not_written_over() -> Result<()> {
        let db = World::new()?.schema(Service::Payment).await?;
        let (mut one, mut other) = (db.acquire().await?, db.acquire().await?);
        let (order, eur) = (OrderId::from_uuid(Uuid::from_u128(1)), Money::new(500, "EUR".parse()?));
        let new = || Payment::open(order, UserId::from_uuid(Uuid::from_u128(1)), eur, NOW);
        let id = PaymentId::derive(order);
        // As by a stalled consumer that found no payment, and then lost its partition to another one.
        let mut late = one.begin().await?;
        let mut set = WorkingSet::lock(&mut late, std::iter::once(id)).await?;
        let step = set.get_or_insert_with(id, new).request_charge(1, eur, "pm_card_ok".to_owned(), None, NOW)?;
        set.record(step);
        let ahead = Payment { state: PaymentState::Captured { attempt: 1 }, version: 9, ..new() };
        let mut writes = Statements::new();
        payments::push_insert(&mut writes, &[&ahead]);
        writes.run(&mut other).await?;

        let error = set.save(&mut late).await.expect_err("it was made meanwhile");
        assert!(error.unique_violation().is_some() && error.is_of_data(), "{error}");
        late.rollback().await?;
        let stored = payments::load(&mut other, &[id], ReadMode::Plain).await?;
        let stored: Vec<_> = stored.into_iter().flatten().map(|payment| (payment.state, payment.version)).collect();
        assert_eq!(stored, [(ahead.state, 9)]);
        Ok(())
    }
}

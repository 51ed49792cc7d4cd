//! Writes down what became of charges, many at a time: whether a request, a look-up or a notice of the provider told.
//! What is written already changes nothing, so any of them may come first, and any may be repeated.

use crate::{
    domain::{AttemptKey, Failure, Outcome, Outgoing, Refund, Settled, Surprise},
    store::{self, WorkingSet},
    usecase::Desk,
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::Timestamp;
use std::sync::Arc;

/// What became of one charge.
#[derive(Debug, Clone)]
pub(super) struct Settlement {
    pub key: AttemptKey,
    pub outcome: Outcome,
}

/// What a batch has changed.
#[derive(Debug, Default)]
struct Written {
    told: Vec<Outgoing>,
    ends: Vec<(AttemptKey, Outcome)>,
    refunds: Vec<Refund>,
    surprises: Vec<Surprise>,
}

/// Settles a batch in one transaction: the same answer for all.
pub(super) async fn settle_attempts(desk: Desk, batch: Vec<Settlement>) -> Vec<Result<(), Failure>> {
    let calls = batch.len();
    let (now, batch) = (desk.clock.now(), Arc::new(batch));
    let written = desk.db.transact("settle_attempts", move |tx| {
        let batch = batch.clone();
        Box::pin(async move { write(tx, &batch, now).await })
    });
    let answer = written.await.map(|written| desk.settled(written)).map_err(Failure::from);
    vec![answer; calls]
}

async fn write(tx: &mut MySqlConnection, batch: &[Settlement], now: Timestamp) -> Result<Written, DbError> {
    let mut payments = WorkingSet::lock(tx, batch.iter().map(|settlement| settlement.key.payment_id)).await?;
    let mut written = Written::default();
    for settlement in batch {
        written.settle(&mut payments, settlement, now);
    }
    payments.save(tx).await?;
    store::refunds::insert(tx, &written.refunds).await?;
    store::outbox::append(tx, &written.told).await?;
    Ok(written)
}

impl Written {
    fn settle(&mut self, payments: &mut WorkingSet, settlement: &Settlement, now: Timestamp) {
        let key = settlement.key;
        let settled = payments
            .get_mut(key.payment_id)
            .ok_or(Surprise::NoSuchAttempt(key))
            .and_then(|payment| payment.settle(key.attempt, settlement.outcome.clone(), now));
        match settled {
            Ok(Settled::Ended(outgoing)) => {
                self.told.push(outgoing);
                self.ends.push((key, settlement.outcome.clone()));
            }
            // A look-up without a result that comes after the end says nothing about it.
            Ok(Settled::KnownBefore) if settlement.outcome != Outcome::Unresolved => {
                self.ends.push((key, settlement.outcome.clone()));
            }
            Ok(Settled::StillOpen | Settled::KnownBefore) => {}
            Ok(Settled::Surplus(refund)) => {
                self.refunds.push(refund);
                self.surprises.push(Surprise::CapturedInSurplus(key));
            }
            Err(surprise) => self.surprises.push(surprise),
        }
    }
}

impl Desk {
    /// What is left to do after the commit.
    fn settled(&self, written: Written) {
        self.recent_ends.remember(written.ends);
        if !written.told.is_empty() {
            self.outbox.wake();
        }
        if !written.refunds.is_empty() {
            self.refunds_wanted.notify_one();
        }
        for surprise in &written.surprises {
            tracing::error!("{surprise}");
        }
    }
}

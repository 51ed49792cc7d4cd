//! Stores the outcomes of refunds in batches. It is idempotent.

use super::{Context, Error, batches};
use crate::{
    domain::{AttemptKey, OutgoingMessage, Refund, RefundKey, RefundOutcome},
    store::{self, WorkingSet},
};
use sqlx::MySqlConnection;
use stampede_batch::Batcher;
use stampede_db::DbError;
use stampede_vocab::Timestamp;
use std::{collections::BTreeMap, sync::Arc};

/// The outcome of one refund.
#[derive(Debug, Clone)]
struct RefundSettlement {
    key: RefundKey,
    outcome: RefundOutcome,
}

/// Settles refunds in batches. Clones share the queue.
#[derive(Clone)]
pub struct SettleRefunds {
    queue: Batcher<RefundSettlement, Result<(), DbError>>,
}

impl SettleRefunds {
    /// Settles refunds of this schema. Needs a tokio runtime.
    pub fn new(context: Context) -> Self {
        Self { queue: Batcher::new(batches("settle_refunds"), move |batch| settle_all(context.clone(), batch)) }
    }

    /// Stores the outcome of a refund. It is idempotent.
    pub async fn run(&self, key: RefundKey, outcome: RefundOutcome) -> Result<(), Error> {
        Ok(self.queue.call(RefundSettlement { key, outcome }).await??)
    }
}

/// Settles a batch in one transaction: the same answer for all.
async fn settle_all(context: Context, batch: Vec<RefundSettlement>) -> Vec<Result<(), DbError>> {
    let calls = batch.len();
    let (now, batch) = (Timestamp::now(), Arc::new(batch));
    let written = context.db.transact("settle_refunds", move |conn| {
        let batch = batch.clone();
        Box::pin(async move { write(conn, &batch, now).await })
    });
    vec![written.await.map(|()| context.outbox.wake()); calls]
}

async fn write(conn: &mut MySqlConnection, batch: &[RefundSettlement], now: Timestamp) -> Result<(), DbError> {
    let ids: Vec<_> = batch.iter().map(|settlement| settlement.key.0.payment_id).collect();
    let mut payments = WorkingSet::lock(conn, ids.iter().copied()).await?;
    // After the payments, as in every transaction that locks both: in the other order two of them could deadlock.
    let locked = store::refunds::lock(conn, &ids).await?;
    let mut refunds: BTreeMap<_, _> = locked.into_iter().map(|refund| (refund.of, refund)).collect();
    let outgoing: Vec<_> =
        batch.iter().filter_map(|settlement| settle(&mut payments, &mut refunds, settlement, now)).collect();
    payments.save(conn).await?;
    store::refunds::save(conn, &refunds.into_values().collect::<Vec<_>>()).await?;
    store::outbox::append(conn, &outgoing).await
}

fn settle(
    payments: &mut WorkingSet,
    refunds: &mut BTreeMap<AttemptKey, Refund>,
    settlement: &RefundSettlement,
    now: Timestamp,
) -> Option<OutgoingMessage> {
    let of = settlement.key.0;
    let refund = refunds.get_mut(&of)?;
    if !refund.settle(settlement.outcome.clone(), now) {
        return None;
    }
    payments.get_mut(of.payment_id)?.finish_refund(of.attempt, refund.traceparent.clone(), now)
}

//! Writes down what became of refunds, many at a time. What is written already changes nothing.

use crate::{
    domain::{AttemptKey, Failure, Outgoing, Refund, RefundKey, RefundOutcome},
    store::{self, WorkingSet},
    usecase::Desk,
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::Timestamp;
use std::{collections::BTreeMap, sync::Arc};

/// What became of one refund.
#[derive(Debug, Clone)]
pub(super) struct RefundSettlement {
    pub key: RefundKey,
    pub outcome: RefundOutcome,
}

/// Settles a batch in one transaction: the same answer for all.
pub(super) async fn settle_refunds(desk: Desk, batch: Vec<RefundSettlement>) -> Vec<Result<(), Failure>> {
    let calls = batch.len();
    let (now, batch) = (desk.clock.now(), Arc::new(batch));
    let written = desk.db.transact("settle_refunds", move |tx| {
        let batch = batch.clone();
        Box::pin(async move { write(tx, &batch, now).await })
    });
    let answer = written.await.map(|()| desk.outbox.wake()).map_err(Failure::from);
    vec![answer; calls]
}

async fn write(tx: &mut MySqlConnection, batch: &[RefundSettlement], now: Timestamp) -> Result<(), DbError> {
    let ids: Vec<_> = batch.iter().map(|settlement| settlement.key.0.payment_id).collect();
    let mut payments = WorkingSet::lock(tx, ids.iter().copied()).await?;
    let locked = store::refunds::lock(tx, &ids).await?;
    let mut refunds: BTreeMap<_, _> = locked.into_iter().map(|refund| (refund.of, refund)).collect();
    let told: Vec<_> =
        batch.iter().filter_map(|settlement| settle(&mut payments, &mut refunds, settlement, now)).collect();
    payments.save(tx).await?;
    store::refunds::save(tx, &refunds.into_values().collect::<Vec<_>>()).await?;
    store::outbox::append(tx, &told).await
}

fn settle(
    payments: &mut WorkingSet,
    refunds: &mut BTreeMap<AttemptKey, Refund>,
    settlement: &RefundSettlement,
    now: Timestamp,
) -> Option<Outgoing> {
    let of = settlement.key.0;
    let refund = refunds.get_mut(&of)?;
    if !refund.settle(settlement.outcome.clone(), now) {
        return None;
    }
    payments.get_mut(of.payment_id)?.finish_refund(of.attempt, refund.traceparent.clone(), now)
}

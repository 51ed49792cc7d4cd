//! Stores the outcomes of refunds in batches. Idempotent.

use super::{Context, Error, MAX_BATCH, batches, working_set::WorkingSet};
use crate::{
    domain::{Anomaly, AttemptKey, Refund, RefundKey, RefundOutcome, RefundSettled, Subject},
    store,
};
use sqlx::MySqlConnection;
use stampede_batch::Batcher;
use stampede_db::{BatchLimit, DbError};
use stampede_vocab::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

/// The outcome of one refund.
#[derive(Debug, Clone)]
struct RefundSettlement {
    key: RefundKey,
    outcome: RefundOutcome,
    /// Whether a notice says that it has failed, as one that was done may. An older answer to a request says nothing of
    /// a refund that is done.
    has_failed: bool,
}

/// Settles refunds in batches. Clones share the queue.
#[derive(Clone)]
pub struct SettleRefunds {
    queue: Batcher<RefundSettlement, Result<(), DbError>>,
}

impl SettleRefunds {
    /// Settles refunds of this schema. Needs a tokio runtime.
    pub fn new(context: Context) -> Self {
        let limit = Arc::new(BatchLimit::up_to(MAX_BATCH));
        let settle = move |batch| settle_all(context.clone(), limit.clone(), batch);
        Self { queue: Batcher::new(batches("settle_refunds"), settle) }
    }

    /// Stores the outcome of a refund, as a request for it was answered.
    pub async fn run(&self, key: RefundKey, outcome: RefundOutcome) -> Result<(), Error> {
        Ok(self.queue.call(RefundSettlement { key, outcome, has_failed: false }).await??)
    }

    /// Stores the outcome of a refund that was looked up for a notice. If that says that it `has_failed`, and so does
    /// the outcome of one that is done, stores the anomaly.
    pub async fn run_noticed(&self, key: RefundKey, outcome: RefundOutcome, has_failed: bool) -> Result<(), Error> {
        Ok(self.queue.call(RefundSettlement { key, outcome, has_failed }).await??)
    }
}

/// The refunds of one part of a batch, locked.
struct Locked {
    payments: WorkingSet,
    refunds: BTreeMap<AttemptKey, Result<Refund, DbError>>,
    /// The refunds that have changed.
    changed: BTreeSet<AttemptKey>,
    /// The refunds that are done now.
    finished: Vec<AttemptKey>,
    /// The anomalies of refunds that are parked now.
    parked: Vec<Anomaly>,
    /// The anomalies of refunds that were done and are not any more.
    taken_back: Vec<Anomaly>,
}

/// The outcome of one part of a batch.
struct Written {
    /// One for each call: a failure if its refund or payment cannot be read.
    results: Vec<Result<(), DbError>>,
    /// The anomalies that are new.
    anomalies: Vec<Anomaly>,
}

/// Settles a batch in one transaction, or in several: by bisection if the database refuses the data of a call, and in
/// smaller ones after time-outs.
async fn settle_all(
    context: Context,
    limit: Arc<BatchLimit>,
    batch: Vec<RefundSettlement>,
) -> Vec<Result<(), DbError>> {
    let (now, batch) = (Timestamp::now(), Arc::new(batch));
    limit.write_all(batch.len(), |part| settle_part(&context, batch.clone(), part, now)).await
}

async fn settle_part(
    context: &Context,
    batch: Arc<Vec<RefundSettlement>>,
    part: Range<usize>,
    now: Timestamp,
) -> Result<Vec<Result<(), DbError>>, DbError> {
    let written = context.db.transact("settle_refunds", move |conn| {
        let (batch, part) = (batch.clone(), part.clone());
        Box::pin(async move { write(conn, &batch[part], now).await })
    });
    let written = written.await?;
    context.outbox.wake();
    context.report(written.anomalies.iter());
    Ok(written.results)
}

async fn write(conn: &mut MySqlConnection, part: &[RefundSettlement], now: Timestamp) -> Result<Written, DbError> {
    let ids: Vec<_> = part.iter().map(|settlement| settlement.key.0.payment_id).collect();
    let payments = WorkingSet::lock(conn, ids.iter().copied()).await?;
    // After the payments, the lock order of every transaction that locks both: the reverse order could deadlock.
    let refunds = store::refunds::lock(conn, &ids).await?;
    let mut locked = Locked::of(payments, refunds);
    let results: Vec<_> = part.iter().map(|settlement| locked.settle(settlement, now)).collect();
    let anomalies = locked.save(conn, now).await?;
    Ok(Written { results, anomalies })
}

impl Locked {
    fn of(payments: WorkingSet, refunds: BTreeMap<AttemptKey, Result<Refund, DbError>>) -> Self {
        let (changed, finished) = (BTreeSet::new(), Vec::new());
        Self { payments, refunds, changed, finished, parked: Vec::new(), taken_back: Vec::new() }
    }

    /// Applies the outcome of a refund. Fails if the refund or its payment cannot be read.
    fn settle(&mut self, settlement: &RefundSettlement, now: Timestamp) -> Result<(), DbError> {
        let of = settlement.key.0;
        self.payments.readable(of.payment_id)?;
        let refund = match self.refunds.get_mut(&of) {
            Some(Ok(refund)) => refund,
            Some(Err(error)) => return Err(error.clone()),
            None => return Ok(()),
        };
        match refund.settle(settlement.outcome.clone(), now) {
            RefundSettled::AlreadyKnown => {
                if settlement.has_failed {
                    self.taken_back.extend(refund.taken_back(&settlement.outcome));
                }
                return Ok(());
            }
            RefundSettled::StillOpen => {}
            RefundSettled::Parked(anomaly) => self.parked.push(anomaly),
            RefundSettled::Finished => {
                self.finished.push(of);
                let traceparent = refund.traceparent.clone();
                let payment = self.payments.get_mut(of.payment_id);
                let step = payment.and_then(|payment| payment.finish_refund(of.attempt, traceparent, now));
                self.payments.record(step);
            }
        }
        self.changed.insert(of);
        Ok(())
    }

    /// Writes the changes and their messages. Returns the anomalies that are new.
    async fn save(self, conn: &mut MySqlConnection, now: Timestamp) -> Result<Vec<Anomaly>, DbError> {
        let Self { payments, refunds, changed, finished, mut parked, taken_back } = self;
        let saved = payments.save(conn).await?;
        let changed: Vec<_> = refunds.into_values().flatten().filter(|refund| changed.contains(&refund.of)).collect();
        store::refunds::save(conn, &changed).await?;
        store::anomalies::close(conn, Subject::Refund, &finished, now).await?;
        // One that was in doubt, and done later in the batch, is not parked.
        parked.retain(|anomaly| !finished.contains(&anomaly.key()));
        store::anomalies::park(conn, &parked, now).await?;
        // After the others are closed: it stays open even if its refund was done in this batch.
        parked.extend(store::anomalies::note(conn, &taken_back, now).await?);
        store::outbox::append(conn, &saved.messages).await?;
        Ok(parked)
    }
}

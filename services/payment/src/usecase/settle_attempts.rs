//! Stores the outcomes of charges in batches, from answers, look-ups and notices of the provider. Idempotent, so the
//! three may come in any order and be repeated.

use super::{
    Context, Error, MAX_BATCH, batches,
    working_set::{Saved, WorkingSet},
};
use crate::{
    domain::{Anomaly, AttemptKey, Outcome, Settled, Subject},
    store,
};
use sqlx::MySqlConnection;
use stampede_batch::Batcher;
use stampede_db::{BatchLimit, DbError, Statements};
use stampede_vocab::Timestamp;
use std::{mem, ops::Range, sync::Arc};

/// The outcome of one charge.
#[derive(Debug, Clone)]
struct Settlement {
    key: AttemptKey,
    outcome: Outcome,
}

/// Settles attempts in batches. Clones share the queue.
#[derive(Clone)]
pub struct SettleAttempts {
    queue: Batcher<Settlement, Result<(), DbError>>,
}

impl SettleAttempts {
    /// Settles attempts of this schema. Needs a tokio runtime.
    pub fn new(context: Context) -> Self {
        let limit = Arc::new(BatchLimit::up_to(MAX_BATCH));
        let settle = move |batch| settle_all(context.clone(), limit.clone(), batch);
        Self { queue: Batcher::new(batches("settle_attempts"), settle) }
    }

    /// Stores the outcome of an attempt. It is idempotent.
    pub async fn run(&self, key: AttemptKey, outcome: Outcome) -> Result<(), Error> {
        Ok(self.queue.call(Settlement { key, outcome }).await??)
    }
}

/// The changes of one part of a batch.
#[derive(Debug, Default)]
struct Changes {
    saved: Saved,
    ends: Vec<(AttemptKey, Outcome)>,
    /// The anomalies of attempts that are parked now.
    parked: Vec<Anomaly>,
    /// The anomalies that have changed no attempt.
    noted: Vec<Anomaly>,
    /// Attempts that were parked and have ended.
    unparked: Vec<AttemptKey>,
    /// One for each call: a failure if its payment cannot be read.
    results: Vec<Result<(), DbError>>,
}

/// Settles a batch in one transaction, or in several: by bisection if the database refuses the data of a call, and in
/// smaller ones after time-outs.
async fn settle_all(context: Context, limit: Arc<BatchLimit>, batch: Vec<Settlement>) -> Vec<Result<(), DbError>> {
    let (now, batch) = (Timestamp::now(), Arc::new(batch));
    limit.write_all(batch.len(), |part| settle_part(&context, batch.clone(), part, now)).await
}

async fn settle_part(
    context: &Context,
    batch: Arc<Vec<Settlement>>,
    part: Range<usize>,
    now: Timestamp,
) -> Result<Vec<Result<(), DbError>>, DbError> {
    // The locks go out with the BEGIN.
    let mut opening = Statements::new();
    let ids = batch[part.clone()].iter().map(|settlement| settlement.key.payment_id);
    let places = WorkingSet::push_lock(&mut opening, ids);
    let written = context.db.transact_after("settle_attempts", opening, move |conn, read| {
        let (batch, part) = (batch.clone(), part.clone());
        Box::pin(async move { write(conn, WorkingSet::read(&read, places)?, &batch[part], now).await })
    });
    let written: Result<Changes, DbError> = written.await;
    Ok(context.settled(written?))
}

/// Settles a part of a batch on its locked payments, and writes the changes: in one round trip, unless there are
/// anomalies.
async fn write(
    conn: &mut MySqlConnection,
    mut payments: WorkingSet,
    part: &[Settlement],
    now: Timestamp,
) -> Result<Changes, DbError> {
    let mut changes = Changes::default();
    for settlement in part {
        let readable = payments.readable(settlement.key.payment_id);
        if readable.is_ok() {
            changes.settle(&mut payments, settlement, now);
        }
        changes.results.push(readable);
    }
    // In the lock order of every transaction of this service: payments, attempts, refunds, anomalies, outbox.
    let mut writes = Statements::new();
    changes.saved = payments.push_save(&mut writes);
    if changes.has_anomalies() {
        writes.run(conn).await?;
        changes.save_anomalies(conn, now).await?;
        writes = Statements::new();
    }
    store::outbox::push_append(&mut writes, &changes.saved.messages);
    writes.run(conn).await?;
    Ok(changes)
}

impl Changes {
    fn settle(&mut self, payments: &mut WorkingSet, settlement: &Settlement, now: Timestamp) {
        let key = settlement.key;
        let was_parked = payments.get_mut(key.payment_id).is_some_and(|payment| payment.is_parked(key.attempt));
        let settled = payments
            .get_mut(key.payment_id)
            .ok_or(Anomaly::NoSuchAttempt(key))
            .and_then(|payment| payment.settle(key.attempt, settlement.outcome.clone(), now));
        match settled {
            Ok(Settled::Ended(step)) => {
                payments.record(step);
                self.ends.push((key, settlement.outcome.clone()));
                self.unparked.extend(was_parked.then_some(key));
            }
            // Only ends are cached: anything else comes from a look-up that was slower than the end.
            Ok(Settled::AlreadyKnown) if settlement.outcome.is_end() && !was_parked => {
                self.ends.push((key, settlement.outcome.clone()));
            }
            Ok(Settled::AlreadyKnown) => {}
            Ok(Settled::StillOpen(step)) => payments.record(step),
            Ok(Settled::Surplus(step)) => {
                payments.record(step);
                self.noted.push(Anomaly::CapturedInSurplus(key));
                self.unparked.extend(was_parked.then_some(key));
            }
            Ok(Settled::Parked(anomaly, step)) => {
                payments.record(step);
                self.parked.push(anomaly);
            }
            Err(anomaly) => self.noted.push(anomaly),
        }
    }

    fn has_anomalies(&self) -> bool {
        !(self.unparked.is_empty() && self.parked.is_empty() && self.noted.is_empty())
    }

    /// Writes the anomalies, and keeps those noted that were not stored before, to report them once.
    async fn save_anomalies(&mut self, conn: &mut MySqlConnection, now: Timestamp) -> Result<(), DbError> {
        store::anomalies::close(conn, Subject::Charge, &self.unparked, now).await?;
        store::anomalies::park(conn, &self.parked, now).await?;
        let (noted, surplus): (Vec<_>, Vec<_>) =
            mem::take(&mut self.noted).into_iter().partition(Anomaly::is_for_operator);
        self.noted = store::anomalies::note(conn, &noted, now).await?;
        self.noted.extend(surplus);
        Ok(())
    }
}

impl Context {
    /// Runs the effects after the commit. Returns the result of each call.
    fn settled(&self, changes: Changes) -> Vec<Result<(), DbError>> {
        // After the commit: if it were rolled back, a cached end would hide the notice that brings it again.
        self.recent_outcomes.add(changes.ends);
        self.wake(&changes.saved);
        self.report(changes.parked.iter().chain(&changes.noted));
        changes.results
    }

    /// Logs anomalies that were stored, or whose surplus is refunded.
    pub(super) fn report<'a>(&self, anomalies: impl Iterator<Item = &'a Anomaly>) {
        for anomaly in anomalies {
            tracing::error!(payment.anomaly = %anomaly, "the provider and the ledger of payments disagree");
        }
    }
}

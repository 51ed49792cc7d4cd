//! Publishes the capture of an ended order again: the first message may have been discarded by an operator, and an
//! order that ends unpaid would not request it.
//!
//! The order service applies it like the first one: it has the units committed again or requests a refund, and ignores
//! a duplicate. A late fulfilment is published by no message that this service reads, so the repeats are limited.

use super::{Context, working_set::WorkingSet};
use crate::store::{
    self,
    ended_orders::{self, EndedOrder},
};
use opentelemetry::{global, metrics::Counter};
use sqlx::MySqlConnection;
use stampede_db::{BatchLimit, DbError};
use stampede_vocab::{PaymentId, Timestamp};
use std::{ops::Range, sync::Arc, time::Duration};

/// Most orders of a round.
const MAX_ORDERS: u32 = 256;
/// Most repeats of a capture. With the default age they are after ten minutes, an hour, six hours and a day and a half.
const MAX_REPEATS: i32 = 4;
/// Factor by which the back-off grows each time.
const BACKOFF_FACTOR: u32 = 6;

/// Publishes captures again. Cheap to clone.
#[derive(Clone)]
pub struct RepublishCaptures {
    context: Context,
    /// Most orders of one transaction.
    limit: Arc<BatchLimit>,
    republished: Counter<u64>,
}

/// The outcome of a round for its orders.
#[derive(Default)]
struct Round {
    postponed: Vec<EndedOrder>,
    settled: Vec<PaymentId>,
}

impl RepublishCaptures {
    /// Publishes captures of the payments of this schema again.
    pub fn new(context: Context) -> Self {
        let republished = global::meter("stampede.payment")
            .u64_counter("stampede_payment_captures_republished")
            .with_description("Captures of ended orders that were published again")
            .build();
        let limit = Arc::new(BatchLimit::up_to(MAX_ORDERS as usize));
        Self { context, limit, republished }
    }

    /// Publishes the due captures again. If replicas run it concurrently, one of them does each.
    pub async fn run(&self) -> Result<(), DbError> {
        // Creates the counter before its first increment.
        self.republished.add(0, &[]);
        let now = Timestamp::now();
        let find = self
            .context
            .db
            .run("find_ended_orders", |mut conn| async move { ended_orders::due(&mut conn, now, MAX_ORDERS).await });
        let due: Arc<[EndedOrder]> = find.await?.into();
        let answers = self.publish_all(&due, now).await;
        let (mut failed, mut failure) = (Vec::new(), None);
        for (ended, answer) in due.iter().zip(answers) {
            match answer {
                Ok(()) => {}
                Err(error) if error.is_of_data() => {
                    tracing::error!(
                        payment.id = %ended.payment_id, error.cause = %error,
                        "a capture cannot be published again, and waits"
                    );
                    failed.push(*ended);
                }
                Err(error) => failure = Some(error),
            }
        }
        self.postpone_failed(failed, now).await?;
        failure.map_or(Ok(()), Err)
    }

    /// Publishes all again in one transaction, or in several: by bisection if the database refuses the data of one, and
    /// in smaller ones after time-outs. Returns a result for each.
    async fn publish_all(&self, due: &Arc<[EndedOrder]>, now: Timestamp) -> Vec<Result<(), DbError>> {
        self.limit.write_all(due.len(), |part| self.publish_part(due.clone(), part, now)).await
    }

    async fn publish_part(
        &self,
        due: Arc<[EndedOrder]>,
        part: Range<usize>,
        now: Timestamp,
    ) -> Result<Vec<Result<(), DbError>>, DbError> {
        let (age, tried) = (self.context.ended_order_age, part.len());
        let publish = self.context.db.transact("republish_captures", move |conn| {
            let (due, part) = (due.clone(), part.clone());
            Box::pin(async move { republish(conn, &due[part], age, now).await })
        });
        self.note_republished(publish.await?);
        Ok(vec![Ok(()); tried])
    }

    /// Counts captures that were published again, and wakes the relay.
    fn note_republished(&self, count: u64) {
        if count > 0 {
            self.republished.add(count, &[]);
            tracing::warn!(payment.count = count, "captures of ended orders were published again");
            self.context.outbox.wake();
        }
    }

    /// Postpones the payments that failed, so that they do not stay at the head of the queue and block the others.
    async fn postpone_failed(&self, failed: Vec<EndedOrder>, now: Timestamp) -> Result<(), DbError> {
        if failed.is_empty() {
            return Ok(());
        }
        let (age, failed): (_, Arc<[EndedOrder]>) = (self.context.ended_order_age, failed.into());
        let postpone_failed = self.context.db.transact("put_off_ended_orders", move |conn| {
            let failed = failed.clone();
            Box::pin(async move { postpone_failed(conn, &failed, age, now).await })
        });
        postpone_failed.await
    }
}

async fn postpone_failed(
    conn: &mut MySqlConnection,
    failed: &[EndedOrder],
    age: Duration,
    now: Timestamp,
) -> Result<(), DbError> {
    let failed = ended_orders::unchanged(conn, failed).await?;
    let postponed: Vec<_> = failed.into_iter().map(|ended| postponed(ended, ended.repeats, age, now)).collect();
    ended_orders::postpone(conn, &postponed).await
}

async fn republish(
    conn: &mut MySqlConnection,
    due: &[EndedOrder],
    age: Duration,
    now: Timestamp,
) -> Result<u64, DbError> {
    // The payments first: the lock order of the consumer that inserts ended orders.
    let mut payments = WorkingSet::lock(conn, due.iter().map(|ended| ended.payment_id)).await?;
    let mut round = Round::default();
    for ended in ended_orders::unchanged(conn, due).await? {
        round.take(&mut payments, ended, age, now);
    }
    let saved = payments.save(conn).await?;
    store::outbox::append(conn, &saved.messages).await?;
    ended_orders::postpone(conn, &round.postponed).await?;
    ended_orders::delete(conn, &round.settled).await?;
    Ok(u64::try_from(saved.messages.len()).unwrap_or(u64::MAX))
}

impl Round {
    fn take(&mut self, payments: &mut WorkingSet, ended: EndedOrder, age: Duration, now: Timestamp) {
        let id = ended.payment_id;
        let Some(payment) = payments.get_mut(id) else {
            // An unreadable payment waits for a replica that can read it; a missing one is dropped.
            let waits = payments.readable(id).is_err();
            if waits {
                self.postponed.push(postponed(ended, ended.repeats, age, now));
            } else {
                self.settled.push(id);
            }
            return;
        };
        if !payment.may_be_captured() || ended.repeats >= MAX_REPEATS {
            self.settled.push(id);
            return;
        }
        let step = payment.republish_capture(now);
        self.postponed.push(postponed(ended, ended.repeats + i32::from(step.is_some()), age, now));
        payments.record(step);
    }
}

/// Returns the order with its next due time, after so many repeats.
fn postponed(ended: EndedOrder, repeats: i32, age: Duration, now: Timestamp) -> EndedOrder {
    EndedOrder { due_at: now.plus(backoff(age, repeats)), repeats, ..ended }
}

/// Returns the back-off after so many repeats.
fn backoff(age: Duration, repeats: i32) -> Duration {
    age.saturating_mul(BACKOFF_FACTOR.saturating_pow(repeats.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_somewhere() {
        let age = Duration::from_secs(600);
        assert_eq!([0, 1, 2].map(|repeats| backoff(age, repeats).as_secs()), [600, 3_600, 21_600]);
        assert!(backoff(age, MAX_REPEATS) > Duration::from_secs(86_400));
        assert!(backoff(Duration::MAX, i32::MAX) >= age);
    }
}

//! Publishes again that money was captured for an order that has ended: the first message may have been discarded by an
//! operator, and the order, which ends unpaid, would not ask.
//!
//! The order takes it as it took the first: it takes its units again or gives the money back, and passes it over if it
//! has done so before. An order that was fulfilled late publishes nothing that is read here, so this ends after some
//! times.

use super::{Context, halves::Halves};
use crate::store::{
    self, WorkingSet,
    ended_orders::{self, EndedOrder},
};
use opentelemetry::{global, metrics::Counter};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::{PaymentId, Timestamp};
use std::{sync::Arc, time::Duration};

/// Most orders of a round.
const MAX_ORDERS: u32 = 256;
/// How often it is published again. With the default age that is after ten minutes, an hour, six hours and a day and a
/// half.
const MAX_TELLS: i32 = 4;
/// How much longer the pause is each time.
const LONGER: u32 = 6;

/// Publishes captures again. Cheap to clone.
#[derive(Clone)]
pub struct TellAgain {
    context: Context,
    told: Counter<u64>,
}

/// The outcome of a round for its orders.
#[derive(Default)]
struct Round {
    postponed: Vec<EndedOrder>,
    settled: Vec<PaymentId>,
}

impl TellAgain {
    /// Publishes captures of the payments of this schema again.
    pub fn new(context: Context) -> Self {
        let told = global::meter("stampede.payment")
            .u64_counter("stampede_payment_captures_told_again")
            .with_description("Captured payments of ended orders that the order service was told of again")
            .build();
        Self { context, told }
    }

    /// Publishes again what is due. Of several replicas one does.
    pub async fn run(&self) -> Result<(), DbError> {
        // So that there is a count before the first one.
        self.told.add(0, &[]);
        let now = Timestamp::now();
        let find = self
            .context
            .db
            .run("find_ended_orders", |mut conn| async move { ended_orders::due(&mut conn, now, MAX_ORDERS).await });
        let due: Arc<[EndedOrder]> = find.await?.into();
        let answers = self.tell_all(&due, now).await;
        let (mut refused, mut failure) = (Vec::new(), None);
        for (ended, answer) in due.iter().zip(answers) {
            match answer {
                Ok(()) => {}
                Err(error) if error.is_of_data() => {
                    tracing::error!(
                        payment.id = %ended.payment_id, error.cause = %error,
                        "a captured payment cannot be told of again, and waits"
                    );
                    refused.push(*ended);
                }
                Err(error) => failure = Some(error),
            }
        }
        self.put_off(refused, now).await?;
        failure.map_or(Ok(()), Err)
    }

    /// Tells again of all in one transaction, or in more if the database refuses what is written of one of them.
    /// Returns an answer for each.
    async fn tell_all(&self, due: &Arc<[EndedOrder]>, now: Timestamp) -> Vec<Result<(), DbError>> {
        let age = self.context.ended_order_age;
        let mut halves = Halves::of(due.len());
        while let Some(part) = halves.take() {
            if part.is_empty() {
                continue;
            }
            let (due, tried) = (due.clone(), part.clone());
            let tell = self.context.db.transact("tell_captures_again", move |conn| {
                let (due, part) = (due.clone(), tried.clone());
                Box::pin(async move { tell_again(conn, &due[part], age, now).await })
            });
            match tell.await {
                Ok(told) => self.told(told),
                Err(error) => halves.failed(part, &error),
            }
        }
        halves.answers()
    }

    fn told(&self, told: u64) {
        if told > 0 {
            self.told.add(told, &[]);
            tracing::warn!(payment.told_again = told, "captured payments of ended orders were told of again");
            self.context.outbox.wake();
        }
    }

    /// Puts off what was refused, so that it is not at the head of each round: enough of it would keep all others
    /// waiting.
    async fn put_off(&self, refused: Vec<EndedOrder>, now: Timestamp) -> Result<(), DbError> {
        if refused.is_empty() {
            return Ok(());
        }
        let (age, refused): (_, Arc<[EndedOrder]>) = (self.context.ended_order_age, refused.into());
        let put_off = self.context.db.transact("put_off_ended_orders", move |conn| {
            let refused = refused.clone();
            Box::pin(async move { put_off(conn, &refused, age, now).await })
        });
        put_off.await
    }
}

async fn put_off(
    conn: &mut MySqlConnection,
    refused: &[EndedOrder],
    age: Duration,
    now: Timestamp,
) -> Result<(), DbError> {
    let refused = ended_orders::unchanged(conn, refused).await?;
    let later: Vec<_> = refused.into_iter().map(|ended| later(ended, ended.tells, age, now)).collect();
    ended_orders::postpone(conn, &later).await
}

async fn tell_again(
    conn: &mut MySqlConnection,
    due: &[EndedOrder],
    age: Duration,
    now: Timestamp,
) -> Result<u64, DbError> {
    // The payments first, as whoever notes the end of an order locks them.
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
            // One that cannot be read waits for who can; one that is not there is not waited for.
            let waits = payments.readable(id).is_err();
            if waits {
                self.postponed.push(later(ended, ended.tells, age, now));
            } else {
                self.settled.push(id);
            }
            return;
        };
        if !payment.may_be_captured() || ended.tells >= MAX_TELLS {
            self.settled.push(id);
            return;
        }
        let step = payment.tell_captured(now);
        self.postponed.push(later(ended, ended.tells + i32::from(step.is_some()), age, now));
        payments.record(step);
    }
}

/// Returns the order with the time of its next look, after so many repeats.
fn later(ended: EndedOrder, tells: i32, age: Duration, now: Timestamp) -> EndedOrder {
    EndedOrder { due_at: now.plus(pause(age, tells)), tells, ..ended }
}

/// Returns the pause after so many repeats.
fn pause(age: Duration, tells: i32) -> Duration {
    age.saturating_mul(LONGER.saturating_pow(tells.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_somewhere() {
        let age = Duration::from_secs(600);
        assert_eq!([0, 1, 2].map(|tells| pause(age, tells).as_secs()), [600, 3_600, 21_600]);
        assert!(pause(age, MAX_TELLS) > Duration::from_secs(86_400));
        assert!(pause(Duration::MAX, i32::MAX) >= age);
    }
}

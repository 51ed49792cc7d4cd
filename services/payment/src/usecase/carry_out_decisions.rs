//! Carries out the decisions of operators on anomalies, and settles these.

use super::{Context, working_set::WorkingSet};
use crate::{
    domain::{AttemptKey, Refund, Step, Subject, Verdict},
    store::{
        self,
        anomalies::{self, Decision, Found},
    },
};
use sqlx::MySqlConnection;
use stampede_db::{BatchLimit, DbError};
use stampede_service::OnceAMinute;
use stampede_vocab::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

/// Most decisions of a round.
const MAX_DECISIONS: u32 = 256;

/// The lines about decisions that wait, by the ids of their rows: each round meets them again.
static LINES: OnceAMinute<i64> = OnceAMinute::new();

/// Carries out decisions. Cheap to clone.
#[derive(Clone)]
pub struct CarryOutDecisions {
    context: Context,
    /// Most decisions of one transaction.
    limit: Arc<BatchLimit>,
}

/// The payments and refunds that decisions are about, locked.
struct Locked {
    payments: WorkingSet,
    refunds: BTreeMap<AttemptKey, Result<Refund, DbError>>,
    /// The refunds that have changed.
    changed: BTreeSet<AttemptKey>,
    /// Attempts whose refund is done now.
    done: Vec<AttemptKey>,
}

impl CarryOutDecisions {
    /// Carries out the decisions of this schema.
    pub fn new(context: Context) -> Self {
        Self { context, limit: Arc::new(BatchLimit::up_to(MAX_DECISIONS as usize)) }
    }

    /// Carries out the decisions that are found. One whose data the database refuses waits, and blocks no other.
    pub async fn run(&self) -> Result<(), DbError> {
        let found = self
            .context
            .db
            .run("find_decisions", |mut conn| async move { anomalies::decided(&mut conn, MAX_DECISIONS).await });
        let decisions: Arc<[Decision]> = readable(found.await?).into();
        let (results, mut failure) = (self.carry_out_all(&decisions).await, None);
        for (decision, result) in decisions.iter().zip(results) {
            match result {
                Ok(()) => {}
                Err(error) if error.is_of_data() => {
                    if LINES.is_due(decision.id) {
                        tracing::error!(
                            attempt.id = %decision.key, error.cause = %error,
                            "a decision waits: it cannot be carried out"
                        );
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Carries out all in one transaction, or in several: by bisection if the database refuses the data of one, and in
    /// smaller ones after time-outs. Returns a result for each.
    async fn carry_out_all(&self, decisions: &Arc<[Decision]>) -> Vec<Result<(), DbError>> {
        let now = Timestamp::now();
        self.limit.write_all(decisions.len(), |part| self.carry_out_part(decisions.clone(), part, now)).await
    }

    async fn carry_out_part(
        &self,
        decisions: Arc<[Decision]>,
        part: Range<usize>,
        now: Timestamp,
    ) -> Result<Vec<Result<(), DbError>>, DbError> {
        let tried = part.len();
        let carry_out = self.context.db.transact("carry_out_decisions", move |conn| {
            let (decisions, part) = (decisions.clone(), part.clone());
            Box::pin(async move { carry_out(conn, &decisions[part], now).await })
        });
        self.note_carried_out(&carry_out.await?);
        Ok(vec![Ok(()); tried])
    }

    /// Logs what was carried out, and wakes the relay and the refund workers.
    fn note_carried_out(&self, carried_out: &[Decision]) {
        for decision in carried_out {
            tracing::info!(attempt.id = %decision.key, payment.verdict = ?decision.verdict, "a decision was carried out");
        }
        self.context.outbox.wake();
        self.context.refunds_queued.notify_one();
    }
}

/// Returns the decisions that can be read, and logs the others, which wait.
fn readable(found: Vec<Found>) -> Vec<Decision> {
    let log = |id: i64, error: &DbError| {
        if LINES.is_due(id) {
            tracing::error!(error.cause = %error, "a decision waits: it cannot be read");
        }
    };
    found.into_iter().filter_map(|(id, decision)| decision.inspect_err(|error| log(id, error)).ok()).collect()
}

async fn carry_out(
    conn: &mut MySqlConnection,
    decisions: &[Decision],
    now: Timestamp,
) -> Result<Vec<Decision>, DbError> {
    let ids: Vec<_> = decisions.iter().map(|decision| decision.key.payment_id).collect();
    let payments = WorkingSet::lock(conn, ids.iter().copied()).await?;
    let refunds = store::refunds::lock(conn, &ids).await?;
    let mut locked = Locked { payments, refunds, changed: BTreeSet::new(), done: Vec::new() };
    let readable_decisions: Vec<_> =
        decisions.iter().copied().filter(|decision| locked.is_readable(decision)).collect();
    let claimed = anomalies::claim(conn, &readable_decisions, now).await?;
    let claimed: Vec<_> = readable_decisions.into_iter().filter(|decision| claimed.contains(&decision.id)).collect();
    for decision in &claimed {
        locked.settle(decision, now);
    }
    locked.save(conn, now).await?;
    Ok(claimed)
}

impl Locked {
    /// Returns whether the payment and the refund of a decision can be read. If not, the decision waits.
    fn is_readable(&self, decision: &Decision) -> bool {
        let key = decision.key;
        let unreadable = match (self.payments.readable(key.payment_id), self.refunds.get(&key)) {
            (Err(error), _) => error,
            (Ok(()), Some(Err(error))) => error.clone(),
            (Ok(()), Some(Ok(_)) | None) => return true,
        };
        if LINES.is_due(decision.id) {
            tracing::error!(
                attempt.id = %key, error.cause = %unreadable,
                "a decision waits: its payment cannot be read"
            );
        }
        false
    }

    fn settle(&mut self, decision: &Decision, now: Timestamp) {
        let Decision { key, verdict, .. } = *decision;
        let step = match decision.subject {
            Subject::Charge => {
                let payment = self.payments.get_mut(key.payment_id);
                payment.and_then(|payment| payment.apply_verdict(key.attempt, verdict, now))
            }
            Subject::Refund => self.settle_refund(key, verdict, now),
        };
        self.payments.record(step);
    }

    /// Settles a parked refund, or records one that this service had not requested. Returns the step of the payment, if
    /// it has one.
    fn settle_refund(&mut self, key: AttemptKey, verdict: Verdict, now: Timestamp) -> Option<Step> {
        match self.refunds.get_mut(&key) {
            Some(Ok(refund)) => {
                let is_done = refund.apply_verdict(verdict, now);
                let traceparent = refund.traceparent.clone();
                self.changed.insert(key);
                if !is_done {
                    return None;
                }
                self.done.push(key);
                self.payments.get_mut(key.payment_id)?.finish_refund(key.attempt, traceparent, now)
            }
            None if verdict == Verdict::Refunded => {
                let step = self.payments.get_mut(key.payment_id)?.book_refund_elsewhere(key.attempt, now)?;
                self.done.push(key);
                Some(step)
            }
            Some(Err(_)) | None => None,
        }
    }

    async fn save(self, conn: &mut MySqlConnection, now: Timestamp) -> Result<(), DbError> {
        let Self { payments, refunds, changed, done } = self;
        let saved = payments.save(conn).await?;
        let changed: Vec<_> = refunds.into_values().flatten().filter(|refund| changed.contains(&refund.of)).collect();
        store::refunds::save(conn, &changed).await?;
        // Other anomalies of the same refund are settled by this too.
        anomalies::close(conn, Subject::Refund, &done, now).await?;
        store::outbox::append(conn, &saved.messages).await
    }
}

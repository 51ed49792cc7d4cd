//! Reconciles charges that had no answer, or whose process was killed. A charge is looked up by its key. Only if the
//! provider never received it is it sent again, under the same key, so the buyer is charged once. Nothing is sent again
//! once the provider may have forgotten the key. A charge that the provider does not have by then, or does not answer
//! for, is parked for an operator. A pending one is looked up for two weeks.

use super::{ChargeAttempts, Context, SettleAttempts, TRIES_UNTIL_ERROR, queue_scans::QueueScans, readable};
use crate::{
    domain::{ChargeRequest, Doubt, Outcome},
    provider::{HttpProvider, LookUp, ProviderError},
    store::{anomalies, attempts},
};
use stampede_db::DbError;

/// Reconciles attempts with the provider. Cheap to clone.
#[derive(Clone)]
pub struct ReconcileAttempts {
    context: Context,
    provider: HttpProvider,
    charge: ChargeAttempts,
    settle: SettleAttempts,
    scans: QueueScans,
}

impl ReconcileAttempts {
    /// Looks charges up at this provider, and sends those that it never received again by `charge`.
    pub fn new(context: Context, provider: HttpProvider, charge: ChargeAttempts, settle: SettleAttempts) -> Self {
        Self { context, provider, charge, settle, scans: QueueScans::default() }
    }

    /// Returns the number of charges of unknown outcome.
    pub async fn count_unknown(&self) -> Result<u64, DbError> {
        self.context.db.run("count_unknown", |mut conn| async move { attempts::count_unknown(&mut conn).await }).await
    }

    /// Returns the number of undecided anomalies.
    pub async fn count_parked(&self) -> Result<u64, DbError> {
        self.context.db.run("count_parked", |mut conn| async move { anomalies::count_open(&mut conn).await }).await
    }

    /// Claims up to `limit` due attempts of unknown outcome for this process, until the lease ends. Claims none while
    /// the breaker is open.
    pub async fn claim(&self, limit: u32) -> Result<Vec<ChargeRequest>, DbError> {
        let limit = self.provider.breaker().allowance(limit);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let (claim, scan) = (self.context.claim(), self.scans.begin());
        let from = scan.from;
        let claimed = self
            .context
            .db
            .transact("claim_unknown", move |conn| Box::pin(attempts::claim_unknown(conn, (from, limit), claim)));
        let claimed = claimed.await?;
        if !claimed.may_be_more {
            self.scans.mark_drained(&scan, claim.now);
        }
        Ok(readable(claimed.charges))
    }

    /// Reconciles a claimed attempt and stores its outcome. If that is still unknown, the next look-up is scheduled.
    pub async fn run(&self, charge: ChargeRequest) {
        let outcome = self.reconcile(&charge).await;
        let is_unresolved = outcome == Outcome::Unresolved && charge.checks + 1 >= TRIES_UNTIL_ERROR;
        if is_unresolved || outcome == Outcome::LongPending {
            tracing::error!(
                attempt.id = %charge.key, check.count = charge.checks + 1, "a charge still has no known outcome"
            );
        }
        if let Err(error) = self.settle.run(charge.key, outcome).await {
            tracing::warn!(attempt.id = %charge.key, error.cause = %error, "the outcome of a look-up was not stored");
        }
    }

    async fn reconcile(&self, charge: &ChargeRequest) -> Outcome {
        if charge.amount.minor_units == 0 {
            // A charge of nothing is never sent.
            return self.charge.send_charge(charge).await;
        }
        let may_resend = self.context.may_resend(charge.requested_at);
        match self.provider.look_up(charge.key).await {
            Ok(LookUp::Found(Outcome::Unresolved)) if !may_resend => self.long_pending(charge),
            Ok(LookUp::Found(outcome)) => outcome,
            // Not a decline: the first request may still be on its way, and would be charged after it. Under the same
            // key, whichever request arrives first is the one charge.
            Ok(LookUp::NotFound) if may_resend => self.charge.send_charge(charge).await,
            // A provider that has forgotten the key would charge a second time.
            Ok(LookUp::NotFound) => Outcome::InDoubt(Doubt::KeyExpired),
            // No request was sent, so this is no failure to answer.
            Err(ProviderError::BreakerOpen) => Outcome::Unresolved,
            Err(error) => {
                tracing::warn!(attempt.id = %charge.key, error.cause = %error, "a charge could not be looked up");
                error.doubt().map_or_else(|| self.without_answer(charge, &error), Outcome::InDoubt)
            }
        }
    }

    /// Keeps waiting, for two weeks at most: a pending charge ends some day, and the provider reports how.
    fn long_pending(&self, charge: &ChargeRequest) -> Outcome {
        let is_too_long = self.context.is_pending_for_too_long(charge.requested_at);
        if is_too_long { Outcome::InDoubt(Doubt::NoAnswer) } else { Outcome::LongPending }
    }

    fn without_answer(&self, charge: &ChargeRequest, error: &ProviderError) -> Outcome {
        let is_given_up = error.was_sent() && self.context.is_given_up(charge.requested_at, charge.checks);
        if is_given_up { Outcome::InDoubt(Doubt::NoAnswer) } else { Outcome::Unresolved }
    }
}

//! Reconciles charges that were never answered, or whose process was killed. The charge is looked up by its key. Only
//! if the provider never took it is it sent again, under the same key. So the buyer is charged once, whatever was lost
//! and however often. Nothing is sent again once the provider may have forgotten the key. What it does not have by
//! then, or does not answer for, is parked, for an operator; what it says to be pending is looked up for two weeks.

use super::{ChargeAttempts, Context, SettleAttempts, TRIES_UNTIL_ERROR, looks::Looks, readable};
use crate::{
    domain::{ChargeOrder, Doubt, Outcome},
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
    looks: Looks,
}

impl ReconcileAttempts {
    /// Looks charges up at this provider, and sends those again by `charge` that it never took.
    pub fn new(context: Context, provider: HttpProvider, charge: ChargeAttempts, settle: SettleAttempts) -> Self {
        Self { context, provider, charge, settle, looks: Looks::default() }
    }

    /// Returns the number of charges of unknown outcome.
    pub async fn count_unknown(&self) -> Result<u64, DbError> {
        self.context.db.run("count_unknown", |mut conn| async move { attempts::count_unknown(&mut conn).await }).await
    }

    /// Returns the number of anomalies that nobody has decided on.
    pub async fn count_parked(&self) -> Result<u64, DbError> {
        self.context.db.run("count_parked", |mut conn| async move { anomalies::count_open(&mut conn).await }).await
    }

    /// Claims attempts of unknown outcome that are due, at most `limit`, for this process alone until the lease ends;
    /// none while the provider fails.
    pub async fn claim(&self, limit: u32) -> Result<Vec<ChargeOrder>, DbError> {
        let limit = self.provider.breaker().allowance(limit);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let (claim, look) = (self.context.claim(), self.looks.begin());
        let from = look.from;
        let claimed = self
            .context
            .db
            .transact("claim_unknown", move |conn| Box::pin(attempts::claim_unknown(conn, (from, limit), claim)));
        let claimed = claimed.await?;
        if !claimed.may_be_more {
            self.looks.left_nothing(&look, claim.now);
        }
        Ok(readable(claimed.orders))
    }

    /// Reconciles a claimed attempt and stores its outcome. If that is still unknown, the next look-up is scheduled.
    pub async fn run(&self, order: ChargeOrder) {
        let outcome = self.reconcile(&order).await;
        let is_unresolved = outcome == Outcome::Unresolved && order.checks + 1 >= TRIES_UNTIL_ERROR;
        if is_unresolved || outcome == Outcome::LongPending {
            tracing::error!(attempt.id = %order.key, check.count = order.checks + 1, "a charge still has no known outcome");
        }
        if let Err(error) = self.settle.run(order.key, outcome).await {
            tracing::warn!(attempt.id = %order.key, error.cause = %error, "the outcome of a look-up was not stored");
        }
    }

    async fn reconcile(&self, order: &ChargeOrder) -> Outcome {
        if order.amount.minor_units == 0 {
            // The provider never hears of it.
            return self.charge.send_charge(order).await;
        }
        let may_resend = self.context.may_resend(order.requested_at);
        match self.provider.look_up(order.key).await {
            Ok(LookUp::Found(Outcome::Unresolved)) if !may_resend => self.long_pending(order),
            Ok(LookUp::Found(outcome)) => outcome,
            // Not an end: the first request may still be on its way, and would be charged after a decline. Sent again
            // under the same key, whichever of the two arrives first is the one charge.
            Ok(LookUp::NotFound) if may_resend => self.charge.send_charge(order).await,
            // To a provider that has forgotten the key it would be a second charge.
            Ok(LookUp::NotFound) => Outcome::InDoubt(Doubt::KeyExpired),
            // It was not asked, so that it has not failed to answer.
            Err(ProviderError::HeldBack) => Outcome::Unresolved,
            Err(error) => {
                tracing::warn!(attempt.id = %order.key, error.cause = %error, "a charge could not be looked up");
                error.doubt().map_or_else(|| self.without_answer(order, &error), Outcome::InDoubt)
            }
        }
    }

    /// A pending charge ends at last, and what the provider says then counts.
    fn long_pending(&self, order: &ChargeOrder) -> Outcome {
        let is_too_long = self.context.is_pending_for_too_long(order.requested_at);
        if is_too_long { Outcome::InDoubt(Doubt::NoAnswer) } else { Outcome::LongPending }
    }

    fn without_answer(&self, order: &ChargeOrder, error: &ProviderError) -> Outcome {
        let is_given_up = error.was_asked() && self.context.is_given_up(order.requested_at, order.checks);
        if is_given_up { Outcome::InDoubt(Doubt::NoAnswer) } else { Outcome::Unresolved }
    }
}

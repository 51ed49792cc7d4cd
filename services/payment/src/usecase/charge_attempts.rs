//! Charges attempts. The lease of this process is committed first, then the charge is sent to the provider. A queued
//! attempt is claimed here; one that the consumer took over is leased already.

use super::{Context, SettleAttempts, looks::Looks, readable};
use crate::{
    domain::{ChargeOrder, Outcome},
    provider::HttpProvider,
    store::attempts,
};
use stampede_db::DbError;

/// Charges attempts. Cheap to clone.
#[derive(Clone)]
pub struct ChargeAttempts {
    context: Context,
    provider: HttpProvider,
    settle: SettleAttempts,
    looks: Looks,
}

impl ChargeAttempts {
    /// Charges through this provider.
    pub fn new(context: Context, provider: HttpProvider, settle: SettleAttempts) -> Self {
        Self { context, provider, settle, looks: Looks::default() }
    }

    /// Waits until this replica has queued an attempt that it did not take over.
    pub async fn queued(&self) {
        self.context.charges_queued.notified().await;
    }

    /// Claims attempts to charge, at most `limit`, for this process alone until the lease ends; none while the provider
    /// fails, so that they stay queued and are not charged if their orders end.
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
            .transact("claim_charges", move |conn| Box::pin(attempts::claim_requested(conn, (from, limit), claim)));
        let claimed = claimed.await?;
        if claimed.len() < limit as usize {
            self.looks.left_nothing(&look, claim.now);
        }
        Ok(readable(claimed))
    }

    /// Charges an attempt that was claimed or taken over, and stores its outcome. If that fails, the reconciler looks
    /// the charge up after the lease has ended.
    ///
    /// What has been queued for longer than the provider keeps a key may have been sent before, and its database
    /// restored since. It is not sent here, and is of unknown outcome.
    pub async fn run(&self, order: ChargeOrder) {
        let is_safe = order.amount.minor_units == 0 || self.context.may_resend(order.requested_at);
        let outcome = if is_safe { self.send_charge(&order).await } else { Outcome::Unresolved };
        if let Err(error) = self.settle.run(order.key, outcome).await {
            tracing::warn!(attempt.id = %order.key, error.cause = %error, "the outcome of a charge was not stored");
        }
    }

    /// Sends a charge and returns its outcome. A charge of nothing is not sent.
    pub(super) async fn send_charge(&self, order: &ChargeOrder) -> Outcome {
        if order.amount.minor_units == 0 {
            return Outcome::Captured { charge_id: None, amount: order.amount };
        }
        // Never declined here, whatever the error: the request may have arrived, and only the provider knows.
        self.provider.charge(order).await.unwrap_or_else(|error| {
            tracing::warn!(attempt.id = %order.key, error.cause = %error, "a charge has no known outcome");
            match error.doubt() {
                Some(doubt) => Outcome::InDoubt(doubt),
                None if error.was_asked() => Outcome::Unresolved,
                None => Outcome::NotSent,
            }
        })
    }
}

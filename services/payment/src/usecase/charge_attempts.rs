//! Charges attempts: that this process has them is committed first, then the provider is asked. An attempt that waits
//! for its turn is claimed here; one that was taken over as it came is this process's already.

use super::{Context, SettleAttempts};
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
}

impl ChargeAttempts {
    /// Charges through this provider.
    pub fn new(context: Context, provider: HttpProvider, settle: SettleAttempts) -> Self {
        Self { context, provider, settle }
    }

    /// Waits until this replica has queued an attempt that it did not take over.
    pub async fn queued(&self) {
        self.context.charges_queued.notified().await;
    }

    /// Claims attempts to charge, at most `limit`, for this process alone until the lease ends.
    pub async fn claim(&self, limit: u32) -> Result<Vec<ChargeOrder>, DbError> {
        let (now, until) = self.context.lease();
        self.context
            .db
            .transact("claim_charges", move |conn| Box::pin(attempts::claim_requested(conn, limit, now, until)))
            .await
    }

    /// Charges an attempt that was claimed or taken over, and writes down what became of it. If that cannot be written,
    /// the reconciler finds out when the lease has ended.
    pub async fn run(&self, order: ChargeOrder) {
        let outcome = self.ask_to_charge(&order).await;
        if let Err(error) = self.settle.run(order.key, outcome).await {
            tracing::warn!(payment.attempt = %order.key, error.cause = %error, "the outcome of a charge was not written");
        }
    }

    /// What the provider says to a charge. Where nothing is to be paid it is not asked.
    pub(super) async fn ask_to_charge(&self, order: &ChargeOrder) -> Outcome {
        if order.amount.minor_units == 0 {
            return Outcome::Captured { charge_id: None, amount: order.amount };
        }
        self.provider.charge(order).await.unwrap_or_else(|error| {
            tracing::warn!(payment.attempt = %order.key, error.cause = %error, "a charge has no known outcome and will be looked up");
            Outcome::Unresolved
        })
    }
}

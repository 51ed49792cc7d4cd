//! Charges attempts: that this process has them is committed first, then the provider is asked. An attempt that waits
//! for its turn is claimed here; one that was taken over as it came is this process's already.

use crate::{
    domain::{ChargeOrder, Outcome},
    store::attempts,
    usecase::Payments,
};
use stampede_db::DbError;

impl Payments {
    /// Claims attempts to charge, at most `limit`, for this process alone until the lease ends.
    pub async fn claim_charges(&self, limit: u32) -> Result<Vec<ChargeOrder>, DbError> {
        let now = self.desk.clock.now();
        let lease_until = now.plus(self.lease);
        let claim = self
            .desk
            .db
            .transact("claim_charges", move |tx| Box::pin(attempts::claim_requested(tx, limit, now, lease_until)));
        claim.await
    }

    /// Charges an attempt that was claimed or taken over, and writes down what became of it. If that cannot be written,
    /// the reconciler finds out when the lease has ended.
    pub async fn charge(&self, order: ChargeOrder) {
        let outcome = self.ask_to_charge(&order).await;
        if let Err(failure) = self.settle(order.key, outcome).await {
            tracing::warn!(payment.attempt = %order.key, "the outcome of a charge was not written: {failure}");
        }
    }

    /// What the provider says to a charge. Where nothing is to be paid it is not asked.
    pub(super) async fn ask_to_charge(&self, order: &ChargeOrder) -> Outcome {
        if order.amount.minor_units == 0 {
            return Outcome::Captured { charge_id: None, amount: order.amount };
        }
        self.provider.charge(order).await.unwrap_or_else(|error| {
            tracing::warn!(payment.attempt = %order.key, "a charge has no known outcome and will be looked up: {error}");
            Outcome::Unresolved
        })
    }
}

//! Gives captured money back. A refund that was not answered is sent again under the same key until it is done.

use crate::{
    domain::{Refund, RefundOutcome},
    store::refunds,
    usecase::{Payments, WORRYING_TRIES},
};
use stampede_db::DbError;

impl Payments {
    /// Claims refunds that are due, at most `limit`, for this process alone until the lease ends.
    pub async fn claim_refunds(&self, limit: u32) -> Result<Vec<Refund>, DbError> {
        let now = self.desk.clock.now();
        let lease_until = now.plus(self.lease);
        let claim =
            self.desk.db.transact("claim_refunds", move |tx| Box::pin(refunds::claim_due(tx, limit, now, lease_until)));
        claim.await
    }

    /// Sends a claimed refund and writes down what became of it.
    pub async fn refund(&self, refund: Refund) {
        let outcome = self.ask_to_refund(&refund).await;
        if outcome == RefundOutcome::Unresolved && refund.checks() + 1 >= WORRYING_TRIES {
            tracing::error!(payment.refund = %refund.key(), payment.checks = refund.checks() + 1, "a refund is still not done");
        }
        if let Err(failure) = self.settle_refund(refund.key(), outcome).await {
            tracing::warn!(payment.refund = %refund.key(), "the outcome of a refund was not written: {failure}");
        }
    }

    async fn ask_to_refund(&self, refund: &Refund) -> RefundOutcome {
        let Some(charge_id) = &refund.charge_id else {
            // Nothing was paid.
            return RefundOutcome::Refunded { refund_id: None };
        };
        match self.provider.refund(refund, charge_id).await {
            Ok(refund_id) => RefundOutcome::Refunded { refund_id: Some(refund_id) },
            Err(error) => {
                tracing::warn!(payment.refund = %refund.key(), "a refund was not done and will be sent again: {error}");
                RefundOutcome::Unresolved
            }
        }
    }
}

//! Refunds captured money. A refund without an answer is sent again under the same key until it is done.

use super::{Context, SettleRefunds, TRIES_UNTIL_ERROR, readable};
use crate::{
    domain::{Refund, RefundOutcome},
    provider::HttpProvider,
    store::refunds,
};
use stampede_db::DbError;

/// Refunds payments. Cheap to clone.
#[derive(Clone)]
pub struct RefundPayments {
    context: Context,
    provider: HttpProvider,
    settle: SettleRefunds,
}

impl RefundPayments {
    /// Refunds through this provider.
    pub fn new(context: Context, provider: HttpProvider, settle: SettleRefunds) -> Self {
        Self { context, provider, settle }
    }

    /// Waits until this replica has queued a refund.
    pub async fn queued(&self) {
        self.context.refunds_queued.notified().await;
    }

    /// Claims refunds that are due, at most `limit`, for this process alone until the lease ends; none while the provider
    /// fails.
    pub async fn claim(&self, limit: u32) -> Result<Vec<Refund>, DbError> {
        let limit = self.provider.breaker().allowance(limit);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let claim = self.context.claim();
        let claimed =
            self.context.db.transact("claim_refunds", move |conn| Box::pin(refunds::claim_due(conn, limit, claim)));
        Ok(readable(claimed.await?))
    }

    /// Sends a claimed refund and stores its outcome.
    pub async fn run(&self, refund: Refund) {
        let outcome = self.send_refund(&refund).await;
        if outcome == RefundOutcome::Unresolved && refund.checks() + 1 >= TRIES_UNTIL_ERROR {
            tracing::error!(refund.id = %refund.key(), check.count = refund.checks() + 1, "a refund is still not done");
        }
        if let Err(error) = self.settle.run(refund.key(), outcome).await {
            tracing::warn!(refund.id = %refund.key(), error.cause = %error, "the outcome of a refund was not stored");
        }
    }

    async fn send_refund(&self, refund: &Refund) -> RefundOutcome {
        let Some(charge_id) = &refund.charge_id else {
            // Nothing was paid.
            return RefundOutcome::Refunded { refund_id: None };
        };
        match self.provider.refund(refund, charge_id).await {
            Ok(refund_id) => RefundOutcome::Refunded { refund_id: Some(refund_id) },
            Err(error) => {
                tracing::warn!(refund.id = %refund.key(), error.cause = %error, "a refund was not done and will be sent again");
                RefundOutcome::Unresolved
            }
        }
    }
}

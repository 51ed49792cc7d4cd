//! Refunds captured money. A refund without an answer is looked up, and sent again under the same key, until it is done
//! or parked for an operator.

use super::{Context, SettleRefunds, TRIES_UNTIL_ERROR, queue_scans::QueueScans, readable};
use crate::{
    domain::{Doubt, Refund, RefundOutcome},
    provider::{HttpProvider, ProviderError},
    store::refunds,
};
use stampede_db::DbError;

/// Refunds payments. Cheap to clone.
#[derive(Clone)]
pub struct RefundPayments {
    context: Context,
    provider: HttpProvider,
    settle: SettleRefunds,
    scans: QueueScans,
}

impl RefundPayments {
    pub fn new(context: Context, provider: HttpProvider, settle: SettleRefunds) -> Self {
        Self { context, provider, settle, scans: QueueScans::default() }
    }

    /// Waits until this replica has queued a refund.
    pub async fn queued(&self) {
        self.context.refunds_queued.notified().await;
    }

    /// Claims up to `limit` due refunds for this process, until the lease ends. Claims none while the breaker is open.
    pub async fn claim(&self, limit: u32) -> Result<Vec<Refund>, DbError> {
        let limit = self.provider.breaker().allowance(limit);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let (claim, scan) = (self.context.claim(), self.scans.begin());
        let from = scan.from;
        let claimed = self
            .context
            .db
            .transact("claim_refunds", move |conn| Box::pin(refunds::claim_due(conn, (from, limit), claim)));
        let claimed = claimed.await?;
        if claimed.len() < limit as usize {
            self.scans.mark_drained(&scan, claim.now);
        }
        Ok(readable(claimed))
    }

    /// Sends a claimed refund and stores its outcome.
    pub async fn run(&self, refund: Refund) {
        let outcome = self.send_refund(&refund).await;
        let is_unresolved = outcome == RefundOutcome::Unresolved && refund.checks() + 1 >= TRIES_UNTIL_ERROR;
        if is_unresolved || outcome == RefundOutcome::LongPending {
            tracing::error!(refund.id = %refund.key(), check.count = refund.checks() + 1, "a refund is still not done");
        }
        if let Err(error) = self.settle.run(refund.key(), outcome).await {
            tracing::warn!(refund.id = %refund.key(), error.cause = %error, "the outcome of a refund was not stored");
        }
    }

    /// Sends a refund and returns its outcome. One that was sent before is looked up first: a repeat may get the stored
    /// first answer, which was pending.
    async fn send_refund(&self, refund: &Refund) -> RefundOutcome {
        let Some(charge_id) = &refund.charge_id else {
            // Nothing was paid.
            return RefundOutcome::Refunded { refund_id: None };
        };
        let may_resend = self.context.may_resend(refund.created_at);
        let known =
            if refund.checks() == 0 && may_resend { Ok(None) } else { self.provider.look_up_refund(refund).await };
        let outcome = match known {
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) if may_resend => self.provider.refund(refund, charge_id).await,
            Ok(None) => return self.by_charge(refund, charge_id, Doubt::KeyExpired).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(RefundOutcome::Unresolved) if !may_resend => self.long_pending(refund),
            Ok(outcome) => outcome,
            Err(error) => self.without_answer(refund, charge_id, &error).await,
        }
    }

    /// Keeps waiting, for two weeks at most: a pending refund ends some day, and the provider reports how.
    fn long_pending(&self, refund: &Refund) -> RefundOutcome {
        let is_too_long = self.context.is_pending_for_too_long(refund.created_at);
        if is_too_long { RefundOutcome::InDoubt(Doubt::NoAnswer) } else { RefundOutcome::LongPending }
    }

    async fn without_answer(&self, refund: &Refund, charge_id: &str, error: &ProviderError) -> RefundOutcome {
        tracing::warn!(refund.id = %refund.key(), error.cause = %error, "a refund has no known outcome");
        match error.doubt() {
            Some(doubt) => self.by_charge(refund, charge_id, doubt).await,
            None if error.was_sent() && self.is_given_up(refund) => RefundOutcome::InDoubt(Doubt::NoAnswer),
            None => RefundOutcome::Unresolved,
        }
    }

    /// Returns the outcome of a refund that the provider refuses, by its charge: done if the whole charge was refunded
    /// already, as by hand.
    async fn by_charge(&self, refund: &Refund, charge_id: &str, doubt: Doubt) -> RefundOutcome {
        match self.provider.look_up_charge(charge_id).await {
            Ok(Some(charge)) if charge.refunded == Some(refund.amount) => RefundOutcome::Refunded { refund_id: None },
            Ok(_) => RefundOutcome::InDoubt(doubt),
            Err(error) => {
                tracing::warn!(refund.id = %refund.key(), error.cause = %error, "the charge of a refund was not looked up");
                // No better answer will come.
                let is_end = error.doubt().is_some() || (error.was_sent() && self.is_given_up(refund));
                if is_end { RefundOutcome::InDoubt(doubt) } else { RefundOutcome::Unresolved }
            }
        }
    }

    fn is_given_up(&self, refund: &Refund) -> bool {
        self.context.is_given_up(refund.created_at, refund.checks())
    }
}

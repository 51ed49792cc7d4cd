//! Charges attempts. The lease of this process is committed first, then the charge is sent to the provider. A queued
//! attempt is claimed here; one that the consumer took over is leased already.

use super::{Context, SettleAttempts, queue_scans::QueueScans, readable};
use crate::{
    domain::{ChargeRequest, Outcome},
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
    scans: QueueScans,
}

impl ChargeAttempts {
    pub fn new(context: Context, provider: HttpProvider, settle: SettleAttempts) -> Self {
        Self { context, provider, settle, scans: QueueScans::default() }
    }

    /// Waits until this replica has queued an attempt that it did not take over.
    pub async fn queued(&self) {
        self.context.charges_queued.notified().await;
    }

    /// Claims up to `limit` queued attempts for this process, until the lease ends. Claims none while the breaker is
    /// open, so that attempts stay queued, and are not charged if their orders end.
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
            .transact("claim_charges", move |conn| Box::pin(attempts::claim_requested(conn, (from, limit), claim)));
        let claimed = claimed.await?;
        if claimed.len() < limit as usize {
            self.scans.mark_drained(&scan, claim.now);
        }
        Ok(readable(claimed))
    }

    /// Charges an attempt that was claimed or taken over, and stores its outcome. If storing fails, the reconciler
    /// looks the charge up after the lease has expired.
    ///
    /// An attempt that is older than the provider keeps a key is not sent: it may have been sent before the database
    /// was restored. Its outcome is unknown.
    pub async fn run(&self, charge: ChargeRequest) {
        let is_safe = charge.amount.minor_units == 0 || self.context.may_resend(charge.requested_at);
        let outcome = if is_safe { self.send_charge(&charge).await } else { Outcome::Unresolved };
        if let Err(error) = self.settle.run(charge.key, outcome).await {
            tracing::warn!(attempt.id = %charge.key, error.cause = %error, "the outcome of a charge was not stored");
        }
    }

    /// Sends a charge and returns its outcome. A charge of nothing is not sent.
    pub(super) async fn send_charge(&self, charge: &ChargeRequest) -> Outcome {
        if charge.amount.minor_units == 0 {
            return Outcome::Captured { charge_id: None, amount: charge.amount };
        }
        // Never declined here, whatever the error: the request may have arrived, and only the provider knows.
        self.provider.charge(charge).await.unwrap_or_else(|error| {
            tracing::warn!(attempt.id = %charge.key, error.cause = %error, "a charge has no known outcome");
            match error.doubt() {
                Some(doubt) => Outcome::InDoubt(doubt),
                None if error.was_sent() => Outcome::Unresolved,
                None => Outcome::NotSent,
            }
        })
    }
}

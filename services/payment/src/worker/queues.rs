//! The three queues: attempts to charge, charges of unknown outcome, refunds to send.

use crate::{
    domain::{ChargeRequest, Refund},
    usecase::{ChargeAttempts, ReconcileAttempts, RefundPayments},
    worker::pool::Queue,
};
use stampede_db::DbError;

/// Queued attempts. Attempts that the consumer takes over run in the same way, without a claim.
impl Queue for ChargeAttempts {
    type Job = ChargeRequest;

    async fn claim(&self, limit: u32) -> Result<Vec<ChargeRequest>, DbError> {
        Self::claim(self, limit).await
    }

    async fn perform(&self, job: ChargeRequest) {
        self.run(job).await;
    }

    async fn woken(&self) {
        self.queued().await;
    }
}

/// Charges of unknown outcome.
impl Queue for ReconcileAttempts {
    type Job = ChargeRequest;

    async fn claim(&self, limit: u32) -> Result<Vec<ChargeRequest>, DbError> {
        Self::claim(self, limit).await
    }

    async fn perform(&self, job: ChargeRequest) {
        self.run(job).await;
    }

    /// Never wakes: they become due by time.
    async fn woken(&self) {
        std::future::pending::<()>().await;
    }
}

/// Refunds to send.
impl Queue for RefundPayments {
    type Job = Refund;

    async fn claim(&self, limit: u32) -> Result<Vec<Refund>, DbError> {
        Self::claim(self, limit).await
    }

    async fn perform(&self, job: Refund) {
        self.run(job).await;
    }

    async fn woken(&self) {
        self.queued().await;
    }
}

//! The three queues: attempts to charge, charges of unknown outcome, refunds to send.

use crate::{
    domain::{ChargeOrder, Refund},
    usecase::{ChargeAttempts, ReconcileAttempts, RefundPayments},
    worker::pool::Queue,
};
use stampede_db::DbError;

/// Queued attempts. Those that the consumer takes over run like them, without a claim.
impl Queue for ChargeAttempts {
    type Job = ChargeOrder;

    async fn claim(&self, limit: u32) -> Result<Vec<ChargeOrder>, DbError> {
        Self::claim(self, limit).await
    }

    async fn perform(&self, job: ChargeOrder) {
        self.run(job).await;
    }

    async fn woken(&self) {
        self.queued().await;
    }
}

/// Charges of unknown outcome.
impl Queue for ReconcileAttempts {
    type Job = ChargeOrder;

    async fn claim(&self, limit: u32) -> Result<Vec<ChargeOrder>, DbError> {
        Self::claim(self, limit).await
    }

    async fn perform(&self, job: ChargeOrder) {
        self.run(job).await;
    }

    /// Time alone makes them due.
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

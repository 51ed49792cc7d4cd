//! The three queues: attempts to charge, charges of unknown outcome, refunds to send.

use crate::{
    domain::{ChargeOrder, Refund},
    usecase::Payments,
    worker::pool::Queue,
};
use stampede_db::DbError;

/// Attempts that wait for their turn. Those that the consumer takes over are performed like them, without a claim.
#[derive(Clone)]
pub struct Charges(pub Payments);

impl Queue for Charges {
    type Job = ChargeOrder;

    async fn claim(&self, limit: u32) -> Result<Vec<ChargeOrder>, DbError> {
        self.0.claim_charges(limit).await
    }

    async fn perform(&self, job: ChargeOrder) {
        self.0.charge(job).await;
    }

    async fn woken(&self) {
        self.0.charges_wanted().await;
    }
}

/// Charges of unknown outcome.
#[derive(Clone)]
pub struct Unknowns(pub Payments);

impl Queue for Unknowns {
    type Job = ChargeOrder;

    async fn claim(&self, limit: u32) -> Result<Vec<ChargeOrder>, DbError> {
        self.0.claim_unknown(limit).await
    }

    async fn perform(&self, job: ChargeOrder) {
        self.0.reconcile(job).await;
    }

    /// Time alone makes them due.
    async fn woken(&self) {
        std::future::pending::<()>().await;
    }
}

/// Refunds to send.
#[derive(Clone)]
pub struct Refunds(pub Payments);

impl Queue for Refunds {
    type Job = Refund;

    async fn claim(&self, limit: u32) -> Result<Vec<Refund>, DbError> {
        self.0.claim_refunds(limit).await
    }

    async fn perform(&self, job: Refund) {
        self.0.refund(job).await;
    }

    async fn woken(&self) {
        self.0.refunds_wanted().await;
    }
}

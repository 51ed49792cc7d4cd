//! Expires the orders whose payment deadline has passed.

use super::{Change, Outcome, Transitions};
use crate::{
    domain::{Input, PaymentPolicy},
    store,
};
use stampede_db::{Database, DbError};
use stampede_vocab::{OrderId, Timestamp};

/// Most orders of one transaction, of each state.
const BATCH_SIZE: u32 = 250;

/// Expires orders. Cheap to clone.
#[derive(Clone)]
pub struct ExpireOrders {
    db: Database,
    policy: PaymentPolicy,
    transitions: Transitions,
}

impl ExpireOrders {
    /// Expires orders of this schema under this policy.
    pub fn new(db: Database, policy: PaymentPolicy, transitions: Transitions) -> Self {
        Self { db, policy, transitions }
    }

    /// Expires due orders in batches until none is left. Replicas may do so concurrently: each order is checked again
    /// under its lock.
    pub async fn run(&self) -> Result<(), DbError> {
        loop {
            let due = self.due().await?;
            let found = due.len();
            if found == 0 {
                return Ok(());
            }
            let change = |order| Change { order, input: Input::DeadlinePassed, traceparent: None };
            let outcomes = self.transitions.run("expire_orders", due.into_iter().map(change).collect()).await?;
            let expired = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Moved(_))).count();
            if expired > 0 {
                tracing::info!(order.expired = expired, "orders expired");
            }
            if found < BATCH_SIZE as usize {
                return Ok(());
            }
        }
    }

    async fn due(&self) -> Result<Vec<OrderId>, DbError> {
        let (now, policy) = (Timestamp::now(), self.policy);
        self.db
            .run("due_orders", |mut conn| async move { store::orders::due(&mut conn, now, &policy, BATCH_SIZE).await })
            .await
    }
}

//! Expires the orders whose payment deadline has passed.

use super::{Transitions, each_alone::EachAlone};
use crate::{
    domain::{Input, PaymentPolicy},
    store::due::{self, Due},
};
use stampede_db::{Database, DbError};
use stampede_vocab::{OrderId, Timestamp};

/// Most orders of one transaction.
const BATCH_SIZE: u32 = 250;

/// Expires orders.
pub struct ExpireOrders {
    db: Database,
    policy: PaymentPolicy,
    orders: EachAlone,
}

impl ExpireOrders {
    /// Expires orders of this schema under this policy.
    pub fn new(db: Database, policy: PaymentPolicy, transitions: Transitions) -> Self {
        Self { db, policy, orders: EachAlone::new(transitions) }
    }

    /// Expires due orders in batches until none is left. Replicas may do so concurrently: each order is checked again
    /// under its lock.
    pub async fn run(&mut self) -> Result<(), DbError> {
        let mut after = None;
        loop {
            let due = self.due(after).await?;
            let is_last = due.len() < BATCH_SIZE as usize;
            after = due.last().copied();
            let orders = due.into_iter().map(|(_, id)| OrderId::from_uuid(id)).collect();
            let expired = self.orders.run("expire_orders", &Input::DeadlinePassed, orders).await?;
            if expired > 0 {
                tracing::info!(order.expired = expired, "orders expired");
            }
            if is_last {
                return Ok(());
            }
        }
    }

    async fn due(&self, after: Option<Due>) -> Result<Vec<Due>, DbError> {
        let (now, policy) = (Timestamp::now(), self.policy);
        self.db
            .run("due_orders", |mut conn| async move { due::overdue(&mut conn, now, &policy, after, BATCH_SIZE).await })
            .await
    }
}

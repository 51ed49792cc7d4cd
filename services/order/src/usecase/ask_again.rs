//! Asks another service again for an answer that an order has waited for too long.
//!
//! Outbox, Kafka and the consumers lose nothing. What they cannot help is a database that was restored from a backup,
//! with which an answer is gone; and nobody else would ever notice that an order waits for it.

use super::{Transitions, each_alone::EachAlone};
use crate::{
    domain::{Input, PaymentPolicy},
    store::due::{self, Due},
};
use stampede_db::{Database, DbError};
use stampede_vocab::{OrderId, Timestamp};

/// Most orders of one transaction.
const BATCH_SIZE: u32 = 100;

pub struct AskAgain {
    db: Database,
    policy: PaymentPolicy,
    orders: EachAlone,
}

impl AskAgain {
    /// Asks again for orders of this schema under this policy.
    pub fn new(db: Database, policy: PaymentPolicy, transitions: Transitions) -> Self {
        Self { db, policy, orders: EachAlone::new(transitions) }
    }

    /// Asks again in batches until no order has waited too long. Replicas may do so concurrently: each order is checked
    /// again under its lock.
    pub async fn run(&mut self) -> Result<(), DbError> {
        let mut after = None;
        loop {
            let waiting = self.waiting(after).await?;
            let is_last = waiting.len() < BATCH_SIZE as usize;
            after = waiting.last().copied();
            let orders = waiting.into_iter().map(|(_, id)| OrderId::from_uuid(id)).collect();
            let asked = self.orders.run("ask_again", &Input::AskAgain, orders).await?;
            if asked > 0 {
                tracing::warn!(order.asked_again = asked, "orders have waited long for an answer, asked again");
            }
            if is_last {
                return Ok(());
            }
        }
    }

    async fn waiting(&self, after: Option<Due>) -> Result<Vec<Due>, DbError> {
        let (now, policy) = (Timestamp::now(), self.policy);
        self.db
            .run(
                "waiting_orders",
                |mut conn| async move { due::waiting(&mut conn, now, &policy, after, BATCH_SIZE).await },
            )
            .await
    }
}

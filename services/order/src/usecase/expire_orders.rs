//! Expires the orders whose payment deadline has passed.

use super::{Transitions, each_alone::EachAlone};
use crate::{
    domain::{Input, PaymentPolicy},
    store::due::{self, Due},
};
use stampede_db::{Database, DbError};
use stampede_vocab::{OrderId, Timestamp};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Most orders of one transaction.
const BATCH_SIZE: u32 = 250;
/// Time between two looks at all that is overdue. Those in between begin where the last one has ended: an index keeps
/// the places of orders that were paid or have expired for as long as somebody reads as of before, and a look walks
/// over them.
const WHOLE_LOOK: Duration = Duration::from_secs(5);

pub struct ExpireOrders {
    db: Database,
    policy: PaymentPolicy,
    orders: EachAlone,
    /// When all was looked at that was overdue then.
    looked: Option<(Instant, Timestamp)>,
}

impl ExpireOrders {
    /// Expires orders of this schema under this policy.
    pub fn new(db: Database, policy: PaymentPolicy, transitions: Transitions) -> Self {
        Self { db, policy, orders: EachAlone::new(transitions), looked: None }
    }

    /// Expires due orders in batches until none is left. Replicas may do so concurrently: each order is checked again
    /// under its lock. What was overdue before, and is so again or still, may wait for the next look at all.
    pub async fn run(&mut self) -> Result<(), DbError> {
        let (started, now) = (Instant::now(), Timestamp::now());
        let looked = self.looked.filter(|(at, _)| at.elapsed() < WHOLE_LOOK);
        let mut after = looked.map(|(_, overdue)| (overdue.micros(), Uuid::nil()));
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
                // Orders that are being paid were passed over until their grace is over.
                self.looked = looked.or(Some((started, now.minus(self.policy.paying_grace))));
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

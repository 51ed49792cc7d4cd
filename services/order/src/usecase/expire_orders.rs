//! Expires the orders whose payment deadline has passed.

use super::{Transitions, full_scans::FullScans, sweep_batches::SweepBatches};
use crate::{
    domain::{Input, PaymentPolicy},
    store::due::{self, Due},
};
use stampede_db::{Database, DbError};
use stampede_vocab::{OrderId, Timestamp};
use std::time::Duration;
use tokio::time::Instant;

/// Most orders of one transaction.
const BATCH_SIZE: u32 = 250;
/// Interval of full scans of the overdue orders.
const FULL_SCAN_INTERVAL: Duration = Duration::from_secs(5);

pub struct ExpireOrders {
    db: Database,
    policy: PaymentPolicy,
    orders: SweepBatches,
    scans: FullScans,
}

impl ExpireOrders {
    /// Expires orders of this schema under this policy.
    pub fn new(db: Database, policy: PaymentPolicy, transitions: Transitions) -> Self {
        let orders = SweepBatches::new(transitions, BATCH_SIZE as usize);
        Self { db, policy, orders, scans: FullScans::every(FULL_SCAN_INTERVAL) }
    }

    /// Expires due orders in batches until none is left. Replicas may run it concurrently: each order is checked again
    /// under its lock. An order that is due at an earlier time than the last full scan has reached may wait for the
    /// next full scan.
    pub async fn run(&mut self) -> Result<(), DbError> {
        let (scan, now) = (self.scans.begin(Instant::now()), Timestamp::now());
        let mut after = scan.from.map(due::overdue_since);
        let mut is_whole = true;
        loop {
            let due = self.due(after).await?;
            let is_last = due.len() < BATCH_SIZE as usize;
            after = due.last().copied();
            let orders = due.into_iter().map(|(_, id)| OrderId::from_uuid(id)).collect();
            let expired = self.orders.run("expire_orders", &Input::DeadlinePassed, orders).await?;
            is_whole &= !self.orders.was_cut_short();
            if expired > 0 {
                tracing::info!(order.count = expired, "orders expired");
            }
            if is_last {
                if is_whole {
                    // Orders that are being paid were skipped until their grace period is over.
                    self.scans.end(scan, now.minus(self.policy.paying_grace));
                }
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

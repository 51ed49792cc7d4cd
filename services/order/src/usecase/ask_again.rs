//! Retries a request to another service whose answer is overdue.
//!
//! Outbox, Kafka and the consumers lose nothing. But a database that is restored from a backup loses the answers that
//! it had, and nothing else would notice that an order waits for one.

use super::{Transitions, full_scans::FullScans, sweep_batches::SweepBatches};
use crate::{
    domain::{Input, MAX_ASK_BACKOFF, PaymentPolicy},
    store::due::{self, Due},
};
use stampede_db::{Database, DbError};
use stampede_vocab::{OrderId, Timestamp};
use tokio::time::Instant;

/// Most orders of one transaction.
const BATCH_SIZE: u32 = 100;

pub struct AskAgain {
    db: Database,
    policy: PaymentPolicy,
    orders: SweepBatches,
    scans: FullScans,
}

impl AskAgain {
    /// Retries for orders of this schema, with the back-off of this policy.
    pub fn new(db: Database, policy: PaymentPolicy, transitions: Transitions) -> Self {
        // The second back-off, and none after it is shorter: a wait for the next full scan at most doubles one.
        let scans = FullScans::every(policy.ask_backoff.saturating_mul(2).min(MAX_ASK_BACKOFF));
        Self { db, policy, orders: SweepBatches::new(transitions, BATCH_SIZE as usize), scans }
    }

    /// Retries in batches until no answer is overdue. Replicas may run it concurrently: each order is checked again
    /// under its lock. One that a full scan has skipped, because it was locked, its change failed or its back-off is a
    /// doubled one, may wait for the next full scan.
    pub async fn run(&mut self) -> Result<(), DbError> {
        let (scan, now) = (self.scans.begin(Instant::now()), Timestamp::now());
        let mut after = scan.from.map(due::waiting_since);
        let mut is_whole = true;
        loop {
            let waiting = self.waiting(after).await?;
            let is_last = waiting.len() < BATCH_SIZE as usize;
            after = waiting.last().copied();
            let orders = waiting.into_iter().map(|(_, id)| OrderId::from_uuid(id)).collect();
            let retried = self.orders.run("ask_again", &Input::AskAgain, orders).await?;
            is_whole &= !self.orders.was_cut_short();
            if retried > 0 {
                tracing::warn!(order.count = retried, "orders have waited long for an answer, asked again");
            }
            if is_last {
                if is_whole {
                    // Orders whose first back-off was not over, with its jitter, were skipped.
                    self.scans.end(scan, now.minus(self.policy.longest_first_ask_backoff()));
                }
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

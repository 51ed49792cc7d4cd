//! Sweeps the reservations of orders that were never written, and then a page of the ledger for ended orders that kept
//! their units.

use crate::usecase::{ReleaseEnded, ReleaseUnwritten};
use stampede_service::Worker;
use std::time::Duration;

/// The worker, one sweep a round.
pub struct UnwrittenOrders {
    unwritten: ReleaseUnwritten,
    ended: ReleaseEnded,
    between_rounds: Duration,
}

impl Worker for UnwrittenOrders {
    type Error = anyhow::Error;

    async fn round(&mut self) -> anyhow::Result<Duration> {
        let unwritten = self.unwritten.run().await;
        // Runs even if a reservation of an unwritten order could not be given back.
        self.ended.run().await?;
        unwritten.map(|()| self.between_rounds)
    }

    fn pause_after_failure(&self, _failures: u32) -> Duration {
        self.between_rounds
    }
}

impl UnwrittenOrders {
    /// Returns the worker, which pauses for so long between two rounds.
    pub fn new(unwritten: ReleaseUnwritten, ended: ReleaseEnded, between_rounds: Duration) -> Self {
        Self { unwritten, ended, between_rounds }
    }
}

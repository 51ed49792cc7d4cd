//! Sweeps the holds of orders that were never written: one page a round, a pause between pages, and each hold once a
//! pass, so that many orders waiting for their payment cost little.

use crate::usecase::{HoldCursor, ReleaseUnwritten};
use stampede_service::Worker;
use std::time::Duration;

/// Pause between two pages of a pass. It throttles look-ups to 512 holds a second, however many wait for their payment.
const BETWEEN_PAGES: Duration = Duration::from_millis(500);
/// Shortest pause between two passes.
const MIN_BETWEEN_PASSES: Duration = Duration::from_millis(500);

/// The worker, one page a round.
pub struct UnwrittenHolds {
    release: ReleaseUnwritten,
    between_passes: Duration,
    /// The cursor of the pass; `None` between two passes.
    after: Option<HoldCursor>,
}

impl Worker for UnwrittenHolds {
    type Error = anyhow::Error;

    async fn round(&mut self) -> anyhow::Result<Duration> {
        // If the page fails the pass starts again.
        let after = self.after.take();
        self.after = self.release.page(after).await?;
        Ok(if self.after.is_some() { BETWEEN_PAGES } else { self.between_passes })
    }

    fn pause_after_failure(&self, _failures: u32) -> Duration {
        self.between_passes
    }
}

impl UnwrittenHolds {
    /// Returns the worker. It pauses for a quarter of `age`, from which on holds are looked up, between two passes.
    pub fn new(release: ReleaseUnwritten, age: Duration) -> Self {
        Self { release, between_passes: (age / 4).max(MIN_BETWEEN_PASSES), after: None }
    }
}

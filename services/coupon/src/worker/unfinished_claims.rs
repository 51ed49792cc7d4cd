//! Looks every second for claims that were ranked and never stored.

use crate::usecase::FinishClaims;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// The worker.
pub struct UnfinishedClaims {
    /// Finishes claims.
    pub finish: FinishClaims,
    /// Younger claims are most likely being stored by the call that made them.
    pub age: Duration,
}

impl UnfinishedClaims {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(look.tick()).await.is_some() {
            if let Err(error) = self.finish.sweep(self.age).await {
                tracing::warn!(%error, "unfinished claims could not be looked for, trying again");
            }
        }
        Ok(())
    }
}

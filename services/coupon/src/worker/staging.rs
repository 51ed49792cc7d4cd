//! Keeps every open campaign staged: at once when a claim finds one missing or inconsistent, and by a check every
//! second.

use crate::usecase::{Campaigns, StageCampaign, StagingQueue};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Time between two checks for campaigns that are missing.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The worker.
pub struct Staging {
    pub stage: StageCampaign,
    /// Finds the campaigns that are queued.
    pub campaigns: Campaigns,
    /// Campaigns that were found missing or inconsistent.
    pub queue: StagingQueue,
}

impl Staging {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_check = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => true,
                () = self.queue.woken() => false,
            };
            self.stage.stage_requested(self.queue.take(), &self.campaigns, &self.queue).await;
            if is_check && let Err(error) = self.stage.stage_missing().await {
                tracing::warn!(error.cause = %error, "missing campaigns could not be staged, trying again");
            }
        }
    }
}

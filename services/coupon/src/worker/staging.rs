//! Keeps every open campaign staged: at once when a claim finds one missing or wrong, and by a look every second.

use crate::usecase::{Campaigns, StageCampaign, StagingQueue};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Time between two looks for campaigns that are missing.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The worker.
pub struct Staging {
    pub stage: StageCampaign,
    /// Finds the campaigns that are asked for.
    pub campaigns: Campaigns,
    /// Campaigns that somebody found missing or wrong.
    pub queue: StagingQueue,
}

impl Staging {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_look = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = look.tick() => true,
                () = self.queue.woken() => false,
            };
            self.stage.stage_requested(self.queue.take(), &self.campaigns, &self.queue).await;
            if is_look && let Err(error) = self.stage.stage_missing().await {
                tracing::warn!(error.cause = %error, "campaigns could not be looked at, trying again");
            }
        }
    }
}

//! Stages campaigns as soon as a claim finds them missing or wrong in Redis. What nobody claims from is found missing
//! by a look every second.

use crate::usecase::{Campaigns, StageCampaign, StagingQueue};
use stampede_service::Worker;
use std::{convert::Infallible, time::Duration};

/// Longest time until what could not be staged is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The worker.
pub struct Staging {
    pub stage: StageCampaign,
    /// Finds the campaigns that are queued.
    pub campaigns: Campaigns,
    /// Campaigns that were found missing or inconsistent.
    pub queue: StagingQueue,
}

impl Worker for Staging {
    type Error = Infallible;

    async fn round(&mut self) -> Result<Duration, Infallible> {
        self.stage.stage_queued(&self.campaigns, &self.queue).await;
        Ok(RETRY_INTERVAL)
    }

    async fn woken(&mut self) {
        self.queue.woken().await;
    }
}

//! Stages campaigns as soon as a claim finds them missing or inconsistent in Redis. A poll every second finds the
//! others.

use crate::usecase::{Campaigns, StageCampaign, StagingQueue};
use stampede_service::Worker;
use std::{convert::Infallible, time::Duration};

/// Longest time until a failed staging is retried.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

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

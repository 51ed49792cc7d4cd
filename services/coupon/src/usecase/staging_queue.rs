//! The queue of the staging worker: campaigns that were found missing or inconsistent in Redis. Also tracks which
//! campaigns are being staged.

use stampede_vocab::CampaignId;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// The campaigns to stage, each with the epoch to invalidate if its contents are inconsistent.
pub type StagingRequests = HashMap<CampaignId, Option<i64>>;

/// A set of campaigns to be staged. Clones share it. It has only campaigns that exist, each once.
#[derive(Debug, Clone, Default)]
pub struct StagingQueue {
    requested: Arc<Mutex<StagingRequests>>,
    in_flight: Arc<Mutex<HashSet<CampaignId>>>,
    woken: Arc<Notify>,
}

/// A guard: its campaign counts as being staged until it is dropped.
#[derive(Debug)]
pub struct StagingGuard {
    queue: StagingQueue,
    campaign: CampaignId,
}

impl Drop for StagingGuard {
    fn drop(&mut self) {
        self.queue.lock_in_flight().remove(&self.campaign);
    }
}

impl StagingQueue {
    /// Queues a campaign that is missing, unless it is being staged.
    pub fn request(&self, campaign: CampaignId) {
        if self.lock_in_flight().contains(&campaign) {
            return;
        }
        self.put(campaign, None);
        self.woken.notify_one();
    }

    /// Queues a campaign whose contents under this epoch are inconsistent, to be closed and rebuilt.
    pub fn invalidate(&self, campaign: CampaignId, epoch: i64) {
        tracing::warn!(campaign.id = %campaign, campaign.epoch = epoch, "redis does not agree with the stored coupons");
        self.put(campaign, Some(epoch));
        self.woken.notify_one();
    }

    /// Queues a campaign again that could not be staged. Does not wake the worker, so that it retries at its next tick.
    pub fn put_back(&self, campaign: CampaignId, invalid_epoch: Option<i64>) {
        self.put(campaign, invalid_epoch);
    }

    /// Waits until a campaign is queued.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Drains the queue.
    pub fn take(&self) -> StagingRequests {
        std::mem::take(&mut *self.requested.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Marks a campaign as being staged; `None` if it is already.
    pub fn begin(&self, campaign: CampaignId) -> Option<StagingGuard> {
        self.lock_in_flight().insert(campaign).then(|| StagingGuard { queue: self.clone(), campaign })
    }

    fn lock_in_flight(&self) -> MutexGuard<'_, HashSet<CampaignId>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a campaign. The greater of two epochs wins, since epochs grow.
    fn put(&self, campaign: CampaignId, invalid_epoch: Option<i64>) {
        let mut requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        let known = requested.entry(campaign).or_insert(invalid_epoch);
        *known = invalid_epoch.max(*known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_latest_epoch_is_kept_and_taken_once() {
        let queue = StagingQueue::default();
        let campaign = CampaignId::from_uuid(uuid::Uuid::from_u128(1));
        queue.request(campaign);
        queue.invalidate(campaign, 7);
        queue.invalidate(campaign, 5);
        queue.request(campaign);
        queue.woken().await;
        assert_eq!(queue.take(), StagingRequests::from([(campaign, Some(7))]));
        assert!(queue.take().is_empty());
    }

    #[test]
    fn a_campaign_is_staged_by_one_at_a_time_and_not_queued_meanwhile() {
        let queue = StagingQueue::default();
        let campaign = CampaignId::from_uuid(uuid::Uuid::from_u128(1));
        let guard = queue.begin(campaign).unwrap();
        assert!(queue.begin(campaign).is_none());
        queue.request(campaign);
        assert!(queue.take().is_empty());
        queue.invalidate(campaign, 7);
        assert_eq!(queue.take(), StagingRequests::from([(campaign, Some(7))]));
        drop(guard);
        queue.request(campaign);
        assert_eq!(queue.take(), StagingRequests::from([(campaign, None)]));
        assert!(queue.begin(campaign).is_some());
    }
}

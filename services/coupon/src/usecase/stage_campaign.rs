//! Stages a campaign in Redis when it is created, when Redis has lost it, and when Redis was rolled back. MySQL is the
//! truth; claims fail with NOT_READY until all rows are loaded. Each page has a time-out and the whole does not: a
//! campaign of millions would never be ready.

use crate::{
    domain::Campaign,
    store,
    usecase::{Campaigns, Error, FinishClaims, StagingQueue, readable_campaign},
};
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use stampede_db::Database;
use stampede_lua::{
    Redis,
    coupon::{self, Loaded, Plan, Staging},
};
use stampede_vocab::{CampaignId, Timestamp};
use std::time::Duration;

/// Campaigns staged concurrently.
const BATCH_SIZE: u32 = 16;
/// How long before its opening a campaign is staged at the latest.
const BEFORE_OPENING: Duration = Duration::from_secs(60);
/// How long after its end Redis keeps a campaign. Later only MySQL is read. Pending claims are kept until they are
/// stored.
const KEPT_AFTER_CLOSING: Duration = Duration::from_secs(24 * 3_600);

#[derive(Clone)]
pub struct StageCampaign {
    db: Database,
    redis: Redis,
    finish: FinishClaims,
}

impl StageCampaign {
    /// Returns the use case on this Redis.
    pub fn new(db: Database, redis: Redis, finish: FinishClaims) -> Self {
        Self { db, redis, finish }
    }

    /// Stages the campaign if it is missing, or still has the epoch `invalid_epoch`. Concurrent calls are safe.
    pub async fn stage(&self, campaign: &Campaign, invalid_epoch: Option<i64>) -> Result<(), Error> {
        let terms = &campaign.terms;
        let plan = Plan {
            quota: terms.quota,
            open_time: terms.open_time,
            close_time: terms.close_time,
            expires_at: terms.close_time.plus(KEPT_AFTER_CLOSING),
        };
        match coupon::stage(&self.redis, campaign.id, plan, invalid_epoch).await? {
            Staging::Ready => Ok(()),
            Staging::Loading { epoch } => {
                // First store the claims that were ranked under the old epoch, so that their ranks are loaded with the
                // rest and are not issued again.
                self.finish.finish(campaign, Duration::ZERO).await?;
                self.load(campaign, epoch).await
            }
        }
    }

    /// Stages the queued campaigns concurrently, also those that are queued meanwhile, so that none waits for a longer
    /// one. Queues a campaign again if its staging fails.
    pub async fn stage_queued(&self, campaigns: &Campaigns, queue: &StagingQueue) {
        let stage = |(id, invalid_epoch)| self.stage_requested(id, invalid_epoch, campaigns, queue);
        let mut in_flight: FuturesUnordered<_> = queue.take().into_iter().map(stage).collect();
        loop {
            tokio::select! {
                done = in_flight.next() => if done.is_none() { return },
                () = queue.woken() => in_flight.extend(queue.take().into_iter().map(stage)),
            }
        }
    }

    async fn stage_requested(
        &self,
        id: CampaignId,
        invalid_epoch: Option<i64>,
        campaigns: &Campaigns,
        queue: &StagingQueue,
    ) {
        let Some(_guard) = queue.begin(id) else {
            queue.put_back(id, invalid_epoch);
            return;
        };
        if let Err(error) = self.stage_one(id, invalid_epoch, campaigns).await {
            tracing::warn!(campaign.id = %id, error.cause = %error, "a campaign could not be staged, trying again");
            queue.put_back(id, invalid_epoch);
        }
    }

    async fn stage_one(&self, id: CampaignId, invalid_epoch: Option<i64>, campaigns: &Campaigns) -> Result<(), Error> {
        match campaigns.get(id).await? {
            Some(campaign) => self.stage(&campaign, invalid_epoch).await,
            None => Ok(()),
        }
    }

    /// Stages every campaign that is open or opens soon and is missing in Redis, but those that are being staged. A
    /// claim on a campaign that opens later stages it.
    pub async fn stage_missing(&self, queue: &StagingQueue) -> Result<(), Error> {
        let (soon, mut after) = (Timestamp::now().plus(BEFORE_OPENING), None);
        loop {
            let page = self
                .db
                .run("unsettled_campaigns", |mut conn| async move {
                    store::campaigns::unsettled(&mut conn, soon, after, BATCH_SIZE).await
                })
                .await?;
            let last = page.last().filter(|_| page.len() == BATCH_SIZE as usize).map(|stored| stored.id);
            let campaigns: Vec<Campaign> = page.into_iter().filter_map(readable_campaign).collect();
            let now = Timestamp::now();
            let open = campaigns.iter().filter(|campaign| !campaign.is_over(now));
            join_all(open.map(|campaign| self.stage_once(campaign, queue))).await;
            if last.is_none() {
                return Ok(());
            }
            after = last;
        }
    }

    /// Stages one campaign. A failure is logged and left to the next round, so that the others are staged.
    async fn stage_once(&self, campaign: &Campaign, queue: &StagingQueue) {
        let Some(_guard) = queue.begin(campaign.id) else { return };
        if let Err(error) = self.stage(campaign, None).await {
            tracing::warn!(campaign.id = %campaign.id, error.cause = %error, "a campaign could not be staged, trying again");
        }
    }

    async fn load(&self, campaign: &Campaign, epoch: i64) -> Result<(), Error> {
        let (mut after_rank, mut coupons) = (0, 0);
        loop {
            let limit = u32::try_from(coupon::MAX_PAGE).expect("a page is small");
            let page = self
                .db
                .run("ranks_of_campaign", |mut conn| async move {
                    store::coupons::ranks_of_campaign(&mut conn, campaign.id, after_rank, limit).await
                })
                .await?;
            let is_last = page.len() < coupon::MAX_PAGE;
            coupons += page.len();
            match coupon::load(&self.redis, campaign.id, epoch, &page, is_last).await? {
                Loaded::Page => after_rank = page.last().map_or(after_rank, |(_, rank)| *rank),
                Loaded::Ready => {
                    tracing::info!(campaign.id = %campaign.id, campaign.epoch = epoch, coupon.count = coupons, "campaign staged");
                    return Ok(());
                }
                // Another replica is loading it under a newer epoch, or it ended so long ago that Redis has dropped it
                // already.
                Loaded::Superseded => return Ok(()),
            }
        }
    }
}

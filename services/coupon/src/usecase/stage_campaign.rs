//! Stages a campaign in Redis when it is created, when Redis has lost it, and when Redis was rolled back. MySQL is the
//! truth; claims fail as NOT_READY until all of it is loaded.

use crate::{
    domain::Campaign,
    store,
    usecase::{Campaigns, Error, FinishClaims, StagingQueue, staging_queue::StagingRequests},
};
use futures_util::future::join_all;
use stampede_db::Database;
use stampede_lua::{
    Redis,
    coupon::{self, Loaded, Plan, Staging},
};
use stampede_vocab::{CampaignId, Timestamp};
use std::time::Duration;
use tokio::time::timeout;

/// Campaigns staged concurrently.
const BATCH_SIZE: u32 = 16;
/// Longest time in which one campaign that was asked for is staged.
pub const STAGE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct StageCampaign {
    db: Database,
    redis: Redis,
    finish: FinishClaims,
}

impl StageCampaign {
    /// Stages them at `redis`.
    pub fn new(db: Database, redis: Redis, finish: FinishClaims) -> Self {
        Self { db, redis, finish }
    }

    /// Stages the campaign if it is missing, or still has the epoch `invalid_epoch`. Several may do so at once.
    pub async fn stage(&self, campaign: &Campaign, invalid_epoch: Option<i64>) -> Result<(), Error> {
        let terms = &campaign.terms;
        let plan = Plan { quota: terms.quota, opens_at: terms.opens_at, closes_at: terms.closes_at };
        match coupon::stage(&self.redis, campaign.id, plan, invalid_epoch).await? {
            Staging::Ready => Ok(()),
            Staging::Loading { epoch } => {
                // Claims that were ranked under the old epoch are stored first, so that their ranks are loaded with the
                // rest and are not given again.
                self.finish.finish(campaign, Duration::ZERO).await?;
                self.load(campaign, epoch).await
            }
        }
    }

    /// Stages what was asked for, each campaign within [`STAGE_TIMEOUT`]; what fails is put back.
    pub async fn stage_requested(&self, requested: StagingRequests, campaigns: &Campaigns, queue: &StagingQueue) {
        let staged = requested.into_iter().map(|(id, invalid_epoch)| async move {
            let cause = match timeout(STAGE_TIMEOUT, self.stage_one(id, invalid_epoch, campaigns)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("not done within {} s", STAGE_TIMEOUT.as_secs()),
            };
            tracing::warn!(campaign.id = %id, error.cause = cause, "a campaign could not be staged, trying again");
            queue.put_back(id, invalid_epoch);
        });
        join_all(staged).await;
    }

    async fn stage_one(&self, id: CampaignId, invalid_epoch: Option<i64>, campaigns: &Campaigns) -> Result<(), Error> {
        match campaigns.get(id).await? {
            Some(campaign) => self.stage(&campaign, invalid_epoch).await,
            None => Ok(()),
        }
    }

    /// Stages every campaign that is not over and missing in Redis.
    pub async fn stage_missing(&self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self
                .db
                .run("unsettled_campaigns", |mut conn| async move {
                    store::campaigns::unsettled(&mut conn, after, BATCH_SIZE).await
                })
                .await?;
            let now = Timestamp::now();
            let open = page.iter().filter(|campaign| !campaign.is_over(now));
            let staged = join_all(open.map(|campaign| self.stage(campaign, None))).await;
            staged.into_iter().collect::<Result<(), Error>>()?;
            match page.last() {
                Some(last) if page.len() == BATCH_SIZE as usize => after = Some(last.id),
                _ => return Ok(()),
            }
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
                    tracing::info!(campaign.id = %campaign.id, campaign.epoch = epoch, coupons, "campaign staged");
                    return Ok(());
                }
                // Another replica stages it under a newer epoch, and loads all of it.
                Loaded::Superseded => return Ok(()),
            }
        }
    }
}

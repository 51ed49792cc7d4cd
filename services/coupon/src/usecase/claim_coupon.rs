//! ClaimCoupon: ranks claims in Redis, stores them in MySQL, and answers after the commit. Concurrent claims are
//! batched in both.

use crate::{
    domain::{Campaign, Claim, ClaimRefusal, Coupon, RankedClaim},
    store,
    usecase::{
        Campaigns, Error, StagingQueue, StoreClaims, batches, batches_that_must_run, call, each,
        store_claims::{Stored, Unstored},
    },
};
use futures_util::future::join_all;
use stampede_batch::Batcher;
use stampede_db::{Database, DbError};
use stampede_lua::{
    Redis, RedisError,
    coupon::{self, Outcome, Ranked},
};
use stampede_vocab::{CampaignId, CouponId, Timestamp};
use std::{collections::HashMap, sync::Arc};

/// Claims coupons. Clones share the batches.
#[derive(Clone)]
pub struct ClaimCoupon {
    campaigns: Campaigns,
    staging: StagingQueue,
    ranker: Batcher<Claim, Result<Outcome, RedisError>>,
    finder: Batcher<CouponId, Result<Option<Coupon>, DbError>>,
    /// Reads whether campaigns are settled.
    settled: Batcher<CampaignId, Result<bool, DbError>>,
    storer: Batcher<Unstored, Result<Stored, DbError>>,
}

impl ClaimCoupon {
    /// Returns the use case. It ranks claims in `redis` and stores them by `store`.
    pub fn new(db: Database, redis: Redis, campaigns: Campaigns, staging: StagingQueue, store: StoreClaims) -> Self {
        let ranker = Batcher::new(batches("rank_claims"), move |claims| rank_all(redis.clone(), claims));
        let of_settled = db.clone();
        let settled = Batcher::new(batches("settled_campaigns"), move |ids| settled_all(of_settled.clone(), ids));
        let finder = Batcher::new(batches("find_coupons"), move |ids| find_all(db.clone(), ids));
        let storer = Batcher::new(batches_that_must_run("store_claims"), move |claims: Vec<Unstored>| {
            let store = store.clone();
            async move {
                let count = claims.len();
                each(store.store(claims).await, count)
            }
        });
        Self { campaigns, staging, ranker, finder, settled, storer }
    }

    /// Returns the coupon that this claim yields, and its campaign.
    pub async fn run(&self, claim: Claim) -> Result<(Coupon, Arc<Campaign>), Error> {
        let campaign = self.campaigns.get(claim.campaign_id).await?.ok_or(ClaimRefusal::CampaignNotFound)?;
        let coupon = match call(&self.ranker, claim.clone()).await? {
            Outcome::Ranked(ranked) => self.store(&campaign, ranked).await?,
            Outcome::Pending(ranked) | Outcome::Stored(ranked) => self.find_or_store(&campaign, ranked).await?,
            Outcome::NotOpen => return Err(ClaimRefusal::NotOpen.into()),
            Outcome::Closed => return Err(ClaimRefusal::Closed.into()),
            Outcome::SoldOut => return Err(ClaimRefusal::SoldOut.into()),
            Outcome::NotReady => self.find_unstaged(&campaign, &claim).await?,
        };
        // A user has at most one coupon of a campaign. Only a repeat of the request that got it is answered with it.
        if coupon.request_id == claim.request_id {
            Ok((coupon, campaign))
        } else {
            Err(ClaimRefusal::AlreadyClaimed { coupon_id: coupon.id }.into())
        }
    }

    async fn store(&self, campaign: &Campaign, ranked: Ranked) -> Result<Coupon, Error> {
        let ranked = ranked_claim(campaign, ranked);
        match call(&self.storer, Unstored::in_current_trace(ranked)).await? {
            Stored::Coupon(coupon) => Ok(coupon),
            Stored::RankRefused => Err(ClaimRefusal::NotReady.into()),
            Stored::Unreadable(error) => Err(error.into()),
        }
    }

    /// Returns the coupon of a claim that was ranked before. If its row is still missing, because it is being written
    /// or its process was killed, it is stored here.
    async fn find_or_store(&self, campaign: &Campaign, ranked: Ranked) -> Result<Coupon, Error> {
        match call(&self.finder, CouponId::derive(campaign.id, ranked.user)).await? {
            Some(coupon) => Ok(coupon),
            None => self.store(campaign, ranked).await,
        }
    }

    /// Answers a claim on a campaign that is not staged. While the campaign is open, queues it for staging and fails
    /// with NOT_READY. So does a claim without a row until the campaign is settled: it may have been ranked before
    /// Redis failed over, and may still be stored. Then the rows in MySQL are complete.
    async fn find_unstaged(&self, campaign: &Campaign, claim: &Claim) -> Result<Coupon, Error> {
        if !campaign.is_over(Timestamp::now()) {
            self.staging.request(campaign.id);
            return Err(ClaimRefusal::NotReady.into());
        }
        // Before the row: a claim that is stored between the two reads is found.
        let is_settled = call(&self.settled, campaign.id).await?;
        let missing = if is_settled { ClaimRefusal::Closed } else { ClaimRefusal::NotReady };
        Ok(call(&self.finder, claim.coupon_id()).await?.ok_or(missing)?)
    }
}

/// Returns a rank given by Redis as a claim on this campaign.
pub fn ranked_claim(campaign: &Campaign, ranked: Ranked) -> RankedClaim {
    let claim = Claim { campaign_id: campaign.id, user_id: ranked.user, request_id: ranked.request_id };
    let Ranked { rank, claimed_at, epoch, .. } = ranked;
    RankedClaim { claim, rank, quota: campaign.terms.quota, claimed_at, epoch }
}

/// Ranks a batch: one script call for each campaign, concurrently. Returns the outcomes in the order of the claims.
async fn rank_all(redis: Redis, claims: Vec<Claim>) -> Vec<Result<Outcome, RedisError>> {
    let mut by_campaign = HashMap::<CampaignId, Vec<usize>>::new();
    for (index, claim) in claims.iter().enumerate() {
        by_campaign.entry(claim.campaign_id).or_default().push(index);
    }
    let calls = by_campaign.into_iter().map(|(campaign, indexes)| {
        let (redis, claims) = (&redis, &claims);
        async move {
            let batch: Vec<_> = indexes.iter().map(|&i| (claims[i].user_id, claims[i].request_id.clone())).collect();
            let outcomes = coupon::claim(redis, campaign, &batch).await;
            // A failed script call fails only the claims of its own campaign.
            indexes.into_iter().zip(each(outcomes, batch.len())).collect::<Vec<_>>()
        }
    });
    let mut answers: Vec<_> = join_all(calls).await.into_iter().flatten().collect();
    answers.sort_unstable_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, outcome)| outcome).collect()
}

async fn find_all(db: Database, ids: Vec<CouponId>) -> Vec<Result<Option<Coupon>, DbError>> {
    let found = db.run("find_coupons", |mut conn| {
        let ids = &ids;
        async move { store::coupons::find_many(&mut conn, ids).await }
    });
    match found.await {
        Ok(found) => ids.iter().map(|id| found.get(id).cloned().transpose()).collect(),
        Err(error) => vec![Err(error); ids.len()],
    }
}

async fn settled_all(db: Database, ids: Vec<CampaignId>) -> Vec<Result<bool, DbError>> {
    let found = db.run("settled_campaigns", |mut conn| {
        let ids = &ids;
        async move { store::campaigns::settled(&mut conn, ids).await }
    });
    match found.await {
        Ok(settled) => ids.iter().map(|id| Ok(settled.contains(id))).collect(),
        Err(error) => vec![Err(error); ids.len()],
    }
}

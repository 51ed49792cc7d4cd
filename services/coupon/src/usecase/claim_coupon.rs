//! ClaimCoupon: ranked in Redis, stored in MySQL, answered only after the commit. Claims that arrive together go
//! through both as one batch.

use crate::{
    Servers,
    domain::{Campaign, Claim, ClaimError, Coupon, Failure, RankedClaim},
    store,
    usecase::{
        Campaigns, StagingQueue, StoreClaims, ask, batches, each,
        store_claims::{Stored, Unstored},
    },
};
use futures_util::future::join_all;
use stampede_batch::Batcher;
use stampede_db::{Database, DbError};
use stampede_lua::{
    Redis,
    coupon::{self, Outcome, Ranked},
};
use stampede_vocab::{CampaignId, CouponId, SharedClock};
use std::{collections::HashMap, sync::Arc};

/// Claims coupons. Clones share the batches.
#[derive(Clone)]
pub struct ClaimCoupon {
    campaigns: Campaigns,
    clock: SharedClock,
    staging: StagingQueue,
    ranker: Batcher<Claim, Result<Outcome, Failure>>,
    finder: Batcher<CouponId, Result<Option<Coupon>, Failure>>,
    storer: Batcher<Unstored, Result<Stored, Failure>>,
}

impl ClaimCoupon {
    /// Claims are ranked by Redis and stored by `store`.
    pub fn new(servers: Servers, campaigns: Campaigns, staging: StagingQueue, store: StoreClaims) -> Self {
        let Servers { db, redis, clock } = servers;
        let ranker = Batcher::new(batches("rank_claims"), move |claims| rank_all(redis.clone(), claims));
        let finder = Batcher::new(batches("find_coupons"), move |ids| find_all(db.clone(), ids));
        let storer = Batcher::new(batches("store_claims"), move |claims: Vec<Unstored>| {
            let store = store.clone();
            async move {
                let asked = claims.len();
                each(store.store(claims).await, asked)
            }
        });
        Self { campaigns, clock, staging, ranker, finder, storer }
    }

    /// The coupon that this claim yields, and its campaign.
    pub async fn claim(&self, claim: Claim) -> Result<(Coupon, Arc<Campaign>), ClaimError> {
        let campaign = self.campaigns.get(claim.campaign_id).await?.ok_or(ClaimError::CampaignNotFound)?;
        let coupon = match ask(&self.ranker, claim.clone()).await? {
            Outcome::Ranked(ranked) => self.store(&campaign, ranked).await?,
            Outcome::Pending(ranked) | Outcome::Stored(ranked) => self.find_or_store(&campaign, ranked).await?,
            Outcome::NotOpen => return Err(ClaimError::NotOpen),
            Outcome::Closed => return Err(ClaimError::Closed),
            Outcome::SoldOut => return Err(ClaimError::SoldOut),
            Outcome::NotReady => self.find_unstaged(&campaign, &claim).await?,
        };
        if coupon.request_id == claim.request_id {
            Ok((coupon, campaign))
        } else {
            Err(ClaimError::AlreadyClaimed { coupon_id: coupon.id })
        }
    }

    async fn store(&self, campaign: &Campaign, ranked: Ranked) -> Result<Coupon, ClaimError> {
        let ranked = ranked_claim(campaign, ranked);
        match ask(&self.storer, Unstored::caused_here(ranked)).await? {
            Stored::Coupon(coupon) => Ok(coupon),
            Stored::RankRefused => Err(ClaimError::NotReady),
        }
    }

    /// Ranked before: the row is there, or on its way, or was lost with the process that should have written it.
    async fn find_or_store(&self, campaign: &Campaign, ranked: Ranked) -> Result<Coupon, ClaimError> {
        match ask(&self.finder, CouponId::derive(campaign.id, ranked.user)).await? {
            Some(coupon) => Ok(coupon),
            None => self.store(campaign, ranked).await,
        }
    }

    /// The campaign is not in Redis: while it is open it will be, and afterwards the rows are all there is to know.
    async fn find_unstaged(&self, campaign: &Campaign, claim: &Claim) -> Result<Coupon, ClaimError> {
        if !campaign.is_over(self.clock.now()) {
            self.staging.ask_for(campaign.id);
            return Err(ClaimError::NotReady);
        }
        ask(&self.finder, claim.coupon_id()).await?.ok_or(ClaimError::Closed)
    }
}

/// A rank given by Redis, as a claim on this campaign.
pub fn ranked_claim(campaign: &Campaign, ranked: Ranked) -> RankedClaim {
    let claim = Claim { campaign_id: campaign.id, user_id: ranked.user, request_id: ranked.request_id };
    let Ranked { rank, claimed_at, epoch, .. } = ranked;
    RankedClaim { claim, rank, quota: campaign.terms.quota, claimed_at, epoch }
}

/// One script call a campaign, all at once.
async fn rank_all(redis: Redis, claims: Vec<Claim>) -> Vec<Result<Outcome, Failure>> {
    let mut places = HashMap::<CampaignId, Vec<usize>>::new();
    for (place, claim) in claims.iter().enumerate() {
        places.entry(claim.campaign_id).or_default().push(place);
    }
    let calls = places.into_iter().map(|(campaign, places)| {
        let (redis, claims) = (&redis, &claims);
        async move {
            let batch: Vec<_> = places.iter().map(|&i| (claims[i].user_id, claims[i].request_id.clone())).collect();
            let outcomes = coupon::claim(redis, campaign, &batch).await.map_err(Failure::from);
            places.into_iter().zip(each(outcomes, batch.len())).collect::<Vec<_>>()
        }
    });
    let mut answers: Vec<_> = join_all(calls).await.into_iter().flatten().collect();
    answers.sort_unstable_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, outcome)| outcome).collect()
}

async fn find_all(db: Database, ids: Vec<CouponId>) -> Vec<Result<Option<Coupon>, Failure>> {
    let found = async { store::coupons::find_many(&mut *db.acquire().await?, &ids).await };
    let found =
        db.in_time("find_coupons", found).await.map(|found| ids.iter().map(|id| found.get(id).cloned()).collect());
    each(found.map_err(|error: DbError| Failure::from(error)), ids.len())
}

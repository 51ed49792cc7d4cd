//! GetCoupon and ListCoupons: a buyer sees only their own.

use crate::{
    domain::{Campaign, Coupon, Failure},
    store,
    usecase::{Campaigns, campaigns::CampaignsById},
};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError};
use stampede_vocab::{CampaignId, CouponId, Timestamp, UserId};
use std::sync::Arc;
use uuid::Uuid;

/// Whose coupons may be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    /// Only this user's.
    Owner(UserId),
    /// Everybody's.
    Anybody,
}

/// Finds coupons, each with its campaign.
#[derive(Clone)]
pub struct FindCoupons {
    db: Database,
    campaigns: Campaigns,
}

impl FindCoupons {
    /// Finds them in this schema.
    pub fn new(db: Database, campaigns: Campaigns) -> Self {
        Self { db, campaigns }
    }

    /// One coupon; `None` if there is none of this id that the viewer may see.
    pub async fn get(&self, viewer: Viewer, id: CouponId) -> Result<Option<(Coupon, Arc<Campaign>)>, Failure> {
        let mut connection = self.db.acquire().await?;
        let found = store::coupons::find_many(&mut connection, &[id]).await?.remove(&id);
        let seen = found.filter(|coupon| match viewer {
            Viewer::Owner(user_id) => coupon.user_id == user_id,
            Viewer::Anybody => true,
        });
        Ok(self.with_campaigns(&mut connection, seen.into_iter().collect()).await?.pop())
    }

    /// A page of a user's coupons, newest first, from behind `after`; of one campaign if that is given.
    pub async fn newest_of_user(
        &self,
        user_id: UserId,
        campaign_id: Option<CampaignId>,
        after: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<(Coupon, Arc<Campaign>)>, Failure> {
        let mut connection = self.db.acquire().await?;
        let page = store::coupons::newest_of_user(&mut connection, user_id, campaign_id, after, limit).await?;
        Ok(self.with_campaigns(&mut connection, page).await?)
    }

    /// A page of a campaign's coupons by rank, from behind `after_rank`.
    pub async fn ranked_of_campaign(
        &self,
        campaign_id: CampaignId,
        after_rank: i32,
        limit: u32,
    ) -> Result<Vec<(Coupon, Arc<Campaign>)>, Failure> {
        let mut connection = self.db.acquire().await?;
        let page = store::coupons::ranked_of_campaign(&mut connection, campaign_id, after_rank, limit).await?;
        Ok(self.with_campaigns(&mut connection, page).await?)
    }

    async fn with_campaigns(
        &self,
        connection: &mut MySqlConnection,
        coupons: Vec<Coupon>,
    ) -> Result<Vec<(Coupon, Arc<Campaign>)>, DbError> {
        let ids = coupons.iter().map(|coupon| coupon.campaign_id);
        let campaigns: CampaignsById = self.campaigns.get_on(connection, ids).await?;
        let with_campaign = |coupon: Coupon| {
            let campaign = campaigns.get(&coupon.campaign_id).cloned();
            let missing = || DbError::inconsistent(format!("coupon {} is of no campaign", coupon.id));
            Ok((coupon.clone(), campaign.ok_or_else(missing)?))
        };
        coupons.into_iter().map(with_campaign).collect()
    }
}

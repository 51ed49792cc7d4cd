//! GetCoupon and ListCoupons: buyers see only their own coupons.

use crate::{
    domain::{Campaign, Coupon},
    store::{self, coupons::Stored},
    usecase::{
        Campaigns, Error,
        campaigns::{CampaignsById, campaign_of},
        log_unreadable, readable,
    },
};
use stampede_db::{Conn, Database, DbError};
use stampede_service::{Page, Paging};
use stampede_vocab::{CampaignId, CouponId, UserId};
use std::sync::Arc;
use uuid::Uuid;

pub type FoundCoupon = (Coupon, Arc<Campaign>);

/// A list of coupons, with its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CouponList {
    /// A user's own, newest first.
    OfUser {
        user_id: UserId,
        /// Only those of this campaign.
        campaign_id: Option<CampaignId>,
    },
    /// All of a campaign, by rank.
    OfCampaign(CampaignId),
}

impl CouponList {
    /// Returns the name of the list with its filter, which is part of its page tokens.
    pub fn name(self) -> String {
        match self {
            Self::OfUser { user_id, campaign_id: None } => format!("coupons-{user_id}"),
            Self::OfUser { user_id, campaign_id: Some(campaign) } => format!("coupons-{user_id}-{campaign}"),
            Self::OfCampaign(campaign) => format!("ranks-{campaign}"),
        }
    }

    /// Returns the sort key and id of a coupon in the list.
    fn position(self, coupon: &Stored) -> (i64, Uuid) {
        let sort_key = match self {
            Self::OfUser { .. } => coupon.created_at.micros(),
            Self::OfCampaign(_) => coupon.rank.into(),
        };
        (sort_key, coupon.id.uuid())
    }
}

/// Finds coupons, each with its campaign. Cheap to clone.
#[derive(Clone)]
pub struct FindCoupons {
    db: Database,
    campaigns: Campaigns,
}

impl FindCoupons {
    /// Returns the use case on this schema.
    pub fn new(db: Database, campaigns: Campaigns) -> Self {
        Self { db, campaigns }
    }

    /// Returns one coupon if the caller may see it. `owner` is `None` for callers who may see all coupons.
    pub async fn get(&self, id: CouponId, owner: Option<UserId>) -> Result<FoundCoupon, Error> {
        let read = |mut conn: Conn| async move {
            let found = store::coupons::find_many(&mut conn, &[id]).await?.remove(&id).transpose()?;
            let visible = found.filter(|coupon| owner.is_none_or(|owner| owner == coupon.user_id));
            let Some(coupon) = visible else { return Ok(None) };
            let campaigns = self.campaigns.get_on(&mut conn, [coupon.campaign_id]).await?;
            with_campaign(coupon, &campaigns).map(Some)
        };
        self.db.run("find_coupon", read).await?.ok_or(Error::CouponNotFound)
    }

    /// Returns a page of the list, without the coupons that cannot be read, or whose campaign cannot be.
    pub async fn list(&self, list: CouponList, paging: Paging) -> Result<Page<FoundCoupon>, Error> {
        let (after, limit) = (&paging, paging.limit());
        let read = |mut conn: Conn| async move {
            let stored = match list {
                CouponList::OfUser { user_id, campaign_id } => {
                    store::coupons::newest_of_user(&mut conn, user_id, campaign_id, after.after_time(), limit).await?
                }
                CouponList::OfCampaign(campaign) => {
                    let after_rank = after.after().map_or(0, |(rank, _)| i32::try_from(rank).unwrap_or(i32::MAX));
                    store::coupons::ranked_of_campaign(&mut conn, campaign, after_rank, limit).await?
                }
            };
            let ids = stored.iter().filter_map(|stored| Some(stored.coupon.as_ref().ok()?.campaign_id));
            let campaigns = self.campaigns.get_on(&mut conn, ids.collect::<Vec<_>>()).await?;
            Ok::<_, DbError>((stored, campaigns))
        };
        let (stored, campaigns) = self.db.run("list_coupons", read).await?;
        // Cut before unreadable coupons are left out, or a page that has one would look like the last.
        let Page { rows, next_page_token } = paging.cut(stored, |stored| list.position(stored));
        let coupons = rows.into_iter().filter_map(readable);
        let found = coupons.filter_map(|coupon| {
            let id = coupon.id;
            with_campaign(coupon, &campaigns).inspect_err(|error| log_unreadable(id, error)).ok()
        });
        Ok(Page { rows: found.collect(), next_page_token })
    }
}

fn with_campaign(coupon: Coupon, campaigns: &CampaignsById) -> Result<FoundCoupon, DbError> {
    let campaign = campaign_of(campaigns, &coupon)?;
    Ok((coupon, campaign))
}

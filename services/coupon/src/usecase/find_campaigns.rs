//! GetCampaign and ListCampaigns. The issued count is the greatest rank. Redis has it for one campaign; for a page of
//! campaigns one statement on the unique key of the rank is cheaper.

use crate::{
    domain::Campaign,
    store,
    usecase::{Campaigns, Error, readable_campaign},
};
use stampede_db::{Conn, Database, DbError};
use stampede_lua::{Redis, coupon};
use stampede_service::{Page, Paging};
use stampede_vocab::CampaignId;
use std::sync::Arc;

/// A campaign and how many of its coupons are issued.
#[derive(Debug, Clone)]
pub struct IssuedCampaign {
    pub campaign: Arc<Campaign>,
    pub issued: i32,
}

#[derive(Clone)]
pub struct FindCampaigns {
    db: Database,
    redis: Redis,
    campaigns: Campaigns,
}

impl FindCampaigns {
    /// Returns the use case on this schema.
    pub fn new(db: Database, redis: Redis, campaigns: Campaigns) -> Self {
        Self { db, redis, campaigns }
    }

    pub async fn get(&self, id: CampaignId) -> Result<IssuedCampaign, Error> {
        let campaign = self.campaigns.get(id).await?.ok_or(Error::CampaignNotFound)?;
        self.count(campaign).await
    }

    /// Returns the campaign with the number of its issued coupons.
    pub async fn count(&self, campaign: Arc<Campaign>) -> Result<IssuedCampaign, Error> {
        let issued = match coupon::snapshot(&self.redis, campaign.id).await {
            Ok(Some(progress)) if progress.ready => progress.issued,
            Ok(_) => self.stored(campaign.id).await?,
            Err(error) => {
                tracing::debug!(campaign.id = %campaign.id, error.cause = %error, "issued coupons could not be read from redis, reading the rows");
                self.stored(campaign.id).await?
            }
        };
        Ok(IssuedCampaign { campaign, issued })
    }

    /// Returns a page of all campaigns, newest first, without those that cannot be read.
    pub async fn list(&self, paging: Paging) -> Result<Page<IssuedCampaign>, Error> {
        let (after, limit) = (paging.after_time(), paging.limit());
        let read = |mut conn: Conn| async move {
            let page = store::campaigns::newest(&mut conn, after, limit).await?;
            let ids: Vec<CampaignId> = page.iter().map(|stored| stored.id).collect();
            Ok::<_, DbError>((page, store::coupons::greatest_ranks(&mut conn, &ids).await?))
        };
        let (page, issued) = self.db.run("list_campaigns", read).await?;
        // Cut before unreadable campaigns are left out, or a page that has one would look like the last.
        let Page { rows, next_page_token } = paging.cut(page, |stored| (stored.created_at.micros(), stored.id.uuid()));
        let counted = |campaign: Campaign| IssuedCampaign {
            issued: issued.get(&campaign.id).copied().unwrap_or(0),
            campaign: Arc::new(campaign),
        };
        Ok(Page { rows: rows.into_iter().filter_map(readable_campaign).map(counted).collect(), next_page_token })
    }

    async fn stored(&self, id: CampaignId) -> Result<i32, DbError> {
        let ranks = self
            .db
            .run("greatest_rank", |mut conn| async move { store::coupons::greatest_ranks(&mut conn, &[id]).await })
            .await?;
        Ok(ranks.get(&id).copied().unwrap_or(0))
    }
}

//! GetCampaign and ListCampaigns. Issued is the number of ranks given: Redis knows it for one campaign at the price
//! of one look, and the unique key on the rank for any number of them.

use crate::{
    domain::{Campaign, Failure},
    store,
    usecase::Campaigns,
};
use stampede_db::{Database, DbError};
use stampede_lua::{Redis, coupon};
use stampede_vocab::{CampaignId, Timestamp};
use std::sync::Arc;
use uuid::Uuid;

/// A campaign and how many of its coupons are issued.
#[derive(Debug, Clone)]
pub struct IssuedCampaign {
    /// The campaign.
    pub campaign: Arc<Campaign>,
    /// Coupons issued so far.
    pub issued: i32,
}

/// Finds campaigns.
#[derive(Clone)]
pub struct FindCampaigns {
    db: Database,
    redis: Redis,
    campaigns: Campaigns,
}

impl FindCampaigns {
    /// Finds them in this schema.
    pub fn new(db: Database, redis: Redis, campaigns: Campaigns) -> Self {
        Self { db, redis, campaigns }
    }

    /// One campaign; `None` if there is none of this id.
    pub async fn get(&self, id: CampaignId) -> Result<Option<IssuedCampaign>, Failure> {
        match self.campaigns.get(id).await? {
            Some(campaign) => self.count(campaign).await.map(Some),
            None => Ok(None),
        }
    }

    /// The campaign with how many of its coupons are issued.
    pub async fn count(&self, campaign: Arc<Campaign>) -> Result<IssuedCampaign, Failure> {
        let issued = match coupon::peek(&self.redis, campaign.id).await {
            Ok(Some(progress)) if progress.ready => progress.issued,
            Ok(_) => self.stored(campaign.id).await?,
            Err(error) => {
                tracing::debug!(campaign.id = %campaign.id, %error, "redis could not tell how many are issued");
                self.stored(campaign.id).await?
            }
        };
        Ok(IssuedCampaign { campaign, issued })
    }

    /// A page of campaigns, newest first, from behind `after`.
    pub async fn newest(&self, after: Option<(Timestamp, Uuid)>, limit: u32) -> Result<Vec<IssuedCampaign>, Failure> {
        let mut connection = self.db.acquire().await?;
        let page = store::campaigns::newest(&mut connection, after, limit).await?;
        let ids: Vec<CampaignId> = page.iter().map(|campaign| campaign.id).collect();
        let issued = store::coupons::greatest_ranks(&mut connection, &ids).await?;
        let counted = |campaign: Campaign| IssuedCampaign {
            issued: issued.get(&campaign.id).copied().unwrap_or(0),
            campaign: Arc::new(campaign),
        };
        Ok(page.into_iter().map(counted).collect())
    }

    async fn stored(&self, id: CampaignId) -> Result<i32, DbError> {
        let ranks = store::coupons::greatest_ranks(&mut *self.db.acquire().await?, &[id]).await?;
        Ok(ranks.get(&id).copied().unwrap_or(0))
    }
}

//! CreateCampaign: inserts one campaign for each caller and request id, then stages it.

use crate::{
    domain::{Campaign, CampaignTerms, CreateRefusal},
    store,
    usecase::{Error, StageCampaign},
};
use stampede_db::{Database, DbError};
use stampede_lua::Redis;
use stampede_vocab::{CampaignId, RequestId, Timestamp, UserId};
use std::sync::Arc;

#[derive(Clone)]
pub struct CreateCampaign {
    db: Database,
    redis: Redis,
    stage: StageCampaign,
}

impl CreateCampaign {
    /// Returns the use case on this schema. It refuses campaigns while `redis` has too little memory left.
    pub fn new(db: Database, redis: Redis, stage: StageCampaign) -> Self {
        Self { db, redis, stage }
    }

    /// Creates the campaign of this request, or returns it if an earlier attempt has created it. Fails if that one had
    /// other terms. The row is immutable, so its columns are compared and no fingerprint is stored.
    pub async fn run(&self, caller: UserId, request_id: RequestId, terms: CampaignTerms) -> Result<Campaign, Error> {
        terms.check().map_err(CreateRefusal::from)?;
        if let Some(earlier) = self.find(CampaignId::derive(caller, &request_id)).await? {
            return unchanged(earlier, &terms);
        }
        let now = Timestamp::now();
        terms.check_not_over(now).map_err(CreateRefusal::from)?;
        self.check_room().await?;
        let campaign = Campaign::create(caller, request_id, terms, now);
        match self.insert(campaign.clone()).await {
            Ok(()) => self.stage_now(campaign).await,
            // A concurrent duplicate of the request was faster.
            Err(error) if error.unique_violation().is_some() => {
                let earlier = self.find(campaign.id).await?;
                let missing = || DbError::inconsistent("a campaign refused by its key is not there");
                unchanged(earlier.ok_or_else(missing)?, &campaign.terms)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn find(&self, id: CampaignId) -> Result<Option<Campaign>, DbError> {
        Ok(self
            .db
            .run("find_campaign", |mut conn| async move { store::campaigns::find_many(&mut conn, &[id]).await })
            .await?
            .pop())
    }

    /// Refuses a new campaign while Redis has too little memory left. An unreachable Redis is no reason to refuse.
    async fn check_room(&self) -> Result<(), Error> {
        match self.redis.require_room().await {
            Err(error) if error.is_unreachable() => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    async fn insert(&self, campaign: Campaign) -> Result<(), DbError> {
        let campaign = Arc::new(campaign);
        self.db
            .transact("create_campaign", move |conn| {
                let campaign = campaign.clone();
                Box::pin(async move { store::campaigns::insert(conn, &campaign).await })
            })
            .await
    }

    /// Stages the campaign. Does not fail if Redis does: the campaign is created, and the staging worker retries.
    async fn stage_now(&self, campaign: Campaign) -> Result<Campaign, Error> {
        if let Err(error) = self.stage.stage(&campaign, None).await {
            tracing::warn!(campaign.id = %campaign.id, error.cause = %error, "a new campaign is not staged yet");
        }
        Ok(campaign)
    }
}

fn unchanged(earlier: Campaign, terms: &CampaignTerms) -> Result<Campaign, Error> {
    if earlier.terms == *terms { Ok(earlier) } else { Err(CreateRefusal::RequestIdReused.into()) }
}

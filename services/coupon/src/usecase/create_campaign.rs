//! CreateCampaign: inserts one campaign for each caller and request id, then stages it.

use crate::{
    domain::{Campaign, CampaignTerms, CreateRefusal},
    store,
    usecase::{Error, StageCampaign},
};
use sqlx::MySqlConnection;
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
        self.check_room().await?;
        let campaign = Campaign::create(caller, request_id, terms, Timestamp::now());
        match self.insert(campaign.clone()).await {
            Ok(()) => self.stage_now(campaign).await,
            // A concurrent duplicate of the request was faster.
            Err(Error::Db(error)) if error.unique_violation().is_some() => {
                let earlier = self.find(campaign.id).await?;
                let missing = || DbError::inconsistent("a campaign refused by its key is not there");
                unchanged(earlier.ok_or_else(missing)?, &campaign.terms)
            }
            Err(error) => Err(error),
        }
    }

    async fn find(&self, id: CampaignId) -> Result<Option<Campaign>, DbError> {
        self.db.run("find_campaign", |mut conn| async move { store::campaigns::find(&mut conn, id).await }).await
    }

    /// Refuses a new campaign while Redis has too little memory left. An unreachable Redis is no reason to refuse.
    async fn check_room(&self) -> Result<(), Error> {
        match self.redis.require_room().await {
            Err(error) if error.is_unreachable() => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    async fn insert(&self, campaign: Campaign) -> Result<(), Error> {
        let campaign = Arc::new(campaign);
        let work = self.db.transact_with("create_campaign", move |conn| {
            let campaign = campaign.clone();
            Box::pin(async move { insert_in_time(conn, &campaign).await })
        });
        work.await
    }

    /// Stages the campaign. Does not fail if Redis does: the campaign is created, and the staging worker retries.
    async fn stage_now(&self, campaign: Campaign) -> Result<Campaign, Error> {
        if let Err(error) = self.stage.stage(&campaign, None).await {
            tracing::warn!(campaign.id = %campaign.id, error.cause = %error, "a new campaign is not staged yet");
        }
        Ok(campaign)
    }
}

/// Inserts the campaign, unless it is over. That is checked once its row is locked, so that a repeat is never refused
/// while the request that came first is stored: it waits for that one's row.
async fn insert_in_time(conn: &mut MySqlConnection, campaign: &Campaign) -> Result<(), Error> {
    store::campaigns::insert(conn, campaign).await?;
    campaign.terms.check_not_over(Timestamp::now()).map_err(CreateRefusal::from)?;
    Ok(())
}

fn unchanged(earlier: Campaign, terms: &CampaignTerms) -> Result<Campaign, Error> {
    if earlier.terms == *terms { Ok(earlier) } else { Err(CreateRefusal::RequestIdReused.into()) }
}

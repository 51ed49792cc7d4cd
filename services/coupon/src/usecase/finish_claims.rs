//! Finishing claims that were ranked and whose rows were never written, because the process between the two died or
//! MySQL was away. Ranked means issued.

use crate::{
    domain::Campaign,
    store,
    usecase::{Error, StoreClaims, claim_coupon::ranked_claim, store_claims::Unstored},
};
use futures_util::future::join_all;
use stampede_db::Database;
use stampede_lua::{Redis, coupon};
use stampede_vocab::{CampaignId, Timestamp};
use std::time::Duration;

/// Campaigns looked after at a time.
const BATCH_SIZE: u32 = 16;
/// A campaign is looked after so long past its end: more than clocks differ.
const AFTERCARE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct FinishClaims {
    db: Database,
    redis: Redis,
    store: StoreClaims,
}

impl FinishClaims {
    /// Finishes what `redis` knows to be unfinished.
    pub fn new(db: Database, redis: Redis, store: StoreClaims) -> Self {
        Self { db, redis, store }
    }

    /// Finishes every claim of the campaign that was ranked at least `age` ago. Returns how many there were.
    pub async fn finish(&self, campaign: &Campaign, age: Duration) -> Result<usize, Error> {
        let (mut found, mut cursor) = (0, Some(0));
        while let Some(from) = cursor {
            let page = coupon::pending(&self.redis, campaign.id, age, from).await?;
            found += page.claims.len();
            let unstored = page.claims.into_iter().map(|claim| Unstored::caused_here(ranked_claim(campaign, claim)));
            self.store.store(unstored.collect()).await?;
            cursor = page.next;
        }
        if found > 0 {
            tracing::info!(campaign.id = %campaign.id, claims = found, "unfinished claims are stored");
        }
        Ok(found)
    }

    /// Goes through all campaigns that have opened, and lets go of those that are over and finished.
    pub async fn sweep(&self, age: Duration) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self
                .db
                .run("unsettled_campaigns", |mut conn| async move {
                    store::campaigns::unsettled(&mut conn, after, BATCH_SIZE).await
                })
                .await?;
            let done = join_all(page.iter().map(|campaign| self.look_after(campaign, age))).await;
            let done: Vec<CampaignId> = done.into_iter().flatten().collect();
            let now = Timestamp::now();
            self.db
                .run("acknowledge_campaigns", |mut conn| async move {
                    store::campaigns::settle(&mut conn, &done, now).await
                })
                .await?;
            match page.last() {
                Some(last) if page.len() == BATCH_SIZE as usize => after = Some(last.id),
                _ => return Ok(()),
            }
        }
    }

    /// Finishes the claims of one campaign. Returns it if there will never be another to finish.
    async fn look_after(&self, campaign: &Campaign, age: Duration) -> Option<CampaignId> {
        let now = Timestamp::now();
        if now < campaign.terms.opens_at {
            return None;
        }
        let is_over = campaign.is_over(now.minus(AFTERCARE));
        match self.finish(campaign, if is_over { Duration::ZERO } else { age }).await {
            Ok(0) if is_over => Some(campaign.id),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(campaign.id = %campaign.id, error.cause = %error, "unfinished claims could not be stored");
                None
            }
        }
    }
}
